"""``flush_mode="after_response"`` on Vercel, and to which request the log attributes a flush."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from doow_serverless.cli import main as cli
from doow_serverless.local import Fault
from tests.network import KEY, Metronome
from tests.platforms.vercel.sources import RECORDED, SHAPES, source_of
from tests.platforms.vercel.stage import DELAY_S, Stage
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

AFTER = {"flush_mode": "after_response"}
SLOW_S = 0.3
KINDS = ("plain", "stream", "head", "none", "unsized", "late")

# The runtime's own package stays; the one that has wait_until cannot be imported.
WITHOUT_VERCEL = "import sys\nsys.modules['vercel'] = None\n"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_response_does_not_wait_but_the_end_does(
    shape: str, tmp_path: Path, vercel_python: Path
) -> None:
    """The last byte comes before Doow answers, and the end of the invocation after that."""
    with Stage(tmp_path, vercel_python, shape, "ipc", options=AFTER) as stage:
        stage.request("plain")
        stage.delay(SLOW_S)
        for kind in KINDS:
            call = stage.next_call()
            response = stage.request(kind, call)
            assert stage.recorded(call) == RECORDED[kind], kind
            [post] = stage.posts(call)
            assert response.last_byte_s is not None
            gone_after_s = response.sent_at + response.last_byte_s - post.received_at
            within(max(0.0, gone_after_s), SLOW_S)
            assert response.sent_at + response.ended_s >= post.received_at + SLOW_S


@pytest.mark.parametrize("shape", ["handler", "wsgi", "asgi"])
def test_the_budget_holds_after_the_response(
    shape: str, tmp_path: Path, vercel_python: Path
) -> None:
    """A silent ingest prolongs the invocation by the budget, and nothing is lost in silence."""
    env = {"DOOW_TRACK_BUDGET": "500"}
    with Stage(tmp_path, vercel_python, shape, "ipc", options=AFTER, env=env) as stage:
        stage.request("plain")
        stage.ingest.fault(Fault(hang=True, times=None))
        with Metronome() as noise:
            response = stage.request("plain")
        assert response.last_byte_s is not None
        within(response.last_byte_s, 0.25 + noise.worst_s)
        waited_s = response.ended_s - response.last_byte_s
        within(waited_s, 0.6 + noise.worst_s, at_least_s=0.4)
        assert [line for line in response.log if "doow_dead_letter" in line] != []


@pytest.mark.parametrize("shape", SHAPES)
def test_where_the_end_comes_with_the_response_that_waits(
    shape: str, tmp_path: Path, vercel_python: Path
) -> None:
    """Called as a Lambda function, the flush comes first, as by default."""
    with Stage(tmp_path, vercel_python, shape, "lambda", options=AFTER) as stage:
        stage.delay()
        for kind in ("plain", "stream", "head", "none", "unsized"):
            call = stage.next_call()
            response = stage.request(kind, call)
            assert stage.recorded(call) == RECORDED[kind], kind
            [post] = stage.posts(call)
            assert post.received_at + DELAY_S <= response.sent_at + response.ended_s


@pytest.mark.parametrize("mode", ["ipc", "lambda"])
@pytest.mark.parametrize("shape", ["handler", "wsgi", "asgi"])
def test_without_the_package_the_response_waits(
    shape: str, mode: str, tmp_path: Path, vercel_python: Path
) -> None:
    """There is nobody to hand the flush to, so it comes first."""
    source = WITHOUT_VERCEL + source_of(shape, options=AFTER)
    with Stage(tmp_path, vercel_python, source, mode) as stage:
        stage.delay()
        response = stage.request("plain", call := stage.next_call())
        assert stage.recorded(call) == RECORDED["plain"]
        [post] = stage.posts(call)
        answered_at = post.received_at + DELAY_S
        assert response.sent_at + (response.last_byte_s or response.ended_s) >= answered_at


@pytest.mark.parametrize("mode", ["ipc", "lambda"])
def test_outside_of_a_request_nothing_is_handed_over(
    mode: str, tmp_path: Path, vercel_python: Path
) -> None:
    """At the start of the process a tracked function delivers when it returns."""
    source = """
import doow_serverless as doow

@doow.tracked(flush_mode="after_response")
def warm_up():
    doow.track("starts")

async def app(scope, receive, send):
    text = repr(doow.flush()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})

warm_up()
"""
    with Stage(tmp_path, vercel_python, source, mode) as stage:
        assert stage.runtime.stopped
        assert [
            (each["metric_name"], each["quantity"])
            for event in stage.ingest.events()
            for each in event["measurements"]
        ] == [("starts", 1)]
        assert stage.runtime.request().body.startswith(b"Outcome(accepted=0,")


@pytest.mark.parametrize("options", [{}, AFTER], ids=["before", "after"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_flush_says_belongs_to_its_request(
    shape: str, options: dict[str, str], tmp_path: Path, vercel_python: Path
) -> None:
    """The warning of one that failed, and the runtime's own note of the POST that was made."""
    with Stage(tmp_path, vercel_python, shape, "ipc", options=options) as stage:
        well = stage.request("plain")
        stage.ingest.fault(Fault(status=403, times=None))
        ill = stage.request("plain")
    told = ["AUTH_FAILURE" in "".join(response.log) for response in (well, ill)]
    assert told == [False, True], ill.log
    metrics = [
        [
            (message["payload"]["payload"]["pathname"], message["payload"]["payload"]["statusCode"])
            for message in response.messages
            if message["type"] == "metric"
        ]
        for response in (well, ill)
    ]
    assert metrics == [[("/telemetry/events", 202)], [("/telemetry/events", 403)]]


@pytest.mark.parametrize("mode", ["ipc", "lambda"])
@pytest.mark.parametrize("shape", ["handler", "wsgi", "asgi"])
def test_dead_letters_are_replayed_from_the_log(
    shape: str, mode: str, tmp_path: Path, vercel_python: Path
) -> None:
    """As ``vercel logs --json`` prints them, one record for each line of the request's log."""
    env = {"DOOW_TRACK_BUDGET": "200"}
    with Stage(tmp_path, vercel_python, shape, mode, env=env) as stage:
        stage.ingest.fault(Fault(hang=True, times=None))
        call = stage.next_call()
        response = stage.request("plain", call)
        stage.runtime.kill()
        stage.ingest.clear_faults()
        log = tmp_path / "log.jsonl"
        entry = {"id": "1", "source": "serverless", "level": "info"}
        records = [{**entry, "message": line} for line in response.log]
        log.write_text("".join(json.dumps(record) + "\n" for record in records))
        env = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": stage.ingest.url}
        result = CliRunner().invoke(cli.commands, ["replay", str(log)], env=env)
        assert result.exit_code == 0, result.output
        assert stage.recorded(call) == RECORDED["plain"]
