"""Transactions and nested handlers whose invocation is made again."""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

import pytest

from tests.lambda_context import LambdaContext
from tests.platforms.aws.retries import counted, invoke, last

if TYPE_CHECKING:
    from collections.abc import Callable

    import doow_serverless as doow
    from doow_serverless.local import Ingest

    Body = Callable[[], object]


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
        invoke(tracker, body, context=LambdaContext(request_id="2"))

    copy_context().run(out_of_order)  # It leaves the context in disorder.
    assert counted(ingest) == {"late": 1}
    assert all(len(event["event_id"]) == 36 for event in ingest.events())


def test_handlers_called_in_turn_are_told_apart(ingest: Ingest, tracker: doow.Tracker) -> None:
    """Of one invocation each call counts, though it says the same; of its retry none."""

    @tracker.tracked(idempotent=True)
    def process(context: LambdaContext) -> None:
        tracker.track("tokens")

    for context in (LambdaContext(), LambdaContext()):
        for _ in range(3):
            process(context)
    assert [post.duplicate for post in ingest.posts()] == [False] * 3 + [True] * 3
    assert counted(ingest) == {"tokens": 3}


def test_nested_handlers_are_one_work(ingest: Ingest, tracker: doow.Tracker) -> None:
    """A tracked function in a tracked one records into the same series."""

    @tracker.tracked(idempotent=True)
    def inner(context: LambdaContext) -> None:
        tracker.track("tokens")

    @tracker.tracked(idempotent=True)
    def outer(context: LambdaContext) -> None:
        tracker.track("tokens")
        inner(context)
        inner(context)

    outer(LambdaContext())
    outer(LambdaContext())
    assert counted(ingest) == {"tokens": 3}
    assert last(ingest).duplicate
