"""The rules that a field of an event must keep; each check returns what is written on the wire.

Pure functions. Each reads its value through `plain`, and asks the original nothing. Each raises
:class:`~doow_serverless.errors.InvalidEvent`, whose message names the field, its value and what is
allowed; `labels` leaves bad labels out instead. Credentials are always left out: their names are
appended to the list ``removed``, for the engine to report.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from decimal import Decimal

from doow_serverless._redaction import Unreadable, is_short, looks_secret, show
from doow_serverless.errors import InvalidEvent

from .plain import NAIVE, entries, moment, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Number: TypeAlias = int | float | Decimal
    # The name of what looked like a credential, or what is wrong with a label.
    LeftOut: TypeAlias = str | InvalidEvent
    # An argument, or an entry of one.
    Name: TypeAlias = str | tuple[str, str]
    # A metric, and its quantity as it is written.
    Pair: TypeAlias = tuple[str, int | float | str]

MAX_TEXT = 256
"""Characters of a metric, license id, unit, source system, event id or attribution key."""
MAX_VALUE = 4_096
"""Characters of an attribution value."""
MAX_ATTRIBUTES = 100
"""Entries of an attribution."""
MAX_MEASUREMENTS = 10_000
"""Entries of measurements that are looked at: more than an event has room for, unless zero."""
MAX_DIGITS = 64
"""Characters of a number as JSON."""
MAX_DEPTH = 32
"""Levels of nesting in metadata."""
KINDS = ("USAGE", "ADJUSTMENT")


_quoted = json.JSONEncoder().encode
_LONGEST_ISO = 35
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def check_text(name: str, value: Any) -> str:
    """``value`` as a string of 1 to :data:`MAX_TEXT` characters that is no credential."""
    if type(value) is not str and not issubclass(type(value), date):
        value = plain(value)
    if type(value) is not str or len(value) > MAX_TEXT or not value.strip():
        raise InvalidEvent(
            f"{name} must be a non-empty string of at most {MAX_TEXT} characters, not {show(value)}"
        )
    if looks_secret(value):
        raise InvalidEvent(f"{name} looks like a credential, and was not recorded")
    check_unicode(name, value)
    return value


def check_unicode(name: Name, text: str) -> None:
    """Raise InvalidEvent unless ``text`` can be encoded."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(
            f"{_named(name)} holds half of a surrogate pair, which is no valid text"
        ) from None


def check_measurements(measurements: Any, kind: str) -> list[Pair]:
    """Several measurements: pairs of metric and quantity, as it is written."""
    found = entries(measurements, MAX_MEASUREMENTS + 1)
    if not found or type(found) is Unreadable:
        raise InvalidEvent(
            "measurements must be a mapping of metric to quantity with at least one entry, "
            f"such as {{'tokens': 12}}, not {show(found or measurements)}"
        )
    if len(found) > MAX_MEASUREMENTS:
        raise InvalidEvent(
            f"measurements has more than {MAX_MEASUREMENTS:,} entries: split it into several events"
        )
    kind = plain(kind)
    pairs = [(name, plain(amount)) for name, amount in found]
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
    if type(amount) is Decimal and amount.is_nan():
        return False  # A signalling one raises when compared.
    return type(amount) in (int, float, Decimal) and bool(amount == 0)


def check_kind(kind: Any) -> str:
    """``kind`` as plain text, also if it is the member of an Enum of strings."""
    said = plain(kind)
    if type(said) is not str or said not in KINDS:
        raise InvalidEvent(f"kind must be 'USAGE' or 'ADJUSTMENT', not {show(said)}")
    return said


def check_quantity(quantity: Any, kind: str) -> int | float | str:
    """The quantity as it is written as JSON: itself, or for decimals its exact digits."""
    quantity = plain(quantity)
    number = number_json("quantity", quantity)
    if plain(kind) == "USAGE" and not quantity > 0:
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
                name, value = _attribute_name(name), plain(value)
                if value is not None:  # Which says nothing.
                    _add_attribute(checked, name, value, removed)
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
    attribution = plain(attribution)
    if attribution is None:
        return []
    found = entries(attribution, MAX_ATTRIBUTES + 1)
    if found is None or type(found) is Unreadable:
        raise InvalidEvent(
            "attribution must be a mapping such as {'team': 'search'}, "
            f"not {show(attribution if found is None else found)}"
        )
    if len(found) > MAX_ATTRIBUTES:
        count = f"{len(attribution):,}" if type(attribution) is dict else f"over {MAX_ATTRIBUTES}"
        raise InvalidEvent(f"attribution has {count} entries, {MAX_ATTRIBUTES} are allowed")
    pairs: list[tuple[Any, Any]] = found
    return pairs


def _attribute_name(name: Any) -> str:
    said = plain(name)
    if type(said) is not str or not said or len(said) > MAX_TEXT:
        raise InvalidEvent(
            f"attribution keys must be strings of 1 to {MAX_TEXT} characters, not {show(said)}"
        )
    return said


def _add_attribute(checked: dict[str, Any], name: str, value: Any, removed: list[LeftOut]) -> None:
    if looks_secret(name):
        removed.append("a key of attribution")
        return
    check_unicode("a key of attribution", name)
    if type(value) is not str:
        if type(value) is not bool:
            number_json(("attribution", name), value)
    elif len(value) > MAX_VALUE:
        raise InvalidEvent(
            f"attribution[{show(name)}] has {len(value):,} characters, {MAX_VALUE:,} are allowed"
        )
    elif looks_secret(value):
        removed.append(f"attribution.{name}")
        return
    else:
        check_unicode(("attribution", name), value)
    checked[name] = value


def decimal_json(value: Decimal) -> float | str:
    """The number that JSON reads as exactly ``value``; its digits, where no float is that near.

    The value is finite, and `is_short`.
    """
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


def check_timestamp(timestamp: Any) -> str | None:
    """The time of an event in ISO 8601 with ``Z`` or an offset; None for a proxy of None."""
    said = moment(timestamp)
    if said is None:
        return None
    if type(said) is str and len(said) <= _LONGEST_ISO and _ISO.fullmatch(said) and _is_date(said):
        return said if type(timestamp) is str else said.replace("+00:00", "Z")
    if said is NAIVE:
        raise InvalidEvent(
            f"timestamp {show(timestamp)} is naive, so its moment is unknown: "
            "use datetime.now(timezone.utc), or give it a tzinfo"
        )
    if type(said) is Unreadable and isinstance(said.fault, OverflowError):
        raise InvalidEvent(f"timestamp {show(timestamp)} is out of range")
    if issubclass(type(timestamp), str):
        raise InvalidEvent(
            "timestamp must be ISO 8601 with Z or an offset, such as 2026-11-22T11:33:00Z, "
            f"not {show(timestamp)}"
        )
    wrong = said if type(said) is Unreadable else timestamp
    raise InvalidEvent(
        f"timestamp must be an aware datetime or an ISO 8601 string, not {show(wrong)}"
    )


def _is_date(text: str) -> bool:
    # Python 3.10 reads neither Z nor nine digits of a second, so only the rest is left to it.
    offset = "+00:00" if text.endswith("Z") else text[-6:]
    try:
        datetime.fromisoformat(text[:19] + offset)
    except ValueError:
        return False
    return True


def number_json(name: Name, value: Any) -> int | float | str:
    """A finite number as it is written as JSON; decimals keep their digits."""
    kind = type(value)
    if kind not in (int, float, Decimal):
        wanted = "an int, float or Decimal" if name == "quantity" else "a string, number or bool"
        raise InvalidEvent(f"{_named(name)} must be {wanted}, not {show(value)}")
    number: int | float | str = value
    if kind is Decimal:
        finite = value.is_finite() and (not value or abs(value.adjusted()) <= 307)
        finite = finite and is_short(value)
        number = str(value) if finite else ""
    elif kind is float:
        finite = value - value == 0
    else:
        finite = is_short(value)
    if not finite or len(str(number)) > MAX_DIGITS:
        raise InvalidEvent(
            f"{_named(name)} must be finite and at most {MAX_DIGITS} digits long, not {show(value)}"
        )
    return number


def _named(name: Name) -> str:
    """Return the name of an argument, or of an entry of one, for a message."""
    return name if isinstance(name, str) else f"{name[0]}[{show(name[1])}]"
