"""Values of other types that say exactly what a plain one does: ids, members of enums, numbers."""

from __future__ import annotations

import sys
from datetime import date, time
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real

from doow_serverless._process.signals import is_from_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = frozenset((str, int, float, bool, Decimal, type(None)))


def plain(value: Any) -> Any:
    """A str, int, float, bool, Decimal or None that says what ``value`` does; else ``value``.

    That is the value of an Enum's member, the text of a UUID, the ISO text of a date or time, and
    the number that one of numpy, or another of `numbers`, is equal to.
    """
    if type(value) in _PLAIN:
        return value
    try:
        return _converted(value)
    except Exception as fault:
        if is_from_signal(fault):
            raise
        return value  # Its methods are somebody else's.


def _converted(value: Any) -> Any:
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    uuid = sys.modules.get("uuid")  # Where there is a UUID, it has been imported.
    if uuid is not None and isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (str, int, float, Decimal)):
        return value
    if type(value).__module__ == "numpy":
        item = value.item()  # Of one of its scalars, also a bool; an array of many raises.
        if type(item) is not type(value):
            return plain(item)
    number: Any = value
    if isinstance(value, Integral) and not isinstance(value, int):
        number = int(value)
    elif isinstance(value, Real) and not isinstance(value, (int, float)):
        number = float(value)
    return number if number == value else value
