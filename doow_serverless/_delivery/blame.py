"""Who is at fault if a batch fails: the batch itself, or the server and the way to it?

    a POST fails because                       at fault            the batch
    nothing was sent (refused, no address)     the way             goes again; it counts for nothing
    the key is refused, or cannot be read      the key             the same
    a kept connection had died                 the connection      goes again at once, on a new one
    the server asks to wait (load, the key)    the server          waits, as does everything
    Doow is at work on it already              nobody              goes again
    any other failure, as often as others      the server          goes again
    any other failure, but others get through  the batch           is halved, then given up

Whether a batch fails more often than others is judged by a rate. One of three instances behind a
load balancer that fails everything makes every batch fail at a third of its POSTs, and says nothing
about any of them. So the first POSTs of the last `LAST` batches give the rate ``p`` at which a POST
fails that has nothing wrong with it. If other batches got through between the failures of a batch,
``p`` to the power of these failures is the chance that it has nothing wrong with it either. At one
in a hundred it is halved, which costs nothing but requests.

At one in a million, and no earlier than `PATIENCE_S` after its first failure, a single event is
given up. Here ``p`` is at least the rate at which retries fail: they go out on new connections,
which may reach worse instances than the kept ones do. Batches that got through in the end tell that
rate. As long as there are none, every other retry is supposed to fail.

A relay, which hands back what it has not delivered, halves no earlier than it gives up: see
`patient`.

A batch of which an answer was lost stays whole, since Doow may have it, and knows it by its id
alone: its halves would count again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from doow_serverless.errors import ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .flight import Entry
    from .results import Failed

LAST = 64
"""Batches that tell how often POSTs fail."""
SPLIT_AT = 1e-2
"""The chance that a batch is well at which it is halved."""
GIVE_UP_AT = 1e-6
"""The chance that an event is well at which it is given up."""
PATIENCE_S = 120.0
"""Seconds for which a batch is tried, at least; a server may be replaced in that time."""


class Verdict(Enum):
    """What is to be done with a batch that has failed."""

    AGAIN = "send it again"
    SPLIT = "halve it, to find the event that is at fault"
    GIVE_UP = "leave it, since it cannot be delivered though others can"


class Blame:
    """Judges each failure; it holds no lock and no clock.

    Attributes:
        successes: Batches that got through so far.
    """

    def __init__(self) -> None:
        self._first_posts: deque[tuple[str, bool]] = deque(maxlen=LAST)
        self._failed_retries: deque[int] = deque(maxlen=LAST)
        self.successes = 0

    def __repr__(self) -> str:
        failed = sum(has_failed for _, has_failed in self._first_posts)
        return f"Blame({failed} of {len(self._first_posts)} batches failed at first)"

    def got_through(self, entry: Entry) -> None:
        """A POST of ``entry`` was answered by a decision."""
        self.successes += 1
        self._note(entry, has_failed=False)
        if entry.failures and not entry.is_part:
            self._failed_retries.append(entry.failures - 1)

    def failed(self, entry: Entry, failure: Failed, now: float) -> None:
        """Count a failure of ``entry``."""
        # Neither says anything about a batch.
        if not failure.is_unsent and failure.reason is not ErrorKind.AUTH_FAILURE:
            self._note(entry, has_failed=True)
            if entry.failures and self.successes > entry.seen_successes:
                entry.strikes += 1
        if entry.failing_since is None:
            entry.failing_since = now
        entry.failures += 1
        entry.seen_successes = self.successes

    def _note(self, entry: Entry, *, has_failed: bool) -> None:
        # Not what has failed before: a few batches that fail again and again are not the server.
        if not entry.failures and not entry.is_part:
            self._first_posts.append((entry.batch.id, has_failed))

    def verdict(self, entry: Entry, now: float) -> Verdict:
        """What is to be done with ``entry``, which has just failed."""
        rate = self._rate(entry)
        if len(entry.batch) > 1 and not entry.is_ambiguous:
            return Verdict.SPLIT if rate**entry.strikes <= SPLIT_AT else Verdict.AGAIN
        return Verdict.GIVE_UP if self.is_at_fault(entry, now) else Verdict.AGAIN

    def is_at_fault(self, entry: Entry, now: float) -> bool:
        """Whether a batch that has just failed is certainly at fault, and was tried for long."""
        rate = max(self._rate(entry), self._rate_of_retries())
        return self.is_old(entry, now) and rate**entry.strikes <= GIVE_UP_AT

    def is_old(self, entry: Entry, now: float) -> bool:
        """Whether a batch has failed for minutes."""
        return entry.failing_since is not None and now - entry.failing_since >= PATIENCE_S

    def _rate(self, entry: Entry) -> float:
        """How often a first POST fails that has nothing wrong with it."""
        posts = list(self._first_posts)  # Threads of a relay share it.
        others = [has_failed for batch_id, has_failed in posts if batch_id != entry.batch.id]
        return _rate(sum(others), len(others))

    def _rate_of_retries(self) -> float:
        """How often a retry has failed before one got through."""
        retries = list(self._failed_retries)
        return _rate(sum(retries), sum(retries) + len(retries))


def _rate(failed: int, posts: int) -> float:
    """Estimate a rate from a few cases (Laplace's rule of succession)."""
    return (failed + 1) / (posts + 2)
