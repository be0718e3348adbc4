"""Each batch is settled once or written down, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.delivery.any_order import Story

STEPS = 500


@settings(
    max_examples=220,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # What is found here, the short ones show better.
    suppress_health_check=list(HealthCheck),
)
@given(st.binary(min_size=2 * STEPS, max_size=2 * STEPS))
def test_any_order_of_facts(story: bytes) -> None:
    """110,000 facts: sealed, waited for, begun, answered, frozen, ended, as chance will have it."""
    Story().tell(story)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_short_stories(story: bytes) -> None:
    """The same again, where little happens, and what goes wrong is easily read."""
    Story().tell(story)
