"""An event, and the rules that it must keep.

An event is a plain tuple, since ten thousand of them may wait in one invocation. Everything but its
id, its time, its quantity and its metadata is its *shape*, which an application repeats from event
to event: a shape is checked and written as JSON once, and looked up from then on.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from decimal import Decimal

from doow_serverless._redaction import looks_secret, scrub, show
from doow_serverless.errors import InvalidEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from typing import Any, TypeAlias

    Number: TypeAlias = int | float | Decimal
    # id, time (Unix seconds, or ISO text), shape, quantity (a number, or the JSON that stands in
    # its place), metadata as JSON.
    Event: TypeAlias = tuple[str, float | str, "Shape", int | float | str, str | None]

MAX_TEXT = 256
"""Characters of a metric, license id, unit, source system, event id or attribution key."""
MAX_VALUE = 4_096
"""Characters of an attribution value."""
MAX_ATTRIBUTES = 100
"""Entries of an attribution."""
MAX_EVENT_BYTES = 256 * 1024
"""Bytes of an event as JSON, metadata included."""
MAX_DIGITS = 64
"""Characters of a number as JSON."""
MAX_DEPTH = 32
"""Levels of nesting in metadata."""

_quoted = json.JSONEncoder().encode
_KINDS = ("USAGE", "ADJUSTMENT")
_HINT_FIELDS = ("app_name", "license_name", "metric_name")
_SHAPES_KEPT = 1_024
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class Shape:
    """All of an event but its id, time, quantity and metadata, as JSON around the quantity."""

    __slots__ = ("after", "before")

    def __init__(self, before: str, after: str) -> None:
        self.before = before
        self.after = after


class Defaults:
    """What events take from their surroundings: a license, an attribution, and known shapes.

    ``removed`` collects the names of entries that looked like credentials, until they are reported.
    """

    __slots__ = ("_children", "attribution", "license_id", "removed", "shapes")

    def __init__(
        self, license_id: str | None, attribution: Mapping[str, Any] | None, removed: list[str]
    ) -> None:
        self.license_id = license_id
        self.removed = removed
        self.attribution = check_attribution(attribution, removed)
        self.shapes: dict[Hashable, Shape] = {}
        self._children: dict[Hashable, Defaults] = {}

    def overlaid(self, key: Hashable, license_id: str | None, attribution: Any) -> Defaults:
        """These defaults under those of a nested wrapper; made once for each ``key``."""
        child = self._children.get(key)
        if child is None:
            merged = {**self.attribution, **(attribution or {})}
            child = Defaults(license_id or self.license_id, merged, self.removed)
            if len(self._children) >= _SHAPES_KEPT:
                self._children.clear()
            self._children[key] = child
        return child

    def shape(
        self,
        metric: str,
        license_id: str | None,
        unit: str | None,
        attribution: Mapping[str, Any] | None,
        kind: str,
        source_system: str | None,
        hint: Mapping[str, str] | None,
    ) -> Shape:
        """The shape of an event with these fields, checked.

        Raises:
            InvalidEvent: A field breaks a rule.
        """
        try:
            # Equal keys must mean equal JSON: 1, 1.0 and True are equal to Python.
            frozen = None
            if attribution is not None and attribution != {}:
                frozen = (tuple(attribution.items()), tuple(map(type, attribution.values())))
            key: tuple[Hashable, ...] = (
                metric,
                license_id,
                unit,
                frozen,
                kind,
                source_system,
                hint and (*hint.items(),),
            )
            shape = self.shapes.get(key)
        except (TypeError, AttributeError):
            # Something is no mapping, or cannot be hashed: the checks below say what.
            key, shape = (), None
        if shape is None:
            shape = self._build((metric,), license_id, unit, attribution, kind, source_system, hint)
            if key:
                if len(self.shapes) >= _SHAPES_KEPT:
                    self.shapes.clear()
                self.shapes[key] = shape
        return shape

    def shape_of_many(
        self,
        license_id: str | None,
        unit: str | None,
        attribution: Mapping[str, Any] | None,
        kind: str,
        source_system: str | None,
    ) -> Shape:
        """The shape of an event with several measurements, which stand in the quantity's place."""
        return self._build((), license_id, unit, attribution, kind, source_system, None)

    def _build(
        self,
        metrics: tuple[str, ...],
        license_id: str | None,
        unit: str | None,
        attribution: Mapping[str, Any] | None,
        kind: str,
        source_system: str | None,
        hint: Mapping[str, str] | None,
    ) -> Shape:
        license_id = self.license_id if license_id is None else license_id
        if license_id is None:
            raise InvalidEvent(
                "license_id is missing: pass license_id=… to track(), tracked() or configure(), "
                "or set DOOW_TRACK_LICENSE_ID"
            )
        if kind not in _KINDS:
            raise InvalidEvent(f"kind must be 'USAGE' or 'ADJUSTMENT', not {show(kind)}")
        merged = self.attribution
        if attribution is not None:
            merged = {**merged, **check_attribution(attribution, self.removed)}
        fields = {
            "license_id": text_json("license_id", license_id),
            "source_system": text_json("source_system", source_system or "sdk"),
            "kind": f'"{_KINDS[_KINDS.index(kind)]}"',
        }
        if unit is not None:
            fields["unit"] = text_json("unit", unit)
        if merged:
            pairs = (f"{_quoted(name)}:{_scalar(value)}" for name, value in merged.items())
            fields["attribution"] = "{" + ",".join(pairs) + "}"
        before = ",".join(f'"{name}":{value}' for name, value in fields.items())
        before, after = f'{before},"measurements":[', "]"
        if metrics:
            before += f'{{"metric_name":{text_json("metric", metrics[0])},"quantity":'
            after = f"{_hint_json(hint)}}}]"
        shape = Shape(before, after)
        check_size(shape, "", None)
        return shape


def measurements_json(measurements: Any, kind: str) -> str:
    """Several measurements as JSON, to stand in the place of one quantity."""
    try:
        pairs = list(measurements.items())
    except Exception:
        pairs = []
    if not pairs:
        raise InvalidEvent(
            "measurements must be a mapping of metric to quantity with at least one entry, "
            f"such as {{'tokens': 12}}, not {show(measurements)}"
        )
    return ",".join(
        f'{{"metric_name":{text_json("metric", metric)},"quantity":{check_quantity(amount, kind)}}}'
        for metric, amount in pairs
    )


def check_size(shape: Shape, quantity: object, metadata: str | None) -> None:
    """Refuse an event that is larger than :data:`MAX_EVENT_BYTES` as JSON."""
    size = len(shape.before) + len(shape.after) + len(str(quantity)) + len(metadata or "")
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(
            f"the event is {size:,} bytes of JSON, {MAX_EVENT_BYTES:,} are allowed: "
            "shorten metadata or attribution"
        )


def check_quantity(quantity: Any, kind: str) -> int | float | str:
    """The quantity as it is written as JSON: itself, or for decimals its exact digits."""
    number = _number("quantity", quantity)
    if kind == "USAGE" and not quantity > 0:
        raise InvalidEvent(
            f"quantity must be greater than zero for USAGE, not {show(quantity)}: "
            "use kind='ADJUSTMENT' to correct"
        )
    return number


def check_attribution(attribution: Any, removed: list[str]) -> dict[str, Any]:
    """A checked copy without what looks like credentials; their names go into ``removed``."""
    if attribution is None:
        return {}
    try:
        items = list(attribution.items())
    except Exception:
        raise InvalidEvent(
            f"attribution must be a mapping such as {{'team': 'search'}}, not {show(attribution)}"
        ) from None
    if len(items) > MAX_ATTRIBUTES:
        raise InvalidEvent(f"attribution has {len(items)} entries, {MAX_ATTRIBUTES} are allowed")
    checked: dict[str, Any] = {}
    for name, value in items:
        if not isinstance(name, str) or not name or len(name) > MAX_TEXT:
            raise InvalidEvent(
                f"attribution keys must be strings of 1 to {MAX_TEXT} characters, not {show(name)}"
            )
        if looks_secret(name):
            removed.append("a key of attribution")
        elif isinstance(value, str) and looks_secret(value):
            removed.append(f"attribution.{name}")
        else:
            _check_unicode("a key of attribution", name)
            _check_attribute(name, value)
            checked[name] = value
    return checked


def _check_attribute(name: str, value: Any) -> None:
    label = f"attribution[{show(name)}]"
    if isinstance(value, str):
        if len(value) > MAX_VALUE:
            raise InvalidEvent(f"{label} has {len(value):,} characters, {MAX_VALUE:,} are allowed")
        _check_unicode(label, value)
    elif not isinstance(value, bool):
        _number(label, value)


def check_metadata(metadata: Any, removed: list[str]) -> str:
    """Metadata as JSON, without what looks like credentials; their names go into ``removed``."""
    text = _metadata_json(metadata)
    if looks_secret(text):
        if isinstance(metadata, str):
            removed.append("metadata")
            return "null"
        text = _metadata_json(scrub(metadata, "metadata", removed))
    return text


def _metadata_json(metadata: Any) -> str:
    _check_depth(metadata, MAX_DEPTH)
    try:
        text = json.dumps(metadata, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as problem:
        raise InvalidEvent(f"metadata must be JSON: {show(str(problem), 120)}") from None
    if "\\ud" in text:  # An emoji, or a lone surrogate, or a backslash before ud.
        _check_unicode("metadata", json.dumps(metadata, ensure_ascii=False))
    return text


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, (dict, list, tuple)):
        if not left:
            raise InvalidEvent(f"metadata is nested deeper than {MAX_DEPTH} levels")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def check_timestamp(timestamp: Any) -> str:
    """The time of an event in ISO 8601 with ``Z`` or an offset."""
    if isinstance(timestamp, str):
        if _ISO.fullmatch(timestamp) and _is_date(timestamp):
            return timestamp
        raise InvalidEvent(
            "timestamp must be ISO 8601 with Z or an offset, such as 2026-11-22T11:33:00Z, "
            f"not {show(timestamp)}"
        )
    if not isinstance(timestamp, datetime):
        raise InvalidEvent(
            f"timestamp must be an aware datetime or an ISO 8601 string, not {show(timestamp)}"
        )
    if timestamp.utcoffset() is None:
        raise InvalidEvent(
            f"timestamp {show(timestamp)} is naive, so its moment is unknown: "
            "use datetime.now(timezone.utc), or give it a tzinfo"
        )
    try:
        return timestamp.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise InvalidEvent(f"timestamp {show(timestamp)} is out of range") from None


def _is_date(text: str) -> bool:
    # Python 3.10 reads neither Z nor nine digits of a second, so only the rest is left to it.
    offset = "+00:00" if text.endswith("Z") else text[-6:]
    try:
        datetime.fromisoformat(text[:19] + offset)
    except ValueError:
        return False
    return True


def iso_time(unix_ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC."""
    second, millisecond = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(second, timezone.utc):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"


def check_text(name: str, value: Any) -> str:
    """``value`` as a string of 1 to :data:`MAX_TEXT` characters that is no credential."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise InvalidEvent(
            f"{name} must be a non-empty string of at most {MAX_TEXT} characters, not {show(value)}"
        )
    if looks_secret(value):
        raise InvalidEvent(f"{name} looks like a credential, and was not recorded")
    _check_unicode(name, value)
    return str.__str__(value)  # str() of an Enum's member is its name, not its text.


def text_json(name: str, value: Any) -> str:
    """A checked string as JSON."""
    return _quoted(check_text(name, value))


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(
            f"{name} holds half of a surrogate pair, which is no valid text"
        ) from None


def _hint_json(hint: Any) -> str:
    if hint is None:
        return ""
    example = "{'app_name': …, 'license_name': …, 'metric_name': …}"
    try:
        fields = dict(hint)
    except (TypeError, ValueError):
        fields = {}
    if sorted(map(str, fields)) != sorted(_HINT_FIELDS):
        raise InvalidEvent(f"metric_tuple_hint must be {example}, not {show(hint)}")
    pairs = (f'"{name}":{text_json(f"metric_tuple_hint.{name}", fields[name])}' for name in fields)
    return f',"metric_tuple_hint":{{{",".join(pairs)}}}'


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    return str(_number("attribution", value))


def _number(name: str, value: Any) -> int | float | str:
    """A finite number as it is written as JSON; decimals keep their digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        wanted = "an int, float or Decimal" if name == "quantity" else "a string, number or bool"
        raise InvalidEvent(f"{name} must be {wanted}, not {show(value)}")
    if isinstance(value, Decimal):
        finite = value.is_finite() and (not value or abs(value.adjusted()) <= 307)
        number: int | float | str = str(value)
    elif isinstance(value, float):
        number = float(value)
        finite = number - number == 0
    else:
        number = int(value)
        finite = abs(number) < 10**MAX_DIGITS
    if not finite or len(str(number)) > MAX_DIGITS:
        raise InvalidEvent(
            f"{name} must be finite and at most {MAX_DIGITS} digits long, not {show(value)}"
        )
    return number
