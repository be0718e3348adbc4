"""How quick a server is, as far as its answers have shown, and how much it may be sent.

When its silence means something; and, once it has told of its limit, when the backlog may go on.
"""

from __future__ import annotations

from .flight import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .flight import Attempt, Flight

DOUBT_AFTER = 0.25
"""Part of the budget after which a silent kept connection is doubted, where no answer ever came."""
LATEST_DOUBT = 0.4
"""The same, unless the server usually needs longer."""
HEDGES_PER_ANSWER = 0.05
"""Second POSTs for each answer, so that a slow server has hardly more to do."""
MOST_HEDGES = 4.0
"""Second POSTs at once, and before the first answer: as many as a flush sends side by side, since
a freeze kills all kept connections together."""
DOUBT_S = 0.5
"""Seconds beyond what the server has needed so far that are no cause for doubt."""
EARLIEST_DOUBT_S = 0.1
"""Seconds of silence that are no cause for doubt, however small the budget."""
OUTAGE_S = 0.25
"""Seconds of silence that say anything about a server."""
LONGEST_OUTAGE_S = 1.0
"""The same, however long the server has needed before."""

ACCOUNT_EVENTS_PER_S = 1_000 / 60
"""Events that Doow takes from an organization, over all its senders."""


class BacklogPace:
    """When the next batch of the backlog may go, after a rate limit.

    All sandboxes of an organization have a backlog then, and one account. So each goes no faster
    than the whole account may, until its own backlog is gone; how many there are it cannot know.

    Args:
        uniform: A random number from 0.0 up to 1.0, so that they do not go in step.

    Attributes:
        is_limited: Whether the server has told of its limit since the last backlog was gone.
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self.is_limited = False
        self._next_at = 0.0

    def __repr__(self) -> str:
        return f"BacklogPace(next at {self._next_at:.1f})" if self.is_limited else "BacklogPace()"

    def limit(self) -> None:
        """The server has told of its limit."""
        self.is_limited = True

    def catch_up(self) -> None:
        """There is no backlog any more."""
        self.is_limited = False

    def note(self, events: int, now: float) -> None:
        """The server has taken so many events."""
        spread = self._uniform() / 2 if self.is_limited else 0.0
        self._next_at = now + events / ACCOUNT_EVENTS_PER_S * (1.0 + spread)

    def allows(self, now: float) -> bool:
        """Whether a batch of the backlog may go."""
        return not self.is_limited or self._next_at <= now


class Hedges:
    """How many second POSTs may be sent for batches whose first POST is silent.

    A second POST is for a connection that may be dead. If the first one is answered after all, the
    second was a load for nothing: hence only a small share of all POSTs may be such (Dean and
    Barroso, "The Tail at Scale", 2013, allow 5 %).
    """

    def __init__(self) -> None:
        self._left = MOST_HEDGES

    def __repr__(self) -> str:
        return f"Hedges({self._left:.2f} left)"

    def take(self) -> bool:
        """Whether one more may be sent, which is then counted."""
        may = self._left >= 1.0
        self._left -= 1.0 if may else 0.0
        return may

    def note_answer(self) -> None:
        """A POST was answered."""
        self._left = min(MOST_HEDGES, self._left + HEDGES_PER_ANSWER)

    def note_won(self) -> None:
        """A second POST was answered before the first: that connection was dead indeed."""
        self._left = min(MOST_HEDGES, self._left + 1.0)


class Pace:
    """How long this server has needed for its answers, estimated as TCP does (RFC 6298)."""

    def __init__(self) -> None:
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    def __repr__(self) -> str:
        return f"Pace({self._mean_s}, ± {self._deviation_s:.3f} s)"

    def note(self, seconds: float) -> None:
        """An answer came after so long."""
        if self._mean_s is None:
            self._mean_s, self._deviation_s = seconds, seconds / 2
        else:
            self._deviation_s += (abs(seconds - self._mean_s) - self._deviation_s) / 4
            self._mean_s += (seconds - self._mean_s) / 8

    def doubt_at(self, flight: Flight, attempt: Attempt) -> float:
        """When a silent attempt is doubted: what was before the wait may be the handler's doing."""
        budget_s = flight.ends_at - flight.waiting_since
        needed_s = self._needed_s(DOUBT_S, otherwise=budget_s * DOUBT_AFTER)
        usual_s = self._needed_s(0.0, otherwise=0.0)
        since = max(attempt.began_at or 0.0, flight.waiting_since)
        longest_s = max(usual_s, budget_s * LATEST_DOUBT)
        return since + max(EARLIEST_DOUBT_S, min(needed_s, longest_s))

    def outage_at(self, attempt: Attempt) -> float:
        """When the silence of an attempt says that the server, or the network, is in trouble."""
        if attempt.began_at is None:
            return NEVER
        needed_s = self._needed_s(OUTAGE_S, otherwise=OUTAGE_S)
        return attempt.began_at + min(needed_s, LONGEST_OUTAGE_S)

    def _needed_s(self, slack_s: float, otherwise: float) -> float:
        """Seconds within which an answer should have come; ``otherwise`` where none ever has."""
        if self._mean_s is None:
            return otherwise
        return self._mean_s + max(4 * self._deviation_s, slack_s)
