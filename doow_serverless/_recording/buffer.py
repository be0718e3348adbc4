"""Where recorded events wait: the buffer of an invocation, its transactions, and which is current.

A buffer is shared by everything that runs for one invocation, on whatever thread or task. What is
current is told by a ContextVar, so that concurrent invocations never see each other's.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from weakref import WeakSet

from .ids import DerivedIds, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from doow_serverless._delivery.flight import Shipment
    from doow_serverless._engine import Tracker
    from doow_serverless._keeping.journal import Journal

    from .event import Defaults, Event, Shape
    from .ids import Identity

_UNNAMED = ""
_COUNT = tuple(f"{number:02x}" for number in range(256))
_buffers: WeakSet[Buffer] = WeakSet()


class Buffer:
    """Events that have not left yet: those of an invocation, of a transaction, or a tracker's own.

    Args:
        bound: How many events may be in hand: recorded, and not known to be settled or kept
            elsewhere.
        parent: The buffer that a transaction's events go to once it succeeds. A transaction shares
            the bound of the outermost.
        identity: What identifies the work that records here, should it be done again: then the ids
            of its events derive from it. Default: random ids, or as the parent has it.
        journal: Where events are written down that count, for the next process to recover.
        orphans: Where the events go that it still holds when it is dropped without an end, as by
            a server that never closes a response. Nothing is known to have failed: they count.

    Every method may be called from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_derived",
        "_events",
        "_ids",
        "_journal",
        "_lock",
        "_orphans",
        "in_hand",
        "is_closed",
        "parent",
        "refused",
        "root",
        "shipment",
        "shipping",
    )

    def __init__(
        self,
        bound: int,
        parent: Buffer | None = None,
        identity: Identity | None = None,
        journal: Journal | None = None,
        orphans: deque[list[Event]] | None = None,
    ) -> None:
        self._orphans = orphans
        self._bound = bound
        self.parent = parent
        self.root: Buffer = self if parent is None else parent.root
        self.shipment: Shipment | None = None
        """Batches that left early, until a flush has waited for them."""
        self.shipping = threading.RLock()
        """Held to add to the shipment or to take it away, so that none is added to too late."""
        self.is_closed = False
        # Work that is done again after a crash records its events again, under the same ids.
        self._journal = journal if identity is None else None
        self._derived: DerivedIds | None = None
        if identity is not None:
            self._derived = DerivedIds(*identity)
        elif parent is not None:
            self._derived = parent._derived
        self._begin_anew()
        _buffers.add(self)

    def __del__(self) -> None:
        # Without a lock, since the collector may come while this very thread holds it.
        if self._orphans is not None and self._events:
            self._orphans.append(self._events)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._ids: Iterator[str] = iter(())
        self.in_hand = 0
        self.refused = 0

    def _begin_series(self) -> str:
        """The first id of a new series.

        An event's id is a UUID of version 4 that is random in all but its last two digits, which
        count: a draw for each event would cost more than recording it, and most of the bytes on the
        wire. No series outlives a fork, after which two processes would go on counting.
        """
        self._ids = map(new_id()[:-2].__add__, _COUNT)
        return next(self._ids)

    @property
    def is_idempotent(self) -> bool:
        """Whether the ids of its events derive from what identifies their work."""
        return self._derived is not None

    @property
    def is_own_work(self) -> bool:
        """Whether this is a transaction around work that may be done again apart from the rest."""
        return self.parent is not None and self._derived is not self.parent._derived

    def transaction(self, identity: str | None = None) -> Buffer:
        """A buffer whose events come here only if it is committed.

        Its own ``identity`` counts only where this one has one, too: where the ids of events are
        to derive from their work at all.
        """
        derived = self._derived
        own = None if identity is None or derived is None else (derived.function, identity)
        return Buffer(self._bound, self, own, orphans=self._orphans)

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
        shape: Shape,
        quantity: float | str,
        metadata: str | None,
    ) -> int | None:
        """Keep an event; the number of events that wait, 0 if it was refused, None if closed."""
        root = self.root
        with root._lock:
            if self.is_closed:
                return None
            if root.in_hand >= root._bound:
                root.refused += 1
                return 0
            root.in_hand += 1
            if event_id is None:
                event_id = self._new_id(shape, quantity, metadata)
            event = (event_id, time, shape, quantity, metadata)
            if self._journal is not None:
                # Before anyone can seal it: a batch in the journal stands for its events.
                self._journal.record(event)
            self._events.append(event)
            return len(self._events)

    def _new_id(self, shape: Shape, quantity: float | str, metadata: str | None) -> str:
        if self._derived is None:
            return next(self.root._ids, None) or self.root._begin_series()
        if self.parent is not None and not self.is_own_work:
            # Named once it is adopted: what a transaction discards must not count, since the
            # transaction may succeed at once when the work is done again.
            return _UNNAMED
        return self._derived.next(f"{shape.before}{quantity}{shape.after}{metadata}")

    def take(self, at_least: int = 1) -> list[Event]:
        """All events that wait, if they are ``at_least`` so many; they stay in hand."""
        with self.root._lock:
            if len(self._events) < at_least:
                return []
            events, self._events = self._events, []
            return events

    def take_last(self) -> list[Event]:
        """Take all events, and accept no more."""
        with self.root._lock:
            self.is_closed = True
            events, self._events = self._events, []
            return events

    def take_refused(self) -> int:
        """How many events the bound has refused since this was last asked."""
        with self.root._lock:
            refused, self.root.refused = self.root.refused, 0
            return refused

    def adopt(self, events: list[Event]) -> bool:
        """Take over events of another buffer, and their count; False if closed."""
        with self.root._lock:
            if self.is_closed:
                return False
            self.root.in_hand += len(events)
            named = [
                event if event[0] != _UNNAMED else (self._new_id(*event[2:]), *event[1:])
                for event in events
            ]
            if self._journal is not None:
                self._journal.record_many(named)
            self._events += named
            return True

    def count(self, events: int) -> None:
        """Change the number of events in hand."""
        with self.root._lock:
            self.root.in_hand += events


class Scope:
    """What code records into: a buffer, the defaults of events, and the tracker of both."""

    __slots__ = ("buffer", "defaults", "outer", "tracker")

    def __init__(
        self, tracker: Tracker, buffer: Buffer, defaults: Defaults, outer: Scope | None
    ) -> None:
        self.tracker = tracker
        self.buffer = buffer
        self.defaults = defaults
        self.outer = outer

    def of(self, tracker: Tracker) -> Scope | None:
        """The innermost scope of ``tracker``, from here outwards."""
        scope: Scope | None = self
        while scope is not None and scope.tracker is not tracker:
            scope = scope.outer
        return scope


current: ContextVar[Scope | None] = ContextVar("doow_serverless.current", default=None)
"""The scope of the running code; None where no invocation can be seen."""


def _leave_to_parent_process() -> None:
    """In a forked child, forget the events that the parent has recorded, and will send."""
    for buffer in list(_buffers):
        buffer.shipment = None
        buffer.shipping = threading.RLock()
        buffer._begin_anew()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_leave_to_parent_process)
