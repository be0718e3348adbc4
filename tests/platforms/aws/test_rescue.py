"""Events that are rescued shortly before a deadline, without a process: who accounts for what."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import doow_serverless as doow
from doow_serverless._frames.assembly import Assembly
from doow_serverless._process.timers import timers
from doow_serverless._recording.scope import Life
from doow_serverless.testing import MemoryTransport
from tests.batches import find_records
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch


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
    # The guard's flush accounts for the first one, too, if it still waits when the handler returns.
    ends_at = time.monotonic() + 5
    while sum(outcome.accepted for outcome in outcomes) < 2 and time.monotonic() < ends_at:
        time.sleep(0.005)
    assert sum(outcome.accepted for outcome in outcomes) in (2, 3)
    assert [outcome.unsent for outcome in outcomes] == [{}] * len(outcomes)


def test_a_flush_without_time_keeps_what_the_rescue_has_under_way(
    new_tracker: Callable[..., doow.Tracker], capfd: pytest.CaptureFixture[str]
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
    assert capfd.readouterr().out.count("doow_dead_letter") == 1
    held.allowed.set()
    ends_at = time.monotonic() + 5
    while not tracker.engine.outbox.state.is_idle and time.monotonic() < ends_at:
        time.sleep(0.001)
    assert (ids(transport), tracker.engine.outbox.kept_events) == ([("1",)], 0)


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
    for name, at in arrived.items():
        within(contexts[name].ends_at - at, 0.25, at_least_s=0.1)
    assert list(arrived) == ["0.4", "0.5", "0.6"]


class Saying:
    """A Lambda context that says what it is told to say, once."""

    def __init__(self, said: object) -> None:
        self._said = [said]

    def get_remaining_time_in_millis(self) -> object:
        said = self._said.pop()
        if isinstance(said, Exception):
            raise said
        return said


@pytest.mark.parametrize(
    "said",
    [ValueError("no"), float("nan"), float("inf"), float("-inf"), -5, 0, 249, 10**30, 10**400],
)
def test_a_deadline_that_makes_no_sense(
    new_tracker: Callable[..., doow.Tracker], said: object
) -> None:
    """The handler is tracked all the same, with its own metric, and the guard goes on."""
    transport = MemoryTransport()
    tracker = new_tracker(transport=transport)

    @tracker.tracked(metric="calls")
    def handler(context: Saying) -> str:
        tracker.track("tokens")
        return "result"

    assert handler(Saying(said)) == "result"
    # Where no time is left, other threads deliver it.
    ends_at = time.monotonic() + 30
    while len(transport.events) < 2 and time.monotonic() < ends_at:
        time.sleep(0.001)
    assert [event["measurements"][0]["metric_name"] for event in transport.events] == [
        "calls", "tokens",
    ]  # fmt: skip
    test_the_flush_after_a_rescue_sends_what_is_new(new_tracker)


@pytest.mark.parametrize("left_s", [0.25, 0.0, -1.0])
def test_too_late_for_a_guard(new_tracker: Callable[..., doow.Tracker], left_s: float) -> None:
    """An invocation that begins within the lead is not watched; others are."""
    tracker = new_tracker(transport=MemoryTransport())
    deliver = Life().flush_meanwhile
    assert tracker.engine.flush_before(time.monotonic() + left_s, deliver) is None
    guard = tracker.engine.flush_before(time.monotonic() + 60.0, deliver)
    assert guard is not None
    assert guard._number in timers._calls
    guard.cancel()


def test_no_thread_for_the_rescue(
    new_tracker: Callable[..., doow.Tracker],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
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
    letters = [assembly.add(found) for found in find_records(capfd.readouterr().out)]
    assert [letter.batch.event_ids for letter in letters if letter] == [("1",)]
