"""What an invocation on Lambda waits for: a flush before the response, or its handing over.

In AWS's runtime client, frozen in between, beside a server that takes 20 ms.
"""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack
from pathlib import Path

from doow_serverless.local.lambda_runtime import LambdaRuntime

from .server import answering
from .warm import KEY

FUNCTIONS = Path(__file__).with_name("functions")
DELAY_S = 0.02
EVENTS = (0, 1, 10, 100)
ROUNDS = 40
COLUMNS = ("events", "untracked", "before", "after", "wrapper, before", "wrapper, after")
MODES = ("untracked", "before_response", "after_response")


def rows() -> list[tuple[str, ...]]:
    """For each number of events: the response without us, before, after; and our wrapper's end."""
    with answering(DELAY_S) as url, ExitStack() as stack:
        runtimes = {
            mode: stack.enter_context(
                LambdaRuntime(
                    "metered.handler",
                    FUNCTIONS,
                    env={
                        "BENCHMARK_MODE": mode,
                        "DOOW_TRACK_API_KEY": KEY,
                        "DOOW_TRACK_ENDPOINT": url,
                        "DOOW_TRACK_FLUSH_MODE": "after_response" if "after" in mode else "",
                        "DOOW_TRACK_LICENSE_ID": "lic_acme",
                    },
                )
            )
            for mode in MODES
        }
        return [_row(runtimes, events) for events in EVENTS]


def medians(runtimes: dict[str, LambdaRuntime], events: int) -> list[str]:
    """How long the response takes in each, in milliseconds."""
    responses: dict[str, list[float]] = {mode: [] for mode in runtimes}
    for _ in range(ROUNDS + 3):
        for mode, runtime in runtimes.items():
            responses[mode].append(runtime.invoke({"events": events}).duration_s * 1e3)
    return [f"{statistics.median(each[3:]):.2f}" for each in responses.values()]


def _row(runtimes: dict[str, LambdaRuntime], events: int) -> tuple[str, ...]:
    responses: dict[str, list[float]] = {mode: [] for mode in runtimes}
    ends: dict[str, list[float]] = {mode: [] for mode in runtimes}
    for _ in range(ROUNDS + 3):
        for mode, runtime in runtimes.items():
            invocation = runtime.invoke({"events": events})
            responses[mode].append(invocation.duration_s * 1e3)
            ends[mode].append(json.loads(invocation.payload))
    figures = [statistics.median(responses[mode][3:]) for mode in MODES]
    figures += [statistics.median(ends[mode][3:]) for mode in MODES[1:]]
    return (f"{events:,}", *(f"{figure:.2f}" for figure in figures))
