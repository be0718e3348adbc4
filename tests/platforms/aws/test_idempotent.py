"""Invocations that Lambda makes again: what is the same counts once, and nothing else is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._platforms.aws import find_identity
from doow_serverless.local import Fault, Ingest
from doow_serverless.testing import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    import doow_serverless as doow
    from doow_serverless.local import Post

    Body = Callable[[], object]


@pytest.fixture
def tracker(ingest: Ingest, new_tracker: Callable[..., doow.Tracker]) -> doow.Tracker:
    return new_tracker(ingest.url, strict=True, budget=5)


class Context:
    """What Lambda passes, as far as it is used."""

    function_name = "metered"

    def __init__(self, request_id: str = "request-1", function_name: str = "metered") -> None:
        self.aws_request_id = request_id
        self.function_name = function_name

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


class Mapped:
    """A data class around an event, as powertools makes them: a mapping, but no dict."""

    def __init__(self, event: dict[str, Any]) -> None:
        self._event = event

    def get(self, name: str) -> Any:
        return self._event.get(name)


def sqs(*message_ids: str) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": message_id, "eventSource": "aws:sqs", "body": ""}
            for message_id in message_ids
        ]
    }


def stream(source: str, *event_ids: str) -> dict[str, Any]:
    return {
        "Records": [{"eventID": event_id, "eventSource": f"aws:{source}"} for event_id in event_ids]
    }


def invoke(
    tracker: doow.Tracker,
    body: Body,
    event: object = None,
    context: object = None,
    **options: Any,
) -> None:
    """One invocation that does ``body``."""

    @tracker.tracked(idempotent=True, **options)
    def handler(event: object, context: object) -> None:
        body()

    handler(event, Context() if context is None else context)


def counted(ingest: Ingest) -> Counter[str]:
    """How often each metric is in the ledger."""
    return Counter(event["measurements"][0]["metric_name"] for event in ingest.events())


def last(ingest: Ingest) -> Post:
    return ingest.posts()[-1]


# ── the same again ──────────────────────────────────────────────────────────────────────────────


def test_a_retry_is_counted_once(ingest: Ingest, tracker: doow.Tracker) -> None:
    """The same request id and the same events make the same batch, whose ids the server knows."""

    def body() -> None:
        tracker.track("tokens", 3, unit="tokens", metadata={"page": 1})
        tracker.track_all({"input": 1, "output": 2})

    invoke(tracker, body)
    invoke(tracker, body)
    first, again = ingest.posts()
    assert (first.batch_id, first.event_ids) == (again.batch_id, again.event_ids)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert len(ingest.events()) == 2


def test_a_retry_in_another_process_is_the_same(
    ingest: Ingest, new_tracker: Callable[..., doow.Tracker]
) -> None:
    """Nothing of the tracker or of the process goes into the ids."""
    for _ in range(2):
        tracker = new_tracker(ingest.url, strict=True)
        invoke(tracker, lambda tracker=tracker: tracker.track("tokens"))  # type: ignore[misc]
    assert [post.duplicate for post in ingest.posts()] == [False, True]
    assert counted(ingest) == {"tokens": 1}


def test_without_it_ids_are_random(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A handler that does not ask for it counts every invocation."""

    @tracker.tracked
    def handler(event: object, context: Context) -> None:
        tracker.track("tokens")

    handler(None, Context())
    handler(None, Context())
    assert counted(ingest) == {"tokens": 2}


def test_without_an_identity_ids_are_random(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A local call has no context: it counts, each time."""

    @tracker.tracked(idempotent=True)
    def handler() -> None:
        tracker.track("tokens")

    handler()
    handler()
    assert counted(ingest) == {"tokens": 2}


def test_another_invocation_counts(ingest: Ingest, tracker: doow.Tracker) -> None:
    """Another request id, or another function on the same message, is other work."""
    for context in (Context("1"), Context("2"), Context("1", "other")):
        invoke(tracker, lambda: tracker.track("tokens"), context=context)
    for name in ("metered", "other"):
        context = Context(function_name=name)
        invoke(tracker, lambda: tracker.track("documents"), sqs("m1"), context)
    assert counted(ingest) == {"tokens": 3, "documents": 2}


def test_equal_events_all_count(ingest: Ingest, tracker: doow.Tracker) -> None:
    """Three times the same in one invocation is three, and three again in the retry's batch."""

    def body() -> None:
        for _ in range(3):
            tracker.track("tokens")

    invoke(tracker, body)
    invoke(tracker, body)
    assert counted(ingest) == {"tokens": 3}
    assert len(set(last(ingest).event_ids)) == 3
    assert last(ingest).duplicate


def test_one_event_more(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A retry that gets further loses nothing, and names the rest as before."""
    metrics = ["a", "b"]

    def body() -> None:
        for metric in metrics:
            tracker.track(metric)

    invoke(tracker, body)
    metrics.append("c")
    invoke(tracker, body)
    first, again = ingest.posts()
    assert again.event_ids[:2] == first.event_ids
    assert again.batch_id != first.batch_id
    assert counted(ingest)["c"] == 1


def test_threads_in_another_order(ingest: Ingest, tracker: doow.Tracker) -> None:
    """The order in which threads come to record does not matter."""
    order = ["a", "a", "b", "c"]

    @tracker.tracked(idempotent=True)
    def handler(context: Context) -> None:
        for metric in order:
            thread = threading.Thread(target=copy_context().run, args=(tracker.track, metric))
            thread.start()
            thread.join()

    handler(Context())
    order.reverse()
    handler(Context())
    first, again = ingest.posts()
    assert sorted(first.event_ids) == sorted(again.event_ids)
    assert (first.batch_id, again.duplicate) == (again.batch_id, True)
    assert counted(ingest) == {"a": 2, "b": 1, "c": 1}


def test_early_batches(ingest: Ingest, tracker: doow.Tracker) -> None:
    """More events than one batch holds are cut alike the next time."""

    def body() -> None:
        for number in range(1_234):
            tracker.track("tokens", number + 1)

    invoke(tracker, body)
    invoke(tracker, body)
    batches = Counter((post.batch_id, len(post.event_ids)) for post in ingest.posts())
    assert sorted((events, times) for (_, events), times in batches.items()) == [
        (234, 2), (500, 2), (500, 2),
    ]  # fmt: skip
    assert counted(ingest) == {"tokens": 1_234}


def test_stray_events_do_not_change_the_batch(ingest: Ingest, tracker: doow.Tracker) -> None:
    """What happens to wait when the flush comes travels apart, and once."""
    invoke(tracker, lambda: tracker.track("tokens"))
    tracker.track("stray")
    invoke(tracker, lambda: tracker.track("tokens"))
    assert Counter(post.batch_id for post in ingest.posts()).most_common(1)[0][1] == 2
    assert counted(ingest) == {"tokens": 1, "stray": 1}
    assert ingest.conflicts == [ingest.posts()[0].batch_id]  # The times differ: the first stays.


def test_an_event_id_of_ones_own(ingest: Ingest, tracker: doow.Tracker) -> None:
    """It stays as it is, and shifts no other."""

    def body() -> None:
        tracker.track("tokens")
        if ingest.posts():
            tracker.track("tokens", event_id="mine")
        tracker.track("tokens")

    invoke(tracker, body)
    invoke(tracker, body)
    first, again = ingest.posts()
    one, mine, two = again.event_ids
    assert ((one, two), mine) == (first.event_ids, "mine")


def test_half_a_surrogate_pair(ingest: Ingest, tracker: doow.Tracker) -> None:
    """An identity that JSON lets through, and UTF-8 does not, leaves the handler tracked."""
    for _ in range(2):
        invoke(tracker, lambda: tracker.track("tokens"), sqs("\ud800"))
    assert [post.duplicate for post in ingest.posts()] == [False, True]


def test_an_explicit_time_is_no_part_of_the_id(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A handler that reads the clock itself is the same work all the same."""
    times = iter(("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"))

    for _ in range(2):
        invoke(tracker, lambda: tracker.track("tokens", timestamp=next(times)))
    assert counted(ingest) == {"tokens": 1}
    assert last(ingest).duplicate


def test_an_answer_that_was_lost(ingest: Ingest, tracker: doow.Tracker) -> None:
    """The ledger has the batch, nobody knows it, and the retry changes nothing."""
    ingest.fault(Fault(times=None, reset="before_answer", record_first=True))
    invoke(tracker, lambda: tracker.track("tokens"), budget=0.2)
    ingest.clear_faults()
    invoke(tracker, lambda: tracker.track("tokens"))
    assert counted(ingest) == {"tokens": 1}


# ── transactions ────────────────────────────────────────────────────────────────────────────────


def test_what_was_discarded_does_not_count(ingest: Ingest, tracker: doow.Tracker) -> None:
    """An attempt that failed the first time, and does not the next, leaves the ids alone."""
    failures = iter((True, False, False))

    def body() -> None:
        for _ in range(2):
            try:
                with tracker.transaction():
                    tracker.track("tokens")
                    if next(failures):
                        raise ConnectionError
            except ConnectionError:
                continue
            return

    invoke(tracker, body)
    invoke(tracker, body)
    assert [post.duplicate for post in ingest.posts()] == [False, True]
    assert counted(ingest) == {"tokens": 1}


def test_nested_transactions(ingest: Ingest, tracker: doow.Tracker) -> None:
    """In each other, and beside events of the handler, equal events stay apart and are found."""

    def body() -> None:
        tracker.track("tokens")
        with tracker.transaction():
            tracker.track("tokens")
            with tracker.transaction():
                tracker.track("tokens")
            with suppress(ValueError), tracker.transaction():
                tracker.track("tokens")
                raise ValueError
        tracker.track("tokens")

    invoke(tracker, body)
    invoke(tracker, body)
    first, again = ingest.posts()
    assert len(set(first.event_ids)) == 4
    assert (first.event_ids, again.duplicate) == (again.event_ids, True)


def test_discard_on_an_exception(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A handler that fails leaves nothing, and its retry is counted."""

    def failing() -> None:
        tracker.track("tokens")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        invoke(tracker, failing, on_exception="discard")
    invoke(tracker, lambda: tracker.track("tokens"), on_exception="discard")
    invoke(tracker, lambda: tracker.track("tokens"), on_exception="discard")
    assert [post.duplicate for post in ingest.posts()] == [False, True]
    assert counted(ingest) == {"tokens": 1}


def test_a_transaction_that_outlives_its_invocation(ingest: Ingest, tracker: doow.Tracker) -> None:
    """Its events have no work to be named after any more: they leave with ids all the same."""
    transaction = tracker.transaction()

    def body() -> None:
        transaction.__enter__()
        tracker.track("late")

    def out_of_order() -> None:
        invoke(tracker, body)
        transaction.__exit__(None)
        invoke(tracker, body, context=Context("2"))

    copy_context().run(out_of_order)  # It leaves the context in disorder.
    assert counted(ingest) == {"late": 1}
    assert all(len(event["event_id"]) == 36 for event in ingest.events())


def test_handlers_called_in_turn_are_told_apart(ingest: Ingest, tracker: doow.Tracker) -> None:
    """Of one invocation each call counts, though it says the same; of its retry none."""

    @tracker.tracked(idempotent=True)
    def process(context: Context) -> None:
        tracker.track("tokens")

    for context in (Context(), Context()):
        for _ in range(3):
            process(context)
    assert [post.duplicate for post in ingest.posts()] == [False] * 3 + [True] * 3
    assert counted(ingest) == {"tokens": 3}


def test_nested_handlers_are_one_work(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A tracked function in a tracked one records into the same series."""

    @tracker.tracked(idempotent=True)
    def inner(context: Context) -> None:
        tracker.track("tokens")

    @tracker.tracked(idempotent=True)
    def outer(context: Context) -> None:
        tracker.track("tokens")
        inner(context)
        inner(context)

    outer(Context())
    outer(Context())
    assert counted(ingest) == {"tokens": 3}
    assert last(ingest).duplicate


# ── messages and records ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "event",
    [
        sqs("m1", "m2"),
        stream("kinesis", f"shardId-000000000006:{'4959033827149025660855' * 2}"),
        stream("dynamodb", "c4ca4238a0b923820dcc509a6f75849b"),
        Mapped(sqs("m1", "m2")),
    ],
    ids=["sqs", "kinesis", "dynamodb", "data class"],
)  # fmt: skip
def test_messages_come_again_in_another_invocation(
    ingest: Ingest, tracker: doow.Tracker, event: object
) -> None:
    """The identity is that of the messages: the request id is another."""
    for request_id in ("1", "2"):
        invoke(tracker, lambda: tracker.track("documents"), event, Context(request_id))
    assert counted(ingest) == {"documents": 1}
    assert last(ingest).duplicate


def test_messages_in_another_order(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A batch of the same messages is the same, whatever their order, and other ones are not."""
    for event in (sqs("m1", "m2"), sqs("m2", "m1"), sqs("m1"), sqs("m1", "m3")):
        invoke(tracker, lambda: tracker.track("documents"), event)
    assert [post.duplicate for post in ingest.posts()] == [False, True, False, False]
    assert counted(ingest) == {"documents": 3}


@pytest.mark.parametrize(
    "event",
    [
        None,
        "text",
        {},
        {"Records": []},
        {"Records": "text"},
        {"Records": [None]},
        {"Records": [{"messageId": 7}]},
        {"Records": [{"messageId": "m1"}, {}]},
        {"Records": [{"Sns": {"MessageId": "1"}}]},
    ],
)
def test_without_ids_the_request_counts(event: object) -> None:
    """Events that name no messages, or not all of them, go by the request id."""
    assert find_identity((event, Context("7")), {}) == ("metered", "request:7")


def test_the_context_may_stand_anywhere() -> None:
    """Among the arguments of a method, by keyword, or within a durable context."""

    class Durable:
        lambda_context = Context("7")

    expected = ("metered", "request:7")
    assert find_identity((object(), {}, Context("7")), {}) == expected
    assert find_identity((), {"event": {}, "context": Context("7")}) == expected
    assert find_identity(({}, Durable()), {}) == expected
    assert find_identity(({},), {}) is None
    assert find_identity((sqs("m1"),), {"context": Context()}) == ("metered", "records:m1")


# ── how many there may be ───────────────────────────────────────────────────────────────────────


def test_a_large_stream_batch_is_quick(new_tracker: Callable[..., doow.Tracker]) -> None:
    """Ten thousand records name the work once, not in the digest of every event."""
    tracker = new_tracker(transport=MemoryTransport(), max_queue_size=100_000)
    event = stream("kinesis", *(f"shardId-0:{number:056}" for number in range(10_000)))

    def body() -> None:
        for number in range(5_000):
            tracker.track("tokens", number + 1)

    began = time.process_time()
    invoke(tracker, body, event)
    # About 0.1 s; digesting the identity with each event takes ten times as long.
    assert time.process_time() - began < 1.0
