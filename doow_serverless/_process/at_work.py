"""Which threads are at work in delivery, so that what interrupts them stays out of there.

A finalizer, or the handler of a signal, runs in the middle of whatever its thread was doing. If
that holds a lock, waiting for it would be for ever: what is recorded there is set aside instead.
"""

from __future__ import annotations

import sys
from threading import get_ident

from .forks import reset_in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

_threads: dict[int, CodeType] = {}
"""By thread, the code that is at work. It may be there no longer: what the handler of a signal
raises may come before it could be taken out."""


def is_at_work() -> bool:
    """Whether this thread has been interrupted in delivery."""
    code = _threads.get(get_ident())
    return code is not None and _runs(code, sys._getframe(1))


class AtWork:
    """While this thread is at work; entered, False where it is already, and must shun locks."""

    __slots__ = ("_is_first",)

    def __enter__(self) -> bool:
        me, holder = get_ident(), sys._getframe(1)
        code = _threads.get(me)
        self._is_first = code is None or not _runs(code, holder.f_back)
        if self._is_first:
            _threads[me] = holder.f_code
        return self._is_first

    def __exit__(self, *_: object) -> None:
        if self._is_first:
            _threads.pop(get_ident(), None)


def _runs(code: CodeType, frame: FrameType | None) -> bool:
    """Whether ``code`` is what runs in ``frame``, or has called it."""
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


reset_in_child(_threads.clear)
