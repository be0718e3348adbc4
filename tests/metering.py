"""What tests of every platform share: the default tracker, a trace of what happened, the events."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import doow_serverless as doow
from doow_serverless import _tracker
from doow_serverless.local import Fault
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doow_serverless.local import Ingest

SLOW_S = 0.05
"""Seconds that Doow takes to answer: what is not held back overtakes it."""


def configure(ingest: Ingest, **options: Any) -> doow.Tracker:
    """Make the default tracker, and wait until it is warm."""
    return configure_endpoint(ingest.url, **{"budget": 30.0, **options})


def configure_endpoint(endpoint: str, **options: Any) -> doow.Tracker:
    """The same for any server, and with the budget that the package has by default."""
    tracker = doow.configure(KEY, endpoint=endpoint, **{"license_id": "lic_1", **options})
    if tracker.engine.warm_up is not None:
        tracker.engine.warm_up.join()
    return tracker


@contextmanager
def unmetered() -> Iterator[None]:
    """Nothing is recorded outside of a request: for what shall be as if it knew nothing of us."""
    earlier, _tracker._tracker = _tracker._tracker, doow.Tracker(enabled=False)
    try:
        yield
    finally:
        _tracker._tracker = earlier


def metrics(events: Iterable[dict[str, Any]]) -> list[str]:
    """The metrics of the events of an ingest or of a memory transport, in their order."""
    return [event["measurements"][0]["metric_name"] for event in events]


def accepted(ingest: Ingest) -> list[str]:
    """The metrics of the events that an ingest has accepted, in order of arrival."""
    return metrics(ingest.events())


def per_post(ingest: Ingest) -> list[list[str]]:
    """The metrics that each POST carried, in order of arrival."""
    by_id = {event["event_id"]: metrics([event])[0] for event in ingest.events()}
    return [[by_id[event_id] for event_id in post.event_ids] for post in ingest.posts()]


def owners(ingest: Ingest, label: str = "request") -> list[set[Any]]:
    """For each POST the values of the attribution ``label`` that its events carry."""
    by_id = {event["event_id"]: event["attribution"][label] for event in ingest.events()}
    return [{by_id[event_id] for event_id in post.event_ids} for post in ingest.posts()]


class Trace:
    """What happened, in order, and how many events had been accepted by then.

    Args:
        ingest: Where events arrive. From now on it takes its time.
        **options: Of the default tracker.
    """

    def __init__(self, ingest: Ingest, **options: Any) -> None:
        self.ingest = ingest
        self.tracker = configure(ingest, **options)
        self.calls: list[tuple[str, Any, int]] = []
        ingest.fault(Fault(delay_s=SLOW_S, times=None))

    def note(self, what: str, value: Any = None) -> None:
        self.calls.append((what, value, len(self.ingest.events())))
