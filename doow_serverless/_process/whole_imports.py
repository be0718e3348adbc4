"""Imports packages of others without handing half of one to another thread.

A thread that imports ``requests.adapters`` locks that module first, and then its parent; one that
imports ``requests`` locks that first, and then its parts. If both happen at once, the two wait for
each other, and CPython resolves it by letting one go on with half a module, whose import fails. So
all these locks are taken beforehand, at a moment when no other thread holds any of them.
https://github.com/python/cpython/blob/main/Lib/importlib/_bootstrap.py (_ModuleLock)
"""

from __future__ import annotations

import _imp
import _thread
import os
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LIMIT_S = 10.0
"""Seconds for which an import by another thread is waited for; then it is imported beside that."""
_PAUSE_S = 0.001
_bootstrap: Any = sys.modules.get("_frozen_importlib")


@contextmanager
def whole(*packages: str) -> Iterator[None]:
    """Hold the import locks of these packages and of all their modules.

    Other threads that import any of them wait. This works for packages in a folder, and with the
    import locks of CPython 3.3 to 3.14. Otherwise nothing is held, and an import is as safe as any
    other.
    """
    with ExitStack() as held:
        # Most processes have one thread while they load, and then this costs nothing.
        if _thread._count() and not all(map(_is_imported, packages)):
            names = [name for package in packages for name in _modules_of(package)]
            try:
                _hold_all(names, held)
            except (AttributeError, TypeError):  # Another Python has other locks.
                held.close()
        yield


def _is_imported(name: str) -> bool:
    """Whether a module is imported as a whole."""
    module = sys.modules.get(name)
    return module is not None and not getattr(
        getattr(module, "__spec__", None), "_initializing", False
    )


def _modules_of(package: str) -> list[str]:
    """The names of a package and its modules, parts before their parents; none if it is missing."""
    spec = PathFinder.find_spec(package)
    names = [package] if spec is not None else []
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            names = [*_parts_of(package, folder), package]
        except OSError:  # It is in a zip file, say.
            continue
    return names


def _parts_of(name: str, folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        part = f"{name}.{entry.name.partition('.')[0]}"
        if entry.name.endswith((".py", ".so", ".pyd")) and entry.name != "__init__.py":
            yield part
        elif os.path.exists(os.path.join(entry.path, "__init__.py")):
            yield from _parts_of(part, entry.path)
            yield part


def _hold_all(names: list[str], held: ExitStack) -> None:
    """Take the lock of each module, unless another thread has one for too long."""
    ends_at = time.monotonic() + LIMIT_S
    while time.monotonic() < ends_at:
        try:
            _imp.acquire_lock()  # No other thread takes a lock of a module meanwhile.
            if not any(map(_is_locked_by_another, names)):
                for name in names:
                    held.enter_context(_bootstrap._ModuleLockManager(name))
                return
        finally:
            with suppress(RuntimeError):  # A signal's handler has raised before it was acquired.
                _imp.release_lock()
        time.sleep(_PAUSE_S)


def _is_locked_by_another(name: str) -> bool:
    known = _bootstrap._module_locks.get(name)
    lock = None if known is None else known()
    return lock is not None and lock.owner not in (None, _thread.get_ident())
