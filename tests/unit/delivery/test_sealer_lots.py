"""The sealer by itself: which batches it makes, of what, and where they go."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Outcome
from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.sealer import Sealer
from doow_serverless._process.clock import Budget
from doow_serverless.errors import ErrorKind
from tests.unit.delivery.driver import Journal, name

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._recording.event import Event
    from tests.unit.delivery.driver import World

    NewWorld = Callable[..., World]

SIZE = 1_500
"""Of an event of which two fill a batch."""


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world(journal=True, max_payload_bytes=4_096)


def new_sealer(world: World) -> Sealer:
    log: Any = world.journal
    return Sealer(world.config, world.outbox, log)


def events(world: World, names: str, size: int = SIZE) -> list[Event]:
    taken = world.buffer(*names, size=size).take()
    world.take()
    return taken


def new_flight(world: World) -> Flight:
    now = world.turns.clock.now
    return Flight(lambda _: None, world.outbox, now, now + 8.0)


def account(flight: Flight) -> Outcome:
    outcome = Outcome()
    flight.account(outcome)
    return outcome


def test_all_but_the_last_batch_leave_meanwhile(world: World) -> None:
    """Those of the last are its caller's to make, or to give to others."""
    sealer, flight, lot = new_sealer(world), new_flight(world), events(world, "abcde")
    attempts = sealer.seal(lot, flight, is_derived=False, budget=None)
    assert [name(one.entry.batch) for one in attempts] == ["e"]
    assert world.take() == ["sealed a+b", "sealed c+d", "sealed e"]
    world.turns.rest()
    assert world.take() == ["post a+b", "settled a+b", "post c+d", "settled c+d"]
    assert (lot, list(flight.pending), sealer.is_late) == ([], [attempts[0].entry.batch.id], False)


def test_nothing_makes_no_batch(world: World) -> None:
    """And leads to nothing."""
    sealer, flight = new_sealer(world), new_flight(world)
    assert sealer.seal([], flight, is_derived=False, budget=None) == []
    assert (account(flight), world.take(), sealer.is_late) == (Outcome(), [], False)


def test_the_budget_ends_between_two_batches(world: World) -> None:
    """What is left is on account as late; a rescuer seals it, keeps it, and writes it down."""
    sealer, flight, lot = new_sealer(world), new_flight(world), events(world, "abcde")
    budget = Budget(2.0, world.turns.clock)
    world.journal.interrupt = lambda: world.turns.freeze(1.0)
    attempts = sealer.seal(lot, flight, is_derived=False, budget=budget)
    assert [name(one.entry.batch) for one in attempts] == ["c+d"]
    assert (lot, sealer.is_late, repr(sealer)) == ([], True, "Sealer(1 lots are late)")
    assert account(flight) == Outcome(unsent={"TIMEOUT": 1})
    world.turns.rest()
    assert not sealer.is_late
    assert [one for one in world.take() if one.endswith((" e", "TIMEOUT"))] == [
        "sealed e", "log e TIMEOUT",
    ]  # fmt: skip


def test_a_budget_that_is_used_up_seals_one_batch(world: World) -> None:
    """And no more; where that is all, nothing is late."""
    sealer, flight, lot = new_sealer(world), new_flight(world), events(world, "ab")
    budget = Budget(0.0, world.turns.clock)
    assert len(sealer.seal(lot, flight, is_derived=False, budget=budget)) == 1
    assert (lot, sealer.is_late, account(flight)) == ([], False, Outcome())


@pytest.mark.parametrize("is_derived", [True, False])
def test_ids_of_batches(world: World, is_derived: bool) -> None:
    """Of work that may be done again they derive from those of its events, in whatever order.

    Also of what was late.
    """
    sealer = new_sealer(world)
    ids: list[str] = []
    for names in ("ab", "ba"):
        flight = new_flight(world)
        sealer.seal(events(world, names), flight, is_derived=is_derived, budget=None)
        ids += flight.pending
    assert (ids[0] == ids[1]) is is_derived
    late = []
    for names in ("cdfg", "cdfg"):
        budget = Budget(0.0, world.turns.clock)
        sealer.seal(events(world, names), new_flight(world), is_derived=is_derived, budget=budget)
        world.turns.rest()
        late += [entry.batch.id for entry in world.outbox.state.kept]
    assert (len(late), len(set(late))) == ((2, 1) if is_derived else (3, 2))


def test_what_is_derived_has_no_bound_when_packed(new_world: NewWorld) -> None:
    """A retry has other times, and must be cut as before; anything else is to fit into a line."""
    world = new_world(delivery="log", disable_compression=True)
    sealer = new_sealer(world)
    noise = Random(1)
    lot = [
        (*event[:4], f'{{"n":"{noise.randbytes(900).hex()}"}}') for event in events(world, "abcd")
    ]
    cuts = [
        [len(one) for one in sealer._batches_of(lot, world.outbox, is_derived)]
        for is_derived in (True, False)
    ]
    assert cuts == [[4], [2, 2]]


def test_what_is_kept_is_written_down_for_its_reason(world: World) -> None:
    """Its ids are returned; so it is with the outbox of a successor."""
    sealer = new_sealer(world)
    kept = sealer.keep(events(world, "abc"), ErrorKind.NOT_READY, is_derived=False)
    assert kept == ["a", "b", "c"]
    assert world.take() == [
        "sealed a+b", "log a+b NOT_READY", "sealed c", "log c NOT_READY",
    ]  # fmt: skip
    assert world.outbox.kept_events == 3


def test_the_log_of_events_forgets_what_another_journal_has(new_world: NewWorld) -> None:
    """Events of an earlier tracker, whose batches the successor's journal holds."""
    first = new_world(journal=True)
    second = new_world(journal=True, diary=first.diary)
    sealer = new_sealer(first)
    lot = events(first, "ab")
    sealer.outbox = second.outbox
    assert sealer.keep(lot, ErrorKind.TIMEOUT, is_derived=False) == ["a", "b"]
    assert first.take() == ["sealed a+b", "forgot a+b", "log a+b TIMEOUT"]
    assert (first.outbox.kept_events, second.outbox.kept_events) == (0, 2)
    third = new_world(diary=first.diary)
    sealer.outbox = third.outbox
    sealer.keep(events(first, "c"), ErrorKind.TIMEOUT, is_derived=False)
    assert first.take() == ["forgot c", "log c TIMEOUT"]
    log: Any = None
    Sealer(third.config, third.outbox, log).keep(
        events(first, "d"), ErrorKind.TIMEOUT, is_derived=False
    )
    assert first.take() == ["log d TIMEOUT"]


@pytest.mark.contains
def test_a_fault_amid_keeping_is_contained(world: World, contained_faults: list[str]) -> None:
    """What was kept by then stays kept."""
    sealer = new_sealer(world)
    calls = iter([False, True])

    def fail() -> None:
        if next(calls):
            raise MemoryError

    world.journal.interrupt = fail
    kept = sealer.keep(events(world, ""), ErrorKind.TIMEOUT, is_derived=False)
    assert kept == []
    world.journal.interrupt = lambda: None
    lot = events(world, "abc")
    world.journal.interrupt = fail
    assert sealer.keep(lot, ErrorKind.TIMEOUT, is_derived=False) == ["a", "b"]
    assert contained_faults == ["a fault of doow-serverless itself in sealing: MemoryError()"]


def test_what_is_late_is_another_processs_after_a_fork(world: World) -> None:
    """It is forgotten here."""
    sealer = new_sealer(world)
    budget = Budget(0.0, world.turns.clock)
    world.turns.can_start = False
    world.outbox.rescuers.submit = lambda job: False  # type: ignore[method-assign]
    sealer.seal(events(world, "abc"), new_flight(world), is_derived=False, budget=budget)
    assert sealer.is_late
    sealer.begin_anew()
    assert not sealer.is_late
    world.take()
    sealer.seal_late()
    assert (world.take(), world.outbox.kept_events) == ([], 0)


def test_the_journal_given_is_that_of_the_outbox(world: World) -> None:
    """It notes a batch, and forgets no events besides: the batch stands for them."""
    sealer = new_sealer(world)
    assert isinstance(sealer.event_log, Journal)
    sealer.keep(events(world, "a"), ErrorKind.TIMEOUT, is_derived=False)
    assert world.take() == ["sealed a", "log a TIMEOUT"]
