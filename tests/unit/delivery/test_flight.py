"""The account of a flush: what became of each event, and what must be reported."""

from __future__ import annotations

from doow_serverless import Outcome
from doow_serverless._delivery.flight import MOST_ERRORS, Attempt, Entry, Flight, summed_up
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless.errors import DoowError, ErrorKind
from tests.batches import batch

WHY = ErrorKind.NETWORK_ERROR


def flight_of(*ids: str, events: int = 2) -> tuple[Flight, list[Entry]]:
    """A flight with these batches pending."""
    flight = Flight(lambda _: None)
    entries = [Entry(batch(events, batch_id=one)) for one in ids]
    flight.pending = {entry.batch.id: entry for entry in entries}
    return flight, entries


def account(flight: Flight) -> tuple[Outcome, list[DoowError]]:
    outcome = Outcome()
    return outcome, flight.account(outcome)


def test_nothing_has_become_of_nothing() -> None:
    """A flight without batches."""
    outcome, errors = account(Flight(lambda _: None))
    assert (outcome, errors) == (Outcome(), [])


def test_what_the_server_has_decided() -> None:
    """Of all batches together, each counted once, with the errors in their order."""
    flight, (first, second) = flight_of("a", "b")
    for entry in (first, second, first):
        refused = [(entry.batch.event_ids[0], f"of {entry.batch.id}")]
        result = Settled(entry.batch, ErrorKind.PARTIAL_ACCEPT, "207", refused)
        flight.settled(entry.batch, result)
    flight.requests += 1
    flight.requests += 1
    outcome, errors = account(flight)
    assert outcome == Outcome(2, [("a-0", "of a"), ("b-0", "of b")], requests=2)
    assert [(str(error), error.kind, error.event_ids) for error in errors] == [
        ("Doow rejected 1 event: of a", ErrorKind.PARTIAL_ACCEPT, ("a-0",)),
        ("Doow rejected 1 event: of b", ErrorKind.PARTIAL_ACCEPT, ("b-0",)),
    ]


def test_what_was_given_up() -> None:
    """Batches that failed alike make one error, which names all of their events."""
    flight, (first, second, third) = flight_of("a", "b", "c")
    for entry in (first, second, first):
        flight.given_up(entry.batch, Failed(WHY, "reset", 30.0))
    flight.given_up(third.batch, Failed(WHY, "refused", 0.0))
    outcome, errors = account(flight)
    assert outcome == Outcome(unsent={WHY: 6})
    assert [(str(e), e.kind, e.event_ids, e.retry_after_s) for e in errors] == [
        ("4 events not delivered: reset", WHY, ("a-0", "a-1", "b-0", "b-1"), 30.0),
        ("2 events not delivered: refused", WHY, ("c-0", "c-1"), None),
    ]


def test_what_was_refused_for_want_of_room() -> None:
    """Counted and reported, unless there is nothing to count."""
    flight = Flight(lambda _: None)
    flight.refused(0)
    assert account(flight) == (Outcome(), [])
    flight.refused(2)
    outcome, (error,) = account(flight)
    assert outcome == Outcome(unsent={ErrorKind.DROPPED_EVENTS: 2})
    assert (error.kind, error.event_ids) == (ErrorKind.DROPPED_EVENTS, ())
    why = "max_queue_size events or max_queue_bytes were waiting already"
    assert str(error) == f"2 events dropped: {why}"


def test_what_was_not_sealed_in_time() -> None:
    """Counted and reported: others keep it."""
    flight = Flight(lambda _: None)
    flight.late(3)
    outcome, (error,) = account(flight)
    assert outcome == Outcome(unsent={ErrorKind.TIMEOUT: 3})
    assert error.kind is ErrorKind.TIMEOUT
    assert str(error) == "3 events not delivered: the budget was used up before they were sealed"


def test_many_errors_are_summed_up() -> None:
    """The last of ten says how many more there are, of how many events, and which is the first."""
    errors = [DoowError(f"why {n}", WHY, [f"{n}-a", f"{n}-b"]) for n in range(MOST_ERRORS)]
    assert summed_up(errors) == errors
    more = [*errors, DoowError("why 10", ErrorKind.TIMEOUT, ["10-a"])]
    summed = summed_up(more)
    assert summed[:-1] == errors[: MOST_ERRORS - 1]
    last = summed[-1]
    assert str(last) == "and 2 more reasons, of 3 events; the first: why 9"
    assert (last.kind, last.event_ids) == (WHY, ("9-a", "9-b", "10-a"))
    assert len(more) == MOST_ERRORS + 1


def test_what_their_reprs_say() -> None:
    """Who debugs sees where a batch stands."""
    flight, (entry,) = flight_of("a")
    assert repr(flight) == "Flight(open, 1 pending, 0 to send)"
    flight.is_closed = True
    assert repr(flight) == "Flight(closed, 1 pending, 0 to send)"
    assert repr(entry) == "Entry(a, WAITING, 0 failures, 0 strikes)"
    attempts = [Attempt(entry, 1.0, is_fresh=is_fresh) for is_fresh in (False, True)]
    assert [repr(each) for each in attempts] == [
        "Attempt(a, any, began_at=None)",
        "Attempt(a, fresh, began_at=None)",
    ]
    attempts[0].is_reused = True
    attempts[0].began_at = 2.0
    assert repr(attempts[0]) == "Attempt(a, reused, began_at=2.0)"


def test_silence_begins_with_the_attempt() -> None:
    """One that waits for its thread is not silent."""
    attempt = Attempt(flight_of("a")[1][0], 1.0, is_fresh=False)
    assert attempt.silent_s(9.0) == 0.0
    attempt.began_at = 2.0
    assert attempt.silent_s(9.0) == 7.0


def test_what_was_known_of_a_batch_holds_for_its_halves() -> None:
    """Who waits, why it failed last, and where it stands in the log."""
    flight, (entry,) = flight_of("a")
    entry.flights.append(flight)
    entry.last = Failed(WHY, "reset")
    entry.is_released = entry.is_written = True
    entry.seen_successes, entry.failures, entry.strikes, entry.failing_since = 7, 4, 3, 2.0
    entry.logged_as = "LOG"
    part = entry.part(batch(1, batch_id="half"))
    assert part.flights == [flight]
    assert part.flights is not entry.flights
    assert (part.last, part.seen_successes) == (entry.last, 7)
    assert (part.is_part, part.is_released, part.is_written) == (True, True, True)
    assert (part.failures, part.strikes, part.failing_since) == (4, 2, 2.0)
    assert (part.attempts, part.is_ambiguous, part.pauses) == ([], False, 0)
    assert part.logged_as == "LOG"
    well = Entry(batch(2)).part(batch(1))
    assert (well.strikes, well.is_part) == (0, False)
    entry.failures = 1
    assert entry.part(batch(1)).is_part


def test_one_flight_accounts_for_what_another_did() -> None:
    """All of it, besides its own; the other has nothing left to send or to wait for."""
    accounts = []
    for names in ("abc", "def"):
        flight, (settled, given_up, _) = flight_of(*names)
        refused = [(settled.batch.event_ids[0], "unknown metric")]
        flight.settled(
            settled.batch, Settled(settled.batch, ErrorKind.PARTIAL_ACCEPT, "207", refused)
        )
        flight.given_up(given_up.batch, Failed(WHY, "reset"))
        flight.refused(3)
        flight.folded(1)
        flight.folded(3)
        flight.requests = 5
        accounts.append(flight)
    flight, other = accounts
    flight.given_up(flight.pending["c"].batch, Failed(WHY, "refused"))
    other.given_up(other.pending["f"].batch, Failed(WHY, "no route"))
    other.queue = list(other.pending.values())
    flight.absorb(other)
    outcome, errors = account(flight)
    assert outcome == Outcome(
        2,
        [("a-0", "unknown metric"), ("d-0", "unknown metric")],
        unsent={WHY: 8, ErrorKind.DROPPED_EVENTS: 6},
        requests=10,
        folded=8,
    )
    assert [error.event_ids for error in errors] == [
        ("a-0",), (), ("d-0",), (), ("b-0", "b-1", "e-0", "e-1"), ("c-0", "c-1"),
        ("f-0", "f-1"),
    ]  # fmt: skip
    assert (other.pending, other.queue) == ({}, [])
    flight.account(outcome)  # As where a flush waits for batches of two outboxes.
    assert (outcome.accepted, outcome.folded, len(outcome.rejected)) == (4, 16, 4)
    assert (outcome.requests, outcome.unsent[WHY]) == (20, 16)
