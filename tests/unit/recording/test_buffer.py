"""A buffer holds events within its bound, for one taker, and passes on those of transactions."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._recording.buffer import Buffer
from doow_serverless._recording.event import Defaults

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doow_serverless._recording.event import Event

TOKENS = Defaults("lic_1", None, []).template("tokens", (None, None, None, "USAGE", None, None))
WORK = ("handler", "message-1")


def record(buffer: Buffer, *ids: str | None, quantity: int = 1) -> list[int | None]:
    """Record an event for each id; what the buffer said each time."""
    return [buffer.record(event_id, 1.0, TOKENS, quantity, None) for event_id in ids]


def names(events: Iterable[Event]) -> list[str]:
    return [event[0] for event in events]


class Log:
    """Keeps what a buffer writes down."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def record_many(self, events: Iterable[Event]) -> None:
        self.events += names(events)

    def replace(self, event: Event) -> None:
        self.events.append(f"{event[0]}={event[3]}")

    def is_interrupted(self) -> bool:
        return False


def test_events_wait_in_the_order_of_recording() -> None:
    """Recording says how many wait; taking empties the buffer, and the events stay in hand."""
    buffer = Buffer(10)
    assert record(buffer, "a", "b", "c") == [1, 2, 3]
    assert names(buffer.take()) == ["a", "b", "c"]
    assert (buffer.take(), buffer.in_hand) == ([], 3)


def test_a_full_buffer_refuses_and_counts() -> None:
    """Beyond the bound an event is refused with 0, and the count of refusals is told once."""
    buffer = Buffer(2)
    assert record(buffer, "a", "b", "c", "d") == [1, 2, 0, 0]
    assert [buffer.take_refused(), buffer.take_refused()] == [2, 0]


def test_settled_events_make_room() -> None:
    """An event that is off the hands of delivery counts no more."""
    buffer = Buffer(2)
    record(buffer, "a", "b")
    buffer.count(-1)
    assert record(buffer, "c", "d") == [3, 0]


def test_taking_waits_for_enough() -> None:
    """``at_least`` leaves fewer events where they are."""
    buffer = Buffer(10)
    record(buffer, "a", "b")
    assert (buffer.take(at_least=3), names(buffer.take(at_least=2))) == ([], ["a", "b"])


def test_a_closed_buffer_takes_nothing() -> None:
    """After the last taking neither a recorded nor an adopted event is accepted."""
    buffer = Buffer(10)
    record(buffer, "a")
    assert names(buffer.take_last()) == ["a"]
    assert (record(buffer, "b"), buffer.adopt([])) == ([None], False)


def test_a_transaction_shares_the_bound() -> None:
    """What waits in a transaction counts against the bound of the outermost buffer."""
    buffer = Buffer(2)
    transaction = buffer.transaction()
    assert (record(transaction, "a", "b"), record(buffer, "c")) == ([1, 2], [0])
    assert transaction.root is buffer


def test_the_nearest_open_buffer() -> None:
    """Where a transaction is over, what is around it takes over, until nothing is left."""
    buffer = Buffer(2)
    inner = buffer.transaction().transaction()
    assert inner.open() is inner
    inner.take_last()
    assert inner.open() is inner.parent
    assert inner.parent is not None
    inner.parent.take_last()
    assert inner.open() is buffer
    buffer.take_last()
    assert inner.open() is None


def test_events_of_one_series_have_ids_of_their_own() -> None:
    """Ids are UUIDs of version 4, and differ, beyond the 256 that share their first digits too."""
    buffer = Buffer(1_000)
    record(buffer, *[None] * 600)
    ids = names(buffer.take())
    assert len(set(ids)) == 600
    assert {(len(one), one[14]) for one in ids} == {(36, "4")}


def test_the_same_work_gives_the_same_ids() -> None:
    """Under an identity the ids derive from what is recorded, and equal events differ."""
    first, again, other = Buffer(9, None, WORK), Buffer(9, None, WORK), Buffer(9, None, ("h", "m"))
    for buffer in (first, again, other):
        record(buffer, None, None)
        record(buffer, None, quantity=2)
    ids, ids_again, ids_other = (names(buffer.take()) for buffer in (first, again, other))
    assert (ids == ids_again, len(set(ids + ids_other))) == (True, 6)


def test_what_a_transaction_discards_names_nothing() -> None:
    """Under an identity, a transaction that failed before it succeeded changes no id."""
    straight, retried = Buffer(9, None, WORK), Buffer(9, None, WORK)
    record(retried.transaction(), None)
    for buffer in (straight, retried):
        transaction = buffer.transaction()
        record(transaction, None)
        buffer.adopt(transaction.take_last())
    assert names(straight.take()) == names(retried.take())


def test_work_of_its_own_within_work() -> None:
    """A transaction with an identity is work of its own only where the buffer has one, too."""
    assert Buffer(9, None, WORK).transaction("record-1").is_own_work
    assert not Buffer(9, None, WORK).transaction().is_own_work
    assert not Buffer(9).transaction("record-1").is_own_work


def test_the_log_hears_of_events_before_they_can_be_taken() -> None:
    """Recorded and adopted events are written down; those of idempotent work are not."""
    log, other = Log(), Log()
    buffer = Buffer(9, log=log)
    record(buffer, "a")
    buffer.adopt([("b", 1.0, TOKENS, 1, None)])
    record(Buffer(9, None, WORK, log=other), "c")
    assert (log.events, other.events) == (["a", "b"], [])


def test_a_buffer_that_is_dropped_leaves_its_events() -> None:
    """Garbage collection hands on what was never taken."""
    dropped: deque[list[Any]] = deque()
    buffer = Buffer(9, dropped=dropped.append)
    record(buffer, "a", "b")
    del buffer
    assert [names(events) for events in dropped] == [["a", "b"]]


@pytest.mark.parametrize(
    ("is_closed", "expected"),
    [(False, "Buffer(1 waiting, 1 in hand)"), (True, "Buffer(0 waiting, 1 in hand, closed)")],
)
def test_the_repr_shows_the_state(is_closed: bool, expected: str) -> None:
    """How many events wait, how many are in hand, and whether it is closed."""
    buffer = Buffer(9)
    record(buffer, "a")
    if is_closed:
        buffer.take_last()
    assert repr(buffer) == expected
