"""A flush: what departs, in which order, what is waited for, and what is said of it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Outcome
from doow_serverless._process.workers import Workers
from doow_serverless.errors import ErrorKind
from tests.unit.delivery.driver import FOLDING, NEVER, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.delivery.driver import World
    from tests.unit.delivery.turns import Turns

    NewWorld = Callable[..., World]

SIZE = 1_500
"""Of an event of which two fill a batch."""
FULL = 4_096
WORK = ("function", "request")


def flushes(world: World, *buffers: Any, limit_s: float = 2.0, last: bool = True) -> list[Outcome]:
    """The outcomes of flushes on threads of their own, all at once."""
    outcomes: dict[int, Outcome] = {}

    def flush(number: int) -> None:
        outcomes[number] = world.flusher.flush(buffers[number], limit_s, last=last)

    for number in range(len(buffers)):
        world.turns.start(partial(flush, number))
    while len(outcomes) < len(buffers):
        world.turns.sleep(0.125)
    return [outcomes[number] for number in range(len(buffers))]


# ── what departs ────────────────────────────────────────────────────────────────────────────────


def test_a_flush_waits_for_the_answer(new_world: NewWorld) -> None:
    """One batch: sealed, noted, sent and settled by one thread; the outcome tells of it."""
    world = new_world(journal=True)
    world.wire.answers.append((0.25, 202))
    buffer = world.buffer("a", "b")
    outcome = world.flusher.flush(buffer, 2.0, last=True)
    assert outcome == Outcome(accepted=2, requests=1, elapsed_s=0.25)
    assert world.take() == [
        "recorded a", "recorded b", "sealed a+b", "post a+b", "settled a+b",
    ]  # fmt: skip
    assert (world.outcomes, world.errors) == ([outcome], [])
    assert (buffer.in_hand, buffer.flights, buffer.is_closed) == (0, [], True)
    assert world.turns.started == 2  # One for the flush, and one for the hook.


def test_a_key_that_takes_long_costs_no_more_than_the_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store of keys is asked no batch begins, and still that is no freeze."""
    monkeypatch.setattr(world.outbox.sender, "prepare", lambda: world.turns.sleep(1.5) or None)
    world.wire.answers.append((NEVER, 202))
    outcome = world.flusher.flush(world.buffer("a"), 2.0)
    assert outcome == Outcome(unsent={"TIMEOUT": 1}, requests=1, elapsed_s=2.0, backlog=1)
    assert world.turns.clock.now == pytest.approx(1_002.0)


def test_a_flush_of_nothing_needs_no_thread(world: World) -> None:
    """It closes the buffer all the same if the invocation is over, but never the unattended one."""
    first, second = world.buffer(), world.buffer()
    unattended = world.flusher.unattended
    assert world.flusher.flush(first, 2.0) == Outcome()
    assert world.flusher.flush(second, 2.0, last=True) == Outcome()
    assert world.flusher.flush(unattended, 2.0, last=True) == Outcome()
    assert [one.is_closed for one in (first, second, unattended)] == [False, True, False]
    assert (world.turns.started, world.outcomes, world.take()) == (0, [], [])


def test_an_invocation_that_goes_on_records_more(world: World) -> None:
    """Its buffer stays open until its last flush; the unattended one always does."""
    buffer = world.buffer("a")
    assert world.flusher.flush(buffer, 2.0).accepted == 1
    record(buffer, "b")
    assert world.flusher.flush(buffer, 2.0, last=True).accepted == 1
    record(world.flusher.unattended, "c")
    assert world.flusher.flush(world.flusher.unattended, 2.0, last=True).accepted == 1
    assert (buffer.is_closed, world.flusher.unattended.is_closed) == (True, False)
    assert world.take() == ["post a", "post b", "post c"]


def test_batches_travel_while_others_are_sealed(new_world: NewWorld) -> None:
    """In order, four at once; the last of them on the thread that has sealed them all."""
    world = new_world(journal=True, max_payload_bytes=FULL)
    world.wire.otherwise = (0.25, 202)
    names = "abcdefghijkl"
    buffer = world.buffer(*names, size=SIZE)
    world.take()
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(accepted=12, requests=6, elapsed_s=0.5)
    happened = world.take()
    assert [one for one in happened if "sealed" in one] == happened[:6]
    assert [one for one in happened if "post" in one] == [
        f"post {one}" for one in ("a+b", "c+d", "e+f", "g+h", "i+j", "k+l")
    ]
    assert happened[6:10] == ["post a+b", "post c+d", "post e+f", "post g+h"]
    assert buffer.in_hand == 0


def test_what_no_invocation_recorded_goes_along(new_world: NewWorld) -> None:
    """In the same batch, with what was dropped with its buffer, which gets the ids that it lacks.

    All of it is in hand of the buffer that is flushed until it is settled.
    """
    world = new_world()
    record(world.flusher.unattended, "u")
    buffer = world.buffer("a")
    lost = world.buffer("d")
    unnamed = [("", *event[1:]) for event in world.buffer("e").take()]
    world.flusher.dropped.append(unnamed)
    del lost
    in_hand: list[int] = []

    def answer(_: object) -> int:
        in_hand.append(buffer.in_hand)
        return 202

    world.wire.answers.append((0.0, answer))
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(accepted=4, requests=1)
    (batch,) = world.wire.batches
    assert sorted(batch.event_ids)[0:1] != [""]
    assert [one for one in batch.event_ids if len(one) == 1] == ["a", "u", "d"]
    assert len(set(batch.event_ids)) == 4
    assert (in_hand, buffer.in_hand, world.flusher.unattended.in_hand) == ([4], 0, 0)
    assert not world.flusher.has_in_hand


def test_an_invocation_that_records_nothing_flushes_for_others(world: World) -> None:
    """What is unattended, or was dropped, has waited for it."""
    record(world.flusher.unattended, "u")
    assert world.flusher.flush(world.buffer(), 2.0) == Outcome(accepted=1, requests=1)
    lost = world.buffer("d")
    del lost
    assert world.flusher.flush(world.flusher.unattended, 2.0) == Outcome(accepted=1, requests=1)
    assert world.take() == ["post u", "post d"]


def test_what_a_retry_would_seal_alike_travels_alone(new_world: NewWorld) -> None:
    """Unattended events would change the batch, and with it the id by which Doow knows it."""
    world = new_world()
    for _ in range(2):
        record(world.flusher.unattended, "u")
        buffer = world.buffer("a", "b", identity=WORK)
        assert world.flusher.flush(buffer, 2.0, last=True) == Outcome(accepted=3, requests=2)
    others, first, rest, again = world.wire.batches  # The last to be sealed goes at once.
    assert [one.event_ids for one in (first, others)] == [("a", "b"), ("u",)]
    assert (first.id, first.event_ids) == (again.id, again.event_ids)
    assert others.id != rest.id


def test_what_was_refused_or_folded_is_said(new_world: NewWorld) -> None:
    """Of the buffer, and of the unattended one; once."""
    world = new_world(max_queue_size=1)
    buffer, unattended = world.buffer("a", "b"), world.flusher.unattended
    record(unattended, "u")
    for _ in range(3):
        unattended.record(None, 1_795_000_000.0, FOLDING, 1, None)
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(
        accepted=2, unsent={ErrorKind.DROPPED_EVENTS: 4}, requests=1, folded=0
    )
    assert [error.kind for error in world.errors] == [ErrorKind.DROPPED_EVENTS] * 2
    for _ in range(3):
        buffer.record(None, 1_795_000_000.0, FOLDING, 1, None)
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=1, requests=1, folded=2)
    assert world.flusher.flush(buffer, 2.0) == Outcome()


# ── what left before, and what leaves at the same time ──────────────────────────────────────────


def test_a_batch_leaves_early_once_it_is_full(new_world: NewWorld) -> None:
    """By events, or by so many as are asked for; the flush accounts for what has come back."""
    world = new_world(flush_at=2)
    buffer = world.buffer("a")
    world.flusher.send_early(buffer)
    assert world.turns.started == 0
    record(buffer, "b")
    world.flusher.send_early(buffer)
    world.turns.sleep(0.5)
    assert world.take() == ["post a+b"]
    record(buffer, "c")
    world.flusher.send_early(buffer, 1)
    world.turns.sleep(0.5)
    assert (world.take(), len(buffer.flights), world.outcomes) == (["post c"], 1, [])
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(accepted=3, requests=2)
    assert (world.take(), buffer.flights, buffer.in_hand) == ([], [], 0)


def test_bounds_in_bytes(new_world: NewWorld) -> None:
    """Events that fill a batch leave early, however few; beyond the bound they are refused."""
    world = new_world(max_payload_bytes=FULL, max_queue_bytes=6_000)
    buffer = world.buffer("a", "b", size=SIZE)
    world.flusher.send_early(buffer)
    assert world.turns.started == 0
    record(buffer, "c", "d", size=SIZE)
    world.flusher.send_early(buffer)
    world.turns.rest()
    assert sorted(world.take()) == ["post a+b", "post c+d"]
    record(buffer, "e", "f", "g", "h", "i", size=SIZE)
    assert world.flusher.flush(buffer, 2.0).unsent == {"DROPPED_EVENTS": 1}


def test_each_flush_makes_batches_of_its_own(world: World) -> None:
    """Under ids that nobody could guess, whatever is in them."""
    for _ in range(2):
        world.flusher.flush(world.buffer("a"), 2.0)
    first, second = world.wire.batches
    assert first.event_ids == second.event_ids
    assert first.id != second.id


def test_what_leaves_early_is_one_flight(world: World) -> None:
    """However long no flush comes: four batches at once, and no account for each of them."""
    world.wire.otherwise = (NEVER, 202)
    buffer = world.buffer()
    for one in "abcdef":
        record(buffer, one)
        world.flusher.send_early(buffer, 1)
        world.turns.rest()
    assert world.take() == ["post a", "post b", "post c", "post d"]
    assert (len(buffer.flights), buffer.in_hand) == (1, 6)


def test_a_flush_waits_for_what_has_left_early(world: World) -> None:
    """Until its answer has come, which counts as its own."""
    world.wire.answers += [(0.75, 202), (0.25, 202)]
    buffer = world.buffer("a")
    world.flusher.send_early(buffer, 1)
    world.turns.sleep(0.25)
    record(buffer, "b")
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(accepted=2, requests=2, elapsed_s=0.5)
    assert buffer.flights == []


def test_what_left_early_and_is_not_sealed_departs_first(new_world: NewWorld) -> None:
    """Lot by lot: a worker that has not come to it finds nothing to do."""
    world = new_world(journal=True)
    buffer = world.buffer("a")
    buffer.set_off(1)
    record(buffer, "b")
    buffer.set_off(1)
    record(buffer, "c")
    world.take()
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(accepted=3, requests=3)
    happened = world.take()
    assert [one for one in happened if "sealed" in one] == ["sealed a", "sealed b", "sealed c"]
    assert sorted(world.wire.events[n]["event_id"] for n in range(3)) == ["a", "b", "c"]
    world.flusher.send_early(buffer, 1)
    assert world.take() == []


def test_unattended_events_that_have_left_go_along(new_world: NewWorld) -> None:
    """With their flights: the flush waits for these as well."""
    world = new_world()
    unattended = world.flusher.unattended
    world.wire.answers.append((0.5, 202))
    record(unattended, "u")
    world.flusher.send_early(unattended, 1)
    world.turns.sleep(0.125)
    record(unattended, "v")
    unattended.set_off(1)
    record(unattended, "w")
    buffer = world.buffer("a")
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(accepted=4, requests=2, elapsed_s=0.375)
    assert world.take() == ["post u", "post a+v+w"]
    assert (unattended.flights, unattended.in_hand, unattended.leaving) == ([], 0, [])


def test_all_who_flush_an_invocation_wait_for_all_of_it(world: World) -> None:
    """Three threads at once: each waits for the answer, and counts it."""
    world.wire.answers.append((0.5, 202))
    buffer = world.buffer("a")
    outcomes = flushes(world, buffer, buffer, buffer, last=False)
    assert (
        outcomes
        == [Outcome(accepted=1, requests=1, elapsed_s=0.5)]
        + [Outcome(accepted=1, elapsed_s=0.5)] * 2
    )
    assert (world.take(), buffer.flights, buffer.in_hand) == (["post a"], [], 0)


def test_two_invocations_are_two_accounts(world: World) -> None:
    """That share threads, and nothing else."""
    world.wire.answers += [(0.5, 202), (0.25, 400)]
    outcomes = flushes(world, world.buffer("a"), world.buffer("b", "c"))
    assert [(one.accepted, len(one.rejected), one.elapsed_s) for one in outcomes] == [
        (1, 0, 0.5),
        (0, 2, 0.25),
    ]


# ── what is not delivered ───────────────────────────────────────────────────────────────────────


def test_silence_ends_with_the_budget(new_world: NewWorld) -> None:
    """Then the batch is written down, kept, told of, and sent again later."""
    world = new_world(journal=True, timeout=10.0)
    world.wire.answers.append((NEVER, 202))
    buffer = world.buffer("a", "b")
    world.take()
    outcome = world.flusher.flush(buffer, 2.0, last=True)
    assert outcome == Outcome(unsent={"TIMEOUT": 2}, requests=1, elapsed_s=2.0, backlog=2)
    assert world.take() == ["sealed a+b", "post a+b", "log a+b TIMEOUT", "written"]
    assert world.kinds() == ["TIMEOUT 2 events not delivered: no answer came within the budget"]
    assert [error.event_ids for error in world.errors] == [("a", "b")]
    assert (world.outcomes, buffer.in_hand, buffer.flights) == ([outcome], 0, [])


@pytest.mark.parametrize("leaves_early", [True, False])
def test_sealing_ends_with_the_budget(new_world: NewWorld, leaves_early: bool) -> None:
    """The rest another worker seals, keeps and writes down; the caller is told how many."""
    world = new_world(journal=True, max_payload_bytes=FULL)
    buffer = world.buffer(*"abcdef", size=SIZE)
    if leaves_early:
        buffer.set_off(1)
    world.journal.interrupt = lambda: world.turns.freeze(1.0)
    world.take()
    outcome = world.flusher.flush(buffer, 1.5)
    world.turns.rest()
    assert (outcome.accepted, outcome.unsent) == (0, {"TIMEOUT": 2, "NOT_READY": 4})
    assert [one for one in world.take() if one.startswith(("sealed", "log"))] == [
        "sealed a+b", "sealed c+d", "log a+b NOT_READY", "log c+d NOT_READY",
        "sealed e+f", "log e+f TIMEOUT",
    ]  # fmt: skip
    assert buffer.in_hand == 0


def test_what_fails_is_sent_again_within_the_budget(world: World) -> None:
    """As long as there is time; someone looks when it is due."""
    world.wire.answers += [(0.25, 500), (0.25, 202)]
    outcome = world.flusher.flush(world.buffer("a"), 2.0)
    assert (outcome.accepted, outcome.requests, outcome.unsent) == (1, 2, {})
    assert 0.5 <= outcome.elapsed_s <= 1.0
    assert world.take() == ["post a", "post a anew"]


def test_a_freeze_is_not_a_part_of_the_budget(world: World) -> None:
    """The caller notices it, and has the outbox know: what it waits for ends so much later."""
    world.wire.answers.append((NEVER, 202))
    world.turns.at(1.25, lambda: world.turns.freeze(60.25))
    outcome = world.flusher.flush(world.buffer("a"), 2.0)
    assert outcome == Outcome(unsent={"TIMEOUT": 1}, requests=1, elapsed_s=62.5, backlog=1)


def test_more_reasons_than_can_be_told(new_world: NewWorld) -> None:
    """A server that gives each event a reason of its own is told of ten times."""
    from doow_serverless.testing import rejecting

    world = new_world()
    names = [f"e{number}" for number in range(20)]
    world.wire.answers.append((0.0, rejecting({one: f"why {one}" for one in names})))
    outcome = world.flusher.flush(world.buffer(*names), 2.0)
    assert (outcome.accepted, len(outcome.rejected)) == (0, 20)
    assert len(world.errors) == 10


def test_without_hooks_errors_are_logged(
    new_world: NewWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """By the worker; there is no thread for hooks."""
    world = new_world(on_error=None, on_flush=None)
    world.wire.answers.append((NEVER, 202))
    outcome = world.flusher.flush(world.buffer("a"), 1.0)
    assert outcome.unsent == {"TIMEOUT": 1}
    assert caplog.messages == ["TIMEOUT: 1 event not delivered: no answer came within the budget"]
    assert world.flusher.flush(world.buffer("b"), 1.0).backlog >= 1


def test_debugging_tells_of_each_flush(
    new_world: NewWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """With its outcome."""
    world = new_world(debug=True)
    outcome = world.flusher.flush(world.buffer("a"), 1.0)
    assert caplog.messages == [f"flushed {outcome}"]


# ── threads ─────────────────────────────────────────────────────────────────────────────────────


def test_where_the_system_starts_no_thread(new_world: NewWorld, turns: Turns) -> None:
    """The caller seals, and writes down at once: it sends nothing, for that may hang."""
    world = new_world(journal=True)
    buffer = world.buffer("a")
    world.take()
    turns.can_start = False
    outcome = world.flusher.flush(buffer, 2.0, last=True)
    assert outcome == Outcome(unsent={"TIMEOUT": 1}, backlog=1)
    assert world.take() == ["sealed a", "log a TIMEOUT", "written"]
    assert world.kinds() == ["TIMEOUT 1 event not delivered: the system starts no more threads"]
    assert world.outcomes == [outcome]


def test_where_all_threads_hang(new_world: NewWorld) -> None:
    """Others seal, and write down what no thread was free to send."""
    world = new_world(journal=True)
    world.wire.otherwise = (NEVER, 202)

    def hang() -> None:
        world.turns.sleep(60.0)

    for _ in range(64):
        world.outbox.workers.submit(hang)
    buffer = world.buffer("a")
    world.take()
    outcome = world.flusher.flush(buffer, 1.0, last=True)
    assert outcome == Outcome(unsent={"NOT_READY": 1}, elapsed_s=1.0, backlog=1)
    assert world.take() == ["sealed a", "log a NOT_READY", "written"]


def test_a_flush_from_a_hook_returns_at_once(new_world: NewWorld) -> None:
    """It would wait for the thread on which it runs; the next flush takes its events along."""
    inner: list[Outcome] = []

    def hook(_: Outcome) -> None:
        if not inner:
            record(buffer, "b")
            inner.append(world.flusher.flush(buffer, 2.0))

    world = new_world(on_flush=hook)
    buffer = world.buffer("a")
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=1, requests=1)
    assert (inner, buffer.is_idle) == ([Outcome()], False)
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=1, requests=1)
    assert world.take() == ["post a", "post b"]


def test_a_flush_amid_recording_returns_at_once(new_world: NewWorld) -> None:
    """As from a finalizer: this thread holds the buffer's lock."""
    world = new_world(journal=True)
    inner: list[Outcome] = []
    buffer = world.buffer("a")
    world.journal.interrupt = lambda: inner.append(world.flusher.flush(buffer, 2.0))
    record(buffer, "b")
    world.journal.interrupt = lambda: None
    assert inner == [Outcome()]
    assert world.flusher.flush(buffer, 2.0).accepted == 2


def test_a_flush_amid_delivery_returns_at_once(world: World) -> None:
    """This thread holds the outbox's lock, for whose release the worker would wait."""
    buffer = world.buffer("a")
    inner: list[Outcome] = []
    clock = world.turns.clock

    class Interrupted(type(clock)):  # type: ignore[misc]  # a class all the same
        def __call__(self) -> float:
            if world.outbox.is_driven_here and not inner:
                inner.append(world.flusher.flush(buffer, 2.0))
            now: float = self.now
            return now

    clock.__class__ = Interrupted
    world.outbox.look()
    assert inner == [Outcome()]
    assert world.flusher.flush(buffer, 2.0).accepted == 1


def test_a_signal_amid_a_flush_passes_once_the_events_have_left(world: World) -> None:
    """What its handler raises is the application's."""
    world.wire.answers.append((0.5, 202))
    buffer = world.buffer("a")
    world.turns.interrupt(0.25, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.flusher.flush(buffer, 2.0)
    assert (world.turns.clock.now, len(world.wire.events)) == (1_000.5, 1)
    assert (buffer.in_hand, buffer.flights, len(world.outcomes)) == (0, [], 1)
    world.wire.answers.append((NEVER, 202))
    world.turns.interrupt(0.25, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.flusher.flush(world.buffer("b"), 2.0)
    assert world.turns.clock.now == 1_002.5
    assert world.outcomes[1:] == [
        Outcome(unsent={"TIMEOUT": 1}, requests=1, elapsed_s=2.0, backlog=1)
    ]


@pytest.mark.contains
def test_a_fault_amid_a_flush_is_contained(world: World, contained_faults: list[str]) -> None:
    """The flush goes on, and its outcome is what it would have been."""
    world.wire.answers.append((0.5, 202))
    world.turns.interrupt(0.25, MemoryError())
    outcome = world.flusher.flush(world.buffer("a"), 2.0)
    assert outcome == Outcome(accepted=1, requests=1, elapsed_s=0.5)
    assert contained_faults == ["a fault of doow-serverless itself in flushing: MemoryError()"]


@pytest.mark.contains
@pytest.mark.parametrize("sealed", [0, 1])
def test_a_fault_amid_sealing_loses_nothing(
    new_world: NewWorld, contained_faults: list[str], sealed: int
) -> None:
    """What is not sealed leaves with the next flush, which accounts for what was sealed as well."""
    world = new_world(journal=True, max_payload_bytes=FULL)
    buffer = world.buffer("a", "b", "c", size=SIZE)
    record(world.flusher.unattended, "u")
    calls = iter([False] * sealed + [True])

    def fail() -> None:
        if next(calls, False):
            raise MemoryError

    world.journal.interrupt = fail
    assert world.flusher.flush(buffer, 2.0) == Outcome()
    assert contained_faults == ["a fault of doow-serverless itself in flushing: MemoryError()"]
    assert len(world.flusher.dropped) == 1
    assert world.outcomes == [Outcome()]
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=4, requests=2)
    assert sorted(event["event_id"] for event in world.wire.events) == ["a", "b", "c", "u"]
    assert (buffer.in_hand, buffer.flights, len(world.flusher.dropped)) == (0, [], 0)


@pytest.mark.contains
def test_a_fault_amid_sealing_early_loses_nothing(
    new_world: NewWorld, contained_faults: list[str]
) -> None:
    """The lot stays where it is until the next flush."""
    world = new_world(journal=True)
    buffer = world.buffer("a")
    calls = iter([True])

    def fail() -> None:
        if next(calls, False):
            raise MemoryError

    world.journal.interrupt = fail
    world.flusher.send_early(buffer, 1)
    world.turns.sleep(0.5)
    assert contained_faults == ["a fault of doow-serverless itself in sealing: MemoryError()"]
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=1, requests=1)
    assert buffer.in_hand == 0


@pytest.mark.contains
def test_a_fault_amid_a_look_is_contained(
    world: World, contained_faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller leaves after its grace, and what it waited for is not lost."""
    world.wire.answers.append((NEVER, 202))
    buffer = world.buffer("a")

    def fail(_: float) -> None:
        raise ZeroDivisionError("division by zero")

    world.turns.at(0.5, lambda: monkeypatch.setattr(world.outbox.state, "tick", fail))
    outcome = world.flusher.flush(buffer, 2.0)
    assert outcome == Outcome(unsent={"TIMEOUT": 1}, elapsed_s=3.0)  # It is not known to be there.
    assert world.turns.clock.now == 1_003.0
    said = "a fault of doow-serverless itself in %s: ZeroDivisionError('division by zero')"
    assert set(contained_faults) == {said % "flushing", said % "a job"}
    assert buffer.in_hand == 1


@pytest.mark.contains
def test_a_transport_that_cannot_cut_off_holds_up_nothing(
    new_world: NewWorld, contained_faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises amid whatever fact comes next, such as that of a batch that was sealed."""
    world = new_world(timeout=5.0)

    def fail(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.wire, "abort", fail)
    world.wire.answers.append((NEVER, 202))
    assert world.flusher.flush(world.buffer("a"), 0.5).backlog == 1
    world.turns.sleep(6.0)
    world.take()
    assert world.flusher.flush(world.buffer("b"), 2.0).accepted == 1
    world.turns.sleep(6.0)
    assert world.flusher.flush(world.buffer("c"), 2.0).accepted == 1
    posts = [one for one in world.take() if one.startswith("post")]
    assert posts == ["post b", "post c"]
    said = "a fault of doow-serverless itself in cutting off a POST: ZeroDivisionError()"
    assert set(contained_faults) == {said}


# ── hooks ───────────────────────────────────────────────────────────────────────────────────────


def test_hooks_have_the_rest_of_the_budget(new_world: NewWorld, turns: Turns) -> None:
    """The caller waits for them so long, and a tenth of a second if there is less left."""
    world = new_world(on_flush=lambda _: turns.sleep(0.75))
    clock = world.turns.clock
    assert world.flusher.flush(world.buffer("a"), 2.0).accepted == 1
    assert clock.now == 1_000.75
    assert world.flusher.flush(world.buffer("b"), 0.5).accepted == 1
    assert clock.now == 1_001.25
    world.turns.sleep(10.75)
    world.wire.answers.append((NEVER, 202))
    assert world.flusher.flush(world.buffer("c"), 0.5).elapsed_s == 0.5
    assert clock.now == pytest.approx(1_012.6)


def test_nobody_waits_for_a_hook_that_hangs(new_world: NewWorld) -> None:
    """Only the first flush does; the others hold up nothing, and are all told in order later."""
    told: list[int] = []

    def hook(outcome: Outcome) -> None:
        told.append(outcome.accepted)
        if len(told) == 1:
            world.turns.sleep(60.0)

    world = new_world(on_flush=hook)
    took = []
    for names in ("a", "bc", "def"):
        began = world.turns.clock.now
        assert world.flusher.flush(world.buffer(*names), 2.0).accepted == len(names)
        took.append(world.turns.clock.now - began)
        world.turns.sleep(0.125)
    assert took == [1.0, 0.0, 0.0]
    assert told == [1]
    world.turns.sleep(60.0)
    assert told == [1, 2, 3]


# ── on an event loop ────────────────────────────────────────────────────────────────────────────


def test_a_coroutine_goes_on_once_the_hooks_were_told(new_world: NewWorld) -> None:
    """On their own thread; of errors as well."""
    world = new_world()
    world.turns.is_inline = True
    threads: list[bool] = []
    world.config.on_flush = lambda _: threads.append(world.outbox.is_driven_here)
    world.wire.answers.append((0.0, 400))

    buffer = world.buffer("a")
    assert asyncio.run(world.flusher.aflush(buffer, 2.0)).rejected[0][0] == "a"
    assert (threads, len(world.errors), buffer.is_closed) == ([True], 1, False)
    assert asyncio.run(world.flusher.aflush(buffer, 2.0, last=True)) == Outcome()
    assert (threads, len(world.errors), buffer.is_closed) == ([True], 1, True)


def test_a_cancelled_coroutine_is_cancelled_once_the_events_have_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its hooks were told."""
    from doow_serverless._delivery import async_wait

    world.turns.is_inline = True

    async def wait_for(flushing: Any, look: Any) -> asyncio.CancelledError:
        assert (flushing.is_over, buffer.is_closed) == (True, True)
        look(flushing)
        return asyncio.CancelledError("mine")

    monkeypatch.setattr(async_wait, "wait_for", wait_for)
    buffer = world.buffer("a")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.flusher.aflush(buffer, 2.0, last=True))
    assert world.outcomes == [Outcome(accepted=1, requests=1)]


@pytest.mark.contains
def test_a_fault_reaches_no_coroutine(
    world: World, monkeypatch: pytest.MonkeyPatch, contained_faults: list[str]
) -> None:
    """It goes on, with an outcome that tells of no success."""
    from doow_serverless._delivery import async_wait

    async def wait_for(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(async_wait, "wait_for", wait_for)
    buffer = world.buffer("a")
    outcome = asyncio.run(world.flusher.aflush(buffer, 2.0))
    assert outcome == Outcome(unsent={"TIMEOUT": 1})
    assert not buffer.is_closed
    assert contained_faults == ["a fault of doow-serverless itself in flushing: MemoryError()"]


def test_a_loop_that_others_block_is_no_freeze(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its flush ends when its budget does, or when the loop goes on."""
    from doow_serverless._delivery import async_wait

    async def wait_for(flushing: Any, look: Any) -> None:
        world.turns.sleep(1.5)
        flushing.wait(look)

    monkeypatch.setattr(async_wait, "wait_for", wait_for)
    world.wire.answers.append((NEVER, 202))
    outcome = asyncio.run(world.flusher.aflush(world.buffer("a"), 2.0))
    assert outcome == Outcome(unsent={"TIMEOUT": 1}, requests=1, elapsed_s=2.0, backlog=1)


def test_what_a_closed_coroutine_waited_for_is_written_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of its budget: otherwise its events were in no flight that is ever over."""
    from doow_serverless._delivery import async_wait

    async def wait_for(*_: object) -> None:
        raise GeneratorExit

    monkeypatch.setattr(async_wait, "wait_for", wait_for)
    world.wire.answers.append((NEVER, 202))
    buffer = world.buffer("a")
    with pytest.raises(GeneratorExit):
        world.flusher.aflush(buffer, 2.0).send(None)
    world.turns.sleep(2.0)
    world.turns.rest()
    assert "log a TIMEOUT" in world.take()
    assert (buffer.flights, buffer.in_hand, world.outbox.kept_events) == ([], 0, 1)


def test_two_signals_end_a_wait(world: World) -> None:
    """The first waits for the events, the second does not; a worker writes them down then."""
    world.wire.answers.append((NEVER, 202))
    buffer = world.buffer("a")
    world.turns.interrupt(0.25, KeyboardInterrupt("first"))
    world.turns.interrupt(0.5, KeyboardInterrupt("second"))
    with pytest.raises(KeyboardInterrupt, match="second"):
        world.flusher.flush(buffer, 2.0)
    assert world.turns.clock.now == 1_000.5
    world.turns.sleep(1.5)
    world.turns.rest()
    assert "log a TIMEOUT" in world.take()
    assert (buffer.flights, buffer.in_hand, world.outbox.kept_events) == ([], 0, 1)


# ── while the handler runs ──────────────────────────────────────────────────────────────────────


def test_a_flush_that_nobody_waits_for(world: World) -> None:
    """It asks for its budget once its thread runs, and leaves the buffer open."""
    buffer = world.buffer("a")
    world.wire.answers.append((NEVER, 202))
    budgets = iter([0.5])
    world.flusher.flush_meanwhile(buffer, lambda: next(budgets))
    assert (world.turns.clock.now, world.take()) == (1_000.0, [])
    world.turns.sleep(5.0)
    assert world.outcomes == [Outcome(unsent={"TIMEOUT": 1}, requests=1, elapsed_s=0.5, backlog=1)]
    assert (buffer.in_hand, buffer.is_closed) == (0, False)


def test_flushes_that_nobody_waits_for_do_not_wait_for_one_another(world: World) -> None:
    """Although they take all the threads: a deadline kills what is not written by then."""
    world.outbox.rescuers = Workers(2, world.turns)  # type: ignore[arg-type]  # in its place
    world.wire.otherwise = (NEVER, 202)
    for one in "abc":
        world.flusher.flush_meanwhile(world.buffer(one), lambda: 1_000.5 - world.turns.clock.now)
    world.turns.sleep(0.5)
    world.turns.rest()
    assert sorted(each for each in world.take() if each.startswith("log")) == [
        "log a TIMEOUT", "log b TIMEOUT", "log c TIMEOUT",
    ]  # fmt: skip
    assert world.turns.clock.now == 1_000.5


# ── transactions ────────────────────────────────────────────────────────────────────────────────


def test_the_events_of_a_transaction(world: World) -> None:
    """They go where they belong once it has succeeded, and nowhere otherwise."""
    buffer = world.buffer("a")
    failed, inner = buffer.transaction(), buffer.transaction()
    record(failed, "x")
    record(inner, "b")
    nested = inner.transaction()
    record(nested, "c")
    world.flusher.end_transaction(failed, discard=True)
    world.flusher.end_transaction(nested, discard=False)
    assert buffer.in_hand == 3
    world.flusher.end_transaction(inner, discard=False)
    assert [one.is_closed for one in (failed, nested, inner)] == [True] * 3
    assert (buffer.in_hand, world.take()) == (3, [])
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=3, requests=1)
    assert world.take() == ["post a+b+c"]


def test_a_transaction_that_outlives_its_surroundings(world: World) -> None:
    """Its events go to the nearest around it that takes some, the unattended buffer at last."""
    buffer = world.buffer("a")
    outer = buffer.transaction()
    inner, late = outer.transaction(), buffer.transaction()
    record(inner, "b")
    record(late, "c")
    world.flusher.end_transaction(outer, discard=False)
    world.flusher.end_transaction(inner, discard=False)
    assert world.flusher.unattended.in_hand == 0
    assert world.flusher.flush(buffer, 2.0, last=True) == Outcome(accepted=2, requests=1)
    world.flusher.end_transaction(late, discard=False)
    assert (world.flusher.unattended.in_hand, buffer.in_hand) == (1, 0)
    assert world.flusher.flush(world.flusher.unattended, 2.0) == Outcome(accepted=1, requests=1)
    assert world.take() == ["post a+b", "post c"]


def test_a_transaction_folds_into_what_is_around_it(world: World) -> None:
    """Into what takes its events: the buffer, or the unattended one if that is closed."""
    buffer = world.buffer()
    early, late = buffer.transaction(), buffer.transaction()
    for one in (buffer, early, late, world.flusher.unattended):
        for _ in range(2):
            one.record(None, 1_795_000_000.0, FOLDING, 1, None)
    world.flusher.end_transaction(early, discard=False)
    assert (len(buffer.take(99)), buffer.folded) == (0, 3)
    taken = buffer.take_last()
    assert [event[3] for event in taken] == [4]
    world.flusher.end_transaction(late, discard=False)
    unattended = world.flusher.unattended
    assert ([event[3] for event in unattended.take()], unattended.folded) == ([4], 3)


def test_a_transaction_that_fills_a_batch(new_world: NewWorld) -> None:
    """It leaves early, as other events do."""
    world = new_world(flush_at=2)
    buffer = world.buffer("a")
    transaction = buffer.transaction()
    record(transaction, "b")
    world.flusher.end_transaction(transaction, discard=False)
    world.turns.sleep(0.5)
    assert world.take() == ["post a+b"]


def test_work_that_may_be_done_again_by_itself_travels_by_itself(world: World) -> None:
    """As soon as it is done, under an id of its own; so does what it has folded."""
    buffer = world.buffer("a", identity=WORK)
    batches = []
    for _ in range(2):
        own = buffer.transaction("message")
        record(own, "b", "c")
        for _ in range(3):
            own.record(None, 1_795_000_000.0, FOLDING, 1, None)
        world.flusher.end_transaction(own, discard=False)
        world.turns.sleep(0.5)
        batches.append(world.wire.batches[-1])
    assert batches[0].id == batches[1].id
    assert batches[0].event_ids[:2] == ("b", "c")
    assert [len(one) for one in batches] == [3, 3]
    outcome = world.flusher.flush(buffer, 2.0, last=True)
    assert (outcome.accepted, outcome.folded, outcome.requests) == (7, 4, 3)
    assert buffer.in_hand == 0
    discarded = world.buffer(identity=WORK)
    own = discarded.transaction("message")
    record(own, "b")
    world.flusher.end_transaction(own, discard=True)
    world.turns.sleep(0.5)
    assert (len(world.wire.batches), discarded.in_hand) == (3, 0)


def test_a_signal_amid_the_end_of_a_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are the next flush's to send, once, whether they travel apart or not."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for identity, where, what in (
        (None, "doow_serverless._recording.buffer.Buffer", "adopt"),
        (("function", "1"), "doow_serverless._recording.buffer.Buffer", "goes_apart"),
        (("function", "2"), "doow_serverless._process.workers.Workers", "submit"),
    ):
        buffer = world.buffer(f"a {what}", identity=identity)
        transaction = buffer.transaction("message")
        record(transaction, f"b {what}")
        with monkeypatch.context() as patch:
            struck: Any = property(interrupt) if what == "goes_apart" else interrupt
            patch.setattr(f"{where}.{what}", struck)
            with pytest.raises(KeyboardInterrupt):
                world.flusher.end_transaction(transaction, discard=False)
        flushed = [world.flusher.flush(world.flusher.unattended, 2.0).accepted]
        flushed.append(world.flusher.flush(buffer, 2.0).accepted)
        assert (sum(flushed), buffer.in_hand) == (2, 0)
    assert len(world.wire.events) == 6


def test_a_signal_before_the_end_of_a_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has moved: it can be ended again."""
    buffer = world.buffer("a")
    transaction = buffer.transaction()
    record(transaction, "b")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(buffer), "take_last", interrupt)
        with pytest.raises(KeyboardInterrupt):
            world.flusher.end_transaction(transaction, discard=False)
    assert world.flusher.flush(world.flusher.unattended, 2.0) == Outcome()
    world.flusher.end_transaction(transaction, discard=False)
    assert world.flusher.flush(buffer, 2.0) == Outcome(accepted=2, requests=1)


def test_a_signal_amid_the_end_of_a_transaction_that_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are sent by nobody."""
    buffer = world.buffer("a")
    transaction = buffer.transaction()
    record(transaction, "b")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(buffer), "count", interrupt)
        with pytest.raises(KeyboardInterrupt):
            world.flusher.end_transaction(transaction, discard=True)
    assert not world.flusher.dropped
    assert world.flusher.flush(buffer, 2.0).accepted == 1


# ── the life of the process ─────────────────────────────────────────────────────────────────────


def test_the_last_flush_delivers_all_there_is(new_world: NewWorld) -> None:
    """Of every invocation, of none, and of buffers that are gone; in a budget for all together."""
    world = new_world()
    first, second = world.buffer("a"), world.buffer("b")
    record(world.flusher.unattended, "u")
    lost = world.buffer("d")
    del lost
    assert world.flusher.has_in_hand
    world.wire.otherwise = (0.25, 202)
    world.flusher.flush_last(2.0)
    assert sorted(event["event_id"] for event in world.wire.events) == ["a", "b", "d", "u"]
    assert sum(one.accepted for one in world.outcomes) == 4
    assert (first.in_hand, second.in_hand, world.flusher.has_in_hand) == (0, 0, False)
    assert [first.is_closed, second.is_closed] == [False, False]
    world.flusher.flush_last(2.0)
    assert (len(world.outcomes), world.turns.clock.now) == (2, 1_000.25)


def test_the_last_flush_waits_for_what_has_left_early(world: World) -> None:
    """Though nothing is left to be sealed."""
    buffer = world.buffer("a")
    world.wire.answers.append((0.5, 202))
    world.flusher.send_early(buffer, 1)
    world.turns.sleep(0.25)
    world.flusher.flush_last(2.0)
    assert (world.turns.clock.now, buffer.in_hand, buffer.flights) == (1_000.5, 0, [])
    assert world.outcomes == [Outcome(accepted=1, requests=1, elapsed_s=0.25)]


def test_the_last_flush_of_what_is_dropped_alone(new_world: NewWorld) -> None:
    """The unattended buffer takes it along, though nothing waits there."""
    world = new_world()
    lost = world.buffer("d")
    del lost
    world.flusher.flush_last(2.0)
    assert world.outcomes == [Outcome(accepted=1, requests=1)]
    idle, lost = world.buffer(), world.buffer("e")
    del lost
    world.flusher.flush_last(2.0)
    assert world.outcomes == [Outcome(accepted=1, requests=1)] * 2
    assert idle.is_idle


def test_the_last_flush_writes_down_what_it_cannot_deliver(new_world: NewWorld) -> None:
    """For that it keeps a part of the budget."""
    world = new_world(journal=True)
    world.wire.otherwise = (NEVER, 202)
    buffer = world.buffer("a")
    world.take()
    world.flusher.flush_last(2.0, 1.0)
    assert world.turns.clock.now == pytest.approx(1_001.97, abs=0.001)
    happened = world.take()
    assert happened[:3] == ["sealed a", "post a", "log a TIMEOUT"]
    (writing,) = [one for one in happened if "within" in one]
    assert float(writing.rpartition(" ")[2]) == pytest.approx(1.03, abs=0.001)
    assert [one.unsent for one in world.outcomes] == [{"TIMEOUT": 1}]
    assert buffer.in_hand == 0


def test_the_last_flush_ends_what_its_parent_would(world: World) -> None:
    """Transactions that a forked child has found open count as if they had succeeded."""
    buffer = world.buffer("a")
    outer = buffer.transaction()
    inner = outer.transaction()
    open_here = buffer.transaction()
    record(inner, "b")
    record(open_here, "c")
    for one in (outer, inner):
        one.leave_soon()
    world.flusher.flush_last(2.0)
    assert (world.take(), buffer.in_hand) == (["post a+b", "written within 2.0"], 1)
    assert (inner.is_closed, outer.is_closed, open_here.is_closed) == (True, True, False)


def test_the_last_flush_waits_for_hooks(new_world: NewWorld, turns: Turns) -> None:
    """What the budget leaves for them."""
    world = new_world(on_flush=lambda _: turns.sleep(0.75))
    buffer = world.buffer("a")
    world.flusher.flush_last(2.0)
    assert (world.turns.clock.now, buffer.in_hand) == (1_000.75, 0)
    record(buffer, "b")
    world.wire.answers.append((NEVER, 202))
    world.flusher.flush_last(0.5)
    assert world.turns.clock.now == pytest.approx(1_001.32, abs=0.001)


def test_the_last_flush_leaves_others_transactions_alone(new_world: NewWorld) -> None:
    """Those of another tracker are for that to end; what has ended is not ended again."""
    first, second = new_world(), new_world()
    buffer = first.buffer("a")
    transaction, ended = buffer.transaction(), buffer.transaction()
    record(transaction, "b")
    for one in (transaction, ended):
        one.leave_soon()
    first.flusher.end_transaction(ended, discard=False)
    second.flusher.flush_last(2.0)
    assert (transaction.is_closed, buffer.in_hand) == (False, 2)
    first.flusher.flush_last(2.0)
    assert first.outcomes == [Outcome(accepted=2, requests=1)]


def test_who_takes_over_delivers_what_was_recorded(new_world: NewWorld) -> None:
    """What waits, what is recorded later, and what open invocations hold; by its own outbox."""
    first = new_world(journal=True)
    second = new_world(diary=first.diary)
    record(first.flusher.unattended, "u")
    buffer = first.buffer("a")
    lost = first.buffer("d")
    del lost
    second.flusher.take_over(first.flusher)
    assert first.take()[-1] == "forgot u"
    assert first.flusher.unattended is second.flusher.unattended
    record(first.flusher.unattended, "v")
    assert first.flusher.flush(buffer, 2.0, last=True) == Outcome(accepted=3, requests=1)
    assert second.flusher.flush(second.flusher.unattended, 2.0) == Outcome(accepted=1, requests=1)
    assert (first.wire.batches, len(second.wire.batches)) == ([], 2)
    assert sorted(one["event_id"] for one in second.wire.events) == ["a", "d", "u", "v"]


def test_who_takes_over_says_what_was_folded(new_world: NewWorld) -> None:
    """Of each tracker, in one number."""
    first, second = new_world(), new_world()
    for _ in range(3):
        first.flusher.unattended.record(None, 1_795_000_000.0, FOLDING, 1, None)
    second.flusher.take_over(first.flusher)
    second.flusher.unattended.record(None, 1_795_000_000.0, FOLDING, 1, None)
    assert second.flusher.flush(second.flusher.unattended, 2.0) == Outcome(
        accepted=2, requests=1, folded=2
    )
    assert second.wire.total("tokens") == 4


def test_who_takes_over_takes_over_those_before(new_world: NewWorld) -> None:
    """Of three trackers the third delivers what the first has recorded."""
    first, second, third = new_world(), new_world(), new_world()
    buffer = first.buffer("a")
    second.flusher.take_over(first.flusher)
    third.flusher.take_over(second.flusher)
    assert first.flusher.flush(buffer, 2.0, last=True).accepted == 1
    assert [len(one.wire.batches) for one in (first, second, third)] == [0, 0, 1]


def test_what_left_early_is_nobodys_to_wait_for_once_it_is_taken_over(
    new_world: NewWorld,
) -> None:
    """What failed is told of by the hooks of the tracker that sent it."""
    first, second = new_world(), new_world()
    buffer = first.buffer("a")
    first.wire.answers.append((0.5, 202))
    first.flusher.send_early(buffer, 1)
    first.turns.sleep(0.25)
    second.flusher.take_over(first.flusher)
    first.turns.sleep(1.0)
    assert (buffer.flights, buffer.in_hand) == ([], 0)
    assert first.kinds() == ["TIMEOUT 1 event not delivered: no answer came within the budget"]
    assert second.errors == []
    assert second.flusher.flush(buffer, 2.0, last=True) == Outcome()


def test_a_flush_goes_on_where_it_began(new_world: NewWorld) -> None:
    """Replaced meanwhile, it waits for its batch where that is, and for what left since."""
    first, second = new_world(), new_world()
    buffer = first.buffer("a")
    first.wire.answers.append((0.5, 202))
    first.turns.at(0.25, lambda: second.flusher.take_over(first.flusher))
    first.turns.at(0.375, lambda: record(buffer, "b"))
    second.wire.answers.append((0.5, 202))
    first.turns.at(0.375, lambda: first.flusher.send_early(buffer, 1))
    outcomes: list[Outcome] = []
    first.turns.at(0.4375, lambda: outcomes.append(first.flusher.flush(buffer, 2.0, last=True)))
    assert first.flusher.flush(buffer, 2.0) == Outcome(accepted=1, requests=1, elapsed_s=0.5)
    first.turns.sleep(2.0)
    assert outcomes == [Outcome(accepted=2, requests=1, elapsed_s=0.4375)]
    assert (buffer.in_hand, buffer.flights) == (0, [])


def test_a_flush_waits_for_a_replaced_tracker_within_its_budget(new_world: NewWorld) -> None:
    """What hangs there is given up there, when the flush ends."""
    first, second = new_world(), new_world()
    buffer = first.buffer("a")
    first.wire.answers.append((NEVER, 202))
    outcomes: list[Outcome] = []
    first.turns.at(0.5, lambda: second.flusher.take_over(first.flusher))
    second.wire.answers.append((NEVER, 202))
    first.turns.at(0.75, lambda: record(buffer, "b"))
    first.turns.at(0.75, lambda: outcomes.append(first.flusher.flush(buffer, 0.5, last=True)))
    outcomes.append(first.flusher.flush(buffer, 8.0))
    assert outcomes == [
        Outcome(unsent={"TIMEOUT": 2}, requests=1, elapsed_s=0.5, backlog=1),
        Outcome(unsent={"TIMEOUT": 1}, requests=1, elapsed_s=8.0, backlog=1),
    ]
    assert (len(second.errors), buffer.in_hand) == (3, 0)


def test_what_all_restored_processes_hold_is_written_down(new_world: NewWorld) -> None:
    """Under the same ids in each, and sent by none; it is told of."""
    batches = []
    for _ in range(2):
        world = new_world(journal=True)
        buffer = world.buffer("a")
        buffer.set_off(1)
        record(buffer, "b")
        record(world.flusher.unattended, "u")
        lost = world.buffer("d")
        del lost
        world.take()
        world.flusher.write_down_all(3.0)
        assert world.take() == [
            "sealed u+a+b+d", "log u+a+b+d NOT_READY", "written within 3.0",
        ]  # fmt: skip
        ((text),) = world.kinds()
        assert text.startswith("NOT_READY 4 events not delivered, but written down: recorded after")
        assert [error.event_ids for error in world.errors] == [("u", "a", "b", "d")]
        assert [error.kind for error in world.errors] == ["NOT_READY"]
        (entry,) = world.outbox.state.kept
        batches.append(entry.batch.id)
        world.flusher.write_down_all(3.0)
        assert (world.take(), len(world.errors)) == (["written within 3.0"], 1)
    assert batches[0] == batches[1]


def test_what_is_another_processs_is_forgotten(new_world: NewWorld) -> None:
    """What was dropped, and what is late; invocations that go on are still known."""
    world = new_world()
    buffer = world.buffer()
    lost = world.buffer("d")
    del lost
    world.flusher.begin_anew()
    assert not world.flusher.has_in_hand
    assert world.flusher.buffers() == [world.flusher.unattended, buffer]
    record(buffer, "a")
    world.flusher.flush_last(2.0)
    assert world.take()[:1] == ["post a"]


def test_who_debugs_sees_what_waits(world: World) -> None:
    """In the repr."""
    buffer = world.buffer("a")
    assert repr(world.flusher) == (
        "Flusher(1 invocations, unattended: Buffer(0 waiting, 0 in hand))"
    )
    assert not world.flusher.has_in_hand
    record(world.flusher.unattended, "u")
    assert (world.flusher.has_in_hand, len(world.flusher.buffers())) == (True, 2)
    assert buffer in world.flusher.buffers()


@pytest.mark.parametrize("last", [False, True])
def test_a_flush_takes_what_was_recorded_when_it_was_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """However late its worker is: work that is done again must lead to the same batches."""
    buffer = world.buffer("a", identity=("function", "1"))
    offer = world.outbox.workers.offer

    def be_late(job: Callable[[], None]) -> bool:
        record(buffer, "b")  # For nobody, if the invocation is over.
        return offer(job)

    monkeypatch.setattr(world.outbox.workers, "offer", be_late)
    assert world.flusher.flush(buffer, 2.0, last=last).accepted == 1
    assert world.flusher.flush(buffer, 2.0).accepted == (0 if last else 1)
