"""Members that nobody holds any more, though they have something to deliver: the process does.

A tracker may be dropped with events in hand. Its engine is then held here until they are delivered,
or written down; should the process end first, the last flush finds it.
"""

from __future__ import annotations

import _thread
from contextlib import suppress
from functools import partial

from .forks import register, reset_in_child
from .log import report_fault
from .workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .forks import Member

    class Orphan(Member, Protocol):
        """A member that can be left."""

        def settle(self) -> None:
            """Deliver what is in hand, or write it down."""


_AT_ONCE = 4
"""How many are settled side by side; in an outage each takes its time."""
_orphans: list[Orphan] = []
_workers = Workers(_AT_ONCE)


def adopt(member: Orphan) -> None:
    """Hold ``member`` until it is settled. Finalizers call this: no locks are taken."""
    _orphans.append(member)
    register(member)  # A collector forgets weak references before it finalizes.
    # Neither by `threading` nor by workers, whose locks the code may hold that is interrupted.
    with suppress(RuntimeError):  # No more threads: then it is left to the last flush.
        _thread.start_new_thread(_have_settled, (member,))


def _have_settled(member: Orphan) -> None:
    _workers.submit(partial(_settle, member))


def _settle(member: Orphan) -> None:
    try:
        member.settle()
    except Exception as fault:
        report_fault("settling what a tracker has left", fault)
    with suppress(ValueError):
        _orphans.remove(member)


@reset_in_child
def _leave_to_parent() -> None:
    global _workers
    _workers = Workers(_AT_ONCE)
    _orphans.clear()
