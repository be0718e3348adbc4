"""Where each batch stands, and the orders that follow when it moves; it knows no time.

`NEXT` is the whole of it: what becomes of a batch in each state at each fact. The lists of what a
flight has to send, and of what is kept, follow from the state, and change in `Ledger.move` alone.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from doow_serverless._process.log import counted
from doow_serverless.errors import DoowError, ErrorKind

from .flight import Entry, State
from .results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless._sealing import Batch

    from .flight import Attempt, Flight
    from .results import Settled


class Fact(Enum):
    """What happens to a batch."""

    JOINED = "one more flight accounts for it"
    JOINED_SENT = "the same, while a POST of it is under way"
    ORDERED = "a POST of it is ordered, the first or one beside others that are doubted"
    FAILED = "a POST came back, and the server has not decided: it is to be sent again"
    LEFT = "the last flight that accounted for it is over"
    ENDED = "the server has decided, or it is halved, given up or dropped"


WAITING, SENT, KEPT, GONE = State
NEXT: dict[Fact, dict[State, State]] = {
    Fact.JOINED: {WAITING: WAITING, SENT: SENT, KEPT: WAITING},
    Fact.JOINED_SENT: {WAITING: WAITING, SENT: SENT, KEPT: SENT},
    Fact.ORDERED: {WAITING: SENT, SENT: SENT, KEPT: KEPT},
    Fact.FAILED: {WAITING: WAITING, SENT: WAITING, KEPT: KEPT},
    Fact.LEFT: {WAITING: KEPT, SENT: KEPT},
    Fact.ENDED: {WAITING: GONE, SENT: GONE, KEPT: GONE},
}
"""The state in which a fact puts a batch, by the state in which it was; no other pair happens."""


class Orders:
    """Orders, to be carried out in the order of the attributes.

    Attributes:
        split: Batches that journal and log shall know by their halves, and if they are in the log.
        write_down: What was not delivered, and why: into the log.
        settled: Ids of batches that are no longer sent.
        given_up: Those of them that the journal keeps all the same, for the next process to try.
        release: What to call with how many events that are off its hands.
        report: Errors that no flush accounts for.
        abort: Ids of batches whose POSTs are to be cut off.
        send: Attempts to make.
        wake: Flights whose flush has something to look at.
    """

    __slots__ = (
        "abort",
        "given_up",
        "release",
        "report",
        "send",
        "settled",
        "split",
        "wake",
        "write_down",
    )

    def __init__(self) -> None:
        self.split: list[tuple[Batch, tuple[Batch, Batch], bool | None]] = []
        self.write_down: list[tuple[Entry, ErrorKind]] = []
        self.settled: list[str] = []
        self.given_up: list[str] = []
        self.release: list[tuple[Callable[[int], None], int]] = []
        self.report: list[DoowError] = []
        self.abort: list[str] = []
        self.send: list[Attempt] = []
        self.wake: list[Flight] = []

    def __repr__(self) -> str:
        said = (f"{name}={value!r}" for name in self.__slots__ if (value := getattr(self, name)))
        return f"Orders({', '.join(said)})"


class Kept:
    """The backlog: entries by batch id, what failed least first; bounded in events and bytes.

    Attributes:
        events: Events in it.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self.events = 0

    def __repr__(self) -> str:
        return f"Kept({len(self)} batches, {self.events} events, {self._bytes} bytes)"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __contains__(self, entry: Entry) -> bool:
        return self._entries.get(entry.batch.id) is entry

    def put(self, entry: Entry, *, first: bool) -> None:
        """Keep an entry, before all others or behind them; one that is kept moves there."""
        if entry not in self:
            self.events += len(entry.batch)
            self._bytes += len(entry.batch.body)
            self._entries[entry.batch.id] = entry
        self._entries.move_to_end(entry.batch.id, last=not first)

    def take(self, entry: Entry) -> None:
        """Keep an entry no longer."""
        del self._entries[entry.batch.id]
        self.events -= len(entry.batch)
        self._bytes -= len(entry.batch.body)

    @property
    def excess(self) -> Entry | None:
        """The oldest entry if all of them are too many or too large; None otherwise."""
        if self.events <= self._max_events and self._bytes <= self._max_bytes:
            return None
        return next(iter(self._entries.values()), None)


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
        return entry.state is not GONE

    def move(self, entry: Entry, fact: Fact, *, first: bool = False) -> None:
        """Let ``entry`` go where a fact puts it: before all others if ``first``, or behind them."""
        before, entry.state = entry.state, NEXT[fact][entry.state]
        after = entry.state
        if after is WAITING:
            for flight in entry.flights:
                if entry not in flight.queue:
                    flight.queue.insert(0 if first else len(flight.queue), entry)
        elif before is WAITING:
            for flight in entry.flights:
                flight.queue.remove(entry)
        if before is KEPT and after is not KEPT:
            self.kept.take(entry)
        elif after is KEPT and (before is not KEPT or (fact is Fact.FAILED and not first)):
            self.kept.put(entry, first=first)
        if after is GONE:
            del self.entries[entry.batch.id]

    # ── waiting ────────────────────────────────────────────────────────────────────────────────

    def account(self, batch: Batch, flight: Flight) -> Entry:
        """Let ``flight`` account for a batch, be it new or known."""
        entry = self.entries.get(batch.id)
        if entry is None:
            entry = self.entries[batch.id] = Entry(batch)
            entry.release = flight.release
        else:  # Work that was done again while its batch was not settled: one batch, two accounts.
            self.orders.release.append((flight.release, len(batch)))
        self.join(entry, flight)
        return entry

    def join(self, entry: Entry, flight: Flight) -> None:
        """Let ``flight`` account for an entry, and send it, unless it travels already."""
        if flight not in entry.flights:
            entry.flights.append(flight)
        flight.pending[entry.batch.id] = entry
        if flight not in self.flights:
            self.flights.append(flight)
        self.move(entry, Fact.JOINED_SENT if entry.attempts else Fact.JOINED)

    def absorb(self, flight: Flight, other: Flight) -> None:
        """Let ``flight`` account for all that ``other`` does, for which nobody waits."""
        for entry in list(other.pending.values()):
            entry.flights.remove(other)
            self.join(entry, flight)
        flight.absorb(other)
        other.is_closed = True
        self.leave(other)

    def leave(self, flight: Flight) -> None:
        """There is nothing to wait for, or nobody who waits."""
        if flight in self.flights:
            self.flights.remove(flight)

    def give_up(self, flight: Flight, entry: Entry, failure: Failed) -> None:
        """A flight waits for an entry no more: it is written down, and if no other waits, kept.

        The response that waited goes back, after which a platform may end the process.
        """
        flight.given_up(entry.batch, failure)
        self.write_down(entry, failure.reason)
        if len(entry.flights) > 1:
            if entry.state is WAITING:
                flight.queue.remove(entry)
            entry.flights.remove(flight)
        else:
            self.move(entry, Fact.LEFT)
            entry.flights.clear()
            self._release(entry)
            self._drop_excess()
        if not flight.pending:
            self.leave(flight)

    # ── kept ───────────────────────────────────────────────────────────────────────────────────

    def keep(self, entry: Entry, reason: ErrorKind | None) -> None:
        """Keep an entry that no flight accounts for; for a ``reason``, write it down."""
        self._put(entry, KEPT, first=False)
        if reason is not None:
            self.write_down(entry, reason)
        self._drop_excess()

    def _put(self, entry: Entry, state: State, *, first: bool) -> None:
        """Put a new entry where it belongs."""
        self.entries[entry.batch.id] = entry
        entry.state = state
        for flight in entry.flights:
            flight.pending[entry.batch.id] = entry
            flight.queue.insert(0 if first else len(flight.queue), entry)
        if state is KEPT:
            self.kept.put(entry, first=first)

    def _drop_excess(self) -> None:
        """Drop the oldest entries beyond the bounds."""
        dropped: list[str] = []
        while (oldest := self.kept.excess) is not None:
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
            self.orders.release.append((entry.release, len(entry.batch.event_ids)))

    def write_down(self, entry: Entry, reason: ErrorKind) -> None:
        """Order that an entry is written to the log of dead letters, once."""
        if not entry.is_written:
            entry.is_written = True
            self.orders.write_down.append((entry, reason))

    # ── settled, or taken apart ────────────────────────────────────────────────────────────────

    def forget(self, entry: Entry) -> None:
        """An entry is settled, or will never be."""
        self.move(entry, Fact.ENDED)
        self.orders.settled.append(entry.batch.id)
        self._release(entry)

    def settle(self, entry: Entry, result: Settled) -> None:
        """The server has decided: the flights have it on their account, or it is reported."""
        self.forget(entry)
        if not entry.flights:
            self.orders.report += result.errors()
        for flight in entry.flights:
            flight.settled(entry.batch, result)
            if not flight.pending:
                self.leave(flight)

    def abandon(self, entry: Entry, failure: Failed) -> None:
        """An event cannot be delivered: it stands in the log, and is left alone."""
        why = f"it cannot be delivered, though others can: {failure.message}"
        self.write_down(entry, failure.reason)
        self.orders.given_up.append(entry.batch.id)
        self.forget(entry)
        for flight in entry.flights:
            flight.given_up(entry.batch, Failed(failure.reason, why))
            if not flight.pending:
                self.leave(flight)
        if not entry.flights:
            text = f"{counted(len(entry.batch))} given up: {why}"
            self.orders.report.append(DoowError(text, failure.reason, entry.batch.event_ids))

    def halve(self, entry: Entry, halves: tuple[Batch, Batch]) -> None:
        """Let two batches stand for one, in its place: what was known of it holds for them."""
        state = WAITING if entry.flights else KEPT
        self.move(entry, Fact.ENDED)
        for flight in entry.flights:
            del flight.pending[entry.batch.id]
        for half in reversed(halves):
            known = self.entries.get(half.id)
            if known is None:
                self._put(entry.part(half), state, first=True)
            else:
                self._join_half(entry, known)
        self.orders.split.append((entry.batch, halves, entry.is_written))

    def _join_half(self, entry: Entry, half: Entry) -> None:
        """Let those that waited for an entry wait for its half, which is known from before."""
        if entry.flights and not entry.is_released and entry.release is not None:
            self.orders.release.append((entry.release, len(half.batch)))
        for flight in entry.flights:
            self.join(half, flight)
