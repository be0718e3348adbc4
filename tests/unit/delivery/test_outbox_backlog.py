"""The state of the outbox while nobody waits: the backlog, probes, poison, freezes and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.results import Failed, Settled, Split
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from tests.batches import batch
from tests.unit.delivery.facts import ERROR_500, IN_FLIGHT, LIMITED, RESET, Facts

if TYPE_CHECKING:
    from doow_serverless._delivery.flight import Attempt

REDIRECT = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 301", 0.0)


@pytest.fixture
def facts() -> Facts:
    return Facts()


def keep(facts: Facts, *ids: str, events: int = 1, is_written: bool = False) -> None:
    """These batches are left by a crash, as it were."""
    for one in ids:
        facts.state.keep(batch(events, batch_id=one), facts.now, is_written=is_written)
    facts.collect()


def fail(facts: Facts, one: str) -> None:
    """An outage begins: a flush of one batch waits in vain."""
    flight = facts.flight(one)
    facts.answer(facts.begin(), ERROR_500)
    facts.now += 2.0
    facts.close(flight)
    assert facts.state.breaker.is_open


# ── the backlog ─────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_sent_one_after_the_other(facts: Facts) -> None:
    """In the background, in order, beside whatever a flush sends."""
    keep(facts, "a", "b")
    assert facts.sends == []
    facts.pass_s(0.0)
    assert facts.ordered() == ["a"]
    flight = facts.flight("c")
    assert facts.ordered() == ["a", "c"]
    facts.send()
    assert facts.ordered() == ["c", "b"]
    facts.send()
    facts.send()
    assert (facts.close(flight).accepted, facts.settled) == (1, ["a", "c", "b"])


def test_what_is_known_is_not_kept_twice(facts: Facts) -> None:
    """Whether it is kept already, or travels."""
    flight = facts.flight("a")
    keep(facts, "a", "b", "b")
    assert facts.kept() == ["b"]
    facts.close(flight)
    assert facts.kept() == ["b", "a"]


def test_it_is_bounded_in_events() -> None:
    """The oldest is dropped, reported, and written down unless it stands in the log."""
    facts = Facts(max_events=5)
    keep(facts, "a", "b", events=2, is_written=True)
    assert (facts.kept(), facts.written) == (["a", "b"], [])
    keep(facts, "c", events=2)
    assert (facts.kept(), facts.written, facts.settled) == (["b", "c"], [], ["a"])
    keep(facts, "d", events=3)
    assert facts.kept() == ["c", "d"]
    keep(facts, "e", events=5)
    assert (facts.kept(), facts.written) == (["e"], ["c", "d"])
    assert [(str(error), error.kind, error.event_ids) for error in facts.reported] == [
        ("the backlog is full: 2 events dropped, the oldest", "DROPPED_EVENTS", ids)
        for ids in (("a-0", "a-1"), ("b-0", "b-1"))
    ] + [
        (
            "the backlog is full: 5 events dropped, the oldest",
            "DROPPED_EVENTS",
            ("c-0", "c-1", "d-0", "d-1", "d-2"),
        )
    ]


def test_it_is_bounded_in_bytes() -> None:
    """A batch that fills it by itself is not kept."""
    size = len(batch(batch_id="a").body)
    facts = Facts(max_bytes=2 * size)
    keep(facts, "a", "b")
    assert facts.kept() == ["a", "b"]
    keep(facts, "c")
    assert facts.kept() == ["b", "c"]
    facts.state.keep(batch(batch_id="d", noise=900), facts.now, is_written=True)
    facts.collect()
    assert (facts.kept(), facts.state.kept.events) == ([], 0)
    assert repr(facts.state.kept) == "Kept(0 batches, 0 events, 0 bytes)"


def test_a_full_backlog_leaves_the_next_flush_to_probe() -> None:
    """With nothing kept that could be sent, whatever comes next is sent."""
    facts = Facts(max_events=0)
    fail(facts, "a")
    assert facts.kept() == []
    facts.pass_s(1.0)
    assert facts.sends == []
    flight = facts.flight("b")
    assert facts.send() == "b"
    assert facts.close(flight).accepted == 1
    assert not facts.state.breaker.is_open


def test_what_fails_in_the_background_goes_behind_the_others(facts: Facts) -> None:
    """It is sent again after a second, then two, and so on."""
    keep(facts, "a", "b", "c")
    facts.pass_s(0.0)
    attempt = facts.begin()
    with_success = facts.flight("d")
    facts.send()
    facts.close(with_success)
    facts.answer(attempt, ERROR_500)
    assert facts.kept() == ["b", "c", "a"]
    assert facts.ordered() == ["b"]
    facts.send()
    facts.send()
    facts.pass_s(0.9)
    assert facts.sends == []
    facts.pass_s(0.1)
    assert facts.ordered() == ["a"]


def test_a_hanging_post_does_not_hold_up_the_backlog(facts: Facts) -> None:
    """After a second without an answer another batch goes out, then the same once more."""
    keep(facts, "a", "b")
    facts.pass_s(0.0)
    hanging = facts.begin()
    facts.pass_s(0.2)
    assert facts.sends == []
    facts.pass_s(0.8)
    assert facts.ordered() == []  # Its silence has opened the breaker, too.
    assert facts.state.breaker.is_open
    facts.answer(hanging)
    assert facts.ordered() == ["b"]


def test_a_failure_beside_a_hanging_post_is_followed_by_a_pause(facts: Facts) -> None:
    """Else a batch would go out again and again, as fast as the server refuses it."""
    flight = facts.flight("a")
    facts.begin()
    facts.close(flight)
    facts.deliver("b")
    facts.pass_s(1.0)
    facts.answer(facts.begin(), ERROR_500)
    assert facts.sends == []
    facts.pass_s(0.99)
    assert facts.sends == []
    facts.pass_s(0.01)
    assert facts.ordered() == ["a"]


def test_posts_that_hang_are_few(facts: Facts) -> None:
    """A batch goes out again beside those that hang, up to four times."""
    flight = facts.flight("a")
    hanging = facts.begin()
    facts.close(flight)
    for attempts in (2, 3, 4, 4):
        facts.deliver(f"b{attempts}")
        facts.pass_s(1.0)
        while facts.sends:
            facts.begin()
        assert len(hanging.entry.attempts) == attempts


def test_an_order_that_nobody_carries_out_is_given_again(facts: Facts) -> None:
    """A signal may come between an order and its thread."""
    keep(facts, "a")
    facts.pass_s(0.0)
    lost = facts.sends.pop()
    facts.pass_s(0.9)
    assert facts.sends == []
    facts.pass_s(0.1)
    assert facts.send() == "a"
    assert not facts.state.begin(lost, facts.now, is_reused=False)
    assert facts.state.is_idle


def test_pauses_in_the_background_double_to_a_minute(facts: Facts) -> None:
    """For as long as it fails; each further attempt goes out on a new connection."""
    keep(facts, "a")
    facts.pass_s(0.0)
    assert not facts.sends[0].is_fresh
    pauses = []
    for _ in range(9):
        facts.answer(facts.begin(), ERROR_500)
        pauses.append(next(iter(facts.state.kept)).not_before - facts.now)
        facts.pass_s(pauses[-1])
        assert [attempt.is_fresh for attempt in facts.sends] == [True]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_is_kept_releases_nothing_when_it_is_settled(facts: Facts) -> None:
    """Its events were off the hands of a buffer before, or never on them."""
    flight = facts.flight("a", events=3)
    attempt = facts.begin()
    facts.close(flight)
    keep(facts, "b", events=5)
    assert facts.released == 3
    facts.answer(attempt)
    facts.send()
    assert (facts.settled, facts.released) == (["a", "b"], 3)


def test_what_is_kept_for_a_reason_is_written_down(facts: Facts) -> None:
    """As what could not be sealed in time; what a crash has left stands in a journal."""
    for one, reason in (("a", ErrorKind.TIMEOUT), ("b", None)):
        facts.state.keep(batch(batch_id=one), facts.now, is_written=False, reason=reason)
    orders = facts.state.take_orders()
    assert [(entry.batch.id, why) for entry, why in orders.write_down] == [("a", ErrorKind.TIMEOUT)]


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────


def test_while_it_is_open_nothing_is_sent_and_nobody_waits(facts: Facts) -> None:
    """What comes is kept and written down at once, with the reason of the outage."""
    fail(facts, "a")
    flight = facts.flight("b")
    assert (facts.sends, facts.waits_s(flight)) == ([], None)
    assert facts.close(flight).unsent == {ErrorKind.TRANSPORT_ERROR: 1}
    assert str(facts.reported[-1]) == "1 event not delivered: holding off after: HTTP 500"
    assert (facts.kept(), facts.written) == (["a", "b"], ["a", "b"])


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
        for attempt in [each for each in facts.state._under_way if each.silent_s(facts.now) > 10]:
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
    """What the answer asks for is held to the second, whoever asked."""
    keep(facts, "a")
    facts.pass_s(0.0)
    facts.answer(facts.begin(), Failed(ErrorKind.AUTH_FAILURE, "HTTP 401", 900.0))
    assert facts.state.breaker.until == facts.now + 900.0


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


def swallow(facts: Facts, poison: str, rounds: int = 60) -> None:
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
    keep(facts, "bad", events=8)
    swallow(facts, "bad-5")
    assert (facts.kept(), facts.state.is_idle) == ([], True)
    (error,) = facts.reported
    assert (error.kind, error.event_ids) == (ErrorKind.TRANSPORT_ERROR, ("bad-5",))
    assert str(error) == "1 event given up: it cannot be delivered, though others can: HTTP 500"
    assert len(facts.written) == 1  # The one event; the whole batch was never written down.
    assert facts.settled[-1] == facts.written[0] or facts.written[0] in facts.settled
    assert len(facts.splits) == 3


def test_how_often_a_batch_must_fail(facts: Facts) -> None:
    """Three times, with successes in between, until it is halved; a half twice, as a suspect."""
    keep(facts, "bad", events=2)
    attempts: list[str] = []
    for number in range(60):
        facts.pass_s(100.0)
        while facts.sends:
            attempt = facts.begin()
            attempts.append(attempt.entry.batch.id)
            facts.answer(attempt, ERROR_500)
        facts.deliver(f"good{number}")
    halves = [half.id for half in split(batch(2, batch_id="bad"))]
    assert attempts.count("bad") == 3
    assert [attempts.count(half) for half in halves] == [2, 2]
    assert facts.state.is_idle


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
    flight = facts.flight("bad", budget_s=60.0)
    for number in range(3):
        facts.pass_s(1.0)
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


# ── changes of owner, and the end ───────────────────────────────────────────────────────────────


def test_what_is_left_by_others_may_be_in_flight(facts: Facts) -> None:
    """503 to a batch that a dead process may have sent: it is asked for again, and nothing held."""
    keep(facts, "a")
    facts.pass_s(0.0)
    facts.answer(facts.begin(), IN_FLIGHT)
    assert not facts.state.breaker.is_open
    facts.pass_s(0.9)
    assert facts.sends == []
    facts.pass_s(0.1)
    facts.send()
    assert facts.settled == ["a"]


def test_another_outbox_takes_what_is_not_under_way(facts: Facts) -> None:
    """What travels stays, since its answer may be about to come."""
    keep(facts, "a", "b", is_written=True)
    facts.pass_s(0.0)
    attempt = facts.begin()
    (entry,) = facts.state.drain()
    assert (entry.batch.id, entry.is_written, facts.kept()) == ("b", True, ["a"])
    assert facts.state.kept.events == 1
    facts.answer(attempt)
    assert facts.state.is_idle


def test_at_the_end_all_that_is_not_settled_is_written_down(facts: Facts) -> None:
    """Wherever it is: waiting, under way, or kept; once."""
    keep(facts, "kept")
    facts.flight("under way", "other")
    facts.begin()
    fresh = facts.flight("early", budget_s=None)
    assert facts.state.unsettled_bytes == sum(
        len(batch(batch_id=one).body) for one in ("kept", "under way", "other", "early")
    )
    facts.state.end(facts.now)
    facts.collect()
    assert sorted(facts.written) == ["early", "kept", "other", "under way"]
    assert facts.state.unsettled_bytes == 0
    facts.close(fresh)
    facts.state.end(facts.now)
    facts.collect()
    assert len(facts.written) == 4


def test_the_last_flush_waits_for_what_others_wait_for(facts: Facts) -> None:
    """What is under way goes on, and both account for it."""
    flight = facts.flight("a")
    attempt = facts.begin()
    last = Flight(facts.release)
    facts.state.wait_for_all(last, facts.now)
    facts.state.wait(last, facts.now + 0.25, facts.now)
    facts.collect()
    assert (facts.sends, facts.waits_s(last)) == ([], 0.25)
    facts.answer(attempt)
    assert facts.waits_s(last) is None
    assert facts.close(flight).accepted == facts.close(last).accepted == 1
    assert facts.released == 1


def test_the_last_flush_waits_for_the_backlog_as_well(facts: Facts) -> None:
    """Whatever holds it off, and all of it at once."""
    fail(facts, "a")
    keep(facts, "b", "c", "d", "e")
    facts.sends.clear()
    last = Flight(facts.release)
    facts.state.wait_for_all(last, facts.now)
    facts.state.wait(last, facts.now + 1.0, facts.now)
    facts.collect()
    assert facts.ordered() == ["a", "b", "c", "d"]
    while facts.sends:
        facts.send()
    assert (facts.waits_s(last), facts.kept()) == (None, [])
    assert facts.close(last).accepted == 5


def test_a_wait_that_the_server_asked_for_ends_the_last_flush(facts: Facts) -> None:
    """There is no use in waiting for the rest."""
    keep(facts, "a", "b")
    last = Flight(facts.release)
    facts.state.wait_for_all(last, facts.now)
    facts.state.wait(last, facts.now + 1.0, facts.now)
    facts.collect()
    facts.answer(facts.begin(), LIMITED)
    assert facts.waits_s(last) is None


def test_rejections_of_what_is_kept_are_reported(facts: Facts) -> None:
    """Halves included."""
    keep(facts, "a", events=2)
    facts.pass_s(0.0)
    attempt = facts.begin()
    halves = split(attempt.entry.batch)
    facts.answer(attempt, Split(halves, ErrorKind.TRANSPORT_ERROR, "HTTP 413"))
    attempt = facts.begin()
    refused = [(attempt.entry.batch.event_ids[0], "why")]
    facts.answer(attempt, Settled(attempt.entry.batch, ErrorKind.PARTIAL_ACCEPT, "207", refused))
    assert [error.event_ids for error in facts.reported] == [("a-0",)]
