"""Labels of an event: what can be said exactly is taken, and what cannot is left out, by name.

A label never costs the usage: what is wrong with it goes into a list, for the engine to report, and
the event goes on without it. What falsifies the usage itself is refused by `rules`.
"""

from __future__ import annotations

import json
from decimal import Decimal

from doow_serverless._redaction import Unreadable, is_short, looks_secret, scrub, show
from doow_serverless.errors import InvalidEvent

from .plain import PLAIN, entries, is_mapping, members, plain
from .rules import MAX_DEPTH, check_text, decimal_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from .rules import LeftOut

    # The keys and numbers that lead to a value, the last one first.
    Path: TypeAlias = "tuple[Path, Any] | None"

_MOST_TOLD = 3
"""Values of one event's metadata whose names are reported; the others are counted."""
_MOST_WRONG = 1_000
"""Values that JSON cannot say for which metadata is still taken apart."""
_NOTHING: Any = object()
_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def fit_text(name: str, value: Any, left_out: list[LeftOut]) -> str | None:
    """``value`` as text; None for what is none."""
    text: str | None = fit(lambda: check_text(name, value), left_out)
    return text


def fit(label: Callable[[], Any], left_out: list[LeftOut]) -> Any:
    """What ``label`` returns; None where it raises InvalidEvent."""
    try:
        return label()
    except InvalidEvent as problem:
        left_out.append(problem)
        return None


def fit_metadata(metadata: Any, room: int, left_out: list[LeftOut]) -> str | None:
    """Return metadata as JSON of at most ``room`` characters, or None if nothing is left of it.

    It is looked at as far as there is room. Values that JSON cannot say, and that look like
    credentials, are left out.
    """
    if metadata is None:
        return None
    copy = _Copy(room)
    try:
        value = copy.of(metadata, None, MAX_DEPTH)
    except _GivenUp as why:
        left_out.append(InvalidEvent(f"metadata {why}"))
        return None
    left_out += copy.told
    if copy.wrong > _MOST_TOLD:
        left_out.append(
            InvalidEvent(f"metadata has {copy.wrong - _MOST_TOLD} more values that JSON cannot say")
        )
    if value is _NOTHING:
        return None
    text = _json(value)
    if len(text) > room:
        left_out.append(
            InvalidEvent(f"metadata is {len(text):,} bytes of JSON, where {room:,} are left")
        )
        return None
    return text if not looks_secret(text) else _without_secrets(value, left_out)


def _without_secrets(value: Any, left_out: list[LeftOut]) -> str:
    if type(value) is str:
        left_out.append("metadata")
        return "null"
    names: list[str] = []
    text = _json(scrub(value, "metadata", names))
    left_out += names[:_MOST_TOLD]
    if len(names) > _MOST_TOLD:
        left_out.append(f"each of {len(names) - _MOST_TOLD} more values of metadata")
    return text


class _GivenUp(Exception):
    """Metadata is left out as a whole; the message says why."""


class _Copy:
    """Copies metadata into dicts, lists and plain values, without what JSON cannot say.

    Args:
        room: Characters that its JSON may have.

    Attributes:
        told: What was left out, the first few.
        wrong: How many values were.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._left = room  # Characters that are left, at most.
        self.told: list[LeftOut] = []
        self.wrong = 0

    def of(self, value: Any, path: Path, levels: int) -> Any:
        """Return the copy of ``value``, or `_NOTHING`; raises `_GivenUp`."""
        kind = type(value)
        if kind not in PLAIN:
            value = plain(value)
            kind = type(value)
        if kind is str:
            self._left -= len(value) + 1
            if self._left < 0:
                self._give_up()
            return value if value.isascii() or _is_unicode(value) else self._without(path, value)
        if kind is int or kind is Decimal:
            if not is_short(value) or (kind is Decimal and not value.is_finite()):
                return self._without(path, value)
            if kind is Decimal:
                return decimal_json(value)
            self._left -= value.bit_length() * 3 // 10  # So many digits more, at least.
            return value
        if kind is float:
            return value if value - value == 0 else self._without(path, value)
        if kind is bool or value is None:
            return value
        return self._container(value, path, levels)

    def _give_up(self) -> None:
        raise _GivenUp(f"has more than the {self._room:,} bytes of JSON that are left")

    def _container(self, value: Any, path: Path, levels: int) -> Any:
        # Each takes two characters at least. One more than there is room for shows that.
        most = self._left // 2 + 1
        is_dict = type(value) is dict or is_mapping(value)
        found = entries(value, most) if is_dict else members(value, most)
        if found is None or type(found) is Unreadable:
            return self._without(path, value if found is None else found)
        if not levels:
            return self._without(path, None, f"is nested deeper than {MAX_DEPTH} levels")
        items, is_set = (found, False) if is_dict else found
        self._left -= 2 * len(items)
        if self._left < 0:
            self._give_up()
        if is_dict:
            return self._entries(items, path, levels - 1)
        copies = [self.of(item, (path, number), levels - 1) for number, item in enumerate(items)]
        copies = [copy for copy in copies if copy is not _NOTHING]
        return sorted(copies, key=_json) if is_set else copies

    def _entries(self, pairs: list[tuple[Any, Any]], path: Path, levels: int) -> dict[Any, Any]:
        copies = {}
        for key, item in pairs:
            said = key if type(key) is str else plain(key)
            if not _is_key(said):
                self._without((path, said), None, "has a key that JSON cannot say")
                continue
            if type(said) is str:
                self._left -= len(said) + 3
                if self._left < 0:
                    self._give_up()
            copy = self.of(item, (path, said), levels)
            if copy is not _NOTHING:
                copies[said] = copy
        return copies

    def _without(self, path: Path, value: Any, why: str = "") -> Any:
        self.wrong += 1
        if self.wrong > _MOST_WRONG:
            raise _GivenUp(f"has more than {_MOST_WRONG:,} values that JSON cannot say")
        if self.wrong <= _MOST_TOLD:
            why = why or f"must be JSON, not {show(value)}"
            self.told.append(InvalidEvent(f"metadata{_place(path)} {why}"))
        return _NOTHING


def _place(path: Path) -> str:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(f"[{show(name)}]")
    return "".join(reversed(names))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_key(said: Any) -> bool:
    """Return True if JSON can write a key: as text, if it is a number, a bool or None."""
    kind = type(said)
    if kind is str:
        return said.isascii() or _is_unicode(said)
    if kind is float:
        return bool(said - said == 0)
    return kind is bool or said is None or (kind is int and is_short(said))
