"""That the simulated fleet counts right, and that its stand-in for Lambda's windows is one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.fleet.clock import EPOCH, Clock
from benchmarks.fleet.ledger import LogBook, Weight, account, weight_of
from benchmarks.fleet.load import Invocation, invocations
from benchmarks.fleet.sizes import Measured, by_log
from benchmarks.fleet.stream import Line, Shard, Subscription
from doow_serverless._frames.envelopes import from_cloudwatch
from doow_serverless._frames.format import SPLIT, frames_of
from doow_serverless._sealing import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

LINE = Line(1.0, "text", "one")


def batch_of(*quantities: int) -> Batch:
    events = ",".join(
        f'{{"event_id":"e{at}","measurements":[{{"metric_name":"m","quantity":{quantity}}}]}}'
        for at, quantity in enumerate(quantities)
    )
    body = f'{{"batch_id":"b","sdk_version":"1","events":[{events}]}}'.encode()
    return Batch("b", tuple(f"e{at}" for at in range(len(quantities))), body, False, "1")


# ── the ledger ──────────────────────────────────────────────────────────────────────────────────


def test_a_batch_counts_where_it_is_best_off() -> None:
    """One that Doow has counts nowhere else; one in memory stands in the log besides."""
    five, two = Weight(5, 1), Weight(2, 2)
    row = account(
        30.0, 14, {"a": 5, "derived": 2}, {"a": five, "b": five}, {"a": five, "b": five, "c": two}
    )
    assert (row.delivered, row.waiting, row.in_log, row.lost, row.rest) == (7, 5, 2, 0, 3)


@pytest.mark.parametrize(("recorded", "lost"), [(6, 1), (5, 0), (4, -1)])
def test_what_is_nowhere_is_lost(recorded: int, lost: int) -> None:
    """And what counts twice is below zero."""
    assert account(0.0, recorded, {"a": 3}, {}, {"b": Weight(2, 1)}).lost == lost


def test_calls_are_counted_and_not_events() -> None:
    """A folded event carries the sum of its calls."""
    assert weight_of(batch_of(5, 2)) == Weight(7, 2)


def test_the_log_holds_a_batch_once() -> None:
    """However often it stands there, and until it is done with."""
    book = LogBook()
    (line,) = frames_of(batch_of(4), "RATE_LIMITED", 0.0)
    assert [book.read(line), book.read(line), book.read("anything else")] == ["b", None, None]
    assert book.without([]) == {"b": Weight(4, 1)}
    assert book.without(["b"]) == {}


def test_what_it_cannot_count_it_refuses() -> None:
    """Halves of a batch, and what is damaged."""
    (line,) = frames_of(batch_of(4), SPLIT, 0.0)
    for each in (line, line.replace('"crc32":"', '"crc32":"0')):
        with pytest.raises(ValueError, match="doow_dead_letter"):
            LogBook().read(each)


# ── the windows ─────────────────────────────────────────────────────────────────────────────────


class Function:
    """Adds up the records that it is given, and fails as it is told."""

    def __init__(self, *failures: object) -> None:
        self.failures = list(failures)
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any], _: object) -> dict[str, Any]:
        self.events.append(event)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None and not isinstance(failure, str):
            raise RuntimeError
        numbers = [one["kinesis"]["sequenceNumber"] for one in event["Records"]]
        failed = [failure] if failure else []
        done = [one for one in numbers if not failed or int(one) < int(failed[0])]
        state = {"seen": [*event["state"].get("seen", ()), *done]}
        return {
            "state": {} if event["isFinalInvokeForWindow"] else state,
            "batchItemFailures": [{"itemIdentifier": one} for one in failed],
        }

    @property
    def finals(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["isFinalInvokeForWindow"]]


def test_a_window_closes_when_it_is_over() -> None:
    """With all that was seen in it, no records, and an empty state for the next."""
    function = Function()
    shard = Shard(function)
    shard.put(b"1", [LINE], 5.0)
    assert shard.poll(10.0) == []
    shard.put(b"2", [], 59.0)
    shard.put(b"3", [], 60.0)
    assert shard.poll(61.0) == [LINE]
    (final,) = function.finals
    assert (final["Records"], final["state"]) == ([], {"seen": ["1", "2"]})
    assert function.events[-1]["state"] == {}
    assert shard.poll(120.0) == []
    assert len(function.finals) == 2


@pytest.mark.parametrize("failure", [True, "2"])
def test_what_failed_comes_again(failure: object) -> None:
    """All of it, or from the record on that the function named; each counts once."""
    function = Function(failure)
    shard = Shard(function)
    for _ in range(3):
        shard.put(b"", [], 1.0)
    assert shard.poll(70.0) == shard.poll(71.0) == []
    assert function.finals[0]["state"] == {"seen": ["1", "2", "3"]}


def test_a_window_whose_end_fails_stays_open() -> None:
    """Its lines are done with only when its last invocation succeeds."""
    shard = Shard(Function(None, True))
    shard.put(b"", [LINE], 1.0)
    assert shard.poll(61.0) == []
    assert shard.poll(62.0) == [LINE]


def test_an_answer_that_is_lost_has_the_same_come_again() -> None:
    """With the same records, and the state from before."""
    lost = iter([True, False, False])
    function = Function()
    shard = Shard(function, lambda: next(lost))
    shard.put(b"", [], 1.0)
    shard.poll(2.0)
    assert function.events[0] == function.events[1]
    assert (shard.invocations, shard.lost_answers) == (2, 1)


def test_a_subscription_packs_the_lines_of_a_log_stream() -> None:
    """As CloudWatch does, and as a relay reads them."""
    taken: list[tuple[bytes, float]] = []

    class Shelf(Shard):
        def put(self, data: bytes, lines: Sequence[Line], at: float) -> None:
            assert lines
            taken.append((data, at))

    shard = Shelf(Function())
    subscription = Subscription(shard, lambda: len(taken) == 1)
    (text,) = frames_of(batch_of(1), "LOG", 0.0)
    for log_stream in ("a", "a", "b"):
        subscription.take(log_stream, Line(0.0, text, "b"))
    subscription.deliver(2.0)
    subscription.deliver(4.0)
    assert [(len(list(from_cloudwatch(data))), at) for data, at in taken] == [
        (2, 2.0),
        (2, 2.0),
        (1, 2.0),
    ]
    assert subscription.twice == 1


# ── time, load and arithmetic ───────────────────────────────────────────────────────────────────


def test_the_clock_runs_and_jumps_ahead() -> None:
    """Never back."""
    machine = iter([100.0, 101.0, 101.0, 101.5, 102.0, 103.0])
    clock = Clock(lambda: next(machine))
    assert clock() == 1.0
    clock.jump_to(60.0)
    assert clock() == 60.5
    clock.jump_to(2.0)
    assert clock.unix() == EPOCH + 62.0


def test_the_load_is_the_same_for_each_way() -> None:
    """In order, and a sandbox's successor has another number."""
    found = list(invocations(3, seed=1))
    assert found == list(invocations(3, seed=1))
    assert all(one < other for one, other in pairwise(found))
    assert len(found) == pytest.approx(3_000, rel=0.1)
    assert isinstance(found[0], Invocation)
    assert {one.life for one in found} >= {0, 1}


def test_shards_go_by_what_runs_out_first() -> None:
    """Records, bytes, or the relay's time."""
    small = by_log(Measured(800, 800, 0.0002), 1_001)
    large = by_log(Measured(4_000, 4_000, 0.0002), 1_000)
    slow = by_log(Measured(800, 800, 0.0015), 1_000)
    assert [one.shards for one in (small, large, slow)] == [2, 4, 3]
    assert small.total == pytest.approx(small.logs + small.stream + small.lambdas)
