"""Watches what threads of the library import: nothing, but modules of its own package.

Two threads that import parts of one package in different orders may each be handed half a module,
so that an import of a thread of ours can break one of the application's.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_PACKAGE = "doow_serverless"


class ImportWatch:
    """A finder that finds nothing, and notes who looks.

    Put first into ``sys.meta_path``, it is asked for each module that is not imported yet.

    Attributes:
        seen: Modules of others that a thread of the library was about to import.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] != _PACKAGE and _is_thread_of_ours(sys._getframe(1)):
            self.seen.append(name)

    def take(self) -> list[str]:
        """What has been seen since the last call."""
        seen, self.seen = self.seen, []
        return seen


def _is_thread_of_ours(frame: FrameType | None) -> bool:
    """Whether a thread whose code runs in ``frame`` was started with a function of the package."""
    first = ""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "threading":
            first = name
        frame = frame.f_back
    return bool(first.partition(".")[0] == _PACKAGE)


def watch_imports() -> ImportWatch:
    """Begin to watch, in this process."""
    watch = ImportWatch()
    sys.meta_path.insert(0, watch)
    return watch
