"""Finds what Doow cannot digest, so that one event of that kind does not hold up all that follow.

A stream comes again with what was not delivered, for as long as it takes: which is right in an
outage, and would never end where it is one event that always fails.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from doow_serverless._delivery.patient import Undeliverable
from doow_serverless._sealing import split

from ._recent import Recent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch

MAX_SUSPECTS = 1_000
"""Batches of which a process remembers that they have failed."""


class Suspects:
    """Batches that have failed, until they get through: which of them are at fault themselves.

    A server that is down fails with all of them. What fails, and fails again when others have got
    through in between, is itself to blame. Every method may be called from any thread.

    Attributes:
        doubtful: Ids of batches of which an answer was lost, so that the server may have them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._successes = 0
        self._failed: OrderedDict[str, int] = OrderedDict()
        self.doubtful = Recent(MAX_SUSPECTS)

    def __repr__(self) -> str:
        return f"Suspects({list(self._failed)!r})"

    def __contains__(self, batch_id: str) -> bool:
        return batch_id in self._failed

    def got_through(self, batch_id: str) -> None:
        """Note that the server has decided on a batch."""
        with self._lock:
            self._successes += 1
            self._failed.pop(batch_id, None)

    def failed_again(self, batch_id: str) -> bool:
        """Note that a batch has failed; whether it had before, and others got through since."""
        with self._lock:
            since = self._failed.setdefault(batch_id, self._successes)
            while len(self._failed) > MAX_SUSPECTS:
                self._failed.popitem(last=False)
            return self._successes > since


class Isolation:
    """What is done with a batch that has failed, again and again.

    Where the server itself answers that it cannot take it, it is tried by halves: if one gets
    through, it is the other that is at fault, and not the server, and that is halved again, down to
    a single event. Where an answer was lost it stays whole, since the server may have it, and knows
    it by its own id alone. It is given up, as is what fails in both halves, once it fails again
    when others got through in between. What is left of a batch of which a half got through is given
    up at once: the whole must never come again.

    Args:
        deliver: Delivers a half; raises Undeliverable.
        give_up: Told of what cannot be delivered though others can, and why.
        suspects: What has failed before.
        halved: Ids of batches of which the server may have a half, so that the whole must not go.
    """

    def __init__(
        self,
        deliver: Callable[[Batch], object],
        give_up: Callable[[Batch, str], object],
        suspects: Suspects,
        halved: Recent,
    ) -> None:
        self._deliver = deliver
        self._give_up = give_up
        self._suspects = suspects
        self._halved = halved

    def settle(self, batch: Batch, problem: Undeliverable, *, is_at_fault: bool = False) -> None:
        """Deliver ``batch``, or all but what is at fault, which is given up.

        Args:
            batch: It could not be delivered.
            problem: Why.
            is_at_fault: Whether something of it is, since its other half got through.

        Raises:
            Undeliverable: Nothing says that it is not the server, or there is no time left; and no
                half of it got through.
        """
        if problem.is_ambiguous:
            self._suspects.doubtful.add(batch.id)
        if batch.id in self._halved or self._may_be_halved(batch, problem):
            failed = self._failed_halves(batch)
            if batch.id in self._halved:
                self._settle_each(failed, is_at_fault=len(failed) == 1)
                return
            problem = failed[-1][1]
        is_certain = is_at_fault and problem.is_answered and len(batch) == 1
        if not is_certain and (problem.ends_all or not self._suspects.failed_again(batch.id)):
            raise problem
        self._give_up(batch, str(problem))

    def _may_be_halved(self, batch: Batch, problem: Undeliverable) -> bool:
        is_there = batch.id in self._suspects.doubtful  # As far as anybody knows.
        return problem.is_answered and len(batch) > 1 and not is_there

    def _failed_halves(self, batch: Batch) -> list[tuple[Batch, Undeliverable]]:
        failed = []
        for half in split(batch):
            try:
                self._deliver(half)
            except Undeliverable as why:
                failed.append((half, why))
                if not why.is_ambiguous:
                    continue
            self._halved.add(batch.id)
        return failed

    def _settle_each(self, parts: list[tuple[Batch, Undeliverable]], *, is_at_fault: bool) -> None:
        for part, why in parts:
            try:
                self.settle(part, why, is_at_fault=is_at_fault)
            except Undeliverable as problem:
                # The platform would bring the whole again, of which the server has a half: another
                # process, which does not know that, would send it.
                self._give_up(part, str(problem))
