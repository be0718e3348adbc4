"""What watching a deadline costs: invocations that send nothing, with a deadline and without."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import doow_serverless as doow
from doow_serverless.testing import MemoryTransport

from .warm import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

INVOCATIONS = 2_000


class Context:
    """A Lambda context, whose deadline is measured as the real one measures it."""

    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

    def __init__(self, timeout_s: float) -> None:
        self._deadline_ms = time.time() * 1000 + timeout_s * 1000

    def get_remaining_time_in_millis(self) -> float:
        return max(self._deadline_ms - time.time() * 1000, 0)


def microseconds(handler: Callable[[object], object], timeout_s: float | None) -> float:
    """How long one invocation takes, without making the context."""
    contexts = [None if timeout_s is None else Context(timeout_s) for _ in range(INVOCATIONS)]
    began = time.perf_counter()
    for context in contexts:
        handler(context)
    return (time.perf_counter() - began) / INVOCATIONS * 1e6


def rows() -> list[tuple[str, str]]:
    """Microseconds of an invocation that records nothing, by its deadline."""
    doow.configure(KEY, transport=MemoryTransport(), license_id="lic_acme", warm_up=False)

    @doow.tracked
    def tracked(context: object) -> None:
        pass

    cases: list[tuple[str, float | None]] = [
        ("tracked, no deadline", None),
        ("tracked, a deadline within the lead: it is asked for only", 0.2),
        ("tracked, a deadline in 3 s: it is watched", 3.0),
        ("tracked, a deadline in 15 min: it is watched", 900.0),
    ]
    rounds = [[microseconds(tracked, timeout_s) for _, timeout_s in cases] for _ in range(12)][1:]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    found = [(name, f"{median:.2f} µs") for (name, _), median in zip(cases, medians, strict=True)]
    return [*found, ("… difference that watching makes", f"{medians[2] - medians[1]:+.2f} µs")]
