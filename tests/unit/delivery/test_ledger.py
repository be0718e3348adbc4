"""Where batches stand: moved from one place to another, with the orders that follow."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.flight import Attempt, Entry, Flight, State
from doow_serverless._delivery.ledger import NEXT, Fact, Ledger, Orders
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from tests.batches import batch

WHY = Failed(ErrorKind.NETWORK_ERROR, "reset")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(100, 100_000)


def new_flight(released: list[int]) -> Flight:
    return Flight(released.append)


def carry_out(ledger: Ledger) -> None:
    for release, events in ledger.orders.release:
        release(events)
    ledger.orders.release.clear()


def entry_in(state: State, ledger: Ledger) -> Entry:
    """Return a batch in this state, between two others that wait, or are kept, as it is."""
    flight = new_flight([])
    _, entry, _ = entries = [ledger.account(batch(batch_id=one), flight) for one in "abc"]
    if state is State.SENT:
        ledger.move(entry, Fact.ORDERED)
    if state is State.KEPT:
        for each in entries:
            ledger.give_up(flight, each, WHY)
    if state is State.GONE:
        ledger.forget(entry)
    assert entry.state is state
    return entry


def where(entry: Entry, ledger: Ledger, flight: Flight) -> tuple[bool, bool, bool]:
    """Whether it is known, is in the queue of the flight, and is kept."""
    return ledger.knows(entry), entry in flight.queue, entry in ledger.kept


PLACES = {
    State.WAITING: (True, True, False),
    State.SENT: (True, False, False),
    State.KEPT: (True, False, True),
    State.GONE: (False, False, False),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("fact", Fact)
def test_each_fact_puts_a_batch_where_the_table_says(
    ledger: Ledger, fact: Fact, state: State
) -> None:
    """And into the lists that follow from it; what cannot happen is an error, and changes none."""
    entry = entry_in(state, ledger)
    flight = entry.flights[0] if entry.flights else new_flight([])
    assert where(entry, ledger, flight) == PLACES[state]
    if state not in NEXT[fact]:
        with pytest.raises(KeyError):
            ledger.move(entry, fact)
        assert (entry.state, where(entry, ledger, flight)) == (state, PLACES[state])
        return
    if fact in (Fact.JOINED, Fact.JOINED_SENT):
        if fact is Fact.JOINED_SENT:
            entry.attempts.append(Attempt(entry, 0.0, is_fresh=False))
        ledger.join(entry, flight)
    else:
        ledger.move(entry, fact)
    assert entry.state is NEXT[fact][state]
    assert where(entry, ledger, flight) == PLACES[entry.state]


def test_what_has_failed_goes_behind_all_others(ledger: Ledger) -> None:
    """In the backlog as well, unless the server has not complained of it."""
    entry = entry_in(State.KEPT, ledger)
    ledger.move(entry, Fact.FAILED, first=True)
    assert [each.batch.id for each in ledger.kept] == ["a", "b", "c"]
    ledger.move(entry, Fact.FAILED)
    assert [each.batch.id for each in ledger.kept] == ["a", "c", "b"]


def test_whoever_leaves_first_takes_the_batch_from_nobody(ledger: Ledger) -> None:
    """It waits for an attempt on the account of the other."""
    one, other = new_flight([]), new_flight([])
    entry = ledger.account(batch(batch_id="a"), one)
    ledger.account(batch(batch_id="a"), other)
    ledger.give_up(one, entry, WHY)
    assert (entry.state, one.queue, other.queue) == (State.WAITING, [], [entry])
    assert (entry.flights, list(ledger.kept)) == ([other], [])
    # Its response goes back, after which the process may end.
    assert ledger.orders.write_down == [(entry, WHY.reason)]


def test_a_half_that_is_known_from_before_is_one_batch(ledger: Ledger) -> None:
    """A batch that was halved is sealed again, and halved again: each half is sent once."""
    earlier: list[int] = []
    later: list[int] = []
    whole = batch(4, batch_id="whole")
    halves = split(whole)
    first = new_flight(earlier)
    ledger.halve(ledger.account(whole, first), halves)
    known = [ledger.entries[half.id] for half in halves]
    ledger.give_up(first, known[1], WHY)
    assert known[1] in ledger.kept
    carry_out(ledger)
    assert earlier == [2]

    again = new_flight(later)
    ledger.halve(ledger.account(whole, again), halves)
    assert [ledger.entries[half.id] for half in halves] == known
    assert known[1] not in ledger.kept
    assert known[0].flights == [first, again]
    assert known[1].flights == [again]
    assert list(again.pending) == [halves[1].id, halves[0].id]
    carry_out(ledger)
    assert (earlier, later) == ([2], [2, 2])


def test_halves_of_what_was_released_release_nothing(ledger: Ledger) -> None:
    """Its events are off the hands of their buffer."""
    released: list[int] = []
    whole = batch(4, batch_id="whole")
    halves = split(whole)
    ledger.halve(ledger.account(whole, new_flight([])), halves)
    entry = ledger.account(whole, new_flight(released))
    entry.is_released = True
    ledger.halve(entry, halves)
    carry_out(ledger)
    assert released == []


def test_what_the_server_did_not_complain_of_keeps_its_place(ledger: Ledger) -> None:
    """First in the queue, once."""
    flight = new_flight([])
    first, second = (ledger.account(batch(batch_id=one), flight) for one in "ab")
    ledger.move(first, Fact.ORDERED)
    assert flight.queue == [second]
    ledger.move(first, Fact.FAILED, first=True)
    ledger.move(first, Fact.FAILED, first=True)
    assert flight.queue == [first, second]
    ledger.move(second, Fact.ORDERED)
    ledger.move(second, Fact.FAILED)
    assert flight.queue == [first, second]


def test_who_has_nothing_to_wait_for_is_forgotten(ledger: Ledger) -> None:
    """And need not be known to leave."""
    flight, other = new_flight([]), new_flight([])
    ledger.account(batch(), flight)
    ledger.leave(other)
    assert ledger.flights == [flight]
    ledger.leave(flight)
    assert ledger.flights == []


def test_the_reason_stands_in_the_log(ledger: Ledger) -> None:
    """That of the failure; of what is dropped, that it was dropped."""
    small = Ledger(1, 100_000)
    for one in ("a", "b"):
        entry = small.account(batch(batch_id=one), new_flight([]))
        entry.is_written = one == "a"
        small.give_up(entry.flights[0], entry, WHY)
    assert [(entry.batch.id, why) for entry, why in small.orders.write_down] == [("b", WHY.reason)]

    ledger.keep(ledger.account(batch(batch_id="c"), new_flight([])), None)
    assert ledger.orders.write_down == []
    full = Ledger(0, 100_000)
    full.keep(full.account(batch(batch_id="d"), new_flight([])), None)
    assert [why for _, why in full.orders.write_down] == [ErrorKind.DROPPED_EVENTS]

    entry = ledger.account(batch(batch_id="e"), new_flight([]))
    entry.flights.clear()
    ledger.abandon(entry, WHY)
    assert [why for _, why in ledger.orders.write_down] == [WHY.reason]
    assert repr(ledger) == "Ledger(1 batches, 2 flights, Kept(1 batches, 1 events, 222 bytes))"


def test_events_are_released_once(ledger: Ledger) -> None:
    """When they are given up, and not again when they are settled."""
    released: list[int] = []
    flight = new_flight(released)
    entry = ledger.account(batch(3), flight)
    ledger.give_up(flight, entry, WHY)
    ledger.join(entry, flight)
    ledger.forget(entry)
    carry_out(ledger)
    assert released == [3]


def test_one_flight_takes_over_the_account_of_another(ledger: Ledger) -> None:
    """What travels goes on, what waits is sent on the new account, and the other is over."""
    flight, other = new_flight([]), new_flight([])
    own = ledger.account(batch(batch_id="own"), flight)
    sent, waiting = (ledger.account(batch(batch_id=one), other) for one in "sw")
    ledger.move(sent, Fact.ORDERED)
    ledger.absorb(flight, other)
    assert list(flight.pending.values()) == [own, sent, waiting]
    assert (flight.queue, other.queue, other.pending) == ([own, waiting], [], {})
    assert [each.flights for each in (own, sent, waiting)] == [[flight]] * 3
    assert (other.is_closed, ledger.flights) == (True, [flight])


def test_a_flight_that_has_nothing_left_is_forgotten(ledger: Ledger) -> None:
    """Once its last batch is settled, or given up for good; not before."""
    flight, other = new_flight([]), new_flight([])
    first, second = (ledger.account(batch(batch_id=one), flight) for one in "ab")
    third, fourth = (ledger.account(batch(batch_id=one), other) for one in "cd")
    ledger.settle(first, Settled(first.batch, WHY.reason, "", []))
    ledger.abandon(third, WHY)
    assert ledger.flights == [flight, other]
    ledger.settle(second, Settled(second.batch, WHY.reason, "", []))
    assert ledger.flights == [other]
    ledger.abandon(fourth, WHY)
    assert (ledger.flights, ledger.orders.given_up) == ([], ["c", "d"])


def test_what_nobody_accounts_for_is_reported(ledger: Ledger) -> None:
    """Each rejection, in the order of the answers."""
    for one in "ab":
        entry = Entry(batch(batch_id=one))
        ledger.keep(entry, None)
        refused = [(f"{one}-0", "unknown metric")]
        ledger.settle(entry, Settled(entry.batch, ErrorKind.PARTIAL_ACCEPT, "207", refused))
    assert [error.event_ids for error in ledger.orders.report] == [("a-0",), ("b-0",)]


def test_orders_say_what_is_to_be_done() -> None:
    """Only that; in the order of carrying out."""
    orders = Orders()
    assert repr(orders) == "Orders()"
    orders.settled.append("a")
    orders.abort.append("b")
    assert repr(orders) == "Orders(abort=['b'], settled=['a'])"
