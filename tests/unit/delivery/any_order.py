"""Facts in any order: bytes are read as what happens to an outbox, and what must hold is checked.

A string of bytes is a story, each pair of them a fact. Hypothesis writes the stories of the unit
tests, and shortens those that go wrong; the campaign draws them by the million.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from doow_serverless import Outcome
from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.outbox_state import MOST_ATTEMPTS, OutboxState
from doow_serverless._delivery.results import Failed, Settled, Split
from doow_serverless._sealing import Batch, split
from doow_serverless.errors import ErrorKind

if TYPE_CHECKING:
    from doow_serverless._delivery.flight import Attempt

T = TypeVar("T")

FAILURES = (
    Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 500"),
    Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 301", 0.0),
    Failed(ErrorKind.NETWORK_ERROR, "reset", is_ambiguous=True),
    Failed(ErrorKind.NETWORK_ERROR, "closed", is_ambiguous=True, is_stale=True),
    Failed(ErrorKind.TIMEOUT, "silent", is_ambiguous=True),
    Failed(ErrorKind.RATE_LIMITED, "HTTP 429", 5.0),
    Failed(ErrorKind.RATE_LIMITED, "HTTP 503", 1.0, is_in_flight=True),
    Failed(ErrorKind.AUTH_FAILURE, "HTTP 401", 900.0),
)
PAUSES_S = (0.0, 0.001, 0.02, 0.1, 0.3, 1.0, 7.0, 300.0)
BUDGETS_S = (0.0, 0.01, 0.2, 2.0)
MAX_EVENTS, MAX_BYTES = 12, 2_000


class Story:
    """One outbox and its world: flushes, threads, a server and a clock, all at our hands."""

    def __init__(self) -> None:
        self.state = OutboxState(MAX_EVENTS, MAX_BYTES, 10.0, uniform=lambda: 0.5)
        self.now = 1_000.0
        self.flights: list[Flight] = []
        self.sends: list[Attempt] = []
        self.under_way: list[Attempt] = []
        self.events_of: Counter[Flight] = Counter()
        self.sealed: dict[str, Batch] = {}
        self.places: dict[str, str] = {}
        self.written: Counter[str] = Counter()
        self.released = 0
        self.to_release = 0
        self.is_written_first: set[str] = set()
        # Flights that may have a batch and a half of it, so that events stand there twice.
        self.overlaps: set[Flight] = set()
        self.facts = (
            self.seal, self.seal, self.seal_again, self.keep, self.wait, self.wait, self.leave,
            self.begin, self.begin, self.begin, self.cannot_send, self.accept, self.accept,
            self.fail, self.fail, self.halve, self.pass_time, self.pass_time, self.thaw,
            self.drain, self.end, self.wait_for_all,
        )  # fmt: skip

    def tell(self, story: bytes) -> None:
        """Have everything happen that ``story`` says, then all end well."""
        for what, which in zip(story[::2], story[1::2], strict=False):
            self.facts[what % len(self.facts)](which)
            self.check()
        self.end_well()

    # ── facts ──────────────────────────────────────────────────────────────────────────────────

    def seal(self, which: int) -> None:
        flight = self.some_flight(which)
        self.add(self.new_batch(1 + which % 3), flight)

    def seal_again(self, which: int) -> None:
        """Work is done again, while its batch is here, or after that was halved."""
        known = [one for one in self.sealed.values() if self.places[one.id] in ("here", "halved")]
        if known:
            batch = known[which % len(known)]
            flight = self.some_flight(which // 7)
            if self.places[batch.id] == "halved":
                flight = self.new_flight()
                self.places[batch.id] = "here"
                del self.written[batch.id]
            self.overlaps.add(flight)
            self.add(batch, flight)

    def keep(self, which: int) -> None:
        batch = self.new_batch(1 + which % 4)
        if which % 2:
            self.is_written_first.add(batch.id)
        self.state.keep(batch, self.now, is_written=bool(which % 2))

    def wait(self, which: int) -> None:
        early = [each for each in self.flights if not each.is_waited_for]
        if early:
            budget_s = BUDGETS_S[which % len(BUDGETS_S)]
            self.state.wait(early[which % len(early)], self.now + budget_s, self.now)

    def leave(self, which: int) -> None:
        """A flush looks whether it is over; a signal, or its end, may also come before."""
        waiting = [each for each in self.flights if each.is_waited_for]
        if waiting:
            flight = waiting[which % len(waiting)]
            if which % 3 == 0 or self.state.pause_s(flight, self.now) is None:
                self.close(flight)

    def begin(self, which: int) -> None:
        if self.sends:
            attempt = self.sends.pop(which % len(self.sends))
            is_wanted = self.state._ledger.knows(attempt.entry)
            begins = self.state.begin(attempt, self.now, is_reused=which % 2 == 0)
            assert begins == is_wanted, "sent after it was settled"
            assert not begins or self.places[attempt.entry.batch.id] == "here"
            if begins:
                self.under_way.append(attempt)

    def cannot_send(self, which: int) -> None:
        if self.sends and which % 4 == 0:
            self.state.cannot_send(self.sends.pop(), self.now)

    def accept(self, which: int) -> None:
        attempt = self.some_post(which)
        if attempt is not None:
            batch = attempt.entry.batch
            refused = [(batch.event_ids[0], "why")] if which % 5 == 0 else []
            result = Settled(batch, ErrorKind.PARTIAL_ACCEPT, "207", refused)
            self.state.answer(attempt, result, self.now)

    def fail(self, which: int) -> None:
        attempt = self.some_post(which)
        if attempt is not None:
            failure = FAILURES[which % len(FAILURES)]
            self.state.answer(attempt, failure, self.now)
            again = [each for each in self.collect() if each.entry is attempt.entry]
            # Only on a new connection, in the place of a kept one, is there no pause.
            assert not again or (failure.is_stale and again[0].is_fresh), "sent without a pause"

    def halve(self, which: int) -> None:
        attempt = self.some_post(which)
        if attempt is not None:
            batch = attempt.entry.batch
            result: Split | Failed = FAILURES[0]
            if len(batch) > 1:
                result = Split(split(batch), ErrorKind.TRANSPORT_ERROR, "HTTP 413")
            self.state.answer(attempt, result, self.now)

    def pass_time(self, which: int) -> None:
        self.now += PAUSES_S[which % len(PAUSES_S)]
        self.state.tick(self.now)

    def thaw(self, which: int) -> None:
        gap_s = 1.0 + PAUSES_S[which % len(PAUSES_S)]
        self.now += gap_s
        self.state.thaw(gap_s)

    def drain(self, which: int) -> None:
        if which % 8 == 0:
            for entry in self.state.drain():
                assert not entry.attempts
                self.move(entry.batch.id, "elsewhere")

    def end(self, which: int) -> None:
        if which % 8 == 0:
            self.state.end(self.now)
            self.collect()
            here = {one for one, place in self.places.items() if place == "here"}
            assert here <= self.written.keys() | self.is_written_first, "not written at the end"

    def wait_for_all(self, which: int) -> None:
        if which % 8 == 0:
            flight = self.new_flight()
            self.overlaps.add(flight)
            self.state.wait_for_all(flight, self.now)

    # ── what follows ───────────────────────────────────────────────────────────────────────────

    def new_batch(self, events: int) -> Batch:
        name = f"b{len(self.sealed)}"
        ids = tuple(f"{name}-{number}" for number in range(events))
        texts = ",".join(f'{{"event_id":"{one}"}}' for one in ids)
        batch = Batch(name, ids, f'{{"events":[{texts}]}}'.encode(), False, "0.1.0")
        self.sealed[name] = batch
        self.places[name] = "here"
        return batch

    def new_flight(self) -> Flight:
        flight = Flight(self.release)
        self.flights.append(flight)
        return flight

    def some_flight(self, which: int) -> Flight:
        is_new = not self.flights or which % 4 == 0
        return self.new_flight() if is_new else self.flights[which % len(self.flights)]

    def some_post(self, which: int) -> Attempt | None:
        return self.under_way.pop(which % len(self.under_way)) if self.under_way else None

    def add(self, batch: Batch, flight: Flight) -> None:
        if batch.id not in flight.pending:
            self.events_of[flight] += len(batch)
        self.to_release += len(batch)
        self.state.add(batch, flight, self.now)

    def release(self, events: int) -> None:
        self.released += events

    def move(self, batch_id: str, place: str) -> None:
        assert self.places[batch_id] == "here", f"{batch_id} was {self.places[batch_id]} already"
        self.places[batch_id] = place

    def close(self, flight: Flight) -> None:
        self.flights.remove(flight)
        self.state.close(flight, self.now)
        outcome = Outcome()
        flight.account(outcome)
        if flight in self.overlaps:
            return
        told = outcome.accepted + len(outcome.rejected) + sum(outcome.unsent.values())
        assert told == self.events_of.pop(flight, 0), "a flush does not account for its events"

    def collect(self) -> list[Attempt]:
        """Carry out the orders; what was sent."""
        orders = self.state.take_orders()
        for whole, halves, _ in orders.split:
            self.move(whole.id, "halved")
            for half in halves:
                if self.places.get(half.id) != "here":
                    del self.written[half.id]
                self.sealed[half.id] = half
                self.places[half.id] = "here"
                if whole.id in self.written.keys() | self.is_written_first:
                    self.is_written_first.add(half.id)
        self.written.update(entry.batch.id for entry, _ in orders.write_down)
        for batch_id in orders.settled:
            self.move(batch_id, "settled")
        for release, events in orders.release:
            release(events)
        self.sends += orders.send
        return orders.send

    def check(self) -> None:
        breaker = self.state.breaker
        sent = self.collect()
        assert not sent or not breaker.is_open or breaker.is_due(self.now), "sent while held off"
        here = {one for one, place in self.places.items() if place == "here"}
        assert here == self.state._ledger.entries.keys(), "lost, or kept for ever"
        for entry in self.state._ledger.entries.values():
            assert bool(entry.flights) != (entry in self.state.kept), "in two places, or in none"
            assert len(entry.attempts) <= MOST_ATTEMPTS + 1, "sent again and again"
        assert all(times == 1 for times in self.written.values()), "written twice"
        kept = list(self.state.kept)
        assert self.state.kept.events == sum(len(entry.batch) for entry in kept) <= MAX_EVENTS
        assert sum(len(entry.batch.body) for entry in kept) <= MAX_BYTES
        for flight in self.flights:
            if flight.is_waited_for:
                pause_s = self.state.pause_s(flight, self.now)
                left_s = flight.ends_at - self.now
                assert pause_s is None or 0 < pause_s <= left_s, "a flush waits for nothing"

    def end_well(self) -> None:
        """The server is well again, and everything gets through."""
        for flight in list(self.flights):
            self.close(flight)
        for _ in range(10_000):
            self.collect()
            while self.sends:
                self.begin(0)
            while self.under_way:
                self.accept(1)
                self.collect()
            if self.state.is_idle and not self.sends:
                break
            self.pass_time(6)
        assert self.state.is_idle, "something stays for ever"
        self.check()
        assert self.released == self.to_release, "events stay in hand for ever"
