"""The state of the outbox while a flush waits: what goes out, when, and what becomes of it."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.outbox_state import CUT_OFF_AGAIN_S, PARALLEL
from doow_serverless._delivery.results import Failed, Settled, Split
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from tests.batches import batch
from tests.unit.delivery.facts import (
    ERROR_500,
    LIMITED,
    RESET,
    STALE,
    TIMEOUT_S,
    Facts,
    fail,
    keep,
)

TIMEOUT, LIMITED_KIND = ErrorKind.TIMEOUT, ErrorKind.RATE_LIMITED


@pytest.fixture
def facts() -> Facts:
    return Facts()


# ── all is well ─────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_sent_at_once_and_settled_once(facts: Facts) -> None:
    """Its events are released, the journal may forget it, the flush has nothing to wait for."""
    flight = facts.flight("a", events=3)
    assert (facts.ordered(), facts.waits_s(flight)) == (["a"], 2.0)
    assert facts.send() == "a"
    assert (facts.waits_s(flight), facts.settled, facts.released) == (None, ["a"], 3)
    assert facts.woken[-1] is flight
    outcome = facts.close(flight)
    assert (outcome.accepted, outcome.requests, outcome.unsent) == (3, 1, {})
    assert (facts.written, facts.kept(), facts.state.is_idle) == ([], [], True)


def test_a_few_batches_travel_at_once(facts: Facts) -> None:
    """The others wait for their turn, in order, and are not doubted for it."""
    names = [f"b{number}" for number in range(PARALLEL + 2)]
    flight = facts.flight(*names)
    assert facts.ordered() == names[:PARALLEL]
    first = facts.begin()
    facts.answer(first)
    assert facts.ordered() == names[1 : PARALLEL + 1]
    facts.pass_s(1.9)
    assert facts.ordered() == names[1 : PARALLEL + 1]
    while facts.sends:
        facts.send()
    assert facts.close(flight).accepted == PARALLEL + 2


def test_flushes_do_not_hold_each_other_up(facts: Facts) -> None:
    """Each has its own places to travel in."""
    facts.flight(*(f"a{number}" for number in range(PARALLEL)))
    facts.flight("b")
    assert facts.ordered()[-1] == "b"


def test_rejections_are_reported_by_the_flush(facts: Facts) -> None:
    """Or, where no flush waits for them any more, at once."""
    flight = facts.flight("a")
    attempt = facts.begin()
    refusal = Settled(attempt.entry.batch, ErrorKind.PARTIAL_ACCEPT, "207", [("a-0", "why")])
    facts.answer(attempt, refusal)
    assert facts.reported == []
    assert facts.close(flight).rejected == [("a-0", "why")]
    assert [error.event_ids for error in facts.reported] == [("a-0",)]

    flight = facts.flight("b")
    attempt = facts.begin()
    facts.close(flight)
    facts.reported.clear()
    refusal = Settled(attempt.entry.batch, ErrorKind.PARTIAL_ACCEPT, "207", [("b-0", "why")])
    facts.answer(attempt, refusal)
    assert [error.event_ids for error in facts.reported] == [("b-0",)]


def test_the_same_batch_twice_is_sent_once(facts: Facts) -> None:
    """Work that is done again while its batch travels: one POST, and both flushes count it."""
    first = facts.flight("a")
    attempt = facts.begin()
    second = facts.flight("a")
    assert facts.sends == []
    facts.answer(attempt)
    assert facts.close(first).accepted == facts.close(second).accepted == 1
    assert (facts.released, facts.settled) == (2, ["a"])


def test_the_same_batch_twice_in_one_flush(facts: Facts) -> None:
    """It is one batch still."""
    flight = facts.flight("a", "a")
    assert facts.ordered() == ["a"]
    facts.send()
    assert facts.close(flight).accepted == 1
    assert facts.released == 2


def test_a_batch_that_is_kept_and_sealed_again_is_waited_for(facts: Facts) -> None:
    """It leaves the backlog; when that flush gives up too, it is there once, and written once."""
    facts.close(facts.flight("a"))
    assert facts.kept() == ["a"]
    facts.begin()
    flight = facts.flight("a")
    assert facts.kept() == []
    facts.close(flight)
    assert (facts.kept(), facts.written, facts.state.kept.events) == (["a"], ["a"], 1)


# ── failures within the budget ──────────────────────────────────────────────────────────────────


def test_what_failed_goes_out_again_after_a_pause(facts: Facts) -> None:
    """Behind what did not fail, on a new connection, after a pause that doubles."""
    flight = facts.flight("a")
    pauses = []
    for _ in range(8):
        attempt = facts.begin()
        facts.answer(attempt, ERROR_500)
        pause_s = facts.waits_s(flight)
        assert facts.sends == []
        assert pause_s is not None
        pauses.append(round(pause_s, 6))
        facts.pass_s(pause_s)
        assert [each.is_fresh for each in facts.sends] == [True]
        flight.ends_at += pause_s
    assert pauses == [0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5]
    facts.send()
    assert facts.close(flight).accepted == 1
    assert not facts.state.breaker.is_open


def test_what_left_early_is_not_sent_again_and_again(facts: Facts) -> None:
    """While nobody waits the pauses are those of the background; the flush begins with a try."""
    flight = facts.flight("a", budget_s=None)
    pauses = []
    for _ in range(8):
        facts.answer(facts.begin(), ERROR_500)
        pauses.append(flight.queue[0].not_before - facts.now)
        facts.pass_s(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    facts.answer(facts.begin(), ERROR_500)
    facts.state.wait(flight, facts.now + 2.0, facts.now)
    facts.collect()
    assert facts.send() == "a"
    assert facts.close(flight).accepted == 1


def test_pauses_leave_time_for_another_attempt(facts: Facts) -> None:
    """They are no longer than what is left, as long as that is 50 ms."""
    flight = facts.flight("a", budget_s=1.0)
    pauses = []
    for _ in range(5):
        facts.answer(facts.begin(), ERROR_500)
        facts.now = flight.ends_at - 0.3
        pauses.append(flight.queue[0].not_before - facts.now)
        facts.state.tick(flight.queue[0].not_before)
        facts.collect()
        if not facts.sends:
            facts.state.tick(facts.now + 0.3 - 1e-9)
            facts.collect()
    assert pauses[-1] <= 0.15


def test_the_reason_of_an_outage_is_told(facts: Facts) -> None:
    """By what opened the breaker: an answer, or silence."""
    flight = facts.flight("a")
    facts.answer(facts.begin(), LIMITED)
    assert (facts.state.breaker.reason, facts.state.breaker.message) == (LIMITED_KIND, "HTTP 429")
    facts.close(flight)
    facts.state.breaker.close()
    flight = facts.flight("b", budget_s=0.01)
    while facts.sends:
        facts.begin()
    facts.close(flight)
    facts.pass_s(1.5)
    assert facts.state.breaker.message == "no answer came within the budget"
    assert facts.state.breaker.reason is TIMEOUT


def test_everyone_who_waits_is_woken(facts: Facts) -> None:
    """When an attempt begins, since it may be doubted; when it has come back; when all is held."""
    first, second = facts.flight("a"), facts.flight("b")
    facts.begin()
    assert facts.woken == [first]
    attempt = facts.begin()
    facts.woken.clear()
    facts.answer(attempt, LIMITED)
    assert set(facts.woken) == {first, second}


def test_no_attempt_begins_after_the_deadline(facts: Facts) -> None:
    """And a flush does not wait for a time at which it is over."""
    flight = facts.flight("a", budget_s=0.01)
    facts.answer(facts.begin(), ERROR_500)
    assert facts.waits_s(flight) is None
    facts.pass_s(0.5)
    assert facts.sends == []
    assert facts.close(flight).unsent == {ErrorKind.TRANSPORT_ERROR: 1}


def test_others_are_sent_while_one_waits_to_be_sent_again(facts: Facts) -> None:
    """One failure does not hold up the rest of its flush."""
    names = [f"b{number}" for number in range(PARALLEL + 1)]
    facts.flight(*names)
    facts.answer(facts.begin(), ERROR_500)
    assert facts.ordered() == names[1:]


def test_a_dead_kept_connection_is_no_failure(facts: Facts) -> None:
    """The server had closed it while it was idle: the batch goes out again at once."""
    flight = facts.flight("a")
    facts.answer(facts.begin(is_reused=True), STALE)
    assert facts.ordered() == ["a"]
    facts.answer(facts.begin(), ERROR_500)
    pause_s = facts.waits_s(flight)
    assert pause_s == pytest.approx(0.025)
    facts.close(flight)


def test_a_fresh_connection_that_breaks_is_a_failure(facts: Facts) -> None:
    """Whatever the transport says of it: only what was really kept may be stale."""
    facts.flight("a")
    facts.answer(facts.begin(), STALE)
    assert facts.sends == []


def test_the_servers_wait_ends_the_flush(facts: Facts) -> None:
    """429: nothing goes out before that time, and nobody waits for it."""
    flight = facts.flight("a", "b")
    facts.answer(facts.begin(), LIMITED)
    facts.answer(facts.begin(), LIMITED)
    assert facts.waits_s(flight) is None
    assert facts.close(flight).unsent == {LIMITED_KIND: 2}
    assert facts.state.breaker.until == facts.now + 10.5  # And a bit, so that a fleet spreads.
    flight = facts.flight("c")
    assert (facts.sends, facts.waits_s(flight), facts.kept()) == ([], None, ["a", "b", "c"])
    facts.pass_s(9.9)
    assert facts.sends == []


def test_a_wait_is_believed_though_others_get_through(facts: Facts) -> None:
    """The server knows best what it wants held."""
    facts.flight("a", "b")
    limited = facts.begin()
    facts.send()
    facts.answer(limited, LIMITED)
    assert facts.state.breaker.is_open


def test_a_wait_that_the_server_asks_for_ends_no_post_under_way(facts: Facts) -> None:
    """They may succeed: a flush gives up what has not begun, and waits for what has."""
    flight = facts.flight("a", "b", "c", "d", "e")
    first, second, third = facts.begin(), facts.begin(), facts.begin()
    facts.answer(first, LIMITED)
    assert facts.waits_s(flight) == pytest.approx(2.0)
    facts.answer(second)
    facts.pass_s(1.0)
    assert facts.waits_s(flight) == pytest.approx(1.0)
    facts.answer(third)
    assert facts.waits_s(flight) is None
    outcome = facts.close(flight)
    assert (outcome.accepted, outcome.unsent) == (2, {ErrorKind.RATE_LIMITED: 3})


def test_a_flush_that_gives_up_ends_no_other(facts: Facts) -> None:
    """A budget of 0.3 s in which nothing came says nothing about a POST that may take 2 s."""
    short, long = facts.flight("a", budget_s=0.3), facts.flight("b")
    facts.begin()
    second = facts.begin()
    facts.pass_s(0.3)
    facts.close(short)
    assert facts.state.breaker.is_open
    assert facts.waits_s(long) == pytest.approx(1.7)
    facts.answer(second)
    assert facts.close(long).accepted == 1


def test_a_wait_is_not_cut_short_by_what_was_sent_before_it(facts: Facts) -> None:
    """The server has asked for 10 s, whatever else it answers."""
    flight = facts.flight("a", "b", "c")
    first, second = facts.begin(), facts.begin()
    facts.answer(first, LIMITED)
    facts.answer(second)
    assert facts.state.breaker.is_open
    facts.close(flight)
    facts.pass_s(9.9)
    assert facts.state.breaker.is_open
    facts.now = facts.state.breaker.until
    facts.pass_s(0.0)
    facts.answer(facts.begin())
    assert not facts.state.breaker.is_open


def test_halves_stand_for_what_is_too_large(facts: Facts) -> None:
    """413: both halves go out in its place, within the same flush, before all else."""
    names = ["a", *(f"b{number}" for number in range(PARALLEL))]
    flight = facts.flight(*names, events=2)
    attempt = facts.begin()
    halves = split(attempt.entry.batch)
    facts.answer(attempt, Split(halves, ErrorKind.TRANSPORT_ERROR, "HTTP 413"))
    assert facts.splits == ["a"]
    assert facts.ordered() == [*names[1:PARALLEL], halves[0].id]
    while facts.sends:
        facts.send()
    assert facts.close(flight).accepted == 10
    assert facts.released == 10
    assert not facts.state.breaker.is_open


def test_halves_of_what_is_kept_are_kept(facts: Facts) -> None:
    """In its place, which is the first; what stands in the log is not written once more."""
    first = facts.flight("a", "b", events=2)
    attempt = facts.begin()
    facts.close(first)
    assert (facts.kept(), facts.written) == (["a", "b"], ["a", "b"])
    halves = split(attempt.entry.batch)
    facts.answer(attempt, Split(halves, ErrorKind.TRANSPORT_ERROR, "HTTP 413"))
    assert facts.kept() == [halves[0].id, halves[1].id, "b"]
    assert (facts.written, facts.splits, facts.state.kept.events) == (["a", "b"], ["a"], 4)


# ── the end of a flush ──────────────────────────────────────────────────────────────────────────


def test_what_is_not_settled_in_time_is_kept_and_written_down(facts: Facts) -> None:
    """Once, with its reason; its events are off the hands of the buffer."""
    flight = facts.flight("a", "b", events=2)
    first = facts.begin()
    facts.begin()
    facts.pass_s(2.0)
    assert facts.waits_s(flight) is None
    facts.answer(first, ERROR_500)
    outcome = facts.close(flight)
    assert outcome.unsent == {ErrorKind.TRANSPORT_ERROR: 2, TIMEOUT: 2}
    assert (facts.kept(), facts.written, facts.released) == (["a", "b"], ["a", "b"], 4)
    assert [(str(error), error.event_ids) for error in facts.reported] == [
        ("2 events not delivered: HTTP 500", ("a-0", "a-1")),
        ("2 events not delivered: no answer came within the budget", ("b-0", "b-1")),
    ]
    assert flight.is_closed
    assert not flight.is_waited_for


def test_a_late_answer_settles_what_is_kept(facts: Facts) -> None:
    """It leaves the backlog, and closes the breaker."""
    flight = facts.flight("a")
    attempt = facts.begin()
    facts.pass_s(2.0)
    facts.close(flight)
    assert facts.state.breaker.is_open
    facts.answer(attempt)
    assert (facts.kept(), facts.settled, facts.state.breaker.is_open) == ([], ["a"], False)
    assert facts.state.kept.events == 0


def test_a_flush_without_time_says_nothing_of_the_server(facts: Facts) -> None:
    """Nor does one of 10 ms: only silence that lasts is silence, whoever still waits for it."""
    flight = facts.flight("a", budget_s=0.01)
    facts.begin()
    facts.pass_s(0.01)
    assert facts.close(flight).unsent == {TIMEOUT: 1}
    assert not facts.state.breaker.is_open
    facts.pass_s(0.2)
    assert not facts.state.breaker.is_open
    flight = facts.flight("b")
    assert facts.waits_s(flight) == pytest.approx(0.04)
    facts.pass_s(0.041)
    assert facts.state.breaker.is_open
    assert (facts.waits_s(flight), facts.woken[-1]) == (None, flight)


def test_a_budget_of_a_quarter_second_says_something(facts: Facts) -> None:
    """An outage costs one budget, not one for each invocation."""
    flight = facts.flight("b", budget_s=0.3)
    facts.begin()
    facts.pass_s(0.3)
    facts.close(flight)
    assert (facts.state.breaker.reason, facts.state.breaker.until) == (TIMEOUT, facts.now + 0.75)


def test_silence_is_judged_by_what_the_server_has_needed(facts: Facts) -> None:
    """0.3 s without an answer are nothing where each takes half a second; a second always is."""
    flight = facts.flight("warm")
    attempt = facts.begin()
    facts.now += 0.5
    facts.answer(attempt)
    facts.close(flight)
    flight = facts.flight("a", budget_s=0.3)
    facts.begin()
    facts.pass_s(0.3)
    facts.close(flight)
    assert not facts.state.breaker.is_open
    facts.pass_s(0.69)
    assert not facts.state.breaker.is_open
    facts.pass_s(0.02)
    assert facts.state.breaker.is_open


def test_a_batch_that_never_began_says_nothing_of_the_server(facts: Facts) -> None:
    """Our own threads were late."""
    flight = facts.flight("a")
    facts.pass_s(2.0)
    facts.close(flight)
    assert not facts.state.breaker.is_open


def test_one_that_fails_while_others_get_through_is_no_outage(facts: Facts) -> None:
    """The breaker stays closed, and what failed is kept."""
    flight = facts.flight("a", "b", budget_s=0.2)
    bad, good = facts.begin(), facts.begin()
    facts.answer(bad, ERROR_500)
    facts.answer(good)
    facts.pass_s(0.2)
    facts.close(flight)
    assert (facts.state.breaker.is_open, facts.kept()) == (False, ["a"])


def test_silence_while_others_get_through_is_no_outage(facts: Facts) -> None:
    """One of two attempts hangs."""
    flight = facts.flight("a", "b")
    facts.begin()
    facts.send()
    facts.pass_s(2.0)
    facts.close(flight)
    assert (facts.state.breaker.is_open, facts.kept()) == (False, ["a"])


def test_an_attempt_that_hangs_is_cut_off_after_the_timeout(facts: Facts) -> None:
    """An answer that drips keeps a socket's own timeout from ever coming."""
    flight = facts.flight("a")
    facts.begin()
    facts.close(flight)
    facts.pass_s(TIMEOUT_S)
    assert facts.aborted == []
    facts.pass_s(0.001)
    assert facts.aborted == ["a"]


def test_an_attempt_that_a_flush_waits_for_is_cut_off_as_well(facts: Facts) -> None:
    """The flush looks when the timeout is over, and again until the attempt has ended."""
    flight = facts.flight("a", budget_s=60.0)
    facts.begin()
    assert facts.waits_s(flight) == pytest.approx(TIMEOUT_S + CUT_OFF_AGAIN_S)
    facts.pass_s(TIMEOUT_S + CUT_OFF_AGAIN_S)
    assert facts.aborted == ["a"]
    assert facts.waits_s(flight) == pytest.approx(CUT_OFF_AGAIN_S)
    facts.pass_s(CUT_OFF_AGAIN_S)
    assert facts.aborted == ["a", "a"]


def test_no_thread_is_our_own_trouble(facts: Facts) -> None:
    """The batch is kept and written down at once, and the breaker stays closed."""
    flight = facts.flight("a")
    attempt = facts.sends.pop()
    facts.state.cannot_send(attempt, facts.now)
    facts.collect()
    assert facts.waits_s(flight) is None
    assert (facts.kept(), facts.written) == (["a"], ["a"])
    assert not facts.state.breaker.is_open
    assert facts.close(flight).unsent == {TIMEOUT: 1}
    assert facts.reported[0].args[0].endswith("the system starts no more threads")
    facts.pass_s(0.99)
    assert facts.sends == []
    facts.pass_s(0.01)
    assert facts.send() == "a"


def test_no_thread_for_a_second_attempt(facts: Facts) -> None:
    """The first goes on."""
    flight = facts.flight("a")
    first = facts.begin(is_reused=True)
    facts.pass_s(0.5)
    facts.state.cannot_send(facts.sends.pop(), facts.now)
    facts.collect()
    facts.answer(first)
    assert facts.close(flight).accepted == 1


def test_what_nobody_wants_is_not_sent(facts: Facts) -> None:
    """An attempt that begins after its batch was settled by another is not made."""
    flight = facts.flight("a")
    first = facts.begin(is_reused=True)
    facts.pass_s(0.5)
    second = facts.sends.pop()
    facts.answer(first)
    assert not facts.state.begin(second, facts.now, is_reused=False)
    assert facts.state.is_idle
    assert facts.close(flight).requests == 1


def test_what_comes_to_a_flush_that_is_over_is_kept(facts: Facts) -> None:
    """Written down as well, since nobody waits."""
    flight = facts.flight("a")
    facts.send()
    facts.close(flight)
    from tests.batches import batch

    facts.state.add(batch(batch_id="late"), flight, facts.now)
    facts.collect()
    assert (facts.kept(), facts.written) == (["late"], ["late"])


def test_it_says_what_it_knows(facts: Facts) -> None:
    """Whoever debugs reads it in one line."""
    facts.flight("a")
    attempt = facts.begin()
    assert repr(facts.state).startswith("1 flights, 1 POSTs under way, Kept(0 batches")
    assert repr(attempt) == "Attempt(a, any, began_at=100.0)"
    assert repr(attempt.entry) == "Entry(a, SENT, 0 failures, 0 strikes)"
    assert repr(attempt.entry.flights[0]) == "Flight(open, 1 pending, 0 to send)"
    assert repr(Failed(TIMEOUT, "why")) == "Failed(TIMEOUT, 'why', hold_s=None)"


# ── two flushes of one invocation ───────────────────────────────────────────────────────────────


def test_a_flush_accounts_for_what_left_before(facts: Facts) -> None:
    """What came back, what travels, and what has failed in the background, which is due at once."""
    early = facts.flight("a", "b", "c", budget_s=None)
    assert facts.send() == "a"
    assert facts.send(ERROR_500) == "b"
    travels = facts.begin()
    flight = facts.flight("d")
    facts.state.join(flight, early, facts.now)
    facts.collect()
    assert facts.ordered() == ["d", "b"]
    assert (early.is_closed, early.pending, list(flight.pending)) == (True, {}, ["d", "b", "c"])
    assert repr(facts.state).startswith("1 flights, 3 POSTs under way")
    facts.answer(travels)
    assert [facts.send(), facts.send()] == ["d", "b"]
    outcome = facts.close(flight)
    assert (outcome.accepted, outcome.requests, outcome.unsent) == (4, 5, {})


def test_two_flushes_wait_for_one_batch(facts: Facts) -> None:
    """Each has it on its account, and none takes it from the other."""
    first = facts.flight("a", budget_s=0.5)
    travels = facts.begin()
    second = facts.flight(budget_s=2.0)
    facts.state.join(second, first, facts.now)
    facts.collect()
    assert (list(first.pending), list(second.pending), first.is_closed) == (["a"], ["a"], False)
    facts.pass_s(0.5)
    assert facts.close(first).unsent == {ErrorKind.TIMEOUT: 1}
    assert facts.waits_s(second) == 1.5
    facts.answer(travels)
    assert facts.close(second).accepted == 1
    over = facts.flight("b")
    assert facts.send() == "b"
    facts.close(over)
    third = facts.flight("c")
    facts.state.join(third, over, facts.now)
    facts.collect()
    assert facts.send() == "c"
    assert facts.close(third).accepted == 1  # What is over was accounted for.


# ── who is woken, and what is known of what is kept ─────────────────────────────────────────────


@pytest.mark.parametrize("result", [LIMITED, None])
def test_all_are_woken_by_what_concerns_all(facts: Facts, result: Failed | None) -> None:
    """A hold, and its end; once each, and nobody waits twice."""
    fail(facts, "before")
    facts.now += 1.0
    first, second = facts.flight("a"), facts.flight("b")
    probe = facts.begin()
    facts.woken.clear()
    facts.answer(probe, result)
    assert facts.woken == [first, second, first]
    assert repr(facts.state).startswith("2 flights" if result else "1 flights")


def test_a_fault_amid_a_post_leaves_its_batch_whole(facts: Facts) -> None:
    """The server may have it; one that had not begun it has not."""
    for one, has_begun in (("a", True), ("b", False)):
        flight = facts.flight(one)
        attempt = facts.begin() if has_begun else facts.sends.pop()
        facts.state.cannot_send(attempt, facts.now, why="a fault")
        facts.collect()
        assert facts.close(flight).unsent == {ErrorKind.TIMEOUT: 1}
    assert [entry.is_ambiguous for entry in facts.state.kept] == [True, False]
    assert [str(error) for error in facts.reported] == ["1 event not delivered: a fault"] * 2


def test_no_thread_for_what_is_kept(facts: Facts) -> None:
    """It keeps its place: that was no failure of its own."""
    keep(facts, "a", "b")
    facts.pass_s(0.0)
    facts.state.cannot_send(facts.sends.pop(0), facts.now)
    facts.collect()
    assert facts.kept() == ["a", "b"]
    flight = facts.flight("c")
    facts.woken.clear()
    (attempt,) = (one for one in facts.sends if one.entry.batch.id == "c")
    facts.state.cannot_send(attempt, facts.now)
    facts.collect()
    assert (facts.woken, facts.kept()) == ([flight], ["a", "b", "c"])


def test_what_is_known_of_what_is_kept(facts: Facts) -> None:
    """A process that is gone may have sent it; one that sealed it just now has not."""
    why = ErrorKind.NOT_READY
    facts.state.keep(batch(batch_id="a"), facts.now, is_written=None)
    facts.state.keep(batch(batch_id="b"), facts.now, is_written=False, reason=why)
    facts.state.keep(batch(batch_id="c"), facts.now, is_written=True, logged_as="LOG")
    assert [
        (one.batch.id, one.is_ambiguous, one.is_written, one.logged_as) for one in facts.state.kept
    ] == [("a", True, None, ErrorKind.TIMEOUT), ("b", False, True, None), ("c", True, True, "LOG")]


def test_the_end_says_why_it_was_not_delivered(facts: Facts) -> None:
    """The last failure of each batch, or that there was no answer."""
    facts.flight("a", "b")
    facts.answer(facts.begin(), RESET)
    facts.state.end(facts.now)
    orders = facts.state.take_orders()
    assert [(entry.batch.id, why) for entry, why in orders.write_down] == [
        ("a", ErrorKind.NETWORK_ERROR),
        ("b", ErrorKind.TIMEOUT),
    ]


def test_no_moment_is_missed_between_a_fact_and_a_look(facts: Facts) -> None:
    """What has become due since the last fact is looked at now, not at the end of the budget."""
    flight = facts.flight("a")
    facts.answer(facts.begin(), ERROR_500)
    pause_s = facts.waits_s(flight)
    assert pause_s is not None
    facts.now += pause_s + 0.001  # The machine was busy.
    assert (facts.waits_s(flight), facts.sends) == (0.0, [])
    facts.pass_s(0.0)
    assert facts.ordered() == ["a"]
