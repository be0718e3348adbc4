"""The rules that a field of an event must keep; each check returns what is written on the wire.

Pure functions. Each raises :class:`~doow_serverless.errors.InvalidEvent`, whose message names the
field, its value and what is allowed; of labels, `labels` makes what is left out instead. What looks
like a credential always is: its name is appended to the list ``removed``, for the engine to report.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timezone
from decimal import Decimal

from doow_serverless._redaction import looks_secret, scrub, show
from doow_serverless.errors import InvalidEvent

from .plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Number: TypeAlias = int | float | Decimal
    # The name of what looked like a credential, or what is wrong with a label.
    LeftOut: TypeAlias = str | InvalidEvent
    # A metric, and its quantity as it is written.
    Pair: TypeAlias = tuple[str, int | float | str]

MAX_TEXT = 256
"""Characters of a metric, license id, unit, source system, event id or attribution key."""
MAX_VALUE = 4_096
"""Characters of an attribution value."""
MAX_ATTRIBUTES = 100
"""Entries of an attribution."""
MAX_DIGITS = 64
"""Characters of a number as JSON."""
MAX_DEPTH = 32
"""Levels of nesting in metadata."""
KINDS = ("USAGE", "ADJUSTMENT")


_quoted = json.JSONEncoder().encode
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def check_text(name: str, value: Any) -> str:
    """``value`` as a string of 1 to :data:`MAX_TEXT` characters that is no credential."""
    if not isinstance(value, (str, date)):
        value = plain(value)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise InvalidEvent(
            f"{name} must be a non-empty string of at most {MAX_TEXT} characters, not {show(value)}"
        )
    if looks_secret(value):
        raise InvalidEvent(f"{name} looks like a credential, and was not recorded")
    check_unicode(name, value)
    return str.__str__(value)  # str() of an Enum's member is its name, not its text.


def text_json(name: str, value: Any) -> str:
    """A checked string as JSON."""
    return _quoted(check_text(name, value))


def check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(
            f"{name} holds half of a surrogate pair, which is no valid text"
        ) from None


def check_measurements(measurements: Any, kind: str) -> list[Pair]:
    """Several measurements: pairs of metric and quantity, as it is written."""
    try:
        pairs = list(measurements.items())
    except Exception:
        pairs = []
    if not pairs:
        raise InvalidEvent(
            "measurements must be a mapping of metric to quantity with at least one entry, "
            f"such as {{'tokens': 12}}, not {show(measurements)}"
        )
    if kind == "USAGE":
        # The answers of language models are full of zeros, which measure nothing.
        pairs = [pair for pair in pairs if not _is_zero(pair[1])] or pairs
    return [(check_text("metric", name), check_quantity(amount, kind)) for name, amount in pairs]


def measurements_json(pairs: list[Pair]) -> str:
    """Several measurements as JSON, to stand in the place of one quantity."""
    return ",".join(
        f'{{"metric_name":{_quoted(name)},"quantity":{amount}}}' for name, amount in pairs
    )


def _is_zero(amount: Any) -> bool:
    amount = plain(amount)
    return isinstance(amount, (int, float, Decimal)) and amount is not False and amount == 0


def check_kind(kind: Any) -> str:
    """``kind`` as plain text, also where it is the member of an Enum of strings."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidEvent(f"kind must be 'USAGE' or 'ADJUSTMENT', not {show(kind)}")
    return str.__str__(kind)


def check_quantity(quantity: Any, kind: str) -> int | float | str:
    """The quantity as it is written as JSON: itself, or for decimals its exact digits."""
    quantity = plain(quantity)
    number = number_json("quantity", quantity)
    if kind == "USAGE" and not quantity > 0:
        raise InvalidEvent(
            f"quantity must be greater than zero for USAGE, not {show(quantity)}: "
            "use kind='ADJUSTMENT' to correct"
        )
    return number


def check_attribution(
    attribution: Any, removed: list[LeftOut], *, lenient: bool = False
) -> dict[str, Any]:
    """A checked copy without what looks like credentials; their names go into ``removed``.

    Args:
        attribution: A mapping, or None.
        removed: Takes what was left out.
        lenient: Whether what cannot be said is left out likewise, instead of raising.
    """
    checked: dict[str, Any] = {}
    try:
        for name, value in _attributes(attribution):
            try:
                name = _attribute_name(name)
                if value is not None:  # Which says nothing.
                    _add_attribute(checked, name, plain(value), removed)
            except InvalidEvent as problem:
                if not lenient:
                    raise
                removed.append(problem)
    except InvalidEvent as problem:
        if not lenient:
            raise
        removed.append(problem)
    return checked


def _attributes(attribution: Any) -> list[tuple[Any, Any]]:
    if attribution is None:
        return []
    try:
        items = list(attribution.items())
    except Exception:
        raise InvalidEvent(
            f"attribution must be a mapping such as {{'team': 'search'}}, not {show(attribution)}"
        ) from None
    if len(items) > MAX_ATTRIBUTES:
        raise InvalidEvent(f"attribution has {len(items)} entries, {MAX_ATTRIBUTES} are allowed")
    return items


def _attribute_name(name: Any) -> str:
    said = plain(name)
    if not isinstance(said, str) or not said or len(said) > MAX_TEXT:
        raise InvalidEvent(
            f"attribution keys must be strings of 1 to {MAX_TEXT} characters, not {show(name)}"
        )
    return said


def _add_attribute(checked: dict[str, Any], name: str, value: Any, removed: list[LeftOut]) -> None:
    if looks_secret(name):
        removed.append("a key of attribution")
    elif isinstance(value, str) and looks_secret(value):
        removed.append(f"attribution.{name}")
    else:
        check_unicode("a key of attribution", name)
        _check_attribute(name, value)
        checked[name] = value


def _check_attribute(name: str, value: Any) -> None:
    label = f"attribution[{show(name)}]"
    if isinstance(value, str):
        if len(value) > MAX_VALUE:
            raise InvalidEvent(f"{label} has {len(value):,} characters, {MAX_VALUE:,} are allowed")
        check_unicode(label, value)
    elif not isinstance(value, bool):
        number_json(label, value)


def check_metadata(metadata: Any, removed: list[LeftOut]) -> str:
    """Metadata as JSON, without what looks like credentials; their names go into ``removed``."""
    text = _metadata_json(metadata)
    if looks_secret(text):
        if isinstance(metadata, str):
            removed.append("metadata")
            return "null"
        names: list[str] = []
        text = _metadata_json(scrub(json.loads(text), "metadata", names))
        removed += names
    return text


def _metadata_json(metadata: Any) -> str:
    _check_depth(metadata, MAX_DEPTH)
    try:
        text = json.dumps(metadata, allow_nan=False, separators=(",", ":"), default=_said)
    except (TypeError, ValueError, RecursionError) as problem:
        raise InvalidEvent(f"metadata must be JSON: {show(str(problem), 120)}") from None
    if "\\ud" in text:  # An emoji, or a lone surrogate, or a backslash before ud.
        check_unicode("metadata", json.dumps(metadata, ensure_ascii=False, default=_said))
    return text


def _said(value: Any) -> Any:
    """What JSON can say in the place of ``value``, exactly."""
    said = plain(value)
    if isinstance(said, Decimal):
        return decimal_json(said)
    if isinstance(said, (set, frozenset)):
        return sorted(said, key=lambda item: json.dumps(item, default=_said))
    if said is value:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return said


def decimal_json(value: Decimal) -> float | str:
    """The number that JSON reads as exactly ``value``; its digits, where no float is that near."""
    if not value.is_finite():
        raise ValueError("Out of range float values are not JSON compliant")
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


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


def number_json(name: str, value: Any) -> int | float | str:
    """A finite number as it is written as JSON; decimals keep their digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        wanted = "an int, float or Decimal" if name == "quantity" else "a string, number or bool"
        raise InvalidEvent(f"{name} must be {wanted}, not {show(value)}")
    if isinstance(value, Decimal):
        value = Decimal(value)  # Of a subclass, the text could be anything.
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
