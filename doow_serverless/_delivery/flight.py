"""What a flush waits for: its flight, the batches of it (entries), their POSTs (attempts).

These are accounts, which the state of the outbox keeps under the outbox's lock.
"""

from __future__ import annotations

from enum import Enum

from doow_serverless._process.log import counted
from doow_serverless.errors import DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from doow_serverless._outcome import Outcome
    from doow_serverless._sealing import Batch

    from .results import Failed, Settled

NEVER = float("inf")
MOST_ERRORS = 10
"""Errors of one flush that are reported apart: a server may give each event a reason of its own."""


class Flight:
    """The account of one flush.

    Batches may join it before anyone waits: those that leave early. Once it is closed, what is not
    settled is nobody's to wait for.

    Args:
        release: Called with the number of events that are settled or kept, on whatever thread.
        outbox: The `Outbox` that has its batches, from the first to the last, also if another has
            taken over meanwhile: one outbox knows nothing of batches that another has sent.
        waiting_since, ends_at: When its flush began to wait, and until when it may; never, if no
            flush waits yet.

    Attributes:
        release, outbox, waiting_since, ends_at: As given.
        pending: What is neither settled nor given up, by batch id.
        requests: How many POSTs of its batches have begun.
        queue: What of it waits to be sent, in order.
        is_closed: Whether its flush is over.
        probe_ends_at: Until when it may wait while the breaker is open; 0.0 where that is no use.
        wake: Called once there is nothing to wait for, or the next look is due earlier.
    """

    __slots__ = (
        "_accepted",
        "_errors",
        "_folded",
        "_given_up",
        "_rejected",
        "_unsent",
        "ends_at",
        "is_closed",
        "outbox",
        "pending",
        "probe_ends_at",
        "queue",
        "release",
        "requests",
        "waiting_since",
        "wake",
    )

    def __init__(
        self,
        release: Callable[[int], None],
        outbox: Any = None,
        waiting_since: float = NEVER,
        ends_at: float = NEVER,
    ) -> None:
        self.release = release
        self.outbox = outbox
        self.pending: dict[str, Entry] = {}
        self.queue: list[Entry] = []
        self.is_closed = False
        self.waiting_since = waiting_since
        self.ends_at = ends_at
        self.probe_ends_at = 0.0
        self.wake: Callable[[], object] | None = None
        self._accepted = self._folded = self.requests = 0
        self._rejected: list[tuple[str, str]] = []
        self._unsent: dict[ErrorKind, int] = {}
        self._errors: list[DoowError] = []
        self._given_up: dict[tuple[ErrorKind, str, float | None], list[str]] = {}

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open"
        return f"Flight({state}, {len(self.pending)} pending, {len(self.queue)} to send)"

    @property
    def is_waited_for(self) -> bool:
        """Whether a flush waits for it."""
        return self.waiting_since < NEVER and not self.is_closed

    def refused(self, events: int) -> None:
        """Account for events that were never recorded, for want of room."""
        if events:
            self._count_unsent(ErrorKind.DROPPED_EVENTS, events)
            why = "max_queue_size events or max_queue_bytes were waiting already"
            text = f"{counted(events)} dropped: {why}"
            self._errors.append(DoowError(text, ErrorKind.DROPPED_EVENTS))

    def folded(self, calls: int) -> None:
        """Account for calls that became a part of an event of others."""
        self._folded += calls

    def late(self, events: int) -> None:
        """Account for events that could not be sealed in time: they are kept by others."""
        self._count_unsent(ErrorKind.TIMEOUT, events)
        text = f"{counted(events)} not delivered: the budget was used up before they were sealed"
        self._errors.append(DoowError(text, ErrorKind.TIMEOUT))

    def settled(self, batch: Batch, result: Settled) -> None:
        """The server has decided on a batch."""
        if self.pending.pop(batch.id, None) is not None:
            self._accepted += result.accepted
            if result.rejected:
                self._rejected += result.rejected
                self._errors += result.errors()

    def given_up(self, batch: Batch, failure: Failed) -> None:
        """Nobody waits for this batch any more."""
        if self.pending.pop(batch.id, None) is not None:
            self._count_unsent(failure.reason, len(batch))
            why = (failure.reason, failure.message, failure.hold_s)
            self._given_up.setdefault(why, []).extend(batch.event_ids)

    def _count_unsent(self, reason: ErrorKind, events: int) -> None:
        self._unsent[reason] = self._unsent.get(reason, 0) + events

    def absorb(self, other: Flight) -> None:
        """Account for what has become of the events of ``other`` as well."""
        self._accepted += other._accepted
        self._folded += other._folded
        self.requests += other.requests
        self._rejected += other._rejected
        self._errors += other._errors
        for reason, events in other._unsent.items():
            self._count_unsent(reason, events)
        for why, ids in other._given_up.items():
            self._given_up.setdefault(why, []).extend(ids)
        other.pending, other.queue = {}, []

    def account(self, outcome: Outcome) -> list[DoowError]:
        """Add to ``outcome`` what became of each event; what must be reported."""
        outcome.accepted += self._accepted
        outcome.folded += self._folded
        outcome.requests += self.requests
        outcome.rejected += self._rejected
        for reason, events in self._unsent.items():
            outcome.add_unsent(reason, events)
        unsent = [
            DoowError(f"{counted(len(ids))} not delivered: {why}", reason, ids, hold_s or None)
            for (reason, why, hold_s), ids in self._given_up.items()
        ]
        return [*self._errors, *unsent]


def summed_up(errors: list[DoowError]) -> list[DoowError]:
    """``errors``, with all beyond :data:`MOST_ERRORS` in one, of the kind of the first of them."""
    if len(errors) <= MOST_ERRORS:
        return errors
    apart, rest = errors[: MOST_ERRORS - 1], errors[MOST_ERRORS - 1 :]
    ids = [event_id for error in rest for event_id in error.event_ids]
    text = f"and {len(rest)} more reasons, of {counted(len(ids))}; the first: {rest[0]}"
    return [*apart, DoowError(text, rest[0].kind, ids)]


class Attempt:
    """One POST of a batch, from the order to make it until it has come back.

    Attributes:
        entry: Whose.
        ordered_at: When it was ordered.
        is_fresh: Whether it must go out on a new connection.
        is_reused: Whether it did go out on a kept one, which may have died.
        is_hedge: Whether it was sent beside one that was doubted.
        is_probe: Whether it is to find out whether the server is back.
        is_doubted: Whether another was sent beside it, since it was silent for too long.
        began_at: When it began, in seconds of time that the process was not frozen; None before.
        freezes: How often the process was frozen since it was ordered.
        seen_successes: How many batches had got through by then.
    """

    __slots__ = (
        "began_at",
        "entry",
        "freezes",
        "is_doubted",
        "is_fresh",
        "is_hedge",
        "is_probe",
        "is_reused",
        "ordered_at",
        "seen_successes",
    )

    def __init__(self, entry: Entry, now: float, *, is_fresh: bool) -> None:
        self.entry = entry
        self.ordered_at = now
        self.is_fresh = is_fresh
        self.is_reused = False
        self.is_probe = False
        self.is_hedge = False
        self.is_doubted = False
        self.began_at: float | None = None
        self.freezes = 0
        self.seen_successes = 0

    def __repr__(self) -> str:
        how = "fresh" if self.is_fresh else "reused" if self.is_reused else "any"
        return f"Attempt({self.entry.batch.id}, {how}, began_at={self.began_at})"

    def silent_s(self, now: float) -> float:
        """Seconds without an answer."""
        return 0.0 if self.began_at is None else now - self.began_at


class State(Enum):
    """Where a batch stands."""

    WAITING = "a flight accounts for it, and it is to be sent, or sent again"
    SENT = "a flight accounts for it, and a POST of it is under way"
    KEPT = "no flight waits for it: the backlog; a POST of it may be under way in the background"
    GONE = "the server has decided, or it is halved, given up or dropped: forgotten"


class Entry:
    """A batch that is sealed and not settled.

    Attributes:
        batch: The batch.
        state: Where it stands; `Ledger.move` alone changes it.
        flights: Those that account for it; while there is none, it is kept (the backlog).
        release: Called with the number of its events once they are settled or kept.
        attempts: Its POSTs that are under way.
        last: What its last attempt brought, if that failed.
        not_before: When it may be sent again.
        failures: Attempts that failed.
        strikes: Those of them between which other batches got through.
        failing_since: When the first of them was; None before.
        pauses: How often it has waited in the background since the last outage.
        is_part: Whether it is a part of a batch that had failed.
        seen_successes: How many batches had got through when it failed last.
        is_ambiguous: Whether the server may be at work on an attempt that broke off.
        was_in_flight: Whether the server has said so.
        is_written: Whether it stands in the log of dead letters; None where nobody knows.
        is_released: Whether its events are off the hands of their buffer.
        logged_as: The reason that its latest frame gives; None if it has no frame yet.
    """

    __slots__ = (
        "attempts",
        "batch",
        "failing_since",
        "failures",
        "flights",
        "is_ambiguous",
        "is_part",
        "is_released",
        "is_written",
        "last",
        "logged_as",
        "not_before",
        "pauses",
        "release",
        "seen_successes",
        "state",
        "strikes",
        "was_in_flight",
    )

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.state = State.WAITING
        self.flights: list[Flight] = []
        self.release: Callable[[int], None] | None = None
        self.attempts: list[Attempt] = []
        self.last: Failed | None = None
        self.not_before = 0.0
        self.failures = 0
        self.strikes = 0
        self.failing_since: float | None = None
        self.pauses = 0
        self.is_part = False
        self.seen_successes = 0
        self.is_ambiguous = False
        self.was_in_flight = False
        self.is_written: bool | None = False
        self.is_released = False
        self.logged_as: ErrorKind | str | None = None

    def part(self, half: Batch) -> Entry:
        """The entry of a half of the batch: what was known of the whole holds for it."""
        part = Entry(half)
        part.flights = list(self.flights)
        part.release = self.release
        part.last = self.last
        part.is_part = self.is_part or self.failures > 0
        part.failing_since = self.failing_since
        # One more failure decides about it.
        part.strikes = max(0, self.strikes - 1)
        part.failures = self.failures
        part.is_released = self.is_released
        part.is_written = self.is_written
        part.logged_as = self.logged_as
        part.seen_successes = self.seen_successes
        return part

    def __repr__(self) -> str:
        state = self.state.name
        return f"Entry({self.batch.id}, {state}, {self.failures} failures, {self.strikes} strikes)"
