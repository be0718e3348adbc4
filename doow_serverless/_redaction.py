"""Finds values that look like credentials, so that they never leave as metering data."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

API_KEY = re.compile(r"dk_[0-9A-Fa-f]{64}")
"""An SDK key of Doow: ``dk_`` and 64 hex digits."""

# Where a word begins: in JSON, and in a repr, also after an escape such as \n.
_START = r"(?:\b|(?<=\\[bfnrtv])|(?<=\\u[0-9a-f]{4}))"
_CREDENTIAL = re.compile(
    rf"""
      {_START}dk_(?:live_|test_)?[0-9A-Za-z]{{16,}}                   # Doow
    | {_START}(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{{16}}\b                 # AWS access key id
    | (?:(?<![0-9A-Za-z/+])|(?<=\\[bfnrtv])|(?<=\\u[0-9a-f]{{4}}))
      (?=[0-9A-Za-z/+]{{40}}(?![0-9A-Za-z/+=]))                       # AWS secret access key
      (?=[^"]{{0,39}}[A-Z])(?=[^"]{{0,39}}[a-z])[^"]{{0,39}}[0-9/+]
    | -----BEGIN[ ][A-Z0-9 ]+-----                                  # PEM block
    | {_START}[Bb][Ee][Aa][Rr][Ee][Rr](?:\s|\\[fnrtv]){{1,64}}[^\s"]{{6,}}   # Authorization header
    """,
    re.VERBOSE,
)

_TOKEN_LETTERS = re.compile(r"[0-9A-Za-z_.-]+")
_TOKEN_START = re.compile(rf"{_START}eyJ[0-9A-Za-z_-]{{5}}")

_SHORTEST_PART = 5
_SHORTEST = 12
# No credential is shorter, and most values are: they need no search.


def looks_secret(text: str) -> bool:
    """Whether ``text`` (a value, or JSON of many) holds something that looks like a credential."""
    if len(text) <= _SHORTEST:
        return False
    return _CREDENTIAL.search(text) is not None or ("eyJ" in text and _holds_token(text))


def _holds_token(text: str) -> bool:
    """Whether ``text`` holds a JSON Web Token: three parts, of which the first begins with eyJ.

    In one pass over the text: a pattern for the whole would search from each beginning to the end.
    """
    for letters in _TOKEN_LETTERS.finditer(text):
        at = letters.start()
        first, *others = letters.group().split(".")
        for second in others[:-1]:
            end = at + len(first)
            if len(second) >= _SHORTEST_PART and _TOKEN_START.search(text, at, end):
                return True
            at, first = end + 1, second
    return False


def scrub(value: Any, name: str, removed: list[str]) -> Any:
    """A copy of JSON ``value`` without the entries that look like credentials.

    The names of what was taken out are appended to ``removed``, as paths below ``name``; a name
    that is itself a credential is not repeated.
    """
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            label = f"{name}.{clean(str(key), 60)}"
            if isinstance(key, str) and looks_secret(key):
                removed.append(f"a key of {name}")
            elif isinstance(item, str) and looks_secret(item):
                removed.append(label)
            else:
                kept[key] = scrub(item, label, removed)
        return kept
    if isinstance(value, (list, tuple)):
        items = []
        for index, item in enumerate(value):
            label = f"{name}[{index}]"
            if isinstance(item, str) and looks_secret(item):
                removed.append(label)
            else:
                items.append(scrub(item, label, removed))
        return items
    return value


def show(value: object, limit: int = 60) -> str:
    """Return ``value`` for a message: short, on one line, and without anything that looks secret.

    No method of the value is called, so this neither raises nor takes long: an object of a class
    that is not built in is shown as ``<ItsClass>``. Only the first few thousand characters are
    looked at.
    """
    text = _shown(value, _LEVELS)[:_LOOKED_AT]
    if looks_secret(text):
        return f"<{type_name(value)} that looks like a credential>"
    text = clean(text, limit)
    return text if len(text) < limit else f"{text}…"


class Unreadable:
    """Stands in the place of a value of the user's whose methods raise.

    Args:
        value: The value.
        fault: What was raised.
    """

    __slots__ = ("fault", "value")

    def __init__(self, value: object, fault: BaseException) -> None:
        self.value = value
        self.fault = fault

    def __repr__(self) -> str:
        return f"Unreadable({type_name(self.value)})"


def type_name(value: object) -> str:
    """Return the name of the value's class, without asking the value or a metaclass."""
    name: str = _name_of_type(type(value))
    return name


_LOOKED_AT = 4_096
"""Characters of a value that are searched for credentials: many more than a message shows."""
_LEVELS = 4
_MOST_ITEMS = 50
_MOST_BITS = 2_048
_LARGEST_DECIMAL = 500
_name_of_type = type.__dict__["__name__"].__get__
_SHORT: tuple[type, ...] = (float, bool, complex, type(None), type(...), date, timedelta, timezone)
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def _shown(value: Any, levels: int) -> str:
    """Return what ``repr`` does, or the beginning of it, by methods of built-in types alone."""
    kind = type(value)
    if issubclass(kind, str):
        return repr(str.__getitem__(value, slice(_LOOKED_AT)))
    if issubclass(kind, (bytes, bytearray)):
        base: Any = bytes if issubclass(kind, bytes) else bytearray
        return repr(bytes(base.__getitem__(value, slice(_LOOKED_AT))))
    if kind in _SHORT or (kind in (int, Decimal) and is_short(value)):
        return repr(value)
    if kind in (datetime, time) and type(value.tzinfo) in (type(None), timezone):
        return repr(value)
    if kind in _BRACKETS or kind is dict:
        return _shown_items(value, kind, levels)
    if issubclass(kind, BaseException):
        arguments = BaseException.args.__get__(value)[:_MOST_ITEMS]  # type: ignore[attr-defined]
        return f"{type_name(value)}({', '.join(_shown(one, levels - 1) for one in arguments)})"
    if kind is Unreadable:
        return f"<{type_name(value.value)}> that raised {_shown(value.fault, levels - 1)}"
    if issubclass(kind, type):
        return f"<class {_name_of_type(value)!r}>"
    return f"<{type_name(value)}>"


def is_short(number: int | Decimal) -> bool:
    """Return True if the number has a few hundred digits at most, so that it can be written out.

    That takes long for more, and Python may refuse to. Found out in constant time.
    """
    if type(number) is int:
        return number.bit_length() <= _MOST_BITS
    return number.__sizeof__() <= _LARGEST_DECIMAL


def _shown_items(value: Any, kind: type, levels: int) -> str:
    if not levels:
        return "…"
    # In one step, so that no other thread changes it meanwhile.
    some = list(islice(value.items() if kind is dict else value, _MOST_ITEMS))
    if kind is dict:
        pairs = (f"{_shown(key, levels - 1)}: {_shown(item, levels - 1)}" for key, item in some)
        return f"{{{_joined(pairs)}}}"
    if not some and kind in (set, frozenset):
        return f"{kind.__name__}()"
    before, after = _BRACKETS[kind]
    comma = "," if kind is tuple and len(some) == 1 else ""
    return f"{before}{_joined(_shown(item, levels - 1) for item in some)}{comma}{after}"


def _joined(items: Iterator[str]) -> str:
    """Return the items with commas between, and not many more than are looked at."""
    text = ""
    for item in items:
        text += f", {item}" if text else item
        if len(text) > _LOOKED_AT:
            break
    return text


def clean(text: str, limit: int = 200) -> str:
    """Foreign text made safe for a log line: printable, on one line, at most ``limit`` long."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()
