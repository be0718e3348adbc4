"""The state of the outbox: what nobody waits for, and what becomes of it at the end."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.results import Failed, Settled, Split
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from tests.batches import batch
from tests.unit.delivery.facts import ERROR_500, IN_FLIGHT, LIMITED, Facts, fail, keep

REDIRECT = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 301", 0.0)


@pytest.fixture
def facts() -> Facts:
    return Facts()


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


def test_pauses_begin_anew_after_an_outage(facts: Facts) -> None:
    """Failures of a flush, or in an outage, are no reason to wait for long afterwards."""
    flight = facts.flight("a")
    facts.send(ERROR_500)
    for _ in range(2):
        facts.pass_s(0.4)
        facts.send(ERROR_500)
    facts.close(flight)
    assert facts.state.breaker.is_open
    for _ in range(3):  # Nobody is there, and the background probes.
        facts.now = max(facts.state.breaker.until, facts.now + 60.0)
        facts.pass_s(0.0)
        facts.send(ERROR_500)
    facts.now += 60.0
    facts.deliver("good")
    assert facts.ordered() == ["a"]
    facts.send(ERROR_500)
    facts.pass_s(1.01)
    assert facts.ordered() == ["a"]


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


# ── after a rate limit ──────────────────────────────────────────────────────────────────────────


def refused(facts: Facts, failure: Failed, *ids: str) -> None:
    """A flush has failed, of 10 events as all of the backlog, and its hold-off is over."""
    flight = facts.flight("z", events=10)
    facts.send(failure)
    facts.close(flight)
    keep(facts, *ids, events=10)
    facts.pass_s(12.0)


def test_the_first_to_come_back_sends_one_batch(facts: Facts) -> None:
    """Then one after the other, no faster than the account may: the others have a backlog, too."""
    refused(facts, LIMITED, "a", "b", "c")
    for _ in range(4):
        assert len(facts.ordered()) == 1
        facts.send()
        facts.pass_s(0.7)
        assert facts.ordered() == []
        facts.pass_s(0.1)
    assert (facts.ordered(), facts.kept()) == ([], [])


def test_what_a_flush_waits_for_does_not_wait_for_the_backlog(facts: Facts) -> None:
    refused(facts, LIMITED, "a", "b")
    facts.send()
    facts.flight("c", "d")
    assert facts.ordered() == ["c", "d"]


def test_after_another_outage_it_goes_at_once(facts: Facts) -> None:
    refused(facts, ERROR_500, "a", "b", "c")
    for _ in range(4):
        assert len(facts.ordered()) == 1
        facts.send()
    assert (facts.ordered(), facts.kept()) == ([], [])


def test_a_limit_that_is_told_with_an_acceptance(facts: Facts) -> None:
    """Nothing is sent until it is over; the batch itself has counted."""
    flight = facts.flight("a")
    attempt = facts.begin()
    one = attempt.entry.batch
    facts.answer(attempt, Settled(one, ErrorKind.TRANSPORT_ERROR, "", [], hold_s=20.0))
    outcome = facts.close(flight)
    assert outcome.accepted == 1
    flight = facts.flight("b")
    assert facts.ordered() == []
    assert facts.close(flight).unsent == {ErrorKind.RATE_LIMITED: 1}
    facts.pass_s(20.0)
    assert facts.ordered() == []
    facts.pass_s(1.1)  # A tenth more, at random, since the whole fleet hears the same.
    assert facts.ordered() == ["b"]


def test_a_limit_without_a_time_is_no_fault_of_the_batch(facts: Facts) -> None:
    """However often it is told while others get through: nothing is halved, or given up."""
    told = Failed(ErrorKind.RATE_LIMITED, "HTTP 429", 0.0)
    keep(facts, "a")
    for number in range(10):
        facts.pass_s(100.0)
        flight = facts.flight(f"f-{number}")
        while facts.sends:
            attempt = facts.begin()
            facts.answer(attempt, told if attempt.entry.batch.id == "a" else None)
        facts.close(flight)
    assert facts.splits == []
    assert "a" in facts.kept()
