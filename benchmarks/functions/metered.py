"""Records so many events; when they are delivered, ``benchmarks.handing_over`` says."""

import os
import time
from typing import Any

import doow_serverless as doow

is_tracked = os.environ["BENCHMARK_MODE"] != "untracked"
if not is_tracked:
    doow.configure(enabled=False)


def record(event: dict[str, Any]) -> float:
    """When all is recorded."""
    for number in range(event["events"]):
        doow.track("tokens", number + 1)
    return time.perf_counter()


work = doow.tracked(record) if is_tracked else record


def handler(event: dict[str, Any], _: object) -> float:
    """Milliseconds from the end of the function that records until the wrapper returns."""
    ended = work(event)
    return (time.perf_counter() - ended) * 1e3
