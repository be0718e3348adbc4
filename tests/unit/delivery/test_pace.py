"""How quick a server is, and from when on its silence means something."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.flight import NEVER, Attempt, Entry, Flight
from doow_serverless._delivery.pace import BacklogPace, Hedges, Pace
from tests.batches import batch


@pytest.fixture
def attempt() -> Attempt:
    attempt = Attempt(Entry(batch()), 10.0, is_fresh=False)
    attempt.began_at = 10.0
    return attempt


def waiting(budget_s: float, since: float = 10.0) -> Flight:
    flight = Flight(lambda _: None)
    flight.waiting_since, flight.ends_at = since, since + budget_s
    return flight


def test_the_estimate_is_that_of_tcp() -> None:
    """RFC 6298, section 2: the first answer gives mean and half of it; each other an eighth."""
    pace = Pace()
    assert repr(pace) == "Pace(None, ± 0.000 s)"
    pace.note(0.8)
    assert repr(pace) == "Pace(0.8, ± 0.400 s)"
    pace.note(1.6)
    # Deviation: 0.4 + (0.8 - 0.4) / 4, before the mean moves: 0.8 + 0.8 / 8.
    assert repr(pace) == "Pace(0.9, ± 0.500 s)"
    pace.note(0.1)
    assert repr(pace) == "Pace(0.8, ± 0.575 s)"


@pytest.mark.parametrize(
    ("answers", "budget_s", "doubt_s"),
    [
        ([], 2.0, 0.5),  # a quarter of the budget
        ([], 0.2, 0.1),  # never earlier
        ([0.1], 10.0, 0.6),  # the mean, and half a second
        ([0.8], 10.0, 2.4),  # the mean, and four deviations
        ([0.8], 2.0, 2.4),  # never before the time that the server usually needs
        ([0.1], 1.0, 0.4),  # else at two fifths of the budget at the latest
    ],
)
def test_when_a_kept_connection_is_doubted(
    attempt: Attempt, answers: list[float], budget_s: float, doubt_s: float
) -> None:
    """By what the server has needed, within bounds."""
    pace = Pace()
    for answer in answers:
        pace.note(answer)
    assert pace.doubt_at(waiting(budget_s), attempt) == pytest.approx(10.0 + doubt_s)


def test_doubt_counts_from_the_wait_and_from_the_attempt(attempt: Attempt) -> None:
    """Whichever came later."""
    pace = Pace()
    assert pace.doubt_at(waiting(2.0, since=12.0), attempt) == pytest.approx(12.5)
    assert pace.doubt_at(waiting(2.0, since=9.0), attempt) == pytest.approx(10.5)


@pytest.mark.parametrize(
    ("answers", "outage_s"), [([], 0.25), ([0.1], 0.35), ([0.2], 0.6), ([0.8], 1.0)]
)
def test_when_silence_is_an_outage(attempt: Attempt, answers: list[float], outage_s: float) -> None:
    """A quarter of a second beyond what the server has needed, and a second at the most."""
    pace = Pace()
    for answer in answers:
        pace.note(answer)
    assert pace.outage_at(attempt) == pytest.approx(10.0 + outage_s)
    attempt.began_at = None
    assert pace.outage_at(attempt) == NEVER


def test_second_posts_are_few() -> None:
    """Four at once, and then one for every twenty answers; one that was needed counts for none."""
    hedges = Hedges()
    assert [hedges.take() for _ in range(5)] == [True, True, True, True, False]
    sent = 0
    for _ in range(200):
        hedges.note_answer()
        sent += hedges.take()
    assert sent in (9, 10)  # Twentieths are no binary fractions.
    hedges.note_won()
    assert [hedges.take(), hedges.take()] == [True, False]
    assert repr(Hedges()) == "Hedges(4.00 left)"


# ── the backlog ─────────────────────────────────────────────────────────────────────────────────


def test_after_a_rate_limit_the_backlog_goes_at_the_pace_of_the_account() -> None:
    """A thousand events a minute, and up to half as long again; until there is none left."""
    pace = BacklogPace(lambda: 0.5)
    pace.note(500, 10.0)
    assert pace.allows(10.0)
    pace.limit()
    pace.note(10, 20.0)
    assert not pace.allows(20.74)
    assert pace.allows(20.75)
    pace.note(500, 20.75)
    assert not pace.allows(58.2)
    assert pace.allows(58.25)
    pace.note(500, 60.0)
    pace.catch_up()
    assert pace.allows(60.0)


def test_what_was_taken_before_the_limit_is_known_counts_exactly() -> None:
    """Ten events are sixty hundredths of a second of the account, without a spread."""
    pace = BacklogPace(lambda: 0.5)
    pace.note(10, 20.0)
    pace.limit()
    assert [pace.allows(now) for now in (20.59, 20.61)] == [False, True]
    assert repr(pace) == "BacklogPace(next at 20.6)"
    pace.catch_up()
    assert repr(pace) == "BacklogPace()"
