"""Folds events that were read back: those that say the same become one, of their exact sum.

The rules are those of folding within an invocation. Whether an event had an id or a time of its own
cannot be told any more; so all fold that have no metadata, and none reaches over the full hour.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from itertools import count
from typing import Any

from doow_serverless._recording.event import MAX_EVENT_BYTES
from doow_serverless._recording.ids import derived_id
from doow_serverless._recording.quantities import total
from doow_serverless._sealing import seal_texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from doow_serverless._sealing import Batch

_FIELDS = frozenset(
    {
        "attribution", "event_id", "kind", "license_id", "measurements", "occurred_at",
        "source_system", "unit",
    }
)  # fmt: skip
_MEASURED = frozenset({"metric_name", "metric_tuple_hint", "quantity"})
_HOUR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d):\d\d:\d\d(?:\.\d+)?Z", re.ASCII)


_MOST_LEVELS = 100
"""Levels of nesting; writing an event takes some frames of the stack for each, and ours have 40."""


def _is_shallow(value: dict[str, Any] | list[Any], levels: int) -> bool:
    """Return whether ``value`` has no more than so many ``levels`` below it."""
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, (dict, list)) and (not levels or not _is_shallow(each, levels - 1)):
            return False
    return True


def read(text: str) -> Any:
    """JSON, with decimals as they are written; raises ValueError."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse)


def written(value: Any) -> str:
    """JSON again, in ASCII."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name)}:{written(value[name])}' for name in value)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


class Folded:
    """Events in the order of their coming, folded if they may be.

    Args:
        fold: Whether events fold, or those of which metrics.
        events: Those that another one has had, as it had them.

    Attributes:
        events: The events, each as it is written but for `Decimal`; those that several have become
            have no id yet.
    """

    def __init__(self, fold: bool | Container[str], events: Iterable[dict[str, Any]] = ()) -> None:
        self.events = list(events)
        self._fold = fold
        # Those that could not become one before do not now.
        keys = ((self._key(event), place) for place, event in enumerate(self.events))
        self._places: dict[str, int] = {key: place for key, place in keys if key is not None}

    def take(self, batch: Batch) -> int:
        """Take in the events of ``batch``, and return their characters as JSON.

        If they cannot be read, none is taken in, and it returns 0.
        """
        text = batch.json()
        try:
            events = read(text)["events"]
        except (ValueError, ArithmeticError, RecursionError):
            return 0
        if not _is_shallow(events, _MOST_LEVELS):
            return 0
        for event in events:
            self.add(event)
        return len(text)

    def add(self, event: dict[str, Any]) -> None:
        """Take in an event, which becomes ours."""
        key = self._key(event)
        if key is None:
            self.events.append(event)
            return
        place = self._places.get(key)
        if place is not None:
            whole = _sum(self.events[place], event)
            if whole is not None:
                self.events[place] = whole
                return
        self._places[key] = len(self.events)
        self.events.append(event)

    def sealed(self, base: str) -> Iterator[Batch]:
        """The events in batches, whose ids, and those of folded events, derive from ``base``."""
        for place, event in enumerate(self.events):
            event["event_id"] = event["event_id"] or derived_id(base, "event", str(place))
        ids = [event["event_id"] for event in self.events]
        numbers = count(1)
        return seal_texts(
            ids,
            [written(event) for event in self.events],
            make_id=lambda _: derived_id(base, "batch", str(next(numbers))),
        )

    def _key(self, event: dict[str, Any]) -> str | None:
        """What events have in common that may become one; None where this may not."""
        try:
            hour = _HOUR.fullmatch(event["occurred_at"])
            measurements = event["measurements"]
            if not measurements or not all(map(self._folds, measurements)):
                return None
            rest = {name: event[name] for name in event if name not in {"event_id", "occurred_at"}}
            rest["measurements"] = [{**one, "quantity": None} for one in measurements]
        except (KeyError, TypeError, AttributeError):
            return None  # It is no event of ours, and Doow's to refuse.
        return hour[1] + written(rest) if hour and event.keys() <= _FIELDS else None

    def _folds(self, measurement: dict[str, Any]) -> bool:
        metric, quantity = measurement["metric_name"], measurement["quantity"]
        is_wanted = self._fold if isinstance(self._fold, bool) else metric in self._fold
        is_ours = isinstance(metric, str) and type(quantity) in {int, Decimal}
        return is_wanted and is_ours and measurement.keys() <= _MEASURED


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """Both in one, which has the time of the later; None where it would break a rule."""
    measurements = []
    for mine, theirs in zip(one["measurements"], other["measurements"], strict=True):
        amount = total(_quantity(mine), _quantity(theirs))
        if amount is None:
            return None
        measurements.append({**mine, "quantity": Decimal(str(amount))})
    times = one["occurred_at"], other["occurred_at"]
    later = max(times, key=_moment)
    whole = {**one, "event_id": None, "occurred_at": later, "measurements": measurements}
    return whole if len(written(whole)) <= MAX_EVENT_BYTES else None


def _quantity(measurement: dict[str, Any]) -> int | str:
    quantity = measurement["quantity"]
    return quantity if type(quantity) is int else str(quantity)


def _moment(time: str) -> str:
    return time.removesuffix("Z")


def _refuse(constant: str) -> object:
    raise ValueError(constant)
