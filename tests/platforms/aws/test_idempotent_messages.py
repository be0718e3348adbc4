"""Messages that come again in another invocation are the same work."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import pytest
from aws_lambda_powertools.utilities.data_classes import SQSEvent

from doow_serverless._platforms.aws import find_identity
from tests.lambda_context import LambdaContext
from tests.platforms.aws.retries import counted, invoke, last, sqs, stream

if TYPE_CHECKING:
    from collections.abc import Callable

    import doow_serverless as doow
    from doow_serverless.local import Ingest

    Body = Callable[[], object]


@pytest.mark.parametrize(
    "event",
    [
        sqs("m1", "m2"),
        stream("kinesis", f"shardId-000000000006:{'4959033827149025660855' * 2}"),
        stream("dynamodb", "c4ca4238a0b923820dcc509a6f75849b"),
        SQSEvent(sqs("m1", "m2")),
    ],
    ids=["sqs", "kinesis", "dynamodb", "data class"],
)  # fmt: skip
def test_messages_come_again_in_another_invocation(
    ingest: Ingest, tracker: doow.Tracker, event: object
) -> None:
    """The identity is that of the messages: the request id is another."""
    for request_id in ("1", "2"):
        invoke(
            tracker, lambda: tracker.track("documents"), event, LambdaContext(request_id=request_id)
        )
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
    ],
)
def test_without_ids_the_request_counts(event: object) -> None:
    """Events that name no messages, or not all of them, go by the request id."""
    assert find_identity((event, LambdaContext(request_id="7")), {}) == ("metered", "request:7")


def test_the_context_may_stand_anywhere() -> None:
    """Among the arguments of a method, by keyword, or within a durable context."""

    class Durable:
        lambda_context = LambdaContext(request_id="7")

    expected = ("metered", "request:7")
    assert find_identity((object(), {}, LambdaContext(request_id="7")), {}) == expected
    assert find_identity((), {"event": {}, "context": LambdaContext(request_id="7")}) == expected
    assert find_identity(({}, Durable()), {}) == expected
    assert find_identity(({},), {}) is None
    assert find_identity((sqs("m1"),), {"context": LambdaContext()}) == ("metered", "records:m1")


class Client:
    """As a client of HTTP is among the arguments: its ``get`` sends a request."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def get(self, *args: object) -> None:
        self.calls.append(args)


class Answers(dict[str, object]):
    """A mapping of the application's own."""

    def get(self, *_: object) -> object:
        raise LookupError("a method of the application was called")


def test_nothing_of_the_arguments_is_called(ingest: Ingest, tracker: doow.Tracker) -> None:
    """Mappings are read, and all else is left alone."""
    client, mock = Client(), MagicMock()

    @tracker.tracked(idempotent=True)
    def handler(self: Client, event: object, context: object, more: object) -> str:
        tracker.track("documents")
        return "result"

    answers = Answers(sqs("m1"))
    for request_id in ("1", "2"):
        assert handler(client, answers, LambdaContext(request_id=request_id), mock) == "result"
    assert (client.calls, mock.get.called) == ([], False)
    assert counted(ingest) == {"documents": 1}
