"""Functions that get a part of a core, or little memory: held by control groups, as by Lambda."""

from __future__ import annotations

from fractions import Fraction

import pytest

from doow_serverless.local import Fault, Ingest
from doow_serverless.local import _cgroups as cgroups
from tests.campaign.small_functions import cold_starts, kills, runtime_of
from tests.timing import within

pytest.importorskip("awslambdaric")
pytestmark = [
    pytest.mark.extensive,
    pytest.mark.skipif(
        not cgroups.can_be_had("cpu"),
        reason="control groups of version 1 can be made by root alone",
    ),
]

SHARES = [Fraction(1, 4), Fraction(1, 7), Fraction(1, 14)]


@pytest.mark.parametrize("share", SHARES, ids=str)
def test_the_first_invocation_delivers_its_own_events(share: Fraction) -> None:
    """What is dear was done in the init phase: no timeout, no hold-off, nothing in the log."""
    found = cold_starts(share, 2)
    assert found.troubles == []
    # It was 600, 1,100 and 2,000 ms, the whole budget, while imports raced the first invocation.
    within(min(found.first_ms) / 1e3, 0.4)


@pytest.mark.parametrize("share", SHARES[1:], ids=str)
def test_a_function_that_computes_until_it_is_killed(share: Fraction) -> None:
    """Its events are in the ingest or in the log, though it leaves other threads no time."""
    assert kills(share, 2) == []


@pytest.mark.parametrize(
    ("events", "letters"), [(10_000, 0), (9_000, 1_400)], ids=["many", "a full backlog"]
)
def test_memory_at_128_mb(events: int, letters: int) -> None:
    """Ten thousand events, and 16 MB of them in an outage, fit beside the runtime."""
    if not cgroups.can_be_had("memory"):
        pytest.skip("no memory controller")
    with Ingest() as ingest:
        if letters:
            ingest.fault(Fault(status=503, times=None))
        options = {"memory_mb": 128, "limit_memory": True, "cpu_share": None}
        with runtime_of("filling", Fraction(1, 14), ingest, **options) as runtime:
            for _ in range(3):
                invocation = runtime.invoke({"events": events, "letters": letters})
                assert invocation.error is None
