"""The state of the outbox: two attempts of one batch, and whose answer counts."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.results import Failed
from doow_serverless.errors import ErrorKind
from tests.unit.delivery.facts import (
    ERROR_500,
    IN_FLIGHT,
    RESET,
    STALE,
    Facts,
)

TIMEOUT, LIMITED_KIND = ErrorKind.TIMEOUT, ErrorKind.RATE_LIMITED


@pytest.fixture
def facts() -> Facts:
    return Facts()


# ── doubts ──────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_kept_connection_is_doubted(facts: Facts) -> None:
    """A second attempt goes out beside it, on a new connection, and the first answer counts."""
    flight = facts.flight("a")
    first = facts.begin(is_reused=True)
    assert facts.waits_s(flight) == pytest.approx(0.5)
    facts.pass_s(0.5)
    second = facts.begin()
    assert second.is_fresh
    facts.pass_s(1.0)
    assert facts.sends == []  # Neither of them is doubted again.
    facts.answer(second)
    assert facts.waits_s(flight) is None
    facts.answer(first, ERROR_500)
    outcome = facts.close(flight)
    assert (outcome.accepted, outcome.requests, facts.settled) == (1, 2, ["a"])
    assert facts.state.is_idle


def test_a_new_connection_is_not_doubted(facts: Facts) -> None:
    """It has only just proved that it lives."""
    flight = facts.flight("a")
    facts.begin()
    assert facts.waits_s(flight) == 2.0
    facts.pass_s(1.9)
    assert facts.sends == []


def test_patience_follows_what_the_server_has_needed(facts: Facts) -> None:
    """A server that needs 0.4 s for each answer is not doubted after a quarter of the budget."""
    for number in range(20):
        flight = facts.flight(f"warm{number}")
        attempt = facts.begin()
        facts.now += 0.4
        facts.answer(attempt)
        facts.close(flight)
    flight = facts.flight("a", budget_s=10.0)
    facts.begin(is_reused=True)
    assert facts.waits_s(flight) == pytest.approx(0.9, abs=0.02)


def test_a_slow_server_is_not_sent_everything_twice(facts: Facts) -> None:
    """One that needs six tenths of the budget is doubted twice, until that is known."""
    seconds = 0
    for number in range(100):
        flight = facts.flight(f"slow{number}")
        first = facts.begin(is_reused=True)
        for _ in range(4):
            facts.pass_s(0.3)
        facts.answer(first)
        while facts.sends:  # It comes too late, and nobody wants it any more.
            assert not facts.state.begin(facts.sends.pop(), facts.now, is_reused=False)
            seconds += 1
        assert facts.close(flight).accepted == 1
    assert seconds <= 2


def test_silence_before_the_wait_does_not_count(facts: Facts) -> None:
    """What left early was sent while the handler still worked, which may have held all threads."""
    flight = facts.flight("a", budget_s=None)
    facts.begin(is_reused=True)
    facts.pass_s(60.0 - 51.0)
    facts.state.wait(flight, facts.now + 2.0, facts.now)
    facts.collect()
    assert facts.waits_s(flight) == pytest.approx(0.5)


def test_in_flight_is_said_of_the_other_attempt(facts: Facts) -> None:
    """503 to the second attempt is no failure: the answer of the first counts."""
    flight = facts.flight("a")
    first = facts.begin(is_reused=True)
    facts.pass_s(0.5)
    facts.answer(facts.begin(), IN_FLIGHT)
    assert not facts.state.breaker.is_open
    assert facts.waits_s(flight) == pytest.approx(1.0)  # Then it is sent again.
    facts.answer(first)
    assert facts.close(flight).accepted == 1


def test_in_flight_and_then_silence(facts: Facts) -> None:
    """Where the first attempt brings nothing, the batch goes out again when the server said."""
    flight = facts.flight("a")
    facts.begin(is_reused=True)
    facts.pass_s(0.5)
    facts.answer(facts.begin(), IN_FLIGHT)
    facts.pass_s(0.99)
    assert facts.sends == []
    facts.pass_s(0.01)
    assert facts.send() == "a"
    assert facts.close(flight).accepted == 1


def test_a_reset_and_then_in_flight(facts: Facts) -> None:
    """The server is at work on what broke off: the flush goes on, and asks again in time."""
    flight = facts.flight("a")
    facts.answer(facts.begin(), RESET)
    facts.pass_s(0.05)
    facts.answer(facts.begin(), IN_FLIGHT)
    assert not facts.state.breaker.is_open
    assert facts.waits_s(flight) == pytest.approx(1.0)
    facts.pass_s(1.0)
    facts.send()
    assert facts.close(flight).accepted == 1


def test_in_flight_twice_is_a_wait(facts: Facts) -> None:
    """A server that goes on saying so has too much to do."""
    flight = facts.flight("a")
    facts.answer(facts.begin(), RESET)
    facts.pass_s(0.05)
    facts.answer(facts.begin(), IN_FLIGHT)
    facts.pass_s(1.0)
    facts.answer(facts.begin(), IN_FLIGHT)
    assert facts.state.breaker.is_open
    assert facts.waits_s(flight) is None


def test_in_flight_without_another_attempt_is_a_wait(facts: Facts) -> None:
    """Nothing else of it can be under way: the server has too much to do."""
    facts.flight("a")
    facts.answer(facts.begin(), IN_FLIGHT)
    assert (facts.state.breaker.reason, facts.state.breaker.until) == (
        LIMITED_KIND,
        facts.now + 1.5,
    )


def test_the_first_fails_while_the_second_is_under_way(facts: Facts) -> None:
    """The second has the last word."""
    flight = facts.flight("a")
    first = facts.begin(is_reused=True)
    facts.pass_s(0.5)
    second = facts.begin()
    facts.answer(first, STALE)
    assert facts.sends == []
    facts.answer(second)
    assert facts.close(flight).accepted == 1


def test_the_second_fails_beside_a_silent_first(facts: Facts) -> None:
    """A third goes out, since nothing is to be hoped of the first."""
    flight = facts.flight("a")
    facts.begin(is_reused=True)
    facts.pass_s(0.5)
    facts.answer(facts.begin(), RESET)
    facts.pass_s(0.05)
    assert facts.send() == "a"
    assert facts.close(flight).accepted == 1


def test_an_answer_makes_up_for_second_posts_that_were_not_sent(facts: Facts) -> None:
    """While too many were sent nobody is doubted; an answer that allows one has it sent at once."""
    facts.deliver("before")
    facts.flight("a", "b", "c", "d", budget_s=8.0)
    for _ in range(4):
        facts.begin(is_reused=True)
    facts.pass_s(4.0)
    assert facts.ordered() == ["a", "b", "c", "d"]
    facts.flight("e", "f", budget_s=4.0)
    seconds, facts.sends = facts.sends[:4], facts.sends[4:]
    firsts = [facts.begin(is_reused=True) for _ in range(2)]
    facts.pass_s(2.0)
    assert facts.ordered() == []  # All that may be sent were sent.
    facts.sends = seconds
    assert facts.send() == "a"
    assert facts.ordered() == ["b", "c", "d", "e"]  # It has won: so another is allowed.
    assert facts.send() == "b"
    assert facts.ordered() == ["c", "d", "e", "f"]
    assert facts.send() == "c"
    assert facts.ordered() == ["d", "e", "f"]
    assert [one.is_doubted for one in firsts] == [True, True]


@pytest.mark.parametrize(("hold_s", "pause_s"), [(3.0, 3.0), (None, 1.0)])
def test_what_is_at_work_elsewhere_is_asked_for_later(
    facts: Facts, hold_s: float | None, pause_s: float
) -> None:
    """When the server says, or after a second; whoever leaves before that hears why."""
    busy = Failed(LIMITED_KIND, "HTTP 503", hold_s, is_in_flight=True)
    first, second = (facts.flight(one, budget_s=8.0) for one in "ab")
    for result in (RESET, RESET, busy, busy):
        facts.pass_s(0.05)
        facts.send(result)
    facts.pass_s(pause_s - 0.06)
    assert facts.ordered() == []
    facts.pass_s(0.06)
    assert facts.ordered() == ["a", "b"]
    facts.send()
    assert facts.close(first).accepted == 1
    assert facts.close(second).unsent == {LIMITED_KIND: 1}


def test_the_other_attempt_at_work_is_asked_for_later(facts: Facts) -> None:
    """Should the first POST bring nothing, though its second says that it is being processed."""
    flight = facts.flight("a", budget_s=8.0)
    facts.begin(is_reused=True)
    facts.pass_s(2.0)
    facts.send(Failed(LIMITED_KIND, "HTTP 503", 3.0, is_in_flight=True))
    facts.pass_s(2.9)
    assert facts.ordered() == []
    facts.pass_s(0.1)
    assert facts.ordered() == ["a"]
    facts.send()
    assert facts.close(flight).accepted == 1


def test_a_refused_connection_leaves_the_kept_ones(facts: Facts) -> None:
    """The next attempt may go out on one of them, be it a probe or not; after others it may not."""
    refused = Failed(ErrorKind.NETWORK_ERROR, "refused", is_unsent=True)
    flight = facts.flight("a")
    for failure, is_fresh in ((refused, False), (ERROR_500, True), (refused, False)):
        facts.answer(facts.begin(), failure)
        facts.pass_s(0.3)
        assert [attempt.is_fresh for attempt in facts.sends] == [is_fresh]
    facts.answer(facts.begin(), refused)
    facts.close(flight)
    assert facts.state.breaker.is_open
    facts.pass_s(60.0)
    assert [(one.is_probe, one.is_fresh) for one in facts.sends] == [(True, False)]
    facts.answer(facts.begin(), ERROR_500)
    facts.pass_s(60.0)
    assert [(one.is_probe, one.is_fresh) for one in facts.sends] == [(True, True)]


def test_who_joins_a_batch_under_way_waits_for_that_post(facts: Facts) -> None:
    """Also if it was to be sent again when it was kept: the POST that is left has the last word."""
    flight = facts.flight("a")
    first = facts.begin(is_reused=True)
    facts.pass_s(0.5)
    facts.answer(facts.begin(), IN_FLIGHT)
    facts.close(flight)
    other = Flight(facts.release)
    facts.state.wait_for_all(other, facts.now)
    facts.state.wait(other, facts.now + 2.0, facts.now)
    facts.collect()
    assert (facts.kept(), facts.sends, facts.waits_s(other)) == ([], [], 2.0)
    facts.answer(first)
    assert facts.close(other).accepted == 1
