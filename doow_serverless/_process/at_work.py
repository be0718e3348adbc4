"""Which threads are at work in delivery, so that what interrupts them stays out of there.

A finalizer, or the handler of a signal, runs in the middle of whatever its thread was doing. If
that holds a lock, waiting for it would be for ever: what is recorded there is set aside instead.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import get_ident

from .forks import reset_in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_threads: set[int] = set()


def is_at_work() -> bool:
    """Whether this thread has been interrupted in delivery."""
    return get_ident() in _threads


@contextmanager
def at_work() -> Iterator[bool]:
    """While this thread is at work; False where it is already, and must leave locks alone."""
    me = get_ident()
    if me in _threads:
        yield False
        return
    _threads.add(me)
    try:
        yield True
    finally:
        _threads.discard(me)


reset_in_child(_threads.clear)
