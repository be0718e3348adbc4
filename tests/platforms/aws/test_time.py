"""The budget of a flush, and the deadline of the platform, on the real clock."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock

import pytest

import doow_serverless as doow
from tests.lambda_context import LambdaContext
from tests.metering import metrics
from tests.platforms.aws.handlers import Silent, call, configure, native, plain
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doow_serverless.testing import MemoryTransport


def _unrelated() -> Any:
    return SimpleNamespace(get_remaining_time_in_millis="soon")


def _durable(context: Any) -> Any:
    return SimpleNamespace(lambda_context=context)


@pytest.mark.parametrize(
    "place",
    [
        lambda handler, context: handler({}, context),
        lambda handler, context: handler(event={}, context=context),
        lambda handler, context: handler(context, {}),
        lambda handler, context: handler(object(), {}, context),
        lambda handler, context: handler(_unrelated(), {}, context),
        lambda handler, context: handler(MagicMock(), {}, context),
        lambda handler, context: handler({}, _durable(context)),
        lambda handler, context: handler({}, anything=context),
    ],
)
def test_the_deadline_is_found_anywhere(place: Any, silent: Silent) -> None:
    """In whatever argument the context stands, its deadline is kept less the reserve."""
    configure(silent, budget=5.0)

    @doow.tracked
    def handler(*args: Any, **kwargs: Any) -> float:
        doow.track("tokens")
        return time.monotonic()

    ended = place(handler, LambdaContext(600))
    within(time.monotonic() - ended, 0.5, at_least_s=0.25)


@pytest.mark.parametrize(
    ("remaining_ms", "at_least_s", "at_most_s"),
    [(600, 0.2, 0.5), (200, 0.0, 0.15), (-50, 0.0, 0.15)],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_deadline_beats_the_budget(
    kind: str, remaining_ms: int, at_least_s: float, at_most_s: float, silent: Silent
) -> None:
    """With a budget of 5 s, a silent server costs what the platform leaves, less 250 ms."""
    configure(silent, budget=5.0)
    handler = doow.tracked(plain if kind == "def" else native)
    context = LambdaContext(remaining_ms)

    async def timed() -> float:
        began = time.monotonic()
        result = handler({}, context)
        if inspect.iscoroutine(result):
            await result
        return time.monotonic() - began

    within(asyncio.run(timed()), at_most_s, at_least_s=at_least_s)


def test_the_time_that_the_handler_took_counts(silent: Silent) -> None:
    """What is left of the deadline is what is left when the handler is done."""
    configure(silent, budget=5.0)
    context = LambdaContext(900)

    @doow.tracked
    def handler(event: Any, context: Any) -> float:
        doow.track("tokens")
        while context.get_remaining_time_in_millis() > 400:
            threading.Event().wait(0.01)
        return time.monotonic()

    ended = handler({}, context)
    within(time.monotonic() - ended, 0.3)


@pytest.mark.parametrize("context", [None, MagicMock(), _unrelated(), "context"])
def test_without_a_deadline_the_budget_counts(context: Any, silent: Silent) -> None:
    """Test doubles that answer to any name tell no time."""
    configure(silent, budget=0.1)
    began = time.monotonic()
    call(doow.tracked(plain), {}, context or SimpleNamespace())
    within(time.monotonic() - began, 0.35, at_least_s=0.1)


class Counting:
    """A context that says what a test has written down for its handler, call by call."""

    def __init__(self, *said: int) -> None:
        self.get_remaining_time_in_millis = Mock(side_effect=said)


async def streamed(event: Any, context: Any) -> AsyncIterator[str]:
    """Asks for the time twice, and flushes meanwhile: so does the end of the stream."""
    doow.track("tokens")
    await doow.aflush()
    assert context.get_remaining_time_in_millis() == 20_000
    doow.track("tokens")
    yield str(context.get_remaining_time_in_millis())
    doow.track("tokens")


async def drained(event: Any, context: Any) -> list[str]:
    return [each async for each in streamed(event, context)]


@pytest.mark.parametrize(
    "wrapped",
    [
        doow.tracked(drained),
        doow.tracked(doow.tracked(drained)),
        doow.tracked(doow.tracked(doow.tracked(on_exception="discard")(drained))),
        doow.tracked(lambda event, context: call(doow.tracked(drained), event, context)),
    ],
    ids=["once", "twice", "thrice", "within another"],
)
def test_the_deadline_is_asked_once(wrapped: Any, events: MemoryTransport) -> None:
    """Before the handler, whose own questions get the answers that are meant for them."""
    context = Counting(30_000, 20_000, 100)
    assert call(wrapped, 5, context) == ["100"]
    assert context.get_remaining_time_in_millis.call_count == 3
    assert metrics(events.events) == ["tokens"] * 3


def test_a_disabled_tracker_does_not_ask() -> None:
    """What records nothing needs no deadline."""
    doow.configure(enabled=False, environ={})
    context = Counting()
    assert call(doow.tracked(plain), 5, context) == 5
    assert context.get_remaining_time_in_millis.call_count == 0


def test_a_context_that_fails_is_contained(events: MemoryTransport) -> None:
    """The budget is what counts where the deadline cannot be told."""
    context = Counting()
    context.get_remaining_time_in_millis.side_effect = RuntimeError("frozen")
    assert call(doow.tracked(plain), 5, context) == 5
    assert metrics(events.events) == ["tokens"]
