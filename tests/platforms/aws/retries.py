"""Invocations that Lambda makes again: the events that it passes, and what was counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.lambda_context import LambdaContext
from tests.metering import accepted

if TYPE_CHECKING:
    from collections.abc import Callable

    import doow_serverless as doow
    from doow_serverless.local import Ingest, Post

    Body = Callable[[], object]


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

    handler(event, LambdaContext() if context is None else context)


def counted(ingest: Ingest) -> Counter[str]:
    """How often each metric is in the ledger."""
    return Counter(accepted(ingest))


def last(ingest: Ingest) -> Post:
    return ingest.posts()[-1]
