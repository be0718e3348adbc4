"""Where recorded events wait: the buffer of an invocation, and those of its transactions.

A buffer is shared by everything that runs for one invocation, on whatever thread or task.
Finalizers and handlers of signals may record as well, in the middle of whatever their thread is
doing: its lock may be taken again by whoever holds it, no step here minds such an interruption, and
where waiting for it could be for ever, the event is set aside until the next one takes the lock.
"""

from __future__ import annotations

import threading
from weakref import WeakSet

from doow_serverless._process.forks import begins_anew, listed, reset_in_child

from .ids import DerivedIds, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .event import Event, EventLog, EventTemplate, Recorded
    from .folding import Folds
    from .ids import Identity

NO_BOUND = float("inf")
FULL = 1_000_000_000
"""Told in the place of a number of events that wait, where they fill a batch by their size."""
_UNNAMED = ""
"""The id of an event that is named once its transaction has succeeded."""
_COUNT = tuple(f"{number:02x}" for number in range(256))
_buffers: WeakSet[Buffer] = WeakSet()


class Buffer:
    """Events that have not left yet: those of an invocation, of a transaction, or unattended ones.

    Every method may be called from any thread.

    Args:
        bound: How many events may be in hand: recorded, and neither settled nor kept elsewhere.
        max_bytes: How many bytes of JSON these may have, to a few percent.
        batch_bytes: Bytes of JSON that fill a batch.
        parent: The buffer that a transaction's events go to once it succeeds. A transaction shares
            the bound of the outermost.
        identity: What identifies the work that records here, should it be done again: then the ids
            of its events derive from it. Default: random ids, or as the parent has it.
        log: Writes events down as they are recorded, for the next process to recover.
        dropped: Is given the events of a buffer that is garbage-collected before its invocation
            ended, as where a WSGI server never calls ``close()``. It must take no locks.

    Attributes:
        sealing: Held by whoever seals what has left, so that batches keep their order.
        leaving: Lots of events that fill a batch each, and are to be sealed.
        flights: What is on its way from here and was not accounted for yet; delivery's own.
        folded: Calls of ``track`` that became a part of an event that waited already.
        in_hand: Events recorded here, or in a transaction of it, that are neither settled nor kept
            elsewhere.
        is_closed: Whether it takes no more events, since its invocation is over.
        is_endless: Whether no invocation of this process may end it: what is recorded here leaves
            soon, and at the end of the process; that of a transaction at the end alone.
        refused: Events that the bound has refused.
    """

    __slots__ = (
        "__weakref__",
        "_aside",
        "_batch_bytes",
        "_bound",
        "_bytes_in_hand",
        "_bytes_waiting",
        "_derived",
        "_dropped",
        "_events",
        "_folds",
        "_full_from",
        "_ids",
        "_lock",
        "_log",
        "_max_bytes",
        "_may_fold",
        "_root",
        "flights",
        "folded",
        "in_hand",
        "is_attempt",
        "is_closed",
        "is_endless",
        "leaving",
        "parent",
        "refused",
        "sealing",
    )

    def __init__(
        self,
        bound: int,
        parent: Buffer | None = None,
        identity: Identity | None = None,
        log: EventLog | None = None,
        dropped: Callable[[list[Event]], object] | None = None,
        max_bytes: float = NO_BOUND,
        batch_bytes: float = NO_BOUND,
    ) -> None:
        self._max_bytes = max_bytes
        self._batch_bytes = self._full_from = batch_bytes
        self._bound = bound
        self.parent = parent
        # Not itself, where it is the outermost: it would live until a collection of garbage.
        self._root: Buffer | None = parent and parent.root
        self.is_closed = False
        self.is_endless = False
        self.is_attempt = False
        # Work that is done again after a crash records its events again, under the same ids.
        self._log = log if identity is None else None
        self._derived: DerivedIds | None = None
        if identity is not None:
            self._derived = DerivedIds(*identity)
        elif parent is not None:
            self._derived = parent._derived
        # Not where the ids of events derive from their work, and some may leave before all are
        # recorded: done again, the work would leave in other parts.
        self._may_fold = self._derived is None or parent is not None
        self._lock = threading.RLock()
        self.sealing = threading.Lock()
        self._reset()
        _buffers.add(self)
        self._dropped = dropped

    def __repr__(self) -> str:
        kind = "Transaction" if self.parent else "Buffer"
        state = ", closed" if self.is_closed else ""
        return f"{kind}({len(self._events)} waiting, {self.root.in_hand} in hand{state})"

    def __del__(self) -> None:
        # Without a lock, since the collector may come while this very thread holds it.
        dropped = getattr(self, "_dropped", None)  # It may not have been made in full.
        if dropped is not None and (self._events or self._aside):
            aside = [(event[0] or _UNNAMED, *event[1:]) for event in self._aside]
            dropped([*self._events, *aside])

    def begin_anew(self) -> None:
        """Forget all events, and number the next ones in a series of their own."""
        with self.root._lock:
            self._reset()

    def _reset(self) -> None:
        self._events: list[Event] = []
        self._aside: list[Recorded] = []
        self._bytes_in_hand = 0.0
        self._bytes_waiting = 0
        self._ids: Iterator[str] = iter(())
        self._folds: Folds | None = None
        self.folded = 0
        self.in_hand = 0
        self.refused = 0
        self.leaving: list[list[Event]] = []
        self.flights: list[Any] = []

    def _begin_series(self) -> str:
        """The first id of a new series.

        An event's id is a UUID of version 4 that is random in all but its last two digits, which
        count: a draw for each event would cost more than recording it, and most of the bytes on the
        wire. No series outlives a fork or a snapshot, after which several processes would go on
        counting.
        """
        self._ids = map(new_id()[:-2].__add__, _COUNT)
        return next(self._ids)

    @property
    def root(self) -> Buffer:
        """The outermost buffer around this one, or itself."""
        return self._root or self

    @property
    def depth(self) -> int:
        """How many transactions deep this one is."""
        return 0 if self.parent is None else self.parent.depth + 1

    def leave_soon(self) -> None:
        """Have every event recorded here told as one that fills a batch, but for transactions."""
        self.is_endless = True
        if self.parent is None:
            self._full_from = 0.0

    @property
    def is_idempotent(self) -> bool:
        """Whether the ids of its events derive from what identifies their work."""
        return self._derived is not None

    @property
    def is_idle(self) -> bool:
        """Whether a flush has nothing to do here, nor to tell; no lock is taken."""
        waits = self._events or self._aside or self.leaving or self.flights
        return not (waits or self.refused or self.folded)

    def close_if_idle(self) -> bool:
        """Accept no more, unless a flush has something to do here; whether it is so."""
        with self.root._lock:
            if not self.is_idle:
                return False
            self.is_closed = True
            return True

    @property
    def has_waiting(self) -> bool:
        """Whether events wait here; no lock is taken."""
        return bool(self._events or self._aside)

    @property
    def is_own_work(self) -> bool:
        """Whether this is a transaction around work that may be done again apart from the rest."""
        return self.parent is not None and self._derived is not self.parent._derived

    @property
    def goes_apart(self) -> bool:
        """Whether its events, once it has succeeded, count whatever becomes of what is around."""
        around = self.parent
        if around is not None and around.is_attempt:
            around = around.parent
        root = self.root
        return self.is_own_work and around is root and not root.is_closed

    def transaction(self, identity: str | None = None) -> Buffer:
        """A buffer whose events come here only if it is committed.

        Its own ``identity`` counts only where this one has one, too: where the ids of events are
        to derive from their work at all.
        """
        derived = self._derived
        own = None if identity is None or derived is None else (derived.function, identity)
        return Buffer(self._bound, self, own, dropped=self._dropped)

    def open(self) -> Buffer | None:
        """This buffer, or the nearest around it that still accepts events."""
        buffer: Buffer | None = self
        while buffer is not None and buffer.is_closed:
            buffer = buffer.parent
        return buffer

    def record(
        self,
        event_id: str | None,
        time: float | str,
        template: EventTemplate,
        quantity: float | str,
        metadata: str | None,
    ) -> int | None:
        """Keep an event; the number of events that wait, 0 if it was refused, None if closed."""
        root = self._root or self
        if not root._lock.acquire(False):
            if self._log is not None and self._log.is_interrupted():
                # Those who hold our lock wait for a lock of the journal that this thread holds.
                self._aside.append((event_id, time, template, quantity, metadata))
                return 1
            root._lock.acquire()
        try:
            if self.is_closed:
                return None
            folds = None
            if template.folds and event_id is None and metadata is None and type(time) is float:
                folds = self._folds or self._begin_folding()
            if folds and folds.fold(self._events, time, template, quantity, self._log):
                self.folded += 1
                return len(self._events) if self._bytes_waiting < self._full_from else FULL
            if root.in_hand >= root._bound or root._bytes_in_hand >= root._max_bytes:
                root.refused += 1
                return 0
            size = template.size if metadata is None else template.size + len(metadata)
            root.in_hand += 1
            root._bytes_in_hand += size
            self._bytes_waiting += size
            if event_id is None:
                # One that folds in a transaction is named by whoever adopts it, once it is whole.
                is_part = folds is not None and self.parent is not None
                event_id = (
                    next(root._ids, None) or root._begin_series()  # As `_new_id`, without a call.
                    if self._derived is None and not is_part
                    else (_UNNAMED if is_part else self._new_id(template, quantity, metadata))
                )
            event = (event_id, time, template, quantity, metadata)
            if self._log is not None:
                # Before anyone can seal it: a batch in the journal stands for its events.
                self._log.record_many((event,))
            self._events.append(event)
            if folds is not None:
                folds.put(len(self._events) - 1, event)
            return len(self._events) if self._bytes_waiting < self._full_from else FULL
        finally:
            root._lock.release()

    def _new_id(self, template: EventTemplate, quantity: float | str, metadata: str | None) -> str:
        if self._derived is None:
            root = self._root or self
            return next(root._ids, None) or root._begin_series()
        if self.parent is not None and not self.is_own_work:
            # Named once it is adopted: what a transaction discards must not count, since the
            # transaction may succeed at once when the work is done again.
            return _UNNAMED
        return self._derived.next(f"{template.before}{quantity}{template.after}{metadata}")

    def take(self, at_least: int = 1) -> list[Event]:
        """All events that wait, if they are so many, or fill a batch; they stay in hand."""
        return self._take(at_least) if self._events or self._aside else []

    def take_last(self) -> list[Event]:
        """Take all events, and accept no more."""
        return self._take(1, is_last=True)

    def _take(self, at_least: int, *, is_last: bool = False) -> list[Event]:
        events: list[Event] = []
        try:
            with (self._root or self)._lock:
                if self._has(at_least):
                    events, self._events = self._events, []
                    self._note_left()
                    if self.parent is not None and self.is_own_work:
                        events = [self._named(event) for event in events]
                self.is_closed |= is_last
        except BaseException:  # Raised by a signal, just then.
            self._events[:0] = events
            raise
        return events

    def set_off(self, at_least: int = 1, *, is_last: bool = False) -> bool:
        """Move to :attr:`leaving` what waits, if it is so much or fills a batch; whether it was.

        If ``is_last``, accept no more.
        """
        with (self._root or self)._lock:
            is_enough = self._has(at_least)
            self.is_closed |= is_last
            if not is_enough:
                return False
            lot = self._events
            try:
                self.leaving.append(lot)
            finally:  # Also if the handler of a signal has raised just now.
                if self.leaving and self.leaving[-1] is lot:
                    self._events = []
            self._note_left()
            return True

    def _has(self, at_least: int) -> bool:
        """Whether so many events wait, or fill a batch; with the lock held."""
        if self._aside:
            self._take_in()
        is_full = len(self._events) >= at_least or self._bytes_waiting >= self._batch_bytes
        return bool(self._events) and is_full

    def _note_left(self) -> None:
        if self._folds is not None:
            self._folds.leave()
        self._bytes_waiting = 0

    @property
    def is_held_here(self) -> bool:
        """Whether this thread holds the lock, and was interrupted by a finalizer or a signal."""
        return bool(self.root._lock._is_owned())  # type: ignore[attr-defined]  # as `Condition` does

    def _take_in(self) -> None:
        """Record what was set aside; with the lock held."""
        while self._aside:
            self.record(*self._aside.pop(0))

    def _named(self, event: Event) -> Event:
        """``event`` with an id, if it has none yet."""
        return event if event[0] != _UNNAMED else (self._new_id(*event[2:]), *event[1:])

    def take_refused(self) -> int:
        """How many events the bound has refused since this was last asked."""
        with self.root._lock:
            refused, self.root.refused = self.root.refused, 0
            return refused

    def take_folded(self) -> int:
        """How many calls have been folded since this was last asked."""
        with self.root._lock:
            folded, self.folded = self.folded, 0
            return folded

    def adopt(self, events: list[Event], other: Buffer | None = None) -> bool:
        """Move events of another buffer here, and their count; False, and none, if closed.

        Args:
            events: In the order of recording. They are deleted from it.
            other: Where they were taken from.
        """
        with self.root._lock:
            if self.is_closed:
                return False
            wholes = [] if other is None else self._fold_those_of(other, events)
            # What may yet grow in a transaction is named by whoever adopts it from there.
            unnamed = {} if self.parent is None else dict.fromkeys(wholes)
            named = [
                event if at in unnamed else self._named(event) for at, event in enumerate(events)
            ]
            size = sum(event[2].size + len(event[4] or "") for event in named)
            if self._log is not None:
                self._log.record_many(named)
            self.root.in_hand += len(named)
            self.root._bytes_in_hand += size
            self._bytes_waiting += size
            # Nothing is called between these two, so that no signal can come in between.
            self._events += named
            del events[:]
            first = len(self._events) - len(named)
            for at in wholes:
                self._folds.put(first + at, named[at])  # type: ignore[union-attr]  # it folds
            return True

    def _begin_folding(self) -> Folds | None:
        """What was recorded here may grow from now on; None where it may not."""
        if self._may_fold:
            from .folding import Folds  # Only who asks for it pays for its import.

            self._folds = Folds(by_hour=self._derived is None)
        return self._folds

    def _fold_those_of(self, other: Buffer, events: list[Event]) -> list[int]:
        """Fold what may be of ``events``; where in the rest of them those are that may yet grow."""
        self.folded += other.take_folded()
        folds = other._folds and (self._folds or self._begin_folding())
        if folds is None:
            return []
        before = len(events)
        wholes = folds.fold_all(self._events, events, self._log)
        self.folded += before - len(events)
        return wholes

    def count(self, events: int) -> None:
        """Change the number of events in hand."""
        root = self._root or self
        with root._lock:
            # Their bytes are reckoned by the average, since a batch knows no sizes of its events.
            average = root._bytes_in_hand / root.in_hand if root.in_hand > 0 else 0.0
            root.in_hand += events
            root._bytes_in_hand = max(0.0, root._bytes_in_hand + events * average)


@reset_in_child
def _leave_to_parent() -> None:
    """Open the locks of threads that are not here, and note what only the parent may end.

    The invocation that a buffer belongs to goes on there. In a child of multiprocessing, which runs
    a function of its own, it never ends.
    """
    for buffer in listed(_buffers):
        buffer._lock = threading.RLock()
        buffer.sealing = threading.Lock()
        if buffer._derived is not None:
            buffer._derived.leave_to_parent()
        buffer.leave_soon()


def endless_transactions() -> list[Buffer]:
    """Those that a forked child has found open, the innermost first: it may never leave them."""
    found = [each for each in listed(_buffers) if each.is_endless and each.parent is not None]
    return sorted(found, key=lambda each: each.depth, reverse=True)


@begins_anew
def _leave_to_others() -> None:
    """Forget the events that another process has recorded, and will send."""
    for buffer in listed(_buffers):
        buffer.begin_anew()
