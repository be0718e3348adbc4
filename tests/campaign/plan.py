"""What happens in a campaign: drawn from a seed beforehand, whatever becomes of it then."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from doow_serverless.local import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    Draw = Callable[[random.Random], Fault]

SMALL_LIMIT = 12_000
"""Bytes of JSON above which some ingests answer 413."""
DEADLINE_S = 0.7


@dataclass
class Turn:
    """One invocation, and what goes wrong around it.

    Attributes:
        number: From 0 up; the function names its events after it.
        event: What the handler is to do.
        pause_s: Seconds for which the sandbox stays frozen before.
        recycled: Whether the sandbox is killed before.
        faults: What the next POSTs meet.
        ingest: "stop" or "start" it before, or "".
        timeout_s: The function's timeout.
        killed_after_s: When SIGKILL comes from outside, which may be after the end.
        frozen: When the whole sandbox is stopped, and for how long.
        signalled_after_s: When the function gets a signal, and records in its handler.
        alarmed_after_s: When it gets one whose handler raises.
        terminated_after_s: When it gets SIGTERM.
    """

    number: int
    event: dict[str, Any]
    pause_s: float = 0.0
    recycled: bool = False
    faults: list[Fault] = field(default_factory=list)
    ingest: str = ""
    timeout_s: float = 10.0
    killed_after_s: float | None = None
    frozen: tuple[float, float] | None = None
    signalled_after_s: float | None = None
    alarmed_after_s: float | None = None
    terminated_after_s: float | None = None

    @property
    def is_signalled(self) -> bool:
        """Whether any signal comes that the function handles."""
        times = (self.signalled_after_s, self.alarmed_after_s, self.terminated_after_s)
        return any(after_s is not None for after_s in times)


def reason_of(event: dict[str, Any]) -> bool | str:
    """Why an event is rejected in a 207: the same whenever it is asked for."""
    return str(event["attribution"]["serial"])[-1] in "37" and "the serial number ends in 3 or 7"


# No status 413 and no 2xx among them: a server that takes a batch at one time and finds it too
# large at another, or that confirms what it has not recorded, cannot be made up for.
FAULTS: list[tuple[int, Draw]] = [
    (4, lambda chance: Fault(status=chance.choice([500, 502, 503, 504, 408]))),
    (2, lambda _: Fault(status=503, headers={"Retry-After": "1"})),
    (3, lambda chance: Fault(rate_limit_s=chance.choice([0.2, 0.5, 1.0]))),
    (2, lambda chance: Fault(status=chance.choice([400, 403, 404, 422]))),
    (1, lambda chance: Fault(status=chance.choice([401, 302]))),
    (3, lambda chance: Fault(hang=True, record_first=chance.random() < 0.5)),
    (3, lambda chance: Fault(delay_s=chance.uniform(0.02, 0.4))),
    (2, lambda chance: Fault(drip_headers_s=chance.uniform(0.0005, 0.01))),
    (2, lambda chance: Fault(drip_body_s=chance.uniform(0.0005, 0.01))),
    (3, lambda chance: Fault(delay_s=chance.uniform(0.2, 0.4))),  # Another POST finds it in flight.
    (4, lambda chance: Fault(reset=_reset(chance), record_first=chance.random() < 0.5)),
    (3, lambda chance: Fault(status=chance.choice([500, 503, 408, 429]), record_first=True)),
    (1, lambda _: Fault(status=503, headers={"Retry-After": "soon", "X-Doow-Rate-Limits": "{"})),
    (3, lambda _: Fault(reject=reason_of)),
    (1, lambda chance: Fault(reject=reason_of, delay_s=chance.uniform(0.05, 0.3))),
    (1, lambda _: Fault(reject=reason_of, reset="mid_body", record_first=True)),
]


# What the server cannot digest, from the first invocation to the last.
POISON: list[Draw] = [
    lambda chance: Fault(only="poison", times=None, status=chance.choice([500, 408, 301])),
    lambda chance: Fault(only="poison", times=None, reset=_reset(chance)),
]


def _reset(chance: random.Random) -> str:
    return chance.choice(["before_answer", "mid_answer", "mid_body", "close"])


def turns(count: int, seed: object) -> list[Turn]:
    """So many turns, the same for the same seed."""
    chance = random.Random(str(seed))
    drawn = [_turn(number, chance) for number in range(count)]
    for start in range(0, count, 40):
        stretch = drawn[start : start + 40]
        if chance.random() < 0.25:
            _make_quick(stretch, chance)
        _add_outage(stretch, chance)
    drawn[0].faults.append(chance.choice(POISON)(chance))
    return drawn


def _turn(number: int, chance: random.Random) -> Turn:
    discards, steps = chance.random() < 0.15, _steps(chance)
    turn = Turn(number, {"number": number, "discards": discards, "steps": steps})
    if chance.random() < 0.3:
        turn.pause_s = chance.choice([0.02, 0.05, 0.1, 0.2, 0.6, 1.2])
    if chance.random() < 0.3:
        weights, draws = zip(*FAULTS, strict=True)
        turn.faults = [draw(chance) for draw in chance.choices(draws, weights, k=_some(chance))]
    turn.recycled = chance.random() < 0.05
    accident = chance.random()
    if accident < 0.05:
        turn.killed_after_s = chance.uniform(0.0, 0.12)
        steps.append({"do": "sleep", "seconds": 0.08})
        if not chance.randrange(3):
            steps.append({"do": "work_for_ever", **_kind(chance), "events": 3})
    elif accident < 0.08:
        turn.timeout_s = DEADLINE_S
        steps.append({"do": "work_for_ever", **_kind(chance), "events": 1})
    elif accident < 0.13:
        turn.frozen = (chance.uniform(0.0, 0.1), chance.uniform(0.05, 0.4))
    elif accident < 0.23:
        turn.signalled_after_s = chance.uniform(0.0, 0.05)
    elif accident < 0.26:
        turn.alarmed_after_s = chance.uniform(0.0, 0.05)
    elif accident < 0.29:
        turn.terminated_after_s = chance.uniform(0.0, 0.1)
        # Threads go on until the process has ended, when nobody can deliver what they record.
        turn.event["steps"] = [*(_without_threads(steps)), {"do": "sleep", "seconds": 0.05}]
    return turn


def _without_threads(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**step, "steps": _without_threads(step["steps"])} if "steps" in step else step
        for step in steps
        if step["do"] != "thread"
    ]


def _make_quick(stretch: list[Turn], chance: random.Random) -> None:
    """Functions of 2 ms, which stand still for most of the time."""
    for turn in stretch:
        turn.event["steps"] = [{"do": "track", "events": 1, **_kind(chance)}]
        turn.pause_s = turn.pause_s or 0.05
        turn.killed_after_s = turn.terminated_after_s = turn.frozen = None
        turn.timeout_s = Turn.timeout_s


def _add_outage(stretch: list[Turn], chance: random.Random) -> None:
    begin = chance.randrange(len(stretch))
    stretch[begin].ingest = "stop"
    # One that begins at the end of a stretch lasts until the next, or to the end of the campaign.
    for turn in stretch[begin + chance.randint(1, 4) :][:1]:
        turn.ingest = "start"
    stretch[0].ingest = stretch[0].ingest or "start"


def _some(chance: random.Random) -> int:
    return chance.choice([1, 1, 1, 2, 3, 5])


def _kind(chance: random.Random) -> dict[str, Any]:
    """Whether events have ids of their own, and how much metadata."""
    return {"named": chance.random() < 0.5, "noise": chance.choice([0, 0, 0, 40, 900])}


def _steps(chance: random.Random) -> list[dict[str, Any]]:
    if chance.random() < 0.1:
        return []
    if chance.random() < 0.3:
        return [{"do": "track", "events": 1, **_kind(chance)}]
    steps = [_step(chance, depth=0) for _ in range(chance.randint(1, 4))]
    if chance.random() < 0.12:
        steps.append({"do": "refuse"})
    return steps


def _step(chance: random.Random, depth: int) -> dict[str, Any]:
    do = chance.choices(
        ["track", "transaction", "thread", "flush", "sleep", "many", "huge", "poison"],
        [10, 4 if depth < 3 else 0, 3, 2, 2, 1, 0.3, 0.3],
    )[0]
    if do == "poison":
        return {"do": "track", "events": 1, "named": True, "noise": 0, "metric": "poison"}
    if do == "transaction":
        inner = [_step(chance, depth + 1) for _ in range(chance.randint(0, 3))]
        return {"do": do, "steps": inner, "fails": chance.random() < 0.35}
    if do == "sleep":
        return {"do": do, "seconds": chance.uniform(0.0, 0.03)}
    if do == "many":
        kind = {"named": chance.random() < 0.5, "noise": chance.choice([0, 40])}
        return {"do": "track", "events": chance.randint(600, 1_100), **kind}
    if do == "huge":
        # Too large for a small ingest even alone.
        return {"do": "track", "events": 1, "named": False, "noise": SMALL_LIMIT}
    step = {"do": do, "events": chance.randint(1, 12), **_kind(chance)}
    return {**step, "raw": chance.random() < 0.5} if do == "thread" else step
