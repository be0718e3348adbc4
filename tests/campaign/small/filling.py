"""A function that holds as many events as its event says, and tells its own memory."""

from __future__ import annotations

import resource
from typing import Any

import doow_serverless as doow


@doow.tracked
def handler(event: Any, context: Any) -> dict[str, float]:
    """Megabytes: resident before, and at the peak of the process so far."""
    text = "x" * event["letters"]
    for number in range(event["events"]):
        metadata = {"noise": text} if text else None
        doow.track("tokens", number + 1, attribution={"serial": str(number)}, metadata=metadata)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
