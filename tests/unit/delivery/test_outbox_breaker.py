"""The state of the outbox in trouble: outages and probes, poison, freezes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.outbox_state import USED_UP
from doow_serverless._delivery.results import Failed
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from tests.batches import batch
from tests.unit.delivery.facts import (
    ERROR_500,
    LIMITED,
    RESET,
    TIMEOUT_S,
    Facts,
    accepted,
    fail,
    keep,
)

if TYPE_CHECKING:
    from doow_serverless._delivery.flight import Attempt

REDIRECT = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 301", 0.0)


@pytest.fixture
def facts() -> Facts:
    return Facts()


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────


def test_while_it_is_open_nothing_is_sent_and_nobody_waits(facts: Facts) -> None:
    """What comes is kept and written down at once, with the reason of the outage."""
    fail(facts, "a")
    flight = facts.flight("b")
    assert (facts.sends, facts.waits_s(flight)) == ([], None)
    assert facts.close(flight).unsent == {ErrorKind.TRANSPORT_ERROR: 1}
    assert str(facts.reported[-1]) == "1 event not delivered: holding off after: HTTP 500"
    assert (facts.kept(), facts.written) == (["a", "b"], ["a", "b"])


def test_a_flush_that_nobody_waits_for_is_forgotten(facts: Facts) -> None:
    """A process that meters through an outage keeps its batches, and no account of each flush."""
    fail(facts, "a")
    flight = facts.flight("b", "c")
    assert (flight.pending, facts.state._ledger.flights) == ({}, [])


def test_what_failed_most_in_an_outage_is_not_last_to_leave(facts: Facts) -> None:
    """Its pauses had grown with its failures; once the server is back, they are over."""
    flight = facts.flight("a")
    for _ in range(3):
        facts.answer(facts.begin(), ERROR_500)
        facts.pass_s(0.4)
    last = facts.begin()
    facts.pass_s(2.0)
    facts.close(flight)
    facts.answer(last, ERROR_500)
    assert facts.ordered() == []
    facts.now = facts.state.breaker.until
    facts.flight("b")
    assert facts.send() == "b"
    assert facts.ordered() == ["a"]


def test_our_own_slowness_is_no_outage(facts: Facts) -> None:
    """Where nothing was sent, the server has failed nobody: the next flush waits as ever."""
    flight = facts.flight("a")
    facts.pass_s(2.0)
    assert facts.waits_s(flight) is None
    assert facts.close(flight).unsent == {ErrorKind.NOT_READY: 1}
    assert (facts.kept(), facts.written) == (["a"], ["a"])
    assert not facts.state.breaker.is_open
    assert facts.waits_s(facts.flight("b")) == 2.0


def test_what_waits_behind_a_silent_server_is_not_ours(facts: Facts) -> None:
    """One batch was sent, and another came too late for that: both say that no answer came."""
    flight = facts.flight("a")
    facts.begin()
    later = facts.flight("b")
    facts.pass_s(2.0)
    assert facts.close(later).unsent == facts.close(flight).unsent == {ErrorKind.TIMEOUT: 1}


def test_a_flush_waits_for_the_probe_that_is_due(facts: Facts) -> None:
    """The probe is what has failed least: the flush's own batch. All else follows its success."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until
    flight = facts.flight("b", "c")
    assert facts.waits_s(flight) == pytest.approx(0.3)
    assert facts.ordered() == ["b"]
    probe = facts.begin()
    assert probe.is_fresh
    facts.answer(probe)
    assert facts.ordered() == ["c", "a"]
    assert facts.waits_s(flight) == 2.0
    facts.send()
    assert facts.close(flight).accepted == 2
    facts.send()
    assert facts.state.is_idle


def test_a_probe_that_is_silent_ends_the_wait(facts: Facts) -> None:
    """After 0.3 s; the next hold-off is longer, and nobody waits before it is over."""
    fail(facts, "a")
    first_hold_s = facts.state.breaker.until - facts.now
    facts.now = facts.state.breaker.until
    flight = facts.flight("b")
    facts.begin()
    facts.pass_s(0.3)
    assert facts.waits_s(flight) is None
    assert facts.close(flight).unsent == {ErrorKind.TIMEOUT: 1}
    assert facts.state.breaker.until - facts.now == pytest.approx(2 * first_hold_s)
    assert facts.waits_s(facts.flight("c")) is None
    assert facts.sends == []


def test_another_probe_follows_one_that_hangs(facts: Facts) -> None:
    """A probe that never comes back does not keep the breaker open for ever."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until
    facts.close(facts.flight("b"))
    facts.begin()
    facts.pass_s(0.5)
    assert facts.sends == []
    facts.now = max(facts.state.breaker.until, facts.now + 1.0)
    facts.pass_s(0.0)
    assert len(facts.sends) == 1


def test_only_one_probe_at_a_time(facts: Facts) -> None:
    """Whoever comes while it is under way waits for it."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until
    first = facts.flight("b")
    second = facts.flight("c")
    assert facts.ordered() == ["b"]
    assert facts.waits_s(second) == pytest.approx(0.3)
    facts.answer(facts.begin(), ERROR_500)
    assert facts.waits_s(first) is facts.waits_s(second) is None
    assert facts.sends == []


def test_waits_for_probes_are_bounded_in_all(facts: Facts) -> None:
    """An hour without a server, an invocation a second: three budgets of waiting together."""
    budget_s, waited_s = 2.0, 0.0
    for number in range(3_600):
        flight = facts.flight(f"b{number}", budget_s=budget_s)
        while facts.sends:
            facts.begin()
        began = facts.now
        while (pause_s := facts.waits_s(flight)) is not None:
            facts.pass_s(pause_s)
        waited_s += facts.now - began
        facts.close(flight)
        facts.pass_s(1.0)
        for attempt in [each for each in facts.state.under_way if each.silent_s(facts.now) > 10]:
            facts.answer(attempt, RESET)
    assert 2 * budget_s < waited_s <= 3 * budget_s


def test_a_frozen_function_is_back_within_two_invocations(facts: Facts) -> None:
    """Of 2 ms, frozen in between, with a server 40 ms away: its flush waits for the probe."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until + 60.0
    delivered = []
    for number in range(2):
        facts.state.thaw(60.0)
        facts.pass_s(0.002)
        flight = facts.flight(f"b{number}")
        pause_s = facts.waits_s(flight)
        if facts.sends:
            probe = facts.begin()
            assert pause_s is not None
            assert pause_s > 0.12
            facts.pass_s(0.12)  # Three round trips.
            facts.answer(probe)
        while facts.sends:
            facts.send()
        delivered.append(facts.close(flight).accepted)
        facts.now += 60.0
    assert delivered == [1, 1]
    assert facts.state.is_idle


def test_a_key_that_is_refused(facts: Facts) -> None:
    """A quarter of an hour, and a bit, so that a fleet does not ask all at once."""
    keep(facts, "a")
    facts.pass_s(0.0)
    facts.answer(facts.begin(), Failed(ErrorKind.AUTH_FAILURE, "HTTP 401", 900.0))
    assert facts.state.breaker.until == facts.now + 945.0


def test_a_redirect_opens_it_at_once(facts: Facts) -> None:
    """No answer of Doow: the flush does not try again."""
    flight = facts.flight("a")
    facts.answer(facts.begin(), REDIRECT)
    assert facts.state.breaker.is_open
    assert facts.waits_s(flight) is None


def test_a_redirect_of_one_body_is_no_outage(facts: Facts) -> None:
    """A proxy sends it elsewhere while others get through."""
    facts.flight("a", "b")
    redirected = facts.begin()
    facts.send()
    facts.answer(redirected, REDIRECT)
    assert not facts.state.breaker.is_open


@pytest.mark.parametrize("failure", [RESET, ERROR_500, REDIRECT])
def test_a_failure_in_the_background_does_not_open_it(facts: Facts, failure: Failed) -> None:
    """It may be the fault of that one batch: a flush will find out."""
    keep(facts, "a")
    facts.pass_s(0.0)
    facts.answer(facts.begin(), failure)
    assert not facts.state.breaker.is_open
    facts.pass_s(0.99)
    assert facts.sends == []
    facts.pass_s(0.01)
    assert facts.ordered() == ["a"]


def test_a_probe_that_fails_opens_it_for_longer(facts: Facts) -> None:
    """Also when nobody waits."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until
    facts.pass_s(0.0)
    facts.answer(facts.begin(), RESET)
    assert facts.state.breaker.until == facts.now + 1.5


# ── poison ──────────────────────────────────────────────────────────────────────────────────────


def swallow(facts: Facts, poison: str, rounds: int = 300) -> None:
    """A server that cannot digest whatever holds the event ``poison``, and takes all else."""

    def reply(attempt: Attempt) -> None:
        is_bad = poison in attempt.entry.batch.event_ids
        facts.answer(attempt, ERROR_500 if is_bad else None)

    for number in range(rounds):
        flight = facts.flight(f"good{number}")
        while facts.sends:
            reply(facts.begin())
        assert facts.close(flight).accepted == 1
        facts.pass_s(5.0)
        while facts.sends:
            reply(facts.begin())


def test_one_event_that_cannot_be_delivered_stops_nothing(facts: Facts) -> None:
    """Its batch is halved, down to that one event, which is reported, written and left alone."""
    keep(facts, "bad", events=8, is_sent=False)
    swallow(facts, "bad-5")
    assert (facts.kept(), facts.state.is_idle) == ([], True)
    (error,) = facts.reported
    assert (error.kind, error.event_ids) == (ErrorKind.TRANSPORT_ERROR, ("bad-5",))
    assert str(error) == "1 event given up: it cannot be delivered, though others can: HTTP 500"
    assert len(facts.written) == 1  # The one event; the whole batch was never written down.
    assert facts.settled[-1] == facts.written[0] or facts.written[0] in facts.settled
    assert len(facts.splits) == 3


def test_how_often_a_batch_must_fail(facts: Facts) -> None:
    """Until chance can be ruled out: few others are known when it is halved, many afterwards."""
    keep(facts, "bad", events=2, is_sent=False)
    attempts: list[str] = []
    for number in range(60):
        facts.pass_s(100.0)
        while facts.sends:
            attempt = facts.begin()
            attempts.append(attempt.entry.batch.id)
            facts.answer(attempt, ERROR_500)
        facts.deliver(f"good{number}")
    halves = [half.id for half in split(batch(2, batch_id="bad"))]
    assert attempts.count("bad") == 4
    assert [attempts.count(half) for half in halves] == [19, 19]
    assert facts.state.is_idle


@pytest.mark.parametrize("others", [ERROR_500, RESET], ids=repr)
def test_what_the_server_may_have_stays_whole(facts: Facts, others: Failed) -> None:
    """An answer was lost, and others decide nothing: Doow would count its halves once more."""
    keep(facts, "bad", events=2, is_sent=False)
    results = iter([RESET])
    for number in range(60):
        facts.pass_s(100.0)
        while facts.sends:
            facts.answer(facts.begin(), next(results, others))
        facts.deliver(f"good{number}")
    assert (facts.splits, facts.state.is_idle) == ([], True)
    (error,) = facts.reported
    assert error.event_ids == ("bad-0", "bad-1")
    assert facts.written == ["bad"]


def test_one_of_two_that_breaks_off_is_not_forgotten(facts: Facts) -> None:
    """Doow may have taken that one, whatever comes of the other: the batch stays whole."""
    flight = facts.flight("bad", events=2)
    first = facts.begin(is_reused=True)
    facts.pass_s(0.5)
    second = facts.begin()
    facts.answer(first, RESET)
    facts.answer(second, ERROR_500)
    facts.close(flight)
    facts.now += 100.0  # The breaker has been opened; the next batch is the probe.
    swallow(facts, "bad-0")
    assert (facts.splits, facts.written, facts.state.is_idle) == ([], ["bad"], True)


def test_what_the_server_may_have_is_known_again(facts: Facts) -> None:
    """It goes on being sent under its own id, by which Doow tells in the end."""
    keep(facts, "bad", events=2, is_sent=False)
    results = iter([RESET, ERROR_500, ERROR_500, ERROR_500])
    for number in range(60):
        facts.pass_s(100.0)
        while facts.sends:
            facts.answer(facts.begin(), next(results, None))
        facts.deliver(f"good{number}")
    assert (facts.splits, facts.state.is_idle, facts.reported) == ([], True, [])
    assert "bad" in facts.settled


def test_poison_is_not_sought_where_nothing_gets_through(facts: Facts) -> None:
    """In an outage every batch fails, and none is taken apart."""
    keep(facts, "a", events=4)
    for number in range(20):
        facts.pass_s(100.0)
        while facts.sends:
            facts.answer(facts.begin(), ERROR_500)
        flight = facts.flight(f"b{number}")
        facts.now += 2.0
        facts.close(flight)
    assert facts.splits == []
    assert not any("given up" in str(error) for error in facts.reported)


def test_poison_in_a_flush_that_waits(facts: Facts) -> None:
    """It is found there, too, and accounted for by the flush."""
    flight = facts.flight("bad", budget_s=600.0)
    for number in range(21):
        facts.pass_s(20.0)
        assert facts.waits_s(flight) is not None
        facts.answer(facts.begin(), ERROR_500)
        facts.deliver(f"good{number}")
    assert facts.waits_s(flight) is None
    outcome = facts.close(flight)
    assert outcome.unsent == {ErrorKind.TRANSPORT_ERROR: 1}
    assert [error.event_ids for error in facts.reported] == [("bad-0",)]
    assert "it cannot be delivered, though others can" in str(facts.reported[0])
    assert (facts.written, facts.kept(), facts.settled.count("bad")) == (["bad"], [], 1)


def test_a_poisoned_batch_is_not_the_probe_if_there_is_another(facts: Facts) -> None:
    """What has failed least is tried first."""
    fail(facts, "bad")
    keep(facts, "good")
    facts.now = facts.state.breaker.until
    facts.pass_s(0.0)
    assert facts.ordered() == ["good"]
    facts.send()
    assert facts.ordered() == ["bad"]


# ── freezes ─────────────────────────────────────────────────────────────────────────────────────


def test_time_in_the_freezer_is_no_silence(facts: Facts) -> None:
    """What was under way is not cut off for it, and may go out once more at once."""
    flight = facts.flight("a")
    frozen = facts.begin()
    facts.close(flight)
    facts.now += 600.0
    facts.state.thaw(600.0)
    facts.pass_s(0.001)
    assert facts.aborted == []
    assert not facts.state.breaker.is_open
    assert facts.ordered() == ["a"]
    facts.send()
    facts.answer(frozen)
    assert (facts.settled, facts.state.is_idle) == (["a"], True)


@pytest.mark.parametrize(("seconds", "aborted"), [(600.0, ["a"]), (TIMEOUT_S / 2, [])])
def test_what_hangs_over_a_second_freeze_is_cut_off(
    facts: Facts, seconds: float, aborted: list[str]
) -> None:
    """At its timeout by the clock, since a quick function that is frozen in between hardly runs."""
    facts.flight("a")
    facts.begin()
    for _ in range(2):
        assert facts.aborted == []
        facts.now += seconds
        facts.state.thaw(seconds)
        facts.pass_s(0.0)
    assert facts.aborted == aborted


def test_time_in_the_freezer_is_no_budget(facts: Facts) -> None:
    """A flush that was frozen has the time left that it had before."""
    flight = facts.flight("a")
    attempt = facts.begin()
    facts.pass_s(0.5)
    facts.now += 600.0
    facts.state.thaw(600.0)
    assert facts.waits_s(flight) == pytest.approx(1.5)
    facts.answer(attempt)
    assert facts.close(flight).accepted == 1


def test_a_flush_that_waits_for_a_probe_is_frozen(facts: Facts) -> None:
    """It has the time left for it that it had before, and the breaker hears of that time alone."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until
    flight = facts.flight("b")
    facts.pass_s(0.1)
    facts.now += 600.0
    facts.state.thaw(600.0)
    assert facts.waits_s(flight) == pytest.approx(0.2)
    assert flight.waiting_since == pytest.approx(facts.now - 0.1)
    facts.close(flight)
    assert facts.state.breaker._waited_s == pytest.approx(0.1)


def test_a_flush_that_waits_for_no_probe_is_frozen(facts: Facts) -> None:
    """Nor does it do so afterwards."""
    flight = facts.flight("a")
    facts.state.thaw(600.0)
    facts.now += 600.0
    assert flight.probe_ends_at == 0.0
    assert facts.waits_s(flight) == pytest.approx(2.0)


def test_a_probe_that_was_frozen_is_not_waited_for(facts: Facts) -> None:
    """Its connection may be dead: another goes out."""
    fail(facts, "a")
    facts.now = facts.state.breaker.until
    facts.pass_s(0.0)
    facts.begin()
    facts.now += 60.0
    facts.state.thaw(60.0)
    flight = facts.flight("b")
    assert facts.ordered() == ["b"]
    assert facts.waits_s(flight) == pytest.approx(0.3)


def test_what_a_hold_befalls_keeps_its_place(facts: Facts) -> None:
    """The server complains of its load, or of the key: not of this batch."""
    keep(facts, "a", "b")
    facts.pass_s(0.0)
    facts.answer(facts.begin(), LIMITED)
    assert facts.kept() == ["a", "b"]


def test_a_silent_probe_of_another_is_a_failure(facts: Facts) -> None:
    """Whoever waited for it and leaves says so: the next one waits for longer."""
    fail(facts, "x")
    facts.pass_s(1.0)
    facts.begin()
    flight = facts.flight("a")
    facts.pass_s(0.3)
    assert facts.state.breaker.is_due(facts.now)
    facts.close(flight)
    assert not facts.state.breaker.is_due(facts.now)


def test_only_waits_for_probes_use_up_their_time(facts: Facts) -> None:
    """Not those for POSTs that were under way when the hold began."""
    flight = facts.flight("a", "b")
    facts.answer(facts.begin(), LIMITED)
    facts.begin()
    facts.pass_s(1.5)
    facts.close(flight)
    facts.now += 20.0
    later = facts.flight("c", budget_s=1.1)
    assert later.probe_ends_at - facts.now == pytest.approx(0.3)


def test_why_nothing_is_sent_after_the_last_that_was_allowed(facts: Facts) -> None:
    """The answer to it said so."""
    allowed = accepted(batch(batch_id="a"))
    allowed.hold_s = 10.0
    assert facts.deliver("a", allowed).accepted == 1
    facts.close(facts.flight("b"))
    assert str(facts.reported[0]) == f"1 event not delivered: holding off after: {USED_UP}"
