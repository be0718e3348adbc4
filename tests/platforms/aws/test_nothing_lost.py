"""With the ingest down, nothing is lost: from standard output alone, everything can be delivered.

Real functions under AWS's runtime client, killed in the end, and the command as users run it.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._frames.assembly import Assembly
from doow_serverless.local import Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.batches import find_records
from tests.network import KEY, Metronome, Server, refused_port, silent
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless import Tracker
    from doow_serverless.errors import DoowError

pytest.importorskip("awslambdaric")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

INVOCATIONS = 20
LARGE = 13
"""The invocation whose batch needs several records."""
BUDGET_S = 0.2
LEAD_S = 0.25
NOISE_S = 0.02
REPEATS = 5

HANDLERS = dedent(
    """
    import os, time
    import doow_serverless as doow

    @doow.tracked
    def handler(event, context):
        print("working on", event)
        for name in event["names"]:
            doow.track("tokens", event_id=name, metadata={"noise": os.urandom(120).hex()})
        return len(event["names"])

    @doow.tracked
    def many(event, context):
        for number in range(event):
            doow.track("tokens", event_id=str(number), metadata={"number": number})
        # When the handler was done, on a clock that all processes of a machine share.
        return time.monotonic()

    @doow.tracked
    def endless(event, context):
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000
        with open(event, "w", buffering=1) as file:
            for number in range(10**9):
                doow.track("tokens", event_id=str(number))
                file.write(f"{deadline - time.monotonic():.6f} {number}\\n")
                time.sleep(0.002)
    """
)
WITH_POWERTOOLS = dedent(
    """
    from aws_lambda_powertools import Logger

    import plain

    logger = Logger(service="shop", level="INFO")

    @logger.inject_lambda_context(log_event=True)
    def handler(event, context):
        logger.info("begin", extra={"braces": "{}"})
        result = plain.handler(event, context)
        logger.info({"events": result})
        return result
    """
)


def names_of(invocation: int) -> list[str]:
    return [f"{invocation}-{n}" for n in range(600 if invocation == LARGE else invocation % 4)]


EVERYTHING = sorted(name for number in range(INVOCATIONS) for name in names_of(number))


def runtime_of(folder: Path, name: str, endpoint: str, **env: str) -> LambdaRuntime:
    (folder / "plain.py").write_text(HANDLERS)
    (folder / "powered.py").write_text(WITH_POWERTOOLS)
    variables = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": endpoint,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
        "DOOW_TRACK_BUDGET": f"{BUDGET_S * 1000:.0f}",
    }
    return LambdaRuntime(name, folder, env={**variables, **env})


def output_of(folder: Path, name: str = "plain.handler", **env: str) -> str:
    """What all the invocations wrote, with nobody at the endpoint, until they were killed."""
    with refused_port() as nobody, runtime_of(folder, name, nobody, **env) as runtime:
        for number in range(INVOCATIONS):
            invocation = runtime.invoke({"names": names_of(number)})
            assert json.loads(invocation.payload) == len(names_of(number))
        runtime.kill()
        return runtime.stdout


def replay(endpoint: str, file: Path) -> str:
    """What ``doow-serverless replay`` said of the file, once it was content."""
    done = subprocess.run(
        [sys.executable, "-m", "doow_serverless", "replay", str(file)],
        env={**os.environ, "DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_replay(content: str | bytes, folder: Path) -> None:
    """All events reach an ingest from ``content``, once, however often it is replayed."""
    file = folder / "log"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with Ingest() as ingest:
        replay(ingest.url, file)
        assert sorted(event["event_id"] for event in ingest.events()) == EVERYTHING
        posts = len(ingest.posts())
        replay(ingest.url, file)
        assert sorted(event["event_id"] for event in ingest.events()) == EVERYTHING
        assert [post.duplicate for post in ingest.posts()] == [False] * posts + [True] * posts
        assert ingest.conflicts == []


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the plain function wrote."""
    return output_of(tmp_path_factory.mktemp("function"))


def test_the_longest_line(output: str) -> None:
    """The platform cuts no line: the large batch went into several."""
    assert max(map(len, output.splitlines())) <= 28_000
    parts = [found for found in find_records(output) if getattr(found, "parts", 1) > 1]
    assert len(parts) >= 3


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("powered.handler", {}),
        ("plain.handler", {"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
        ("powered.handler", {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"}),
    ],
)
def test_other_logging(name: str, env: dict[str, str], tmp_path: Path) -> None:
    """Also where the handler logs with powertools, and under Lambda's JSON log format."""
    check_replay(output_of(tmp_path, name, **env), tmp_path)


# ── as platforms export it ──────────────────────────────────────────────────────────────────────


def as_it_is(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def filter_log_events(lines: list[str]) -> str:
    """CloudWatch, ``aws logs filter-log-events``."""
    events = [
        {
            "logStreamName": "2026/11/22/[$LATEST]0a1b",
            "timestamp": 1_795_347_180_000 + number,
            "message": f"{line}\n",
            "ingestionTime": 1_795_347_181_000,
            "eventId": f"{number:056}",
        }
        for number, line in enumerate(lines)
    ]
    return json.dumps({"events": events, "searchedLogStreams": []}, indent=4)


def s3_export(lines: list[str]) -> bytes:
    """CloudWatch, an export task to S3."""
    return gzip.compress("".join(f"2026-11-22T11:33:00.123Z {n}\n" for n in lines).encode())


def lambda_json(lines: list[str]) -> str:
    """Lambda's JSON log format: what is JSON stays, all else becomes a message."""
    return as_it_is([line if line.startswith("{") else json.dumps(_entry(line)) for line in lines])


def _entry(line: str) -> dict[str, Any]:
    return {"timestamp": "2026-11-22T11:33:00.123Z", "level": "INFO", "message": line}


def vercel(lines: list[str]) -> str:
    """A Vercel log drain, as a JSON array."""
    return json.dumps(
        [
            {"id": f"{n}", "source": "lambda", "type": "stdout", "message": f"{line}\n"}
            for n, line in enumerate(lines)
        ]
    )


def application_insights(lines: list[str]) -> str:
    """Application Insights, the answer of a query as a .NET program writes it."""
    rows = [["2026-11-22T11:33:00.123Z", line, 1, '{"Category":"Function.app"}'] for line in lines]
    answer = json.dumps({"tables": [{"name": "PrimaryResult", "rows": rows}]})
    return answer.replace('\\"', "\\u0022").replace("+", "\\u002B")


@pytest.mark.parametrize(
    "export",
    [
        as_it_is,
        filter_log_events,
        s3_export,
        lambda_json,
        vercel,
        application_insights,
    ],
)
def test_twenty_invocations(
    output: str, export: Callable[[list[str]], str | bytes], tmp_path: Path
) -> None:
    """From the captured output of a function that was killed, in whatever wrapping, all arrives."""
    check_replay(export(output.splitlines()), tmp_path)


# ── against a silent server ─────────────────────────────────────────────────────────────────────


def logged(text: str) -> Counter[str]:
    """The events of all dead letters, of which none may be damaged."""
    assembly = Assembly()
    letters = [letter for found in find_records(text) if (letter := assembly.add(found))]
    assert assembly.problems() == []
    return Counter(event_id for letter in letters for event_id in letter.batch.event_ids)


def test_killed_at_the_deadline(tmp_path: Path) -> None:
    """What was recorded until 250 ms before a function was killed stands in the log, once."""
    file = tmp_path / "recorded"
    for _ in range(REPEATS):
        with (
            Server(silent) as server,
            runtime_of(tmp_path, "plain.endless", server.url) as runtime,
            Metronome() as noise,
        ):
            invocation = runtime.invoke(str(file), timeout_s=1.0)
            assert invocation.error is not None
            assert invocation.error["errorType"] == "Sandbox.Timedout"
            text = runtime.stdout
        if noise.worst_s <= NOISE_S:
            break
    lines = [line.split() for line in file.read_text().splitlines(keepends=True) if "\n" in line]
    due = {name for left_s, name in lines if float(left_s) > LEAD_S}
    assert len(due) > 50
    found = logged(text)
    assert due - found.keys() == set()
    assert max(found.values()) == 1


def test_5000_events(tmp_path: Path) -> None:
    """5,000 events cost the budget and 150 ms, sealing and the log included, and all are in it."""
    for _ in range(REPEATS):
        with Server(silent) as server, runtime_of(tmp_path, "plain.many", server.url) as runtime:
            runtime.invoke(0)
            with Metronome() as noise:
                invocation = runtime.invoke(5_000)
                # Until the process asks for its next event, which is later than its answer.
                held_s = time.monotonic() - json.loads(invocation.payload)
            text = runtime.stdout
        if noise.worst_s <= NOISE_S:
            break
    within(held_s, BUDGET_S + 0.15, at_least_s=BUDGET_S)
    assert logged(text) == {str(number): 1 for number in range(5_000)}


# ── what a crash has left ───────────────────────────────────────────────────────────────────────


def test_recovered_and_pushed_out(
    new_tracker: Callable[..., Tracker], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a journal gives back stands in the log before a full backlog drops it."""
    with refused_port() as nobody:
        crashed = new_tracker(nobody, journal=tmp_path)
        for number in range(30):
            crashed.track("tokens", event_id=str(number))
        crashed.engine.unattended.take_last()
        assert crashed.engine._journal is not None
        crashed.engine._journal.close()
        errors: list[DoowError] = []

        tracker = new_tracker(nobody, journal=tmp_path, max_queue_size=20, on_error=errors.append)
        tracker.engine.outbox._dead_letters.wait(20.0)  # They are written by a thread.

    assert [error.kind for error in errors] == ["DROPPED_EVENTS"]
    assert logged(capfd.readouterr().out) == {str(number): 1 for number in range(30)}
