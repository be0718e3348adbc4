"""Deadlines under AWS's runtime client: a function that is killed has delivered what it recorded.

The handlers record an event every few milliseconds, and write down in a file when: what the file
says was recorded in time must be in the ingest, or in the log.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import doow_serverless as doow
from doow_serverless._keeping.dead_letter_reader import Assembly
from doow_serverless._process.timers import timers
from doow_serverless.local import Fault, Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from doow_serverless.testing import MemoryTransport
from tests.batches import find_records
from tests.network import KEY, Server, refused_port, silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless._sealing import Batch

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


# ── the seams, without a process ────────────────────────────────────────────────────────────────


class Held:
    """Answers once it is allowed to, and says when it was asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.allowed = threading.Event()

    def __call__(self, _: Batch) -> int:
        self.asked.set()
        self.allowed.wait(5)
        return 202


class Context:
    """A Lambda context whose deadline the test moves; in seconds from now."""

    def __init__(self, left_s: float) -> None:
        self.ends_at = time.monotonic() + left_s

    def get_remaining_time_in_millis(self) -> float:
        return (self.ends_at - time.monotonic()) * 1000


def ids(transport: MemoryTransport) -> list[tuple[str, ...]]:
    return [batch.event_ids for batch in transport.batches]


def test_a_flush_accounts_for_the_rescue(new_tracker: Callable[..., doow.Tracker]) -> None:
    """A handler that returns while the guard's POST is under way waits for it, as time allows."""
    held = Held()
    transport, outcomes = MemoryTransport(held), list[doow.Outcome]()
    tracker = new_tracker(transport=transport, on_flush=outcomes.append, reserve=0.0, budget=5)

    @tracker.tracked
    def handler(context: Context) -> None:
        tracker.track("tokens", event_id="1")
        assert held.asked.wait(5)
        tracker.track("tokens", event_id="2")
        held.allowed.set()

    handler(Context(0.5))
    assert sorted(ids(transport)) == [("1",), ("2",)]
    assert [(outcome.accepted, outcome.unsent) for outcome in outcomes] == [(2, {})]


def test_a_flush_without_time_keeps_what_the_rescue_has_under_way(
    new_tracker: Callable[..., doow.Tracker],
) -> None:
    """With less than the reserve left nothing waits: it is unsent, written down, and not resent."""
    held = Held()
    transport, outcomes = MemoryTransport(held), list[doow.Outcome]()
    errors: list[doow.errors.DoowError] = []
    tracker = new_tracker(
        transport=transport, on_flush=outcomes.append, on_error=errors.append, budget=5
    )

    @tracker.tracked
    def handler(context: Context) -> None:
        tracker.track("tokens", event_id="1")
        assert held.asked.wait(5)

    handler(Context(0.5))
    assert [(one.accepted, one.unsent) for one in outcomes] == [(0, {"TIMEOUT": 1})]
    assert [error.event_ids for error in errors] == [("1",)]
    assert tracker.engine.outbox.backlog.events == 1
    held.allowed.set()
    ends_at = time.monotonic() + 5
    while tracker.engine.outbox.backlog.events and time.monotonic() < ends_at:
        time.sleep(0.001)
    assert (ids(transport), tracker.engine.outbox.backlog.events) == ([("1",)], 0)


def test_the_flush_after_a_rescue_sends_what_is_new(
    new_tracker: Callable[..., doow.Tracker],
) -> None:
    """What the guard has delivered is neither sent nor reported again."""
    rescued = threading.Event()
    transport, outcomes = MemoryTransport(), list[doow.Outcome]()

    def note(outcome: doow.Outcome) -> None:
        outcomes.append(outcome)
        rescued.set()

    tracker = new_tracker(transport=transport, on_flush=note, reserve=0.0, budget=5)

    @tracker.tracked
    def handler(context: Context, more: int) -> None:
        tracker.track("tokens", event_id="1")
        assert rescued.wait(5)
        for number in range(more):
            tracker.track("tokens", event_id=f"more-{number}")

    handler(Context(0.3), 1)
    rescued.clear()
    handler(Context(0.3), 0)
    assert ids(transport) == [("1",), ("more-0",), ("1",)]
    assert [outcome.accepted for outcome in outcomes] == [1, 1, 1]


def test_the_rescue_waits_for_stray_batches(new_tracker: Callable[..., doow.Tracker]) -> None:
    """A batch of stray events that left early, and is under way, is not given up for it."""
    outcomes: list[doow.Outcome] = []
    rescued = threading.Event()
    stray = Held()

    def note(outcome: doow.Outcome) -> None:
        outcomes.append(outcome)
        rescued.set()

    tracker = new_tracker(transport=MemoryTransport(stray), flush_at=1, on_flush=note)
    tracker.track("tokens", event_id="stray")
    assert stray.asked.wait(5)

    @tracker.tracked
    def handler(context: Context) -> None:
        assert rescued.wait(5)

    threading.Timer(0.1, stray.allowed.set).start()
    handler(Context(0.3))
    assert [(one.accepted, one.unsent) for one in outcomes] == [(1, {})]


def test_concurrent_invocations_with_deadlines_of_their_own(
    new_tracker: Callable[..., doow.Tracker],
) -> None:
    """Each is rescued at its own deadline, and only its own events are."""
    arrived: dict[str, float] = {}
    changed = threading.Condition()

    def accept(batch: Batch) -> int:
        with changed:
            arrived[batch.event_ids[0]] = time.monotonic()
            changed.notify_all()
        return 202

    tracker = new_tracker(transport=MemoryTransport(accept))
    contexts = {f"{left_s}": Context(left_s) for left_s in (0.6, 0.4, 0.5)}

    @tracker.tracked
    def handler(context: Context, name: str) -> None:
        tracker.track("tokens", event_id=name)
        with changed:
            assert changed.wait_for(lambda: len(arrived) == 3, 5)

    threads = [
        threading.Thread(target=handler, args=(context, name)) for name, context in contexts.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(arrived) == ["0.4", "0.5", "0.6"]
    left = {name: contexts[name].ends_at - at for name, at in arrived.items()}
    assert all(0.1 < left_s <= LEAD_S for left_s in left.values()), left


class Clock:
    """A Lambda context that says what it is told to say, call by call."""

    def __init__(self, *said: object) -> None:
        self._said = iter(said)

    def get_remaining_time_in_millis(self) -> object:
        said = next(self._said, 3_000)
        if isinstance(said, Exception):
            raise said
        return said


@pytest.mark.contains
@pytest.mark.parametrize(
    "second", [ValueError("no"), float("nan"), float("inf"), float("-inf"), -5, 0, 249, 10**30]
)
def test_a_deadline_that_makes_no_sense(
    new_tracker: Callable[..., doow.Tracker], second: object
) -> None:
    """The handler is tracked all the same, with its own metric, and the guard goes on."""
    transport = MemoryTransport()
    tracker = new_tracker(transport=transport)

    @tracker.tracked(metric="calls")
    def handler(context: Clock) -> str:
        tracker.track("tokens")
        return "result"

    # The first answer is what tells a context from other arguments.
    assert handler(Clock(3_000, second)) == "result"
    assert [event["measurements"][0]["metric_name"] for event in transport.events] == [
        "calls", "tokens",
    ]  # fmt: skip
    test_the_flush_after_a_rescue_sends_what_is_new(new_tracker)


@pytest.mark.parametrize("left_s", [LEAD_S, 0.0, -1.0, float("nan")])
def test_too_late_for_a_guard(new_tracker: Callable[..., doow.Tracker], left_s: float) -> None:
    """An invocation that begins within the lead, or at no time, is not watched; others are."""
    tracker = new_tracker(transport=MemoryTransport())
    buffer = tracker.engine.new_buffer()
    assert tracker.engine.flush_before(lambda: left_s, buffer) is None
    number = tracker.engine.flush_before(lambda: 60.0, buffer)
    assert number is not None
    assert number in timers._calls
    timers.cancel(number)


def test_no_thread_for_the_rescue(
    new_tracker: Callable[..., doow.Tracker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the system starts no more threads, what was recorded is written down."""
    tracker = new_tracker(transport=MemoryTransport(), on_error=lambda _: None)
    rescued = threading.Event()
    tracker.engine.config.on_flush = lambda _: rescued.set()

    @tracker.tracked
    def handler(context: Context) -> None:
        tracker.track("tokens", event_id="1")
        assert rescued.wait(5)

    handler_context = Context(0.35)
    monkeypatch.setattr(
        type(tracker.engine.outbox.workers), "_start", lambda workers, _: workers._forget()
    )
    handler(handler_context)
    assembly = Assembly()
    letters = [assembly.add(found) for found in find_records(capsys.readouterr().out)]
    assert [letter.batch.event_ids for letter in letters if letter] == [("1",)]
