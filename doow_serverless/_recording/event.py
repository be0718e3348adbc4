"""An event, as a plain tuple of checked values, and the template that events share.

An application repeats most of an event from call to call: all but its id, its time, its quantity
and its metadata. That part is a *template*: checked and written as JSON once, looked up from then
on, since ten thousand events may be recorded in one invocation.
"""

from __future__ import annotations

import json
import sys
from enum import Enum, EnumMeta
from weakref import WeakValueDictionary

from doow_serverless._process.signals import is_from_signal
from doow_serverless._redaction import Unreadable, show
from doow_serverless.errors import InvalidEvent

from .labels import fit, fit_text
from .plain import PLAIN, entries, plain
from .rules import (
    MAX_ATTRIBUTES,
    check_attribution,
    check_kind,
    check_measurements,
    check_text,
    measurements_json,
    number_json,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from typing import Any, Protocol, TypeAlias

    from .rules import LeftOut

    # Whether events of all metrics fold, or of which.
    Fold: TypeAlias = bool | frozenset[str]

    # id, time (Unix seconds, or ISO text), template, quantity (a number, or the JSON that stands in
    # its place), metadata as JSON.
    Event: TypeAlias = tuple[str, float | str, "EventTemplate", int | float | str, str | None]

    # One that may have no id yet.
    Recorded: TypeAlias = tuple[
        str | None, float | str, "EventTemplate", int | float | str, str | None
    ]

    # What a caller says of an event beside metric, quantity, time, id and metadata: license id,
    # unit, attribution, kind, source system, hint.
    Labels: TypeAlias = tuple[
        str | None, str | None, Mapping[str, Any] | None, str, str | None, Mapping[str, str] | None
    ]

    # The same, checked; without the attribution of the defaults.
    Fields: TypeAlias = tuple[str, str | None, str, str, dict[str, Any], dict[str, str]]

    class EventLog(Protocol):
        """Keeps recorded events where they outlive the process."""

        def record_many(self, events: Iterable[Event]) -> None:
            """Note events before they can be sealed. Called with a buffer's lock held."""

        def replace(self, event: Event) -> None:
            """Note an event in the place of one of its id, that is not sealed; likewise."""

        def is_interrupted(self) -> bool:
            """Whether this thread has been interrupted while it held the log's own lock."""


MAX_EVENT_BYTES = 256 * 1024
"""Bytes of an event as JSON, metadata included."""

_MAX_ATTRIBUTION = MAX_EVENT_BYTES - 16 * 1024
"""Bytes of an attribution as JSON: the rest of an event, but for metadata, fits besides."""

_templates_that_fold: WeakValueDictionary[tuple[str, str], EventTemplate] = WeakValueDictionary()
_quoted = json.JSONEncoder().encode
_HINT_FIELDS = ("app_name", "license_name", "metric_name")
_MAX_CACHED = 1_024
_MAX_CHARACTERS = 1_000_000
_MAX_WEIGHT = 100_000
"""Characters of a key of templates that may be kept as the caller passed it."""
_HASHES = {str.__hash__, int.__hash__, object.__hash__, Enum.__hash__}
_COMPARES = {str.__eq__, int.__eq__, object.__eq__}
_LICENSE_REMEDY = (
    "pass license_id=… to track(), tracked() or configure(), or set DOOW_TRACK_LICENSE_ID"
)


class EventTemplate:
    """The JSON of an event before and after its quantity, without id, time and metadata.

    Attributes:
        before, after: The JSON.
        size: Its characters.
        folds: Whether events that say the same may become one; then there is one such template.
    """

    __slots__ = ("__weakref__", "after", "before", "folds", "size")

    def __init__(self, before: str, after: str, *, folds: bool = False) -> None:
        self.before = before
        self.after = after
        self.size = len(before) + len(after)
        self.folds = folds

    def __repr__(self) -> str:
        return f"EventTemplate({self.before}…{self.after})"


class Cache(dict):  # type: ignore[type-arg]  # of whatever its two users keep in it
    """A dict that is emptied when it would hold too many entries, or too much text in them."""

    __slots__ = ("_characters",)

    def put(self, key: Hashable, value: object, characters: int) -> None:
        """Keep ``value``, which holds so many characters, under ``key``."""
        self._characters: int = getattr(self, "_characters", 0) + characters
        if len(self) >= _MAX_CACHED or self._characters > _MAX_CHARACTERS:
            self.clear()
            self._characters = characters
        self[key] = value


class Defaults:
    """What events take from their surroundings: a license, an attribution, and known templates.

    Args:
        license_id: The license of events that name none.
        attribution: Attribution of all events, under their own.
        removed: Receives what is left out of events, until somebody reports it and empties the
            list.
        fold: Whether events that say the same become one, of all metrics or of which.
        remedy: What to do where there is no license.
    """

    __slots__ = (
        "_overlaid",
        "_remedy",
        "_templates",
        "attribution",
        "fold",
        "license_id",
        "removed",
    )

    def __init__(
        self,
        license_id: str | None,
        attribution: Mapping[str, Any] | None,
        removed: list[LeftOut],
        fold: Fold = False,
        remedy: str = _LICENSE_REMEDY,
    ) -> None:
        self._remedy = remedy
        self.fold = fold
        self.license_id = license_id
        self.removed = removed
        self.attribution = check_attribution(attribution, removed)
        self._templates = Cache()
        self._overlaid = Cache()

    def __repr__(self) -> str:
        return f"Defaults({self.license_id!r}, {self.attribution!r})"

    def overlaid(
        self, key: Hashable, license_id: str | None, attribution: Any, fold: Fold | None = None
    ) -> Defaults:
        """These defaults under those of a nested wrapper; made once for each ``key``."""
        defaults: Defaults | None = self._overlaid.get(key)
        if defaults is None:
            merged = {**self.attribution, **(attribution or {})}
            fold = self.fold if fold is None else fold
            defaults = Defaults(license_id or self.license_id, merged, self.removed, fold)
            self._overlaid.put(key, defaults, sum(map(_length, merged.values())))
        return defaults

    def template(self, metric: str, labels: Labels) -> EventTemplate:
        """The template of events of one metric; looked up, or else checked and written.

        Raises:
            InvalidEvent: A field breaks a rule.
        """
        attribution, hint = labels[2], labels[5]
        try:
            if attribution is None and hint is None:
                key: Hashable = (metric, labels)
            else:
                key = (metric, *labels[:2], *labels[3:5], _frozen(attribution), _frozen(hint))
            known: EventTemplate | None = self._templates.get(key)
        except TypeError:  # Something is no dict, or cannot be hashed.
            return self._read(metric, labels, None)
        except BaseException as fault:  # Of a method of theirs.
            if is_from_signal(fault):
                raise
            return self._read(metric, labels, None)
        return self._read(metric, labels, key) if known is None else known

    def _read(self, metric: Any, labels: Labels, given: Hashable) -> EventTemplate:
        """Read the values that the caller passed, of which ``given`` is the key, if any."""
        name = check_text("metric", metric)
        fields = self._checked(labels)
        weight = _MAX_WEIGHT + 1 if given is None else _weight(metric, labels)
        if weight > _MAX_WEIGHT:
            # Their own methods would be asked at each look-up, by events that are not theirs.
            given = (name, *fields[:4], _frozen(fields[4]), _frozen(fields[5]))
            known: EventTemplate | None = self._templates.get(given)
            if known is not None:
                return known
        made = self._written(fields, name)
        self._templates.put(given, made, made.size + min(weight, _MAX_WEIGHT))
        return made

    def template_of_many(self, labels: Labels) -> EventTemplate:
        """The template of an event with several measurements, which stand in the quantity's place.

        Raises:
            InvalidEvent: A field breaks a rule.
        """
        return self._written(self._checked(labels))

    def measurements(self, measurements: Any, kind: str) -> str:
        """Several measurements, checked, as JSON; raises InvalidEvent."""
        pairs = check_measurements(measurements, kind)
        if self._folds(name for name, _ in pairs):
            from .quantities import Measurements  # Only who asks for it pays for its import.

            return Measurements(pairs)
        return measurements_json(pairs)

    def _folds(self, metrics: Iterable[str]) -> bool:
        """Whether events of these metrics fold."""
        return self.fold if isinstance(self.fold, bool) else self.fold.issuperset(metrics)

    def _checked(self, labels: Labels) -> Fields:
        """The labels, read and checked; what cannot be said goes to ``removed``."""
        license_id, unit, attribution, kind, source_system, hint = labels
        license_id, unit, source_system = plain(license_id), plain(unit), plain(source_system)
        if license_id is None:
            license_id = self.license_id
        if license_id is None:
            raise InvalidEvent(f"license_id is missing: {self._remedy}")
        license_id = check_text("license_id", license_id)
        kind = check_kind(kind)
        own = check_attribution(attribution, self.removed, lenient=True)
        if source_system is not None and source_system != "":
            source_system = fit_text("source_system", source_system, self.removed)
        return (
            license_id,
            None if unit is None else fit_text("unit", unit, self.removed),
            kind,
            source_system or "sdk",
            own,
            fit(lambda: _checked_hint(hint), self.removed) or {},
        )

    def _written(self, checked: Fields, metric: str | None = None) -> EventTemplate:
        """The labels as JSON, of one ``metric``, or else of several."""
        license_id, unit, kind, source_system, own, hint = checked
        fields = {
            "license_id": _quoted(license_id),
            "source_system": _quoted(source_system),
            "kind": _quoted(kind),
        }
        if unit is not None:
            fields["unit"] = _quoted(unit)
        if self.attribution or own:
            written = _attribution_json({**self.attribution, **own})
            if len(written) <= _MAX_ATTRIBUTION:
                fields["attribution"] = written
            else:
                self.removed.append(
                    InvalidEvent(
                        f"attribution is {len(written):,} bytes of JSON, {_MAX_ATTRIBUTION:,} are "
                        "allowed"
                    )
                )
        before = ",".join(f'"{name}":{value}' for name, value in fields.items())
        before, after = f'{before},"measurements":[', "]"
        if metric is None:
            return EventTemplate(before, after) if not self.fold else _folding(before, after)
        before += f'{{"metric_name":{_quoted(metric)},"quantity":'
        after = f"{_hint_json(hint)}}}]"
        if self._folds((metric,)):
            return _folding(before, after)
        return EventTemplate(before, after)


def _folding(before: str, after: str) -> EventTemplate:
    """The one template of these texts whose events fold, whichever defaults have asked for it."""
    made = EventTemplate(before, after, folds=True)
    return _templates_that_fold.setdefault((before, after), made)


def room_of(template: EventTemplate, quantity: object) -> int:
    """Bytes that are left for metadata; raises InvalidEvent for more than `MAX_EVENT_BYTES`."""
    size = template.size + len(str(quantity))
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(
            f"the event is {size:,} bytes of JSON, {MAX_EVENT_BYTES:,} are allowed: "
            "split its measurements"
        )
    return MAX_EVENT_BYTES - size


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def _frozen(labels: Mapping[str, Any] | None) -> Hashable:
    """What two mappings have in common only if their JSON is the same; TypeError if it is no dict.

    Only a dict is looked up as it is, and a small one: others may do anything.
    """
    if labels is None:
        return None
    if type(labels) is not dict or len(labels) > MAX_ATTRIBUTES:
        raise TypeError
    # 1, 1.0 and True are equal to Python, and differ as JSON.
    return (*labels.items(), *map(type, labels.values()))


def _weight(metric: str, labels: Labels) -> int:
    """Characters of the labels as passed; more than `_MAX_WEIGHT` unless all can be looked up.

    Each mapping is None or a small dict.
    """
    parts: list[Any] = [metric, *labels[:2], *labels[3:5]]
    for mapping in (labels[2], labels[5]):
        for pair in () if mapping is None else list(mapping.items()):
            parts += pair
    if all(_is_trusted(type(part)) for part in parts):
        return sum(map(_length, parts))
    return _MAX_WEIGHT + 1


def _is_trusted(kind: type) -> bool:
    """Return True if values of this type are hashed and compared by Python's own methods."""
    if kind in PLAIN or kind is getattr(sys.modules.get("uuid"), "UUID", None):
        return True
    return type(kind) is EnumMeta and kind.__hash__ in _HASHES and kind.__eq__ in _COMPARES


def _attribution_json(attribution: Mapping[str, Any]) -> str:
    pairs = (f"{_quoted(name)}:{_scalar_json(value)}" for name, value in attribution.items())
    return "{" + ",".join(pairs) + "}"


def _scalar_json(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    return str(number_json("attribution", value))


def _checked_hint(hint: Any) -> dict[str, str]:
    hint = plain(hint)
    if hint is None:
        return {}
    found = entries(hint, len(_HINT_FIELDS) + 1)
    pairs = found if type(found) is list else []
    fields = {said: value for name, value in pairs if type(said := plain(name)) is str}
    if len(pairs) != len(fields) or sorted(fields) != sorted(_HINT_FIELDS):
        example = "{'app_name': …, 'license_name': …, 'metric_name': …}"
        wrong = found if type(found) is Unreadable else hint
        raise InvalidEvent(f"metric_tuple_hint must be {example}, not {show(wrong)}")
    return {name: check_text(f"metric_tuple_hint.{name}", fields[name]) for name in fields}


def _hint_json(hint: dict[str, str]) -> str:
    pairs = ",".join(f'"{name}":{_quoted(value)}' for name, value in hint.items())
    return f',"metric_tuple_hint":{{{pairs}}}' if hint else ""
