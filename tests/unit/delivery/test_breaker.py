"""The hold-off after failures, on a fake clock and without chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._delivery.breaker import FIRST_HOLD_S, LONGEST_HOLD_S, Gate, uniform
from doow_serverless.errors import ErrorKind

TIMEOUT, LIMITED = ErrorKind.TIMEOUT, ErrorKind.RATE_LIMITED


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def gate(clock: Clock, chance: float = 1.0) -> Gate:
    return Gate(clock, lambda: chance)


def test_it_is_open_at_first(clock: Clock) -> None:
    """Nothing holds off a sender that has not failed."""
    fresh = gate(clock)
    assert (fresh.is_shut, fresh.reason, fresh.remaining_s()) == (False, None, 0.0)


def test_the_hold_off_doubles_to_a_minute(clock: Clock) -> None:
    """Each failed probe doubles the wait, from a second to a minute."""
    shut = gate(clock)
    holds = []
    for _ in range(20):
        shut.failed(TIMEOUT, "silent")
        holds.append(shut.remaining_s())
        clock.now += shut.remaining_s()
    assert holds == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[60.0] * 14]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 30))
def test_chance_takes_up_to_a_half_off(chance: float, failures: int) -> None:
    """A fleet spreads: each waits between half of the hold-off and all of it."""
    clock = Clock()
    shut = gate(clock, chance)
    for _ in range(failures):
        clock.now += shut.remaining_s()
        shut.failed(TIMEOUT, "silent")
    full = min(FIRST_HOLD_S * 2 ** (failures - 1), LONGEST_HOLD_S)
    assert full / 2 - 1e-6 <= shut.remaining_s() <= full + 1e-6


def test_failures_together_are_one(clock: Clock) -> None:
    """Flushes that fail during the hold-off neither lengthen nor double it."""
    shut = gate(clock)
    shut.failed(TIMEOUT, "first")
    clock.now += 0.25
    shut.failed(LIMITED, "second")
    assert (shut.remaining_s(), shut.reason, shut.message) == (0.75, TIMEOUT, "first")
    clock.now += 0.75
    shut.failed(TIMEOUT, "third")
    assert shut.remaining_s() == 2.0


def test_it_stays_shut_after_the_hold_off(clock: Clock) -> None:
    """That time has passed proves nothing: only a success opens."""
    shut = gate(clock)
    shut.failed(TIMEOUT, "silent")
    clock.now += 1_000
    assert (shut.is_shut, shut.reason, shut.remaining_s()) == (True, TIMEOUT, 0.0)
    shut.opened()
    assert (shut.is_shut, shut.reason) == (False, None)


def test_a_success_starts_the_doubling_anew(clock: Clock) -> None:
    """The failure after a success holds off for a second."""
    shut = gate(clock)
    for _ in range(5):
        shut.failed(TIMEOUT, "silent")
        clock.now += shut.remaining_s()
    shut.opened()
    shut.failed(TIMEOUT, "silent")
    assert shut.remaining_s() == 1.0


def test_the_servers_own_wait(clock: Clock) -> None:
    """What the server asks for holds to the second, and only ever lengthens the hold-off."""
    shut = gate(clock)
    shut.shut(LIMITED, "429", 30.0)
    assert (shut.remaining_s(), shut.reason) == (30.0, LIMITED)
    shut.shut(LIMITED, "429", 5.0)
    assert shut.remaining_s() == 30.0
    shut.shut(LIMITED, "429", 40.0)
    assert shut.remaining_s() == 40.0


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_a_wait_of_unknown_length(clock: Clock, seconds: float | None) -> None:
    """A server that does not say how long is treated as any failure."""
    shut = gate(clock)
    shut.shut(LIMITED, "429", seconds)
    assert (shut.remaining_s(), shut.reason) == (1.0, LIMITED)


def test_one_probe_at_a_time(clock: Clock) -> None:
    """While one probe is under way no other begins, be the gate open or shut."""
    shut = gate(clock)
    assert [shut.begin_probe(), shut.begin_probe()] == [True, False]
    shut.end_probe()
    shut.failed(TIMEOUT, "silent")
    assert shut.begin_probe() is False
    clock.now += 1.0
    assert [shut.begin_probe(), shut.begin_probe()] == [True, False]
    shut.end_probe()
    assert shut.begin_probe() is True


def test_no_probe_without_a_key(clock: Clock) -> None:
    """A hold-off without end is never over."""
    shut = gate(clock)
    shut.shut(ErrorKind.AUTH_FAILURE, "no key", float("inf"))
    clock.now += 1e9
    assert (shut.begin_probe(), shut.is_shut) == (False, True)


def test_chance_is_a_number_below_one() -> None:
    """The random number lies from 0 up to 1, and varies."""
    drawn = [uniform() for _ in range(1_000)]
    assert 0 <= min(drawn) < 0.1 < 0.9 < max(drawn) < 1
