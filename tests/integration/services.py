"""A service that meters each call, and what an ingest has seen of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Outcome, Tracker
    from doow_serverless.errors import DoowError
    from doow_serverless.local import Ingest


class Service:
    """A function that meters, and everything that it is told about its events.

    Args:
        tracker: Makes its tracker.
        **options: Those of the tracker.
    """

    def __init__(self, tracker: Callable[..., Tracker], endpoint: str, **options: Any) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[DoowError] = []
        self.tracker = tracker(
            endpoint,
            **{"on_flush": self._flushed, "on_error": self.errors.append, "budget": 2.0, **options},
        )
        self.elapsed_s: list[float] = []

    def _flushed(self, outcome: Outcome) -> None:
        # Apart, so that outcomes can be compared as a whole.
        self.elapsed_s.append(outcome.elapsed_s)
        outcome.elapsed_s, outcome.backlog = 0.0, 0
        self.outcomes.append(outcome)

    def invoke(self, *event_ids: str) -> float:
        """Record these events in one invocation; the seconds that the whole took."""

        @self.tracker.tracked
        def handler() -> None:
            for event_id in event_ids:
                self.tracker.track("tokens", 3, event_id=event_id)

        began = time.perf_counter()
        handler()
        return time.perf_counter() - began

    def reports(self) -> list[tuple[str, tuple[str, ...], float | None]]:
        """What on_error received: kind, events, and the wait that was asked for."""
        return [(error.kind.value, error.event_ids, error.retry_after_s) for error in self.errors]

    def has_settled(self, within_s: float = 5.0) -> bool:
        """Invoke without events, as warm traffic does, until the backlog is empty."""
        ends_at = time.monotonic() + within_s
        while len(self.tracker.engine.outbox.state.kept) and time.monotonic() < ends_at:
            self.invoke()
            time.sleep(0.02)
        return not len(self.tracker.engine.outbox.state.kept)


def ids(ingest: Ingest) -> list[str]:
    """The accepted events, each as often as it is in the ledger."""
    return [event["event_id"] for event in ingest.events()]


def statuses(ingest: Ingest) -> list[int | None]:
    return [post.status for post in ingest.posts()]
