"""Labels of an event: what can be said exactly is taken, and what cannot is left out, by name.

A label never costs the usage: what is wrong with it goes into a list, for the engine to report, and
the event goes on without it. What falsifies the usage itself is refused by `rules`.
"""

from __future__ import annotations

import json
from decimal import Decimal

from doow_serverless._process.signals import is_from_signal
from doow_serverless._redaction import show
from doow_serverless.errors import InvalidEvent

from .plain import plain
from .rules import MAX_DEPTH, check_metadata, check_text, decimal_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .rules import LeftOut

_MAX_PARTS = 100_000
"""Values of metadata that are looked at one by one: more than an event has room for."""
_NOTHING: Any = object()


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
    """Metadata as JSON of at most ``room`` characters, without what JSON cannot say; or None."""
    if metadata is None:
        return None
    try:
        text = _json_of_the_rest(metadata, left_out)
    except Exception as fault:  # Its methods are somebody else's.
        if is_from_signal(fault):
            raise
        left_out.append(InvalidEvent(f"metadata cannot be read: {show(fault, 120)}"))
        return None
    if text is not None and len(text) > room:
        left_out.append(
            InvalidEvent(f"metadata is {len(text):,} bytes of JSON, where {room:,} are left")
        )
        return None
    return text


def _json_of_the_rest(metadata: Any, left_out: list[LeftOut]) -> str | None:
    """What can be said of it; None where that is nothing, or would take too long to find out."""
    before = len(left_out)
    try:
        return check_metadata(metadata, left_out)
    except InvalidEvent as problem:
        parts = _Parts(left_out)
        kept = parts.kept(metadata, "metadata", MAX_DEPTH)
        if kept is not _NOTHING and parts.left > 0:
            return check_metadata(kept, left_out)
        del left_out[before:]
        left_out.append(problem)
        return None


class _Parts:
    """Takes metadata apart, and leaves out what cannot be said."""

    def __init__(self, left_out: list[LeftOut]) -> None:
        self._left_out = left_out
        self.left = _MAX_PARTS

    def kept(self, value: Any, name: str, levels: int) -> Any:
        """What of ``value`` can be said; `_NOTHING` for nothing, which is told."""
        self.left -= 1
        value = plain(value)
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            if not levels:
                return self._without(name, f"is nested deeper than {MAX_DEPTH} levels")
            if isinstance(value, dict):
                return dict(self._entries(value, name, levels - 1))
            items = [
                kept
                for number, item in enumerate(value)
                if self.left > 0
                and (kept := self.kept(item, f"{name}[{number}]", levels - 1)) is not _NOTHING
            ]
            return sorted(items, key=json.dumps) if isinstance(value, (set, frozenset)) else items
        try:
            check_metadata(value, [])
        except InvalidEvent:
            return self._without(name, f"must be JSON, not {show(value)}")
        return value if not isinstance(value, Decimal) else decimal_json(value)

    def _entries(self, value: dict[Any, Any], name: str, levels: int) -> Iterator[tuple[Any, Any]]:
        for key, item in value.items():
            said = plain(key)
            label = f"{name}[{show(key)}]"
            if self.left <= 0:
                return
            try:
                check_metadata({said: None}, [])
            except InvalidEvent:
                self._without(label, "has a key that JSON cannot say")
                continue
            kept = self.kept(item, label, levels)
            if kept is not _NOTHING:
                yield said, kept

    def _without(self, name: str, problem: str) -> Any:
        self._left_out.append(InvalidEvent(f"{name} {problem}"))
        return _NOTHING
