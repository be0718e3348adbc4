"""Blocks in generators: they are around the generator's own code, not around whoever consumes it.

A generator that is suspended within a block leaves the block's ContextVar behind for its consumer,
and may be resumed where it is not set (PEP 568, which would have changed that, was deferred). So a
block knows its generator, and counts while that runs, in whichever thread or context.
"""

from __future__ import annotations

import sys
from threading import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

_GENERATOR, _ASYNC_GENERATOR = 0x20, 0x200
"""Flags of code: https://docs.python.org/3/library/inspect.html#code-objects-bit-flags"""

blocks: dict[Generator, Any] = {}
"""The scopes (`Scope`) of the blocks that are open in generators, the innermost of each last."""


class Generator:
    """A generator that is within a block.

    Args:
        frame: Where it runs.

    Attributes:
        is_left: Whether it is within the block no more.
    """

    __slots__ = ("_frame", "_owner", "is_left")

    def __init__(self, frame: FrameType) -> None:
        self._frame: FrameType | None = frame
        self._owner = _task()
        self.is_left = False

    def __repr__(self) -> str:
        return f"Generator({'left' if self.is_left else self._frame})"

    def open(self, scope: object) -> None:
        """Note that ``scope`` (a `Scope`) is that of a block in it."""
        blocks[self] = scope

    def leave(self) -> None:
        """The block is over."""
        self.is_left = True
        self._frame = None
        blocks.pop(self, None)

    def is_aside(self) -> bool:
        """Whether the running code is not of the block, though its context says so.

        What runs in a context of its own, a task or a thread that the generator has started, is.
        """
        frame = self._frame
        return frame is None or (frame.f_back is None and self._owner == _task())

    def runs_in(self, frame: FrameType) -> bool:
        """Whether it is what runs in ``frame``."""
        return frame is self._frame


def generator_of(frame: FrameType | None) -> Generator | None:
    """The generator whose code has called from ``frame``; None where it is none.

    Nor is one that contextlib drives: a ``@contextmanager`` lends its blocks to the code within.
    """
    frame = _outside_contextlib(frame)
    if frame is None or not frame.f_code.co_flags & (_GENERATOR | _ASYNC_GENERATOR):
        return None
    driver = frame.f_back
    lends = driver is not None and driver.f_globals.get("__name__") == "contextlib"
    return None if lends else Generator(frame)


def caller_of(frame: FrameType) -> int:
    """A number that tells the frame, or the one for which contextlib has called, while it lives."""
    return id(_outside_contextlib(frame))


def _outside_contextlib(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_globals.get("__name__") == "contextlib":
        frame = frame.f_back
    return frame


def around(scope: Any) -> Any:
    """The scope of the running code, whose context says that it is ``scope`` (`Scope` or None)."""
    while scope is not None and scope.generator is not None and scope.generator.is_aside():
        scope = scope.outer
    if not blocks:
        return scope
    opened = list(blocks.items())[::-1]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for generator, block in opened:
            if generator.runs_in(frame):
                return scope if _is_within(scope, block) else block
        frame = frame.f_back
    return scope


def _is_within(scope: Any, block: object) -> bool:
    while scope is not None and scope is not block:
        scope = scope.outer
    return scope is block


def _task() -> tuple[int, Any]:
    """What has a context of its own: the thread, and the task of asyncio that runs in it."""
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    return get_ident(), None if loop is None else asyncio.current_task(loop)  # type: ignore[union-attr]
