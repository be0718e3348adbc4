"""Which threads are at work in delivery, so that what interrupts them stays out of there.

A finalizer, or the handler of a signal, runs in the middle of whatever its thread was doing. If
that holds a lock, waiting for it would be for ever: what is recorded there is set aside instead.
"""

from __future__ import annotations

from threading import get_ident

from .forks import reset_in_child

_threads: set[int] = set()


def is_at_work() -> bool:
    """Whether this thread has been interrupted in delivery."""
    return get_ident() in _threads


class AtWork:
    """While this thread is at work; entered, False where it is already, and must shun locks."""

    __slots__ = ("_is_first",)

    def __enter__(self) -> bool:
        me = get_ident()
        self._is_first = me not in _threads
        _threads.add(me)
        return self._is_first

    def __exit__(self, *_: object) -> None:
        if self._is_first:
            _threads.discard(get_ident())


reset_in_child(_threads.clear)
