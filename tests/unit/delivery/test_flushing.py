"""A flush as its caller sees it: how long it waits, when it has someone look, when it leaves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Outcome
from doow_serverless._delivery import flushing
from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.flushing import Flushing
from doow_serverless._process.clock import Budget

if TYPE_CHECKING:
    from tests.unit.delivery.turns import Turns

Looks = list[float]


@pytest.fixture(autouse=True)
def _in_turns(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "threading", SimpleNamespace(Lock=turns.lock))


def begun(turns: Turns, budget_s: float = 2.0) -> tuple[Flushing, Looks, Any]:
    """A flush, when someone was to look at it, from now on, and what notes that."""
    buffer: Any = None
    one = Flushing(buffer, Budget(budget_s, turns.clock), turns.clock)
    looks: Looks = []
    began = turns.clock.now

    def look(whose: Flushing) -> None:
        assert whose is one
        looks.append(turns.clock.now - began)

    return one, looks, look


def test_one_makes_it_and_one_accounts_for_it(turns: Turns) -> None:
    """Whoever asks first does."""
    one, _, _ = begun(turns)
    assert [one.take(), one.take()] == [True, False]
    assert [one.take_end(), one.take_end()] == [True, False]


def test_a_flush_begins_with_nothing(turns: Turns) -> None:
    """It is not over, and has what it was given."""
    buffer: Any = object()
    budget = Budget(2.0, turns.clock)
    one = Flushing(buffer, budget, turns.clock)
    assert (one.buffer, one.budget) == (buffer, budget)
    assert (one.flights, one.outcome, one.is_over) == ([], None, False)
    assert repr(one) == "Flushing(under way, [])"
    one.end()
    assert repr(one) == "Flushing(over, [])"
    assert one.now() == turns.clock.now


def test_the_caller_waits_for_the_end(turns: Turns) -> None:
    """It is woken when that comes, and someone looks each half second before."""
    one, looks, look = begun(turns)
    turns.at(0.75, one.end)
    one.wait(look)
    assert (turns.clock.now, looks, one.is_over) == (1_000.75, [0.5], True)


def test_what_is_over_is_not_waited_for(turns: Turns) -> None:
    """Not a moment."""
    one, looks, look = begun(turns)
    one.end()
    assert one.pause_s(look) is None
    one.wait(look)
    assert (turns.clock.now, looks) == (1_000.0, [])


def test_a_worker_has_a_second_beyond_the_budget(turns: Turns) -> None:
    """For writing down; then the caller leaves, whatever the worker does."""
    one, looks, look = begun(turns)
    one.wait(look)
    assert (turns.clock.now, one.is_over) == (1_003.0, False)
    assert looks == [0.5, 1.0, 1.5, 2.0, 2.5]


def test_without_a_budget_someone_looks_at_once(turns: Turns) -> None:
    """Once, unless nobody has looked half a second later."""
    one, looks, look = begun(turns, 0.0)
    assert [one.pause_s(look), one.pause_s(look)] == [0.5, 0.5]
    assert looks == [0.0]
    turns.clock.now += 0.5
    assert one.pause_s(look) == 0.5
    assert looks == [0.0, 0.5]
    turns.clock.now += 0.5
    assert one.pause_s(look) is None


def test_the_worker_says_when_to_look(turns: Turns) -> None:
    """Earlier than was said before wakes the caller, later changes nothing."""
    one, looks, look = begun(turns)
    turns.at(0.125, lambda: one.look_again(0.25))
    turns.at(0.25, lambda: one.look_again(0.5))
    turns.at(0.5, one.end)
    one.wait(look)
    assert looks == [0.375]
    woken: list[float] = []
    other, _, look = begun(turns)
    other.wake = lambda: woken.append(turns.clock.now)
    other.look_again(0.25)
    other.look_again(0.25)
    other.look_again(1.0)
    assert woken == [turns.clock.now]
    assert other.pause_s(look) == 0.25


def test_the_caller_waits_until_someone_has_looked(turns: Turns) -> None:
    """And a second longer; once the events are accounted for, that is no reason to wait."""
    one, looks, look = begun(turns, 0.5)
    turns.at(0.25, lambda: one.look_again(4.0))
    one.wait(look)
    assert (turns.clock.now, looks[0]) == (1_005.25, 0.5)
    other, looks, look = begun(turns, 0.5)
    other.account(Outcome())
    other.look_again(4.0)
    other.wait(look)
    assert (turns.clock.now, looks) == (1_006.75, [0.5, 1.0])


def test_the_caller_waits_no_longer_for_hooks(turns: Turns) -> None:
    """Once the events are accounted for, it leaves after so long."""
    one, looks, look = begun(turns)
    turns.at(0.25, lambda: one.leave_within(0.125))
    one.wait(look)
    assert (turns.clock.now, looks) == (1_000.375, [])


def test_the_caller_shows_that_the_process_runs(turns: Turns) -> None:
    """It has someone look each half second, whatever was said."""
    one, looks, look = begun(turns, 1e12)
    assert one.pause_s(look) == 0.5
    one.look_again(0.75)
    turns.clock.now += 0.5
    assert (one.pause_s(look), looks) == (0.5, [0.5])


def test_what_is_over_keeps_nothing_alive(turns: Turns) -> None:
    """Neither its flights nor its caller, whom nobody wakes again."""
    one, _, _ = begun(turns)
    woken: list[int] = []
    one.wake = lambda: woken.append(1)
    one.flights = [Flight(lambda _: None)]
    one.end()
    one.wake()
    assert (one.flights, woken) == ([], [1])


def test_the_outcome_tells_how_long_it_took(turns: Turns) -> None:
    """From the beginning of the budget."""
    one, _, _ = begun(turns)
    turns.clock.now += 0.75
    outcome = Outcome(accepted=1)
    one.account(outcome)
    assert one.outcome is outcome
    assert outcome == Outcome(accepted=1, elapsed_s=0.75)


@pytest.mark.parametrize(("in_hand", "unsent"), [(3, {"TIMEOUT": 3}), (0, {}), (-1, {})])
def test_who_leaves_before_the_outcome_is_told_of_no_success(
    turns: Turns, in_hand: int, unsent: dict[str, int]
) -> None:
    """What its buffer has in hand is not known to have arrived."""
    buffer: Any = SimpleNamespace(in_hand=in_hand)
    one = Flushing(buffer, Budget(2.0, turns.clock), turns.clock)
    turns.clock.now += 3.0
    assert one.unknown() == Outcome(unsent=unsent, elapsed_s=3.0)


def test_it_may_be_woken_twice(turns: Turns) -> None:
    """By two flights at once; the caller finds that nothing has changed, and waits on."""
    one, looks, look = begun(turns)
    one.wake()
    one.wake()
    one.wait(look)
    assert (turns.clock.now, looks) == (1_003.0, [0.5, 1.0, 1.5, 2.0, 2.5])


@pytest.mark.parametrize(("frozen_s", "gap_s"), [(0.75, 0.0), (0.875, 1.125), (60.0, 60.25)])
def test_a_frozen_process_has_lost_no_time(turns: Turns, frozen_s: float, gap_s: float) -> None:
    """A pause of more than a second shows it, and does not count."""
    one, looks, look = begun(turns, 8.0)
    turns.at(0.25, lambda: turns.freeze(frozen_s))
    one.wait(look)
    assert (one.budget.ends_at, turns.clock.now) == (1_008.0 + gap_s, 1_009.0 + gap_s)
    assert looks[0] == 0.25 + frozen_s
