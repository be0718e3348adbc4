"""The hold-off after failures, on a fake clock and without chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._delivery.breaker import FIRST_HOLD_S, LONGEST_HOLD_S, CircuitBreaker, uniform
from doow_serverless.errors import ErrorKind
from tests.clock import Clock

TIMEOUT, LIMITED = ErrorKind.TIMEOUT, ErrorKind.RATE_LIMITED


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock: Clock, chance: float = 1.0) -> CircuitBreaker:
    return CircuitBreaker(clock, lambda: chance)


def held_s(breaker: CircuitBreaker, clock: Clock) -> float:
    """Seconds until a probe may try."""
    return max(0.0, breaker._until - clock.now)


def test_it_is_closed_at_first(clock: Clock) -> None:
    """Nothing holds off a sender that has not failed."""
    fresh = breaker(clock)
    assert (fresh.is_open, fresh.reason, held_s(fresh, clock)) == (False, None, 0.0)


def test_the_hold_off_doubles_to_a_minute(clock: Clock) -> None:
    """Each failed probe doubles the wait, from a second to a minute."""
    opened = breaker(clock)
    holds = []
    for _ in range(20):
        opened.failed(TIMEOUT, "silent")
        holds.append(held_s(opened, clock))
        clock.now += held_s(opened, clock)
    assert holds == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[60.0] * 14]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 30))
def test_chance_takes_up_to_a_half_off(chance: float, failures: int) -> None:
    """A fleet spreads: each waits between half of the hold-off and all of it."""
    clock = Clock()
    opened = breaker(clock, chance)
    for _ in range(failures):
        clock.now += held_s(opened, clock)
        opened.failed(TIMEOUT, "silent")
    full = min(FIRST_HOLD_S * 2 ** (failures - 1), LONGEST_HOLD_S)
    assert full / 2 - 1e-6 <= held_s(opened, clock) <= full + 1e-6


def test_failures_together_are_one(clock: Clock) -> None:
    """Flushes that fail during the hold-off neither lengthen nor double it."""
    opened = breaker(clock)
    opened.failed(TIMEOUT, "first")
    clock.now += 0.25
    opened.failed(LIMITED, "second")
    assert (held_s(opened, clock), opened.reason, opened.message) == (0.75, TIMEOUT, "first")
    clock.now += 0.75
    opened.failed(TIMEOUT, "third")
    assert held_s(opened, clock) == 2.0


def test_it_stays_open_after_the_hold_off(clock: Clock) -> None:
    """That time has passed proves nothing: only a success closes it."""
    opened = breaker(clock)
    opened.failed(TIMEOUT, "silent")
    clock.now += 1_000
    assert (opened.is_open, opened.reason, held_s(opened, clock)) == (True, TIMEOUT, 0.0)
    opened.close()
    assert (opened.is_open, opened.reason) == (False, None)


def test_a_success_starts_the_doubling_anew(clock: Clock) -> None:
    """The failure after a success holds off for a second."""
    opened = breaker(clock)
    for _ in range(5):
        opened.failed(TIMEOUT, "silent")
        clock.now += held_s(opened, clock)
    opened.close()
    opened.failed(TIMEOUT, "silent")
    assert held_s(opened, clock) == 1.0


def test_the_servers_own_wait(clock: Clock) -> None:
    """What the server asks for holds to the second, and only ever lengthens the hold-off."""
    opened = breaker(clock)
    opened.open(LIMITED, "429", 30.0)
    assert (held_s(opened, clock), opened.reason) == (30.0, LIMITED)
    opened.open(LIMITED, "429", 5.0)
    assert held_s(opened, clock) == 30.0
    opened.open(LIMITED, "429", 40.0)
    assert held_s(opened, clock) == 40.0


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_a_wait_of_unknown_length(clock: Clock, seconds: float | None) -> None:
    """A server that does not say how long is treated as any failure."""
    opened = breaker(clock)
    opened.open(LIMITED, "429", seconds)
    assert (held_s(opened, clock), opened.reason) == (1.0, LIMITED)


def test_one_probe_at_a_time(clock: Clock) -> None:
    """While one probe is under way no other begins, be the breaker closed or open."""
    opened = breaker(clock)
    assert [opened.begin_probe(), opened.begin_probe()] == [True, False]
    opened.end_probe()
    opened.failed(TIMEOUT, "silent")
    assert opened.begin_probe() is False
    clock.now += 1.0
    assert [opened.begin_probe(), opened.begin_probe()] == [True, False]
    opened.end_probe()
    assert opened.begin_probe() is True


def test_no_probe_without_a_key(clock: Clock) -> None:
    """A hold-off without end is never over."""
    opened = breaker(clock)
    opened.open(ErrorKind.AUTH_FAILURE, "no key", float("inf"))
    clock.now += 1e9
    assert (opened.begin_probe(), opened.is_open) == (False, True)


def test_chance_is_a_number_below_one() -> None:
    """The random number lies from 0 up to 1, and varies."""
    drawn = [uniform() for _ in range(1_000)]
    assert 0 <= min(drawn) < 0.1 < 0.9 < max(drawn) < 1
