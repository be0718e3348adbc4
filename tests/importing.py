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
_PATCHES = {"vcr"}
"""Packages that patch urllib3 in a test, and import for each connection whatever they may patch."""


class ImportWatch:
    """A finder that finds nothing, and notes who looks.

    Put first into ``sys.meta_path``, it is asked for each module that is not imported yet.

    Attributes:
        seen: Modules of others that a thread of the library was about to import.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        importer = sys._getframe(1)
        if name.partition(".")[0] == _PACKAGE or not _is_thread_of_ours(importer):
            return
        if _PATCHES.isdisjoint(_packages_above(importer)):
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


def _packages_above(frame: FrameType | None) -> set[str]:
    """The packages whose code runs in ``frame``, and has called it."""
    packages = set()
    while frame is not None:
        packages.add(frame.f_globals.get("__name__", "").partition(".")[0])
        frame = frame.f_back
    return packages


def watch_imports() -> ImportWatch:
    """Begin to watch, in this process."""
    watch = ImportWatch()
    sys.meta_path.insert(0, watch)
    return watch
