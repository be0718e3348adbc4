"""The hold-off after failures, on a fake clock and without chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._delivery.breaker import (
    FIRST_HOLD_S,
    LONGEST_HOLD_S,
    PROBE_WAIT_S,
    CircuitBreaker,
    uniform,
)
from doow_serverless.errors import ErrorKind
from tests.clock import Clock

TIMEOUT, LIMITED = ErrorKind.TIMEOUT, ErrorKind.RATE_LIMITED


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(chance: float = 1.0) -> CircuitBreaker:
    return CircuitBreaker(lambda: chance)


def held_s(breaker: CircuitBreaker, clock: Clock) -> float:
    """Seconds until a probe may try."""
    return max(0.0, breaker.until - clock.now)


def test_it_is_closed_at_first(clock: Clock) -> None:
    """Nothing holds off a sender that has not failed."""
    fresh = breaker()
    assert (fresh.is_open, fresh.reason, held_s(fresh, clock)) == (False, None, 0.0)


def test_the_hold_off_doubles_to_a_minute(clock: Clock) -> None:
    """Each failed probe doubles the wait, from a second to a minute."""
    opened = breaker()
    holds = []
    for _ in range(20):
        opened.failed(clock.now, TIMEOUT, "silent")
        holds.append(held_s(opened, clock))
        clock.now += held_s(opened, clock)
    assert holds == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[60.0] * 14]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 30))
def test_chance_takes_up_to_a_half_off(chance: float, failures: int) -> None:
    """A fleet spreads: each waits between half of the hold-off and all of it."""
    clock = Clock()
    opened = breaker(chance)
    for _ in range(failures):
        clock.now += held_s(opened, clock)
        opened.failed(clock.now, TIMEOUT, "silent")
    full = min(FIRST_HOLD_S * 2 ** (failures - 1), LONGEST_HOLD_S)
    assert full / 2 - 1e-6 <= held_s(opened, clock) <= full + 1e-6


def test_failures_together_are_one(clock: Clock) -> None:
    """Flushes that fail during the hold-off neither lengthen nor double it."""
    opened = breaker()
    opened.failed(clock.now, TIMEOUT, "first")
    clock.now += 0.25
    opened.failed(clock.now, LIMITED, "second")
    assert (held_s(opened, clock), opened.reason, opened.message) == (0.75, TIMEOUT, "first")
    clock.now += 0.75
    opened.failed(clock.now, TIMEOUT, "third")
    assert held_s(opened, clock) == 2.0


def test_it_stays_open_after_the_hold_off(clock: Clock) -> None:
    """That time has passed proves nothing: only a success closes it."""
    opened = breaker()
    opened.failed(clock.now, TIMEOUT, "silent")
    clock.now += 1_000
    assert (opened.is_open, opened.reason, held_s(opened, clock)) == (True, TIMEOUT, 0.0)
    opened.close()
    assert (opened.is_open, opened.reason) == (False, None)


def test_a_success_starts_the_doubling_anew(clock: Clock) -> None:
    """The failure after a success holds off for a second."""
    opened = breaker()
    for _ in range(5):
        opened.failed(clock.now, TIMEOUT, "silent")
        clock.now += held_s(opened, clock)
    opened.close()
    opened.failed(clock.now, TIMEOUT, "silent")
    assert held_s(opened, clock) == 1.0


def test_the_servers_own_wait(clock: Clock) -> None:
    """What the server asks for is kept, and only ever lengthens the hold-off."""
    opened = breaker(chance=0.0)
    opened.open(clock.now, LIMITED, "429", 30.0)
    assert (held_s(opened, clock), opened.reason) == (30.0, LIMITED)
    opened.open(clock.now, LIMITED, "429", 5.0)
    assert held_s(opened, clock) == 30.0
    opened.open(clock.now, LIMITED, "429", 40.0)
    assert held_s(opened, clock) == 40.0


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 900.0))
def test_chance_adds_to_what_was_asked_for(chance: float, asked_s: float) -> None:
    """The fleet, which was told the same moment, comes back bit by bit, and nobody too early."""
    clock = Clock(0.0)
    opened = breaker(chance)
    opened.open(clock.now, LIMITED, "429", asked_s)
    assert held_s(opened, clock) == pytest.approx(asked_s + max(1.0, asked_s / 10) * chance)
    assert held_s(opened, clock) >= asked_s


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_a_wait_of_unknown_length(clock: Clock, seconds: float | None) -> None:
    """A server that does not say how long is treated as any failure."""
    opened = breaker()
    opened.open(clock.now, LIMITED, "429", seconds)
    assert (held_s(opened, clock), opened.reason) == (1.0, LIMITED)


def test_it_is_due_once_the_hold_off_is_over(clock: Clock) -> None:
    """Closed it asks for no probe; open it does as soon as the hold-off has passed."""
    opened = breaker()
    assert not opened.is_due(clock.now)
    opened.failed(clock.now, TIMEOUT, "silent")
    assert not opened.is_due(clock.now + 0.999)
    assert opened.is_due(clock.now + 1.0)
    opened.close()
    assert not opened.is_due(clock.now + 1.0)


def test_no_probe_without_a_key(clock: Clock) -> None:
    """A hold-off without end is never over, whatever chance adds."""
    opened = breaker(chance=0.0)
    opened.open(clock.now, ErrorKind.AUTH_FAILURE, "no key", float("inf"))
    assert (opened.is_due(clock.now + 1e9), opened.is_open) == (False, True)


def test_flushes_wait_for_probes_a_budget_in_all(clock: Clock) -> None:
    """0.3 s for each, until the waits add up to a budget; a success gives it all back."""
    opened = breaker()
    opened.failed(clock.now, TIMEOUT, "silent")
    waits = []
    for _ in range(9):
        waits.append(opened.probe_wait_s(clock.now, 2.0))
        opened.note_wait(waits[-1])
    assert waits == pytest.approx([0.3] * 6 + [0.2, 0.0, 0.0])
    opened.close()
    opened.failed(clock.now, TIMEOUT, "silent")
    assert opened.probe_wait_s(clock.now, 2.0) == 0.3


def test_the_time_for_probes_comes_back_within_two_hours(clock: Clock) -> None:
    """They allow for another budget of waits, and never for more than one at once."""
    opened = breaker()
    opened.failed(clock.now, TIMEOUT, "silent")
    opened.note_wait(2.0)
    assert opened.probe_wait_s(clock.now, 2.0) == 0.0
    assert opened.probe_wait_s(clock.now + 720, 2.0) == pytest.approx(0.2)
    assert opened.probe_wait_s(clock.now + 3_600 * 21, 0.2) == 0.2


def test_its_repr_says_what_opened_it(clock: Clock) -> None:
    """Whoever debugs an outage reads the reason, and until when."""
    opened = breaker()
    assert repr(opened) == "CircuitBreaker(closed)"
    opened.failed(clock.now, TIMEOUT, "silent")
    until = f"{clock.now + 1.0:.1f}"
    assert repr(opened) == f"CircuitBreaker(open until {until}, TIMEOUT: 'silent')"


def test_chance_is_a_number_below_one() -> None:
    """The random number lies from 0 up to 1, and varies."""
    drawn = [uniform() for _ in range(1_000)]
    assert 0 <= min(drawn) < 0.1 < 0.9 < max(drawn) < 1


def test_a_success_gives_all_time_for_probes_back(clock: Clock) -> None:
    """The next outage has a whole budget for them."""
    opened = breaker()
    opened.failed(clock.now, TIMEOUT, "silent")
    opened.note_wait(10.0)
    assert opened.probe_wait_s(clock.now, 1.1) == 0.0
    opened.close()
    opened.failed(clock.now, TIMEOUT, "silent")
    assert opened.probe_wait_s(clock.now, 1.1) == PROBE_WAIT_S


def test_a_hold_without_seconds_says_why(clock: Clock) -> None:
    """As any failure does."""
    opened = breaker()
    opened.open(clock.now, LIMITED, "HTTP 301", 0.0)
    assert (opened.reason, opened.message) == (LIMITED, "HTTP 301")
