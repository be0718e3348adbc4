"""Folding: events that say the same become one, whose quantity is their exact sum.

Which metrics may is the user's to say: one event of five means five of one only where Doow
aggregates a metric as a sum.
"""

from __future__ import annotations

from .event import MAX_EVENT_BYTES
from .quantities import Measurements, total

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .event import Event, EventLog, EventTemplate
    from .quantities import Quantity

_HOUR_S = 3_600
_NOWHERE: Any = (float("inf"), None)


class Folds:
    """Where in the list of a buffer the events stand that others may become a part of.

    They are those of one full hour (UTC): no event reaches over it, so that periods stay right. But
    where the ids of events derive from their work, they are of all hours: done again at another
    time, the work would else leave in other parts, and count twice.

    Every method is called with the buffer's lock held, and may be interrupted by a signal whose
    handler records, or flushes. So an event that has been replaced, or has moved, is not there any
    more; and where one is replaced, nothing is called between asking and doing, so that no signal
    comes in between.

    Args:
        by_hour: Whether they are of one hour.
    """

    __slots__ = ("_begin", "_by_hour", "_end", "_places")

    def __init__(self, *, by_hour: bool) -> None:
        self._by_hour = by_hour
        self.leave()

    def leave(self) -> None:
        """The list has left, and another takes its place."""
        self._places: dict[object, tuple[int, Event]] = {}
        self._begin, self._end = 0.0, 0.0 if self._by_hour else float("inf")

    def put(self, at: int, event: Event) -> None:
        """Others may become a part of ``event``, which stands there."""
        time: Any = event[1]  # A number, since it has no time of its own.
        if not self._begin <= time < self._end:
            self._places = {}
            self._begin = time // _HOUR_S * _HOUR_S
            self._end = self._begin + _HOUR_S
        self._places[_key(event[2], event[3])] = at, event

    def fold(
        self,
        events: list[Event],
        time: Any,
        template: EventTemplate,
        quantity: Quantity,
        log: EventLog | None,
        taken: list[Event] | None = None,
        at: int = 0,
    ) -> bool:
        """Make an event a part of one that says the same; whether there is one.

        Args:
            events: The list.
            time: Its own, in Unix seconds.
            template: What it says.
            quantity: Of which.
            log: Is told before anyone can seal the whole.
            taken: Where it is from: it is deleted there at the same moment.
            at: Where it stands in ``taken``.
        """
        key = _key(template, quantity) if isinstance(quantity, str) else template
        while True:
            places = self._places
            if not self._begin <= time < self._end:
                return False
            place, whole = places.get(key, _NOWHERE)
            if place >= len(events) or events[place] is not whole:
                return False
            amount = total(whole[3], quantity)
            if amount is None or (
                type(amount) is not int and template.size + len(str(amount)) > MAX_EVENT_BYTES
            ):
                return False
            # As max() has it, without the time that a call takes.
            last = time if time > whole[1] else whole[1]  # noqa: FURB136
            grown = (whole[0], last, template, amount, None)
            if log is not None:
                log.replace(grown)
            if self._places is places and events[place] is whole:
                events[place] = grown
                if taken is not None:
                    del taken[at]
                places[key] = place, grown
                return True

    def fold_all(self, events: list[Event], others: list[Event], log: EventLog | None) -> list[int]:
        """Make parts of what may be of ``others``, and delete it there.

        Returns:
            Where in ``others`` those stand that may, and found none that says the same.
        """
        for at in range(len(others) - 1, -1, -1):
            if _may_fold(others[at]):
                self.fold(events, *others[at][1:4], log, others, at)
        return [at for at, event in enumerate(others) if _may_fold(event)]


def _may_fold(event: Event) -> bool:
    """Whether ``event`` has nothing of its own but its quantity: no id, time or metadata."""
    event_id, time, template, _, metadata = event
    return template.folds and not event_id and metadata is None and type(time) is float


def _key(template: EventTemplate, quantity: Quantity) -> object:
    """What events have in common that say the same."""
    return (template, quantity.names) if type(quantity) is Measurements else template
