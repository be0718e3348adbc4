"""Folding: events that say the same become one, and the totals stay what they were."""

from __future__ import annotations

import contextvars
import threading
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._recording import scope as scope_module
from doow_serverless._recording.quantities import total
from doow_serverless.errors import ConfigurationError
from doow_serverless.powertools import record_transaction
from doow_serverless.testing import MemoryTransport
from tests.lambda_context import LambdaContext
from tests.unit.recording.folded import HOUR, events_of, made, quantities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless import Outcome, Tracker

MESSAGE = {"Records": [{"messageId": "m1", "eventSource": "aws:sqs"}]}


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def outcomes() -> list[Outcome]:
    return []


@pytest.fixture
def tracker(transport: MemoryTransport, outcomes: list[Outcome]) -> Tracker:
    """It folds all metrics."""
    return made(transport, fold=True, on_flush=outcomes.append)


class Metric(str, Enum):
    """As applications name their metrics."""

    TOKENS = "tokens"


def two_of_each(tracker: Tracker) -> None:
    """An invocation that records two metrics, twice."""

    @tracker.tracked
    def handler() -> None:
        for _ in range(2):
            tracker.track("tokens")
            tracker.track("calls")

    handler()


# ── what becomes one event ──────────────────────────────────────────────────────────────────────


def test_ten_thousand_equal_events_are_one(
    tracker: Tracker, transport: MemoryTransport, outcomes: list[Outcome]
) -> None:
    """And the outcome says how many calls stand behind it."""

    @tracker.tracked
    def handler() -> None:
        for _ in range(10_000):
            tracker.track("tokens", 3)

    handler()
    assert quantities(transport) == [30_000]
    assert (outcomes[0].accepted, outcomes[0].folded, outcomes[0].recorded) == (1, 9_999, 10_000)


def test_a_hundred_shapes_are_a_hundred_events(
    tracker: Tracker, transport: MemoryTransport
) -> None:
    """They take turns, and each finds its own."""

    @tracker.tracked
    def handler() -> None:
        for number in range(10_000):
            tracker.track("tokens", 1, license_id=f"lic_{number % 100}")

    handler()
    assert quantities(transport) == [100] * 100


@pytest.mark.parametrize(
    "other",
    [
        {"metric": "calls"},
        {"license_id": "lic_2"},
        {"unit": "k"},
        {"attribution": {"team": "b"}},
        {"kind": "ADJUSTMENT"},
        {"source_system": "node"},
        {"metric_tuple_hint": {"app_name": "a", "license_name": "b", "metric_name": "c"}},
        {"event_id": "evt_1"},
        {"timestamp": "2026-11-21T06:00:00Z"},
        {"metadata": {"a": 1}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_says_something_else_stays_apart(
    other: dict[str, Any], tracker: Tracker, transport: MemoryTransport
) -> None:
    """Also what has an id, a time or metadata of its own, even where that is equal."""

    @tracker.tracked
    def handler() -> None:
        for _ in range(2):
            tracker.track("tokens", 1)
            tracker.track(**{"metric": "tokens", "quantity": 10, **other})

    handler()
    own = {"event_id", "timestamp", "metadata"} & set(other)
    assert sorted(quantities(transport)) == ([2, 10, 10] if own else [2, 20])


def test_attribution_folds_by_what_it_says(tracker: Tracker, transport: MemoryTransport) -> None:
    """Be it the call's or the handler's; 1 and True are not the same."""

    @tracker.tracked(attribution={"team": "a"})
    def handler() -> None:
        tracker.track("tokens", 1)
        within()
        tracker.track("tokens", 4, attribution={"flag": 1})
        tracker.track("tokens", 8, attribution={"flag": True})

    @tracker.tracked(attribution={"team": "a"})
    def within() -> None:
        tracker.track("tokens", 2)

    handler()
    assert sorted(quantities(transport)) == [3, 4, 8]


def test_several_measurements_fold_metric_by_metric(
    tracker: Tracker, transport: MemoryTransport
) -> None:
    """Where they are of the same metrics."""

    @tracker.tracked
    def handler() -> None:
        for _ in range(3):
            tracker.track_all({"input": 2, "output": Decimal("0.1")})
        tracker.track_all({"input": 5})

    handler()
    assert [
        [(each["metric_name"], each["quantity"]) for each in event["measurements"]]
        for event in events_of(transport)
    ] == [[("input", 6), ("output", Decimal("0.3"))], [("input", 5)]]


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        (False, [1, 1, 1, 1]),
        (True, [2, 2]),
        ({"tokens"}, [1, 1, 2]),
        (["tokens", "calls"], [2, 2]),
        ({"tokens": "a mapping"}.keys(), [1, 1, 2]),
        ({Metric.TOKENS}, [1, 1, 2]),
    ],
)
def test_only_what_may(fold: Any, expected: list[int], transport: MemoryTransport) -> None:
    """All metrics, or those that are named; none by default."""
    two_of_each(made(transport, fold=fold))
    assert sorted(quantities(transport)) == expected


@pytest.mark.parametrize(("outer", "inner"), [(None, True), (True, False), ({"calls"}, {"tokens"})])
def test_of_one_handler(outer: Any, inner: Any, transport: MemoryTransport) -> None:
    """What ``tracked`` says counts within its handler."""
    tracker = made(transport, fold=outer or False)

    @tracker.tracked
    def handler() -> None:
        within()
        tracker.track("tokens")
        tracker.track("tokens")

    @tracker.tracked(fold=inner)
    def within() -> None:
        tracker.track("tokens")
        tracker.track("tokens")

    handler()
    assert sorted(quantities(transport)) == [1, 1, 2]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("true", [2, 2]), ("tokens", [1, 1, 2]), (" tokens, calls ,", [2, 2]), ("off", [1] * 4)],
)
def test_by_a_variable(variable: str, expected: list[int], transport: MemoryTransport) -> None:
    """It wins over the argument."""
    two_of_each(made(transport, fold={"other"}, environ={"DOOW_TRACK_FOLD": variable}))
    assert sorted(quantities(transport)) == expected


@pytest.mark.parametrize("fold", ["tokens", b"tokens", set(), {""}, [" "], {1}, 1, None])
def test_what_names_no_metrics(fold: Any, transport: MemoryTransport) -> None:
    """It is refused, and the remedy is told; a single name among others."""
    with pytest.raises(ConfigurationError) as caught:
        made(transport, fold=fold)
    told = f"fold must be True, False or a set of metrics such as {{'tokens'}}, not {fold!r}"
    assert str(caught.value) == told


def test_a_variable_that_names_none(transport: MemoryTransport) -> None:
    """It is told, and ignored."""
    tracker = made(transport, fold={"tokens"}, environ={"DOOW_TRACK_FOLD": " , "})
    wrong = "DOOW_TRACK_FOLD must be true, false or metrics such as tokens,api_calls, not ','"
    told = f"{wrong}; the variable is ignored"
    assert tracker.engine.config.problems == [("DOOW_TRACK_FOLD", told)]
    assert tracker.engine.config.fold == {"tokens"}


# ── the hour ────────────────────────────────────────────────────────────────────────────────────


def test_it_carries_the_time_of_its_last_part_and_keeps_to_the_hour(
    tracker: Tracker, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the totals of any period that begins with the hour stay what they were."""
    moments = iter([HOUR - 2, HOUR - 0.5, HOUR, HOUR + 3599.5, HOUR + 3600])
    monkeypatch.setattr(scope_module, "time", lambda: next(moments))

    @tracker.tracked
    def handler() -> None:
        for _ in range(5):
            tracker.track("tokens")

    handler()
    assert [(event["occurred_at"], event["measurements"][0]["quantity"])
            for event in events_of(transport)] == [
        ("2026-11-21T05:59:59.500Z", 2),
        ("2026-11-21T06:59:59.500Z", 2),
        ("2026-11-21T07:00:00.000Z", 1),
    ]  # fmt: skip


# ── transactions, retries, bounds ───────────────────────────────────────────────────────────────


def test_a_transaction_folds_if_it_succeeds(
    tracker: Tracker, transport: MemoryTransport, outcomes: list[Outcome]
) -> None:
    """One that fails takes only its own part along, at whatever depth."""

    def part(quantity: int, *, fails: bool = False, inner: Callable[[], object] = tuple) -> None:
        with suppress(LookupError), tracker.transaction():
            tracker.track("tokens", quantity)
            inner()
            tracker.track("tokens", quantity)
            if fails:
                raise LookupError

    @tracker.tracked
    def handler() -> None:
        tracker.track("tokens", 1)
        part(10)
        part(100, fails=True)
        part(1_000, inner=lambda: part(10_000))
        part(100_000, inner=lambda: part(1_000_000, fails=True))
        part(10_000_000, fails=True, inner=lambda: part(10_000_000))

    handler()
    assert quantities(transport) == [222_021]
    assert outcomes[0].recorded == 1 + 2 + 4 + 2


def test_a_retry_is_known_again(transport: MemoryTransport) -> None:
    """Folded events get the ids that the same work gives them again, in whatever order."""
    tracker = made(transport, fold=True)

    @tracker.tracked(idempotent=True)
    def handler(event: object, context: object, order: list[int]) -> None:
        for number in order:
            tracker.track("tokens", number)
            tracker.track("calls", 0.1)

    for order in ([1, 2, 3], [3, 1, 2]):
        handler(MESSAGE, LambdaContext(30_000), order)
    first, again = transport.batches
    assert (first.id, first.event_ids) == (again.id, again.event_ids)
    assert Counter(map(str, quantities(transport))) == {"6": 2, "0.3": 2}


def test_a_retry_is_known_again_at_another_time(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that goes on over the full hour, and one that does not, leave in the same parts."""
    tracker = made(transport, fold=True)
    moments = iter([HOUR - 1, HOUR + 1, HOUR + 5, HOUR + 6])
    monkeypatch.setattr(scope_module, "time", lambda: next(moments))

    @tracker.tracked(idempotent=True)
    def handler(event: object, context: object) -> None:
        tracker.track("tokens", 1)
        tracker.track("tokens", 2)

    for _ in range(2):
        handler(MESSAGE, LambdaContext(30_000))
    first, again = transport.batches
    assert (first.id, first.event_ids) == (again.id, again.event_ids)
    assert quantities(transport) == [3, 3]


def test_what_may_leave_in_parts_is_not_folded_where_it_may_come_again(
    transport: MemoryTransport,
) -> None:
    """The parts that a retry folds could be others."""
    tracker = made(transport, fold=True)

    @tracker.tracked(idempotent=True, on_exception="flush")
    def handler(event: object, context: object) -> None:
        tracker.track("tokens", 1)
        tracker.track("tokens", 1)
        with tracker.transaction():
            tracker.track("tokens", 5)
            tracker.track("tokens", 5)

    handler(MESSAGE, LambdaContext(30_000))
    assert sorted(quantities(transport)) == [1, 1, 10]


def test_records_that_come_again_in_other_company(
    transport: MemoryTransport, outcomes: list[Outcome]
) -> None:
    """Each is work of its own, whose folded events are named by it, and travel apart."""
    tracker = made(transport, fold=True, on_flush=outcomes.append)

    @record_transaction(tracker=tracker)
    def handle(record: dict[str, str]) -> None:
        tracker.track("tokens", len(record["messageId"]))
        tracker.track("tokens", 10)

    @tracker.tracked(idempotent=True)
    def handler(event: dict[str, Any], context: object) -> None:
        tracker.track("batches")
        for record in event["Records"]:
            handle(record)

    records = [{"messageId": "m" * n, "eventSource": "aws:sqs"} for n in (1, 2, 3)]
    sent = []
    for some in ([0, 1], [1, 2], [2, 0]):
        handler({"Records": [records[n] for n in some]}, LambdaContext(30_000))
        sent.append({batch.id: batch.event_ids for batch in transport.batches})
        transport.batches.clear()
    together: dict[str, Any] = {}
    for batches in sent:
        assert len(batches) == 3
        assert not {i for i in together if i in batches and together[i] != batches[i]}
        together |= batches
    assert len(together) == 3 + 3
    assert [outcome.recorded for outcome in outcomes] == [1 + 2 + 2] * 3


def test_a_part_needs_no_room(transport: MemoryTransport, outcomes: list[Outcome]) -> None:
    """``max_queue_size`` bounds events."""
    tracker = made(transport, fold=True, max_queue_size=1, on_flush=outcomes.append)

    @tracker.tracked
    def handler() -> None:
        for _ in range(5):
            tracker.track("tokens")
        tracker.track("calls")

    handler()
    assert quantities(transport) == [5]
    assert outcomes[0].unsent == {"DROPPED_EVENTS": 1}
    assert outcomes[0].recorded == 6


def test_what_has_left_stays_as_it_was(tracker: Tracker, transport: MemoryTransport) -> None:
    """A flush within the handler begins others."""

    @tracker.tracked
    def handler() -> None:
        for _ in range(2):
            for _ in range(3):
                tracker.track("tokens")
            tracker.flush()

    handler()
    assert quantities(transport) == [3, 3]


def test_stray_events_fold(
    tracker: Tracker, transport: MemoryTransport, outcomes: list[Outcome]
) -> None:
    """They leave with the next flush."""
    for _ in range(4):
        tracker.track("tokens")
    tracker.flush()
    assert quantities(transport) == [4]
    assert outcomes[0].recorded == 4


def test_a_signal_that_records_is_not_overwritten(
    tracker: Tracker, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that flushes: what it comes between is done once more, or begins another event."""
    from doow_serverless._recording import folding

    interruptions: Iterator[Callable[[], object]] = iter(())

    def interrupted(one: Any, other: Any) -> Any:
        next(interruptions, lambda: None)()
        return total(one, other)

    monkeypatch.setattr(folding, "total", interrupted)

    @tracker.tracked
    def handler() -> None:
        nonlocal interruptions
        tracker.track("tokens", 1)
        interruptions = iter([lambda: tracker.track("tokens", 10)])
        tracker.track("tokens", 100)
        interruptions = iter([tracker.flush])
        tracker.track("tokens", 1_000)

    handler()
    assert sum(quantities(transport)) == 1_111


def test_threads_that_record_at_once(tracker: Tracker, transport: MemoryTransport) -> None:
    """Every call of each is in the sum, while the handler's flushes take it away."""
    together = threading.Barrier(5)

    @tracker.tracked
    def handler() -> None:
        def record() -> None:
            together.wait()
            for _ in range(5_000):
                tracker.track("tokens", 0.1)
                tracker.track("tokens", 1)

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(record,))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        together.wait()
        while any(thread.is_alive() for thread in threads):
            tracker.flush()
        for thread in threads:
            thread.join()

    handler()
    assert sum(map(Decimal, quantities(transport))) == 4 * 5_000 + 4 * 500
    assert len(quantities(transport)) < 5_000
