"""Brings facts to an `OutboxState`, on a clock that stands still, and collects the orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.outbox_state import OutboxState
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless.errors import ErrorKind
from tests.batches import batch

if TYPE_CHECKING:
    from doow_serverless._delivery.flight import Attempt
    from doow_serverless._delivery.results import Result
    from doow_serverless._outcome import Outcome
    from doow_serverless._sealing import Batch
    from doow_serverless.errors import DoowError

ERROR_500 = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 500")
RESET = Failed(ErrorKind.NETWORK_ERROR, "reset", is_ambiguous=True)
STALE = Failed(ErrorKind.NETWORK_ERROR, "reset", is_ambiguous=True, is_stale=True)
LIMITED = Failed(ErrorKind.RATE_LIMITED, "HTTP 429", 10.0)
IN_FLIGHT = Failed(ErrorKind.RATE_LIMITED, "HTTP 503", 1.0, is_in_flight=True)
TIMEOUT_S = 10.0


def accepted(one: Batch) -> Settled:
    return Settled(one, ErrorKind.TRANSPORT_ERROR, "", [])


class Facts:
    """The facts of a test, in its own words.

    Attributes:
        now: Seconds.
        sends: Attempts that were ordered and have not begun.
        written, settled, reported, aborted: What was ordered besides, in order.
    """

    def __init__(self, max_events: int = 100, max_bytes: int = 1_000_000) -> None:
        self.state = OutboxState(max_events, max_bytes, TIMEOUT_S, uniform=lambda: 0.5)
        self.now = 100.0
        self.sends: list[Attempt] = []
        self.written: list[str] = []
        self.settled: list[str] = []
        self.reported: list[DoowError] = []
        self.aborted: list[str] = []
        self.released = 0
        self.woken: list[Flight] = []
        self.splits: list[str] = []

    def collect(self) -> None:
        orders = self.state.take_orders()
        self.sends += orders.send
        self.written += [entry.batch.id for entry, _ in orders.write_down]
        self.settled += orders.settled
        self.reported += orders.report
        self.aborted += orders.abort
        self.woken += orders.wake
        self.splits += [whole.id for whole, _, _ in orders.split]
        for release, events in orders.release:
            release(events)

    def release(self, events: int) -> None:
        self.released += events

    def flight(self, *ids: str, events: int = 1, budget_s: float | None = 2.0) -> Flight:
        """Batches of these ids are sealed; a flush waits for them, unless it has no budget."""
        flight = Flight(self.release)
        for one in ids:
            self.state.add(batch(events, batch_id=one), flight, self.now)
        if budget_s is not None:
            self.state.wait(flight, self.now + budget_s, self.now)
        self.collect()
        return flight

    def close(self, flight: Flight) -> Outcome:
        from doow_serverless import Outcome

        self.state.close(flight, self.now)
        self.collect()
        outcome = Outcome()
        self.reported += flight.account(outcome)
        return outcome

    def pass_s(self, seconds: float) -> None:
        """Time passes, and whoever waits looks."""
        self.now += seconds
        self.state.tick(self.now)
        self.collect()

    def begin(self, *, is_reused: bool = False) -> Attempt:
        """The oldest attempt that was ordered begins."""
        attempt = self.sends.pop(0)
        assert self.state.begin(attempt, self.now, is_reused=is_reused)
        self.collect()
        return attempt

    def answer(self, attempt: Attempt, result: Result | None = None) -> None:
        """It has come back: accepted, unless something else is said."""
        self.state.answer(attempt, result or accepted(attempt.entry.batch), self.now)
        self.collect()

    def send(self, result: Result | None = None) -> str:
        """The oldest attempt that was ordered is made and comes back at once; the batch's id."""
        attempt = self.begin()
        self.answer(attempt, result)
        return attempt.entry.batch.id

    def deliver(self, one: str, result: Result | None = None) -> Outcome:
        """A flush of one batch, whose POST comes back at once."""
        flight = self.flight(one)
        assert self.send(result) == one
        return self.close(flight)

    def ordered(self) -> list[str]:
        """The batches of which an attempt was ordered that has not begun."""
        return [attempt.entry.batch.id for attempt in self.sends]

    def kept(self) -> list[str]:
        return [entry.batch.id for entry in self.state.kept]

    def waits_s(self, flight: Flight) -> float | None:
        return self.state.pause_s(flight, self.now)


def keep(
    facts: Facts, *ids: str, events: int = 1, is_written: bool = False, is_sent: bool = True
) -> None:
    """These batches are left by a crash, as it were, by which they may have been sent."""
    for one in ids:
        facts.state.keep(batch(events, batch_id=one), facts.now, is_written=is_written)
    for entry in facts.state.kept:
        entry.is_ambiguous = is_sent
    facts.collect()


def fail(facts: Facts, one: str) -> None:
    """An outage begins: a flush of one batch waits in vain."""
    flight = facts.flight(one)
    facts.answer(facts.begin(), ERROR_500)
    facts.now += 2.0
    facts.close(flight)
    assert facts.state.breaker.is_open
