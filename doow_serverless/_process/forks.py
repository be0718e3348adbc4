"""Processes that begin anew: forked children, and what is restored from a snapshot; in one order.

Both hold what another process has recorded, measured and opened, and must leave it to that one. The
threads of a process are not in its forked child, and the locks that they held stay shut there; a
process that is restored has all of its threads, so that its locks stay what they are.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from weakref import WeakSet

from .log import report_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeVar

    T = TypeVar("T")

    class Member(Protocol):
        """What lives as long as the process, and is told of its forks and of its end."""

        def before_fork(self) -> None:
            """Take the locks that a child must not find shut."""

        def after_fork_in_parent(self) -> None:
            """Release the locks that `before_fork` took."""

        def after_fork_in_child(self) -> None:
            """Forget threads and locks, and then begin anew; what waits is the parent's."""

        def before_snapshot(self) -> None:
            """Deliver what waits, or write it down: many processes will go on from here."""

        def after_restore(self) -> None:
            """Begin anew, as each of those does; the threads are there, and may hold locks."""

        def last_flush(self, limit_s: float, patience_s: float) -> None:
            """Deliver what waits within ``limit_s`` seconds, for the process is about to end.

            There are ``patience_s`` more for what is being written down.
            """


_members: WeakSet[Member] = WeakSet()
_resets: list[Callable[[], None]] = []
_beginnings: list[Callable[[], None]] = []
_forks_are_guarded = False
_count = 0
_process = os.getpid()
_noticing = threading.Lock()


def notice() -> None:
    """Begin anew if this is a child of a fork that ran none of Python's hooks.

    uWSGI forks its workers in C. There, nothing has told this package of it, and locks of the
    parent's threads are still shut. To be called before any of them is taken.
    """
    if os.getpid() != _process:
        with _noticing:
            if os.getpid() != _process:
                _note_fork()
                after_fork_in_child()


def count() -> int:
    """How many children this process, or who forked it before that, has forked."""
    return _count


def _note_fork() -> None:
    global _count
    _count += 1


def register(member: Member) -> None:
    """Have ``member`` told of forks in a child, for as long as somebody else holds it."""
    _members.add(member)


def members() -> list[Member]:
    """All that are registered and alive."""
    return listed(_members)


def listed(weak: WeakSet[T]) -> list[T]:
    """What ``weak`` holds, also while other threads add to it."""
    while True:
        with suppress(RuntimeError):  # It changed meanwhile.
            return list(weak)


def reset_in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Have ``reset`` called in every forked child, before all else there; a decorator.

    For what belongs to the threads of the parent: their locks, and what they were about.
    """
    _resets.append(reset)
    return reset


def begins_anew(begin: Callable[[], None]) -> Callable[[], None]:
    """Have ``begin`` called in forked children and restored processes; a decorator.

    For what is recorded and measured: it comes after the resets, and before the members are told.
    """
    _beginnings.append(begin)
    return begin


def guard_forks() -> None:
    """Have forks wait for `Member.before_fork`, once for the process."""
    global _forks_are_guarded
    if _forks_are_guarded or not hasattr(os, "register_at_fork"):
        return
    _forks_are_guarded = True
    # What is registered last runs first: logging takes its lock for the time of a fork, and the
    # imports that ours waits for need that lock.
    import logging  # noqa: F401

    os.register_at_fork(before=before_fork, after_in_parent=_after_fork_in_parent)


def before_fork() -> None:
    """Let other threads finish what must not be cut in two."""
    for member in members():
        member.before_fork()


def _after_fork_in_parent() -> None:
    for member in members():
        member.after_fork_in_parent()


def after_fork_in_child() -> None:
    """Begin anew: first what belongs to the process, then each member."""
    global _process
    _process = os.getpid()
    for reset in _resets:
        reset()
    for begin in _beginnings:
        begin()
    _tell("beginning anew after a fork", [member.after_fork_in_child for member in members()])


def before_snapshot() -> None:
    """Have nothing in hand that each process restored from the snapshot would deliver."""
    _tell("preparing for a snapshot", [member.before_snapshot for member in members()])


def after_restore() -> None:
    """Begin anew, as after a fork, but for the threads and their locks.

    The members come first, since they write down what was recorded too late for the snapshot.
    """
    _tell("beginning anew after a restore", [member.after_restore for member in members()])
    for begin in _beginnings:
        begin()


def _tell(what: str, calls: list[Callable[[], None]]) -> None:
    for call in calls:
        try:
            call()
        except Exception as fault:
            report_fault(what, fault)


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_parent=_note_fork, after_in_child=after_fork_in_child)
