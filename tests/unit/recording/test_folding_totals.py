"""Folding changes no total: sums are exact, and whole invocations come to the same."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._recording import scope as scope_module
from doow_serverless._recording.quantities import total
from doow_serverless.testing import MemoryTransport
from tests.unit.recording.folded import HOUR, events_of, made

if TYPE_CHECKING:
    from doow_serverless import Outcome, Tracker


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (0.1, 0.2, "0.3"),
        (1, 0.5, "1.5"),
        ("0.10", 1, "1.10"),
        (10**30, 1, str(10**30 + 1)),
        (2**53, 2**53 + 1, str(2**54 + 1)),
        (1e22, 1, "10000000000000000000001"),
        (-5, 5, "0"),
        (9 * 10**63, 10**63, None),
        (1e300, 1e-300, None),
        (1e307, 9e307, None),
    ],
)
def test_sums(one: Any, other: Any, expected: str | None) -> None:
    """As decimals that are written, or none where it would break a rule."""
    for found in (total(one, other), total(other, one)):
        assert (None if found is None else str(found)) == expected


NUMBERS = st.one_of(
    st.integers(1, 10**20),
    st.floats(1e-9, 1e12),
    st.decimals("0.000001", "1e20", places=6),
)
EVENTS = st.fixed_dictionaries(
    {"metric": st.sampled_from(["tokens", "calls"]), "quantity": NUMBERS},
    optional={
        "license_id": st.sampled_from(["lic_2", "lic_3"]),
        "unit": st.just("k"),
        "attribution": st.sampled_from([{"a": 1}, {"a": True}, {"a": "1"}]),
        "event_id": st.just("evt"),
        "metadata": st.just({"m": 1}),
        "kind": st.just("ADJUSTMENT"),
    },
)
STEPS = st.recursive(
    st.one_of(
        EVENTS,
        st.just("flush"),
        st.floats(0.0, 4_000.0),  # So much later.
        st.dictionaries(st.sampled_from(["in", "out"]), NUMBERS, min_size=1),
    ),
    lambda inner: st.tuples(st.booleans(), st.lists(inner, max_size=6)),
    max_leaves=40,
)


class Failure(Exception):
    """What makes a transaction fail."""


def play(tracker: Tracker, steps: list[Any], now: list[float]) -> None:
    for step in steps:
        if step == "flush":
            tracker.flush()
        elif isinstance(step, float):
            now[0] += step
        elif isinstance(step, dict) and "metric" in step:
            tracker.track(**step)
        elif isinstance(step, dict):
            tracker.track_all(step)
        else:
            fails, inner = step
            try:
                with tracker.transaction():
                    play(tracker, inner, now)
                    if fails:
                        raise Failure
            except Failure:
                pass


def totals(steps: list[Any], **options: Any) -> dict[str, Fraction]:
    """What has arrived, by all that an event says."""
    transport, now = MemoryTransport(), [HOUR]
    outcomes: list[Outcome] = []
    tracker = made(transport, on_flush=outcomes.append, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scope_module, "time", lambda: now[0])
        tracker.tracked(lambda: play(tracker, steps, now))()
    found: dict[str, Fraction] = {}
    for event in events_of(transport):
        said = {name: event.get(name) for name in ("license_id", "unit", "attribution", "kind")}
        hour = event["occurred_at"][:13]
        for each in event["measurements"]:
            key = json.dumps([said, hour, each["metric_name"]])
            found[key] = found.get(key, Fraction(0)) + Fraction(each["quantity"])
    found["calls of track"] = Fraction(sum(outcome.recorded for outcome in outcomes))
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30), st.sampled_from([True, {"tokens"}, {"in", "out"}]))
def test_totals_are_the_same(steps: list[Any], fold: Any) -> None:
    """By metric, license, unit, attribution, kind and hour, to the last digit."""
    assert totals(steps, fold=fold) == totals(steps)
