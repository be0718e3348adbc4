"""What delivery by log costs a response on Lambda, beside Powertools' Metrics.

Both write what was recorded to standard output as lines. Powertools writes a line for every hundred
values of a metric, and none of them can be told apart by customer.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from doow_serverless.local.lambda_runtime import LambdaRuntime

from .handing_over import medians

FUNCTIONS = Path(__file__).with_name("functions")
EVENTS = (0, 1, 10, 100)
COLUMNS = ("events", "untracked", "log", "log, folded", "Powertools' Metrics")
MODES = ("untracked", "log", "folded", "metrics")


def rows() -> list[tuple[str, ...]]:
    """For each number of events: milliseconds of the response in each way."""
    with ExitStack() as stack:
        runtimes = {mode: stack.enter_context(_runtime(mode)) for mode in MODES}
        return [(f"{events:,}", *medians(runtimes, events)) for events in EVENTS]


def _runtime(mode: str) -> LambdaRuntime:
    return LambdaRuntime(
        "by_log.handler",
        FUNCTIONS,
        env={
            "BENCHMARK_MODE": mode,
            "DOOW_TRACK_DELIVERY": "log",
            "DOOW_TRACK_FOLD": "true" if mode == "folded" else "",
            "DOOW_TRACK_LICENSE_ID": "lic_acme",
            "POWERTOOLS_METRICS_NAMESPACE": "shop",
        },
    )
