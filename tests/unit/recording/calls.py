"""Trackers in memory, and what became of the calls that tests make with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import doow_serverless as doow
from doow_serverless.testing import MemoryTransport
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable


class Calls:
    """A tracker, and what it reported.

    Args:
        **options: Of the tracker.

    Attributes:
        told: The messages that ``on_error`` received.
    """

    def __init__(self, **options: Any) -> None:
        self.told: list[str] = []
        self._transport = MemoryTransport()
        self.tracker: Any = doow.Tracker(
            KEY,
            **{
                "transport": self._transport,
                "license_id": "lic_1",
                "environ": {},
                "dead_letter": "off",
                "warm_up": False,
                "on_error": lambda error: self.told.append(str(error)),
                **options,
            },
        )

    def of(self, call: Callable[[Any], object]) -> tuple[list[dict[str, Any]], list[str]]:
        """The events of a call, without what all have, and what was reported of it."""
        before = len(self._transport.events)
        self.told.clear()
        call(self.tracker)
        self.tracker.flush()
        return [_own(event) for event in self._transport.events[before:]], self.told[:]

    def track(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], list[str]]:
        """The same of a call of ``track`` with these arguments."""
        return self.of(lambda tracker: tracker.track(*args, **kwargs))


def _own(event: dict[str, Any]) -> dict[str, Any]:
    usual = {"license_id": "lic_1", "source_system": "sdk", "kind": "USAGE"}
    given = {name: value for name, value in event.items() if usual.get(name) != value}
    del given["event_id"], given["occurred_at"]
    return given
