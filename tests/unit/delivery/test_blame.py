"""Who is at fault where a batch fails: each row of the table, and a server that fails at random."""

from __future__ import annotations

import random

import pytest

from doow_serverless._delivery.blame import PATIENCE_S, Blame, Verdict
from doow_serverless._delivery.flight import Entry
from doow_serverless._delivery.results import Failed
from doow_serverless.errors import ErrorKind
from tests.batches import batch
from tests.unit.delivery.facts import ERROR_500

REFUSED = Failed(ErrorKind.NETWORK_ERROR, "refused", is_unsent=True)
NO_OTHER_KEY = Failed(ErrorKind.AUTH_FAILURE, "Doow refused the key, whose store is down", 0.0)


def entry(name: str, events: int = 1) -> Entry:
    return Entry(batch(events, batch_id=name))


def fail(blame: Blame, one: Entry, times: int, failure: Failed = ERROR_500) -> Verdict:
    """It fails so often, a minute apart, and another batch gets through after each failure."""
    verdict = Verdict.AGAIN
    for number in range(times):
        now = 60.0 * number
        blame.failed(one, failure, now)
        verdict = blame.verdict(one, now)
        blame.got_through(entry(f"other {number}"))
    return verdict


def well() -> Blame:
    """One of a server that has taken many batches."""
    blame = Blame()
    for number in range(100):
        blame.got_through(entry(f"well {number}"))
    return blame


@pytest.mark.parametrize(
    ("events", "times", "expected"),
    [
        (1, 20, Verdict.AGAIN),
        (1, 21, Verdict.GIVE_UP),
        (2, 2, Verdict.AGAIN),
        (2, 3, Verdict.SPLIT),
    ],
)
def test_others_get_through(events: int, times: int, expected: Verdict) -> None:
    """It is the batch that is at fault, as soon as chance can be ruled out."""
    assert fail(well(), entry("bad", events), times) is expected


@pytest.mark.parametrize(
    ("failed_retries", "times", "expected"),
    [
        (0, 4, Verdict.AGAIN),
        (0, 5, Verdict.GIVE_UP),
        (2, 34, Verdict.AGAIN),
        (2, 35, Verdict.GIVE_UP),
    ],
)
def test_retries_of_others_get_through(failed_retries: int, times: int, expected: Verdict) -> None:
    """The more retries have failed of batches that were well, the longer an event is tried."""
    blame = well()
    for number in range(100):
        other = entry(f"retried {number}")
        other.failures = 1 + failed_retries
        blame.got_through(other)
    assert fail(blame, entry("bad"), times) is expected


def test_nobody_is_known_yet() -> None:
    """Without others to compare with, failures say little, and it takes more of them."""
    blame = Blame()
    verdicts = [fail(blame, entry("bad", 2), times) for times in (1, 2)]
    assert verdicts == [Verdict.AGAIN, Verdict.AGAIN]


def test_nothing_gets_through() -> None:
    """In an outage no number of failures is the fault of a batch."""
    blame, bad = well(), entry("bad")
    for number in range(100):
        blame.failed(bad, ERROR_500, 60.0 * number)
    assert blame.verdict(bad, 6_000.0) is Verdict.AGAIN


@pytest.mark.parametrize("failure", [REFUSED, NO_OTHER_KEY])
def test_nothing_was_judged(failure: Failed) -> None:
    """A server that refuses new connections, beside kept ones, says nothing about the batch."""
    blame, bad = well(), entry("bad", 2)
    assert fail(blame, bad, 100, failure) is Verdict.AGAIN
    assert (bad.failures, bad.strikes) == (100, 0)


def test_an_event_is_not_given_up_within_minutes() -> None:
    """However often it fails: the instance that refuses it may be replaced."""
    blame, bad = well(), entry("bad")
    for number in range(50):
        blame.failed(bad, ERROR_500, number / 10)
        blame.got_through(entry(f"other {number}"))
    assert blame.verdict(bad, PATIENCE_S - 0.1) is Verdict.AGAIN
    assert blame.verdict(bad, PATIENCE_S) is Verdict.GIVE_UP


def test_what_doow_may_have_stays_whole() -> None:
    """Since its halves would count again: it is given up whole, when an event would be."""
    bad = entry("bad", 2)
    bad.is_ambiguous = True
    blame = well()
    assert fail(blame, bad, 20) is Verdict.AGAIN
    blame.failed(bad, ERROR_500, 1_200.0)
    assert blame.verdict(bad, 1_200.0) is Verdict.GIVE_UP


def test_what_fails_again_and_again_is_not_the_server() -> None:
    """Three bad batches in the backlog do not excuse each other."""
    blame = well()
    bad = [entry(f"bad {number}", 2) for number in range(3)]
    for number in range(4):
        for one in bad:
            blame.failed(one, ERROR_500, 60.0 * number)
        blame.got_through(entry(f"other {number}"))
    assert [blame.verdict(one, 240.0) for one in bad] == [Verdict.SPLIT] * 3


def test_a_half_is_decided_about_at_its_next_failure() -> None:
    """It was a part of what has failed: not all of that must come true again."""
    blame, bad = well(), entry("bad", 4)
    fail(blame, bad, 3)
    half = bad.part(batch(2, batch_id="half"))
    blame.failed(half, ERROR_500, 200.0)
    assert blame.verdict(half, 200.0) is Verdict.SPLIT


def test_halves_of_what_was_too_large_tell_as_much_as_others() -> None:
    """But not those of a batch that had failed: they may fail for the same event."""
    blame = Blame()
    large, bad = entry("large", 4), entry("bad", 4)
    blame.failed(bad, ERROR_500, 0.0)
    for whole in (large, bad):
        blame.failed(whole.part(batch(2, batch_id=f"half of {whole.batch.id}")), ERROR_500, 1.0)
    assert repr(blame) == "Blame(2 of 2 batches failed at first)"


@pytest.mark.parametrize(
    ("first", "retried"), [(0.1, 0.1), (1 / 3, 1 / 3), (0.6, 0.6), (0.02, 0.8), (0.2, 0.8)]
)
def test_servers_that_fail_at_random(first: float, retried: float) -> None:
    """Of 20,000 batches, tried until each is through, none is given up.

    Nor if kept connections reach better instances than new ones, on which retries go out.
    """
    chance = random.Random(26)
    blame = Blame()
    backlog: list[Entry] = []
    for number in range(20_000):
        now = 0.5 * number
        due = [one for one in backlog if one.not_before <= now][:3]
        for one in (entry(f"{number}"), *due):
            if chance.random() >= (retried if one.failures else first):
                blame.got_through(one)
                if one in backlog:
                    backlog.remove(one)
                continue
            blame.failed(one, ERROR_500, now)
            assert blame.verdict(one, now) is not Verdict.GIVE_UP
            one.not_before = now + 0.5 * 2 ** min(one.failures, 7)
            if one not in backlog:
                backlog.append(one)


def test_it_says_what_it_knows() -> None:
    """Its repr is its rate."""
    blame = well()
    fail(blame, entry("bad"), 1)
    assert repr(blame) == "Blame(1 of 64 batches failed at first)"


@pytest.mark.parametrize(("strikes", "expected"), [(6, Verdict.AGAIN), (7, Verdict.SPLIT)])
def test_half_of_all_posts_fail_where_nothing_is_known(strikes: int, expected: Verdict) -> None:
    """A half to the power of seven is the first that is less than one in a hundred."""
    bad = entry("bad", 2)
    bad.strikes = strikes
    assert Blame().verdict(bad, 0.0) is expected


def test_patience_is_counted_from_the_first_failure() -> None:
    """Not from when the clock began."""
    bad = entry("bad")
    bad.strikes, bad.failing_since = 100, 5_000.0
    verdicts = [well().verdict(bad, now) for now in (5_000.0, 5_119.0, 5_120.0)]
    assert verdicts == [Verdict.AGAIN, Verdict.AGAIN, Verdict.GIVE_UP]
