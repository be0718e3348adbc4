"""Which threads drive delivery just now: code of the user's that runs there must not wait for it.

A finalizer runs on any thread, in the middle of whatever that was doing, and a hook on a thread of
ours. A flush that they ask for is made by the next one.
"""

from __future__ import annotations

from threading import get_ident

from .forks import reset_in_child

_threads: set[int] = set()
reset_in_child(_threads.clear)


def is_driven_here() -> bool:
    """Whether this thread drives delivery."""
    return get_ident() in _threads


class Driving:
    """While this thread drives delivery."""

    __slots__ = ("_is_first",)

    def __enter__(self) -> None:
        me = get_ident()
        self._is_first = me not in _threads
        _threads.add(me)

    def __exit__(self, *_: object) -> None:
        if self._is_first:
            _threads.discard(get_ident())
