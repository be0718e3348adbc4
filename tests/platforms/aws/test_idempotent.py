"""Invocations that Lambda makes again: what is the same counts once, and nothing else is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextvars import copy_context
from typing import TYPE_CHECKING

from doow_serverless.local import Fault, Ingest
from doow_serverless.testing import MemoryTransport
from tests.lambda_context import LambdaContext
from tests.platforms.aws.retries import counted, invoke, last, sqs, stream

if TYPE_CHECKING:
    from collections.abc import Callable

    import doow_serverless as doow

    Body = Callable[[], object]


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
    def handler(event: object, context: LambdaContext) -> None:
        tracker.track("tokens")

    handler(None, LambdaContext())
    handler(None, LambdaContext())
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
    for context in (
        LambdaContext(request_id="1"),
        LambdaContext(request_id="2"),
        LambdaContext(request_id="1", function_name="other"),
    ):
        invoke(tracker, lambda: tracker.track("tokens"), context=context)
    for name in ("metered", "other"):
        context = LambdaContext(function_name=name)
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
    def handler(context: LambdaContext) -> None:
        for metric in order:
            thread = threading.Thread(target=copy_context().run, args=(tracker.track, metric))
            thread.start()
            thread.join()

    handler(LambdaContext())
    order.reverse()
    handler(LambdaContext())
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
    ingest.wait_for(1)  # On a busy machine both may be over before it has come.
    assert counted(ingest) == {"tokens": 1}


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
    # About 0.15 s, and 1 s while coverage is measured; digesting the identity, half a megabyte,
    # with each event takes many times as long.
    assert time.process_time() - began < 5.0
