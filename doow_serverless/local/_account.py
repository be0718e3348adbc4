"""What an organization's account adds to the protocol: a rate, and what it knows by name."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from doow_serverless.local._protocol import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WINDOW_S = 60.0


class Account:
    """One organization: how many events a minute it may send, and its licenses and metrics.

    Args:
        events_per_minute: Over all keys and senders; None for as many as come. Doow's own is 1,000.
        licenses: Those that it has; None for any.
        metrics: Those that they have; None for any.
        clock: Unix seconds.
    """

    def __init__(
        self,
        events_per_minute: int | None = None,
        licenses: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if events_per_minute is not None and events_per_minute < 1:
            raise ValueError(f"events_per_minute must be 1 or more, or None: {events_per_minute!r}")
        self._limit = events_per_minute
        self._licenses = None if licenses is None else frozenset(licenses)
        self._metrics = None if metrics is None else frozenset(metrics)
        self._clock = clock
        self._window = 0.0
        self._used = 0

    def admit(self, events: int) -> Answer | None:
        """Count so many events in; the answer where they are too many for this minute."""
        if self._limit is None:
            return None
        self._turn()
        if self._used + events > self._limit:
            wait_s = max(1, math.ceil(self._window + WINDOW_S - self._clock()))
            told = {"limit": self._limit, "current": self._used + events, "retry_after": wait_s}
            answer = Answer.of(
                429,
                {"message": "the organization's limit is reached", "errorClass": "RateLimitError"},
                {
                    "Retry-After": str(wait_s),
                    "X-Doow-Rate-Limits": json.dumps({"event_rate": told}),
                },
            )
            return self.told(answer)
        self._used += events
        return None

    def told(self, answer: Answer) -> Answer:
        """``answer`` with what is left of this minute, where there is a limit."""
        if self._limit is None:
            return answer
        self._turn()
        left = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(0, self._limit - self._used)),
            "X-RateLimit-Reset": str(math.ceil(self._window + WINDOW_S)),
        }
        return replace(answer, headers={**answer.headers, **left})

    def fault_of(self, event: dict[str, Any]) -> str | None:
        """The reason for which Doow rejects an event that is valid by itself, or None."""
        if self._licenses is not None and event["license_id"] not in self._licenses:
            return "license_not_found"
        names = {each["metric_name"] for each in event["measurements"]}
        if self._metrics is not None and not names <= self._metrics:
            return "unknown_metric"
        return None

    def _turn(self) -> None:
        """Begin another minute, if it is time."""
        now = self._clock()
        if now >= self._window + WINDOW_S:
            self._window = now // WINDOW_S * WINDOW_S
            self._used = 0
