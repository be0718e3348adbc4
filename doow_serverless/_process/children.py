"""The children of multiprocessing, which end by ``os._exit``, so that no ``atexit`` is heard.

Pools, and executors of processes, are made of them. What multiprocessing calls at their end instead
is a `Finalize`: https://github.com/python/cpython/blob/main/Lib/multiprocessing/util.py
"""

from __future__ import annotations

import sys

from .forks import reset_in_child
from .shutdown import flush_at_exit, hear_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LAST = -100
"""The priority of our finalizer: after those of the application, which may record."""
_is_asked_for = False


def is_one() -> bool:
    """Whether this process is such a child."""
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def install() -> None:
    """Have all members flush once more at the end of this process, if it is such a child."""
    if is_one():
        _flush_at_end()


@reset_in_child
def _ask_in_child() -> None:
    global _is_asked_for
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and not _is_asked_for:
        _is_asked_for = True
        # It forgets the finalizers of the parent first, and calls this afterwards.
        util.register_after_fork(_flush_at_end, lambda _: _flush_at_end())


def _flush_at_end() -> None:
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(None, flush_at_exit, exitpriority=_LAST)
    hear_all()
