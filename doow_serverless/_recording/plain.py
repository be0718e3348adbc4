"""Reads the values that users pass. Their methods are called here alone, and may raise anything.

`plain` returns a str, int, float, bool, Decimal or None of exactly that type, whose methods are
Python's own; `entries`, `members` and `moment` return lists and text of the rest. Whoever checks
an event goes by what these return, and asks the original nothing.
"""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timezone
from decimal import Decimal
from enum import Enum
from itertools import islice
from numbers import Integral, Real

from doow_serverless._process.signals import is_from_signal
from doow_serverless._redaction import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PLAIN = frozenset((str, int, float, bool, Decimal, type(None)))
"""The types of values that are taken as they are."""
_CONTAINERS = frozenset((dict, list, tuple, set, frozenset))
NAIVE: Any = object()
"""In the place of a datetime that names no moment."""


def plain(value: Any) -> Any:
    """Return the str, int, float, bool, Decimal or None that says exactly what ``value`` does.

    That is the value of an Enum's member, the text of a UUID, the ISO text of a date or time, the
    number that one of numpy, or another of `numbers`, is equal to, and what a proxy stands for.

    Returns:
        One of `PLAIN`; `Unreadable` if the value's methods raise; otherwise ``value`` itself.
    """
    kind = type(value)
    if kind in PLAIN or kind in _CONTAINERS:
        return value
    return guarded(_converted, value)


def guarded(read: Callable[[Any], Any], value: Any) -> Any:
    """Return ``read(value)``, or `Unreadable` if the value's methods raise, whatever they raise."""
    try:
        return read(value)
    except BaseException as fault:
        if is_from_signal(fault):
            raise
        return Unreadable(value, fault)


def entries(value: Any, most: int) -> Any:
    """Return the first ``most`` pairs of a mapping as a list; None if it is no mapping.

    `Unreadable` if its methods raise.
    """
    if type(value) is dict:  # In one step, so that no other thread changes it meanwhile.
        return list(islice(value.items(), most))
    return guarded(lambda value: _entries(value, most), value)


def _entries(value: Any, most: int) -> list[tuple[Any, Any]] | None:
    items = getattr(value, "items", None)
    if items is None or isinstance(value, type):
        return None
    return [(key, item) for key, item in islice(items(), most)]


def members(value: Any, most: int) -> Any:
    """Return the first ``most`` items of a list, tuple or set as a list, and whether it is a set.

    None if it is none of these, `Unreadable` if its methods raise.
    """
    if type(value) is list or type(value) is tuple:
        return value[:most], False
    return guarded(lambda value: _members(value, most), value)


def _members(value: Any, most: int) -> tuple[list[Any], bool] | None:
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(islice(value, most)), isinstance(value, (set, frozenset))
    return None


def is_mapping(value: Any) -> bool:
    """Return True if JSON writes ``value`` as an object: a dict, or what stands for one."""
    return guarded(lambda value: isinstance(value, dict), value) is True


def moment(value: Any) -> Any:
    """Return the ISO text of an aware datetime, in UTC, or the text that ``value`` is.

    `NAIVE` for a naive datetime, `Unreadable` if its methods, or those of its tzinfo, raise, and
    ``value`` itself if it is no datetime and no text.
    """
    return guarded(_moment, value)


def _moment(value: Any) -> Any:
    if not isinstance(value, datetime):
        return plain(value) if isinstance(value, (str, type(None))) else value
    if value.utcoffset() is None:
        return NAIVE
    return plain(value.astimezone(timezone.utc).isoformat())


def _converted(value: Any) -> Any:
    kind = type(value)
    # By the methods of the base, since those of a subclass may be anything.
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__int__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, Decimal):
        return Decimal(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (date, time)):
        return plain(value.isoformat())
    uuid = sys.modules.get("uuid")  # Where there is a UUID, it has been imported.
    if uuid is not None and isinstance(value, uuid.UUID):
        return plain(str(value))
    return _number(value) if kind.__module__ == "numpy" else _behind(value)


_READ_BY: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str),
    (bool, bool),
    (int, int),
    (float, float),
    (Decimal, lambda value: Decimal(str(value))),
    (type(None), lambda _: None),
)


def _behind(value: Any) -> Any:
    """Return the plain value that ``value`` stands for, as the proxies of werkzeug and wrapt do.

    They claim its class, and compare equal to it; a mock with a ``spec`` only claims.
    """
    for kind, read in _READ_BY:
        if isinstance(value, kind):
            said = plain(read(value))
            return said if type(said) is kind and (said is None or said == value) else value
    return _number(value)


def _number(value: Any) -> Any:
    if type(value).__module__ == "numpy":
        item = value.item()  # Of one of its scalars, also a bool; an array of many raises.
        if type(item) is not type(value):
            return plain(item)
    number: Any = value
    if isinstance(value, Integral):
        number = int(value)
    elif isinstance(value, Real):
        number = float(value)
    return number if type(number) in PLAIN and number == value else value
