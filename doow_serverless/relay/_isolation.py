"""Finds the event that Doow cannot digest, so that one of them does not hold up all that follow.

A stream comes again with what was not delivered, for as long as it takes: which is right in an
outage, and would never end where it is one event that always fails.
"""

from __future__ import annotations

from doow_serverless._delivery.patient import Undeliverable
from doow_serverless._sealing import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch


def isolate(
    batch: Batch,
    deliver: Callable[[Batch], object],
    note_halved: Callable[[Batch], object],
    give_up: Callable[[Batch, str], object],
) -> None:
    """Deliver by halves a batch that the server has answered with an error, again and again.

    Only where one half gets through it is the other that is at fault, and not the server: then that
    one is halved again, down to a single event.

    Args:
        batch: Of two events at least.
        deliver: Delivers a half; raises Undeliverable.
        note_halved: Told of a batch of which a half was delivered, so that the whole must not be.
        give_up: Told of an event that cannot be delivered though others can, and why.

    Raises:
        Undeliverable: It is not the batch, as far as can be told, or there is no time left.
    """
    failed: list[tuple[Batch, Undeliverable]] = []
    for half in split(batch):
        try:
            deliver(half)
        except Undeliverable as trouble:
            failed.append((half, trouble))
        else:
            note_halved(batch)
    if len(failed) == 2:
        raise failed[0][1]
    for half, problem in failed:
        if not problem.is_answered:
            raise problem
        if len(half) == 1:
            give_up(half, str(problem))
        else:
            isolate(half, deliver, note_halved, give_up)
