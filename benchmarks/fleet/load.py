"""Who records what, and when: the same for each way, since it is drawn from the same seed."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1_000
"""Events that the account may send in a minute, over all its sandboxes."""
SANDBOXES = 100
INVOCATIONS_PER_MINUTE = 1_000
EVENTS = 20
"""Events that an invocation records: with the invocations, twenty times the limit."""
LICENSES = 25
USES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("input_tokens", "tokens", {"model": "gpt-4o", "team": "search"}),
    ("output_tokens", "tokens", {"model": "gpt-4o", "team": "search"}),
    ("tool_calls", "calls", {"tool": "web_search"}),
    ("pages", "pages", {"team": "documents"}),
)
"""Metric, unit and attribution: with the licenses a hundred shapes of events."""
SHAPES = LICENSES * len(USES)
LIFE_S = (120.0, 480.0)
"""Seconds that a sandbox lives, at the least and at the most."""


@dataclass(frozen=True, order=True)
class Invocation:
    """One invocation: when, in which place of the fleet, in its how manieth sandbox, for whom."""

    at: float
    place: int
    life: int
    license_id: str


def invocations(minutes: float, seed: int) -> Iterator[Invocation]:
    """All invocations of the fleet in order: each is for one license, at a time by chance."""
    places = (_of_place(place, minutes * 60, seed) for place in range(SANDBOXES))
    return heapq.merge(*places)


def uses(events: int = EVENTS) -> Counter[str]:
    """How often an invocation records each metric, one after the other."""
    return Counter(USES[number % len(USES)][0] for number in range(events))


def _of_place(place: int, ends_at: float, seed: int) -> Iterator[Invocation]:
    dice = random.Random(f"{seed} {place}")
    often = INVOCATIONS_PER_MINUTE / 60 / SANDBOXES
    at, life, dies_at = dice.expovariate(often), 0, dice.uniform(0, LIFE_S[1])
    while at < ends_at:
        if at >= dies_at:
            life, dies_at = life + 1, at + dice.uniform(*LIFE_S)
        yield Invocation(at, place, life, f"lic_{dice.randrange(LICENSES):02}")
        at += dice.expovariate(often)
