"""What forks, and the end of the process, mean to all trackers in it."""

from __future__ import annotations

import os
from contextlib import suppress
from weakref import WeakSet

from .clock import Budget
from .log import report_fault
from .shutdown import install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from doow_serverless._engine import Tracker

    T = TypeVar("T")

_trackers: WeakSet[Tracker] = WeakSet()
_forks_are_guarded = False


def register(tracker: Tracker) -> None:
    """Have ``tracker`` told of forks, and flush once more when the process ends."""
    _trackers.add(tracker)
    if tracker.config.enabled:
        install(_last_flush)
        _guard_forks()


def members(weak: WeakSet[T]) -> list[T]:
    """What ``weak`` holds, also while other threads add to it."""
    while True:
        with suppress(RuntimeError):  # It changed meanwhile.
            return list(weak)


def _last_flush(limit_s: float) -> None:
    budget = Budget(limit_s)
    for tracker in members(_trackers):
        try:
            tracker.last_flush(budget)
        except Exception as fault:
            report_fault("the last flush", fault)


def _guard_forks() -> None:
    """Have forks wait for imports, once for all trackers."""
    global _forks_are_guarded
    if _forks_are_guarded or not hasattr(os, "register_at_fork"):
        return
    _forks_are_guarded = True
    # What is registered last runs first: logging takes its lock for the time of a fork, and the
    # imports that ours waits for need that lock.
    import logging  # noqa: F401

    os.register_at_fork(before=before_fork, after_in_parent=_after_fork_in_parent)


def before_fork() -> None:
    """Let other threads finish what they import."""
    for tracker in list(_trackers):
        tracker.before_fork()


def _after_fork_in_parent() -> None:
    for tracker in list(_trackers):
        tracker.after_fork_in_parent()


def after_fork() -> None:
    """In a child: begin anew."""
    for tracker in list(_trackers):
        tracker.after_fork()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=after_fork)
