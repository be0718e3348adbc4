"""Deadlines under AWS's runtime client: a function that is killed has delivered what it recorded.

The handlers record an event every few milliseconds, and write down in a file when: what the file
says was recorded in time must be in the ingest, or in the log.
"""

from __future__ import annotations

import json
import sys
import time
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless._frames.assembly import Assembly
from doow_serverless.local import Fault, Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.batches import find_records
from tests.network import KEY, Server, refused_port, silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytest.importorskip("awslambdaric")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

LEAD_S = 0.25
TIMEOUT_S = 1.0

HANDLERS = dedent(
    """
    import threading, time
    import doow_serverless as doow

    deadline = 0.0
    outcomes = []
    doow.configure(on_flush=lambda outcome: outcomes.append(outcome.accepted))

    def record(file, seconds):
        # Each line: the seconds that were left when the event had been recorded, and its id.
        ends_at = time.monotonic() + seconds
        number = 0
        while time.monotonic() < ends_at:
            name = f"{file.name}-{number}"
            doow.track("ticks", event_id=name)
            file.write(f"{deadline - time.monotonic():.6f} {name}\\n")
            number += 1
            time.sleep(0.002)

    def begin(context):
        global deadline
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    @doow.tracked
    def working(event, context):
        begin(context)
        with open(event["file"], "w", buffering=1) as file:
            record(file, event["seconds"])
        return list(outcomes)

    @doow.tracked
    def in_a_thread(event, context):
        # A thread that sees no invocation: its events are stray ones.
        begin(context)
        with open(event["file"], "w", buffering=1) as file:
            thread = threading.Thread(target=record, args=(file, event["seconds"]))
            thread.start()
            thread.join()

    @doow.tracked
    def in_a_transaction(event, context):
        begin(context)
        doow.track("ticks", event_id="before")
        with doow.transaction():
            doow.track("ticks", event_id="succeeded")
        with doow.transaction():
            doow.track("ticks", event_id="open")
            time.sleep(event["seconds"])

    @doow.tracked(on_exception="discard")
    def discarding(event, context):
        begin(context)
        doow.track("ticks", event_id="discarded")
        time.sleep(event["seconds"])
    """
)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., LambdaRuntime]:
    """A runtime of one of the handlers above, which delivers to an endpoint."""
    (tmp_path / "app.py").write_text(HANDLERS)

    def start(name: str, endpoint: str, **env: str) -> LambdaRuntime:
        return LambdaRuntime(
            f"app.{name}",
            tmp_path,
            timeout_s=TIMEOUT_S,
            memory_mb=1_769,  # A core of its own.
            env={
                "DOOW_TRACK_API_KEY": KEY,
                "DOOW_TRACK_ENDPOINT": endpoint,
                "DOOW_TRACK_LICENSE_ID": "lic_1",
                **env,
            },
        )

    return start


def invoke(runtime: LambdaRuntime, file: Path, seconds: float) -> object:
    """What one invocation returned; "killed" if it missed its deadline."""
    invocation = runtime.invoke({"file": str(file), "seconds": seconds})
    if invocation.error is not None:
        assert invocation.error["errorType"] == "Sandbox.Timedout", invocation.error
        return "killed"
    return json.loads(invocation.payload)


def recorded(file: Path, before_s: float = 0.0) -> set[str]:
    """The events that were recorded more than so many seconds before the deadline."""
    lines = (line.split() for line in file.read_text().splitlines())
    # The last line may have been cut short.
    return {line[1] for line in lines if len(line) == 2 and float(line[0]) > before_s}


def delivered(ingest: Ingest) -> list[str]:
    return [event["event_id"] for event in ingest.events()]


def logged(runtime: LambdaRuntime) -> list[str]:
    """The events of all dead letters in the log, which must be whole."""
    assembly = Assembly()
    letters = [assembly.add(found) for found in find_records(runtime.stdout)]
    assert assembly.problems() == []
    return [event_id for letter in letters if letter for event_id in letter.batch.event_ids]


# ── killed ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("handler", ["working", "in_a_thread"])
def test_what_was_recorded_is_delivered(
    start: Callable[..., LambdaRuntime], ingest: Ingest, tmp_path: Path, handler: str
) -> None:
    """A function killed at its deadline: all until 250 ms before is in the ingest, once."""
    file = tmp_path / "recorded"
    with start(handler, ingest.url) as runtime:
        assert invoke(runtime, file, seconds=30) == "killed"
    arrived = delivered(ingest)
    assert recorded(file, LEAD_S) - set(arrived) == set()
    assert len(recorded(file, LEAD_S)) > 50
    assert len(arrived) == len(set(arrived))
    assert len(ingest.posts()) == 1


@pytest.mark.parametrize("outage", ["silent", "refused", "unavailable"])
def test_what_was_recorded_is_written_down(
    start: Callable[..., LambdaRuntime], tmp_path: Path, outage: str
) -> None:
    """The same while the ingest is no use: all until 250 ms before is in the log."""
    file = tmp_path / "recorded"
    with Ingest() as ingest, Server(silent) as server, refused_port() as refused:
        ingest.fault(Fault(times=None, status=503))
        urls = {"silent": server.url, "refused": refused}
        with start("working", urls.get(outage, ingest.url)) as runtime:
            assert invoke(runtime, file, seconds=30) == "killed"
            lost = recorded(file, LEAD_S) - set(logged(runtime))
            assert lost == set()
            assert len(recorded(file, LEAD_S)) > 50


def test_early_batches(start: Callable[..., LambdaRuntime], ingest: Ingest, tmp_path: Path) -> None:
    """Batches that left before, or were under way, count as delivered or are written down."""
    file = tmp_path / "recorded"
    ingest.fault(Fault(), Fault(), Fault(), Fault(times=None, hang=True))
    with start("working", ingest.url, DOOW_TRACK_FLUSH_AT="20") as runtime:
        assert invoke(runtime, file, seconds=30) == "killed"
        found = {*delivered(ingest), *logged(runtime)}
    assert len(delivered(ingest)) == 60
    assert recorded(file, LEAD_S) - found == set()


@pytest.mark.parametrize(
    ("handler", "expected"),
    [("in_a_transaction", ["before", "succeeded"]), ("discarding", [])],
)
def test_what_has_not_succeeded_does_not_count(
    start: Callable[..., LambdaRuntime],
    ingest: Ingest,
    tmp_path: Path,
    handler: str,
    expected: list[str],
) -> None:
    """Neither an open transaction nor a handler that discards has succeeded when it is killed."""
    with start(handler, ingest.url) as runtime:
        assert invoke(runtime, tmp_path / "none", seconds=30) == "killed"
        assert logged(runtime) == []
    assert delivered(ingest) == expected


# ── returned after all ──────────────────────────────────────────────────────────────────────────


def test_a_late_handler_sends_nothing_twice(
    start: Callable[..., LambdaRuntime], ingest: Ingest, tmp_path: Path
) -> None:
    """One that returns with less than the reserve left: each event once, in ingest or log."""
    file, after = tmp_path / "late", tmp_path / "after"
    with start("working", ingest.url) as runtime:
        outcomes = invoke(runtime, file, seconds=TIMEOUT_S - 0.12)
        assert outcomes == [len(ingest.posts()[0].event_ids)]
        assert recorded(file, LEAD_S) <= set(ingest.posts()[0].event_ids)
        # The last flush had no time to wait, so what it sent is written down besides.
        assert {*ingest.posts()[0].event_ids, *logged(runtime)} == recorded(file)
        assert invoke(runtime, after, seconds=0.3) != "killed"
        everything = recorded(file) | recorded(after)
        ingest.wait_for(len(everything))
    arrived = delivered(ingest)
    assert (len(arrived), set(arrived)) == (len(everything), everything)
    assert [post.duplicate for post in ingest.posts()] == [False] * 3


def test_a_quick_handler_is_left_alone(
    start: Callable[..., LambdaRuntime], ingest: Ingest, tmp_path: Path
) -> None:
    """Deadlines of earlier invocations, which pass later or during a freeze, send nothing."""
    with start("working", ingest.url) as runtime:
        for number in range(3):
            file = tmp_path / f"{number}"
            invoke(runtime, file, seconds=0.05)
            arrived = [event for post in ingest.posts()[number:] for event in post.event_ids]
            assert set(arrived) == recorded(file)
        time.sleep(TIMEOUT_S)  # The deadlines pass while the process is frozen.
        invoke(runtime, tmp_path / "after", seconds=0.3)
    assert len(ingest.posts()) == 4
