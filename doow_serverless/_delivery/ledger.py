"""Where each batch stands, and the orders that follow when it moves; it knows no time.

An entry is waited for by flights, or kept: never both, and never neither.
"""

from __future__ import annotations

from doow_serverless._process.log import counted
from doow_serverless.errors import DoowError, ErrorKind

from .flight import Entry
from .kept import Kept
from .orders import Orders
from .results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._sealing import Batch

    from .flight import Flight
    from .results import Settled


class Ledger:
    """The entries of all batches that are not settled.

    Args:
        max_events, max_bytes: Bounds of what is kept, in events and in sealed bytes.

    Attributes:
        entries: All of them, by batch id.
        flights: Those that have something to wait for, or are waited for.
        kept: What no flight accounts for.
        orders: What is to be done, and has not been taken.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.flights: list[Flight] = []
        self.kept = Kept(max_events, max_bytes)
        self.orders = Orders()

    def __repr__(self) -> str:
        return f"Ledger({len(self.entries)} batches, {len(self.flights)} flights, {self.kept!r})"

    def knows(self, entry: Entry) -> bool:
        """Whether an entry is neither settled nor replaced by its halves."""
        return self.entries.get(entry.batch.id) is entry

    # ── waiting ────────────────────────────────────────────────────────────────────────────────

    def account(self, batch: Batch, flight: Flight) -> Entry:
        """Have ``flight`` account for a batch, be it new or known."""
        entry = self.entries.get(batch.id)
        if entry is None:
            entry = self.entries[batch.id] = Entry(batch)
            entry.release = flight.release
        else:  # Work that was done again while its batch was not settled: one batch, two accounts.
            self.orders.release.append((flight.release, len(batch)))
            self.kept.take(entry)
        self.have_wait(entry, flight)
        return entry

    def have_wait(self, entry: Entry, flight: Flight) -> None:
        """Have ``flight`` account for an entry, and send it, unless it travels already."""
        if flight not in entry.flights:
            entry.flights.append(flight)
        flight.pending[entry.batch.id] = entry
        if not entry.attempts and entry not in flight.queue:
            flight.queue.append(entry)
        if flight not in self.flights:
            self.flights.append(flight)

    def absorb(self, flight: Flight, other: Flight) -> None:
        """Have ``flight`` account for all that ``other`` does, for which nobody waits."""
        for entry in list(other.pending.values()):
            entry.flights.remove(other)
            self.have_wait(entry, flight)
        flight.absorb(other)
        other.is_closed = True
        self.leave(other)

    def leave(self, flight: Flight) -> None:
        """There is nothing to wait for, or nobody who waits."""
        if flight in self.flights:
            self.flights.remove(flight)

    def unqueue(self, entry: Entry) -> None:
        """Have an entry wait for no attempt, since one is made, or it is settled."""
        for flight in entry.flights:
            if entry in flight.queue:
                flight.queue.remove(entry)

    def put_again(self, entry: Entry, not_before: float) -> None:
        """Send a batch once more, behind what has not failed."""
        entry.not_before = not_before
        if entry in self.kept:
            self.kept.put_last(entry)
        for flight in entry.flights:
            if entry not in flight.queue:
                flight.queue.append(entry)

    def put_back(self, entry: Entry) -> None:
        """Send a batch once more, in the place where it was."""
        for flight in entry.flights:
            if entry not in flight.queue:
                flight.queue.insert(0, entry)

    # ── settled, or taken apart ────────────────────────────────────────────────────────────────

    def settle(self, entry: Entry, result: Settled) -> None:
        """The server has decided: the flights have it on their account, or it is reported."""
        self.forget(entry)
        if not entry.flights:
            self.orders.report += result.errors()
        for flight in entry.flights:
            flight.settled(entry.batch, result)
            if not flight.pending:
                self.leave(flight)

    def halve(self, entry: Entry, halves: tuple[Batch, Batch]) -> None:
        """Have two batches stand for one, in its place: what was known of it holds for them."""
        del self.entries[entry.batch.id]
        self.unqueue(entry)
        was_kept = self.kept.take(entry)
        for flight in entry.flights:
            flight.pending.pop(entry.batch.id, None)
        for half in reversed(halves):
            known = self.entries.get(half.id)
            if known is None:
                self._put_part(entry.part(half), is_kept=was_kept)
            else:
                self._join(entry, known)
        self.orders.split.append((entry.batch, halves, entry.is_written))

    def _put_part(self, part: Entry, *, is_kept: bool) -> None:
        self.entries[part.batch.id] = part
        for flight in part.flights:
            flight.pending[part.batch.id] = part
            flight.queue.insert(0, part)
        if is_kept:
            self.kept.put(part, first=True)

    def _join(self, entry: Entry, half: Entry) -> None:
        """Have those that waited for an entry wait for its half, which is known from before."""
        if entry.flights:
            if not entry.is_released and entry.release is not None:
                self.orders.release.append((entry.release, len(half.batch)))
            self.kept.take(half)
        for flight in entry.flights:
            self.have_wait(half, flight)

    def abandon(self, entry: Entry, failure: Failed) -> None:
        """An event cannot be delivered: it stands in the log, and is left alone."""
        why = f"it cannot be delivered, though others can: {failure.message}"
        self.write_down(entry, failure.reason)
        self.orders.given_up.append(entry.batch.id)
        self.forget(entry)
        for flight in entry.flights:
            flight.given_up(entry.batch, Failed(failure.reason, why))
        if not entry.flights:
            text = f"{counted(len(entry.batch))} given up: {why}"
            self.orders.report.append(DoowError(text, failure.reason, entry.batch.event_ids))

    def forget(self, entry: Entry) -> None:
        """An entry is settled, or will never be."""
        self.entries.pop(entry.batch.id, None)
        self.kept.take(entry)
        self.unqueue(entry)
        self.orders.settled.append(entry.batch.id)
        self._release(entry)

    # ── given up, and kept ─────────────────────────────────────────────────────────────────────

    def give_up(self, flight: Flight, entry: Entry, failure: Failed) -> None:
        """A flight waits for an entry no more; if none does, it is kept and written down."""
        flight.given_up(entry.batch, failure)
        if entry in flight.queue:
            flight.queue.remove(entry)
        entry.flights.remove(flight)
        if not entry.flights:
            self._release(entry)
            self.keep(entry, failure.reason)

    def keep(self, entry: Entry, reason: ErrorKind | None) -> None:
        """Keep an entry, and drop the oldest beyond the bounds; for a ``reason``, write it down."""
        if reason is not None:
            self.write_down(entry, reason)
        self.kept.put(entry)
        dropped: list[str] = []
        for oldest in self.kept.take_excess():
            # What came from a journal, or of a split, may not stand in the log so far.
            self.write_down(oldest, ErrorKind.DROPPED_EVENTS)
            self.forget(oldest)
            dropped += oldest.batch.event_ids
        if dropped:
            text = f"the backlog is full: {counted(len(dropped))} dropped, the oldest"
            self.orders.report.append(DoowError(text, ErrorKind.DROPPED_EVENTS, dropped))

    def _release(self, entry: Entry) -> None:
        if not entry.is_released and entry.release is not None:
            entry.is_released = True
            self.orders.release.append((entry.release, len(entry.batch)))

    def write_down(self, entry: Entry, reason: ErrorKind) -> None:
        """Have an entry stand in the log of dead letters, once."""
        if not entry.is_written:
            entry.is_written = True
            self.orders.write_down.append((entry, reason))
