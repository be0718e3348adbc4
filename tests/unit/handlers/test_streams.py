"""Streaming responses of a tracked handler, consumed in the ways in which servers do."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import StreamingResponse

from doow_serverless.testing import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import doow_serverless as doow


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def tracker(new_tracker: Callable[..., doow.Tracker], transport: MemoryTransport) -> doow.Tracker:
    return new_tracker(transport=transport)


def response(tracker: doow.Tracker, **options: Any) -> StreamingResponse:
    """Of a handler that records before its body, in it, and where it is closed."""

    @tracker.tracked(**options)
    def handler() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                for number in range(3):
                    tracker.track(f"part {number}")
                    yield b"%d" % number
            finally:
                tracker.track("end")

        tracker.track("before")
        return StreamingResponse(parts())

    return handler()


def batches(transport: MemoryTransport) -> list[list[str]]:
    return [
        [event["measurements"][0]["metric_name"] for event in json.loads(batch.json())["events"]]
        for batch in transport.batches
    ]


def test_a_body_that_is_consumed(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """What was recorded before it is delivered by then, the rest at its end."""

    async def consume() -> list[Any]:
        streaming = response(tracker)
        assert batches(transport) == [["before"]]
        chunks = []
        async for chunk in streaming.body_iterator:
            assert len(transport.batches) == 1
            chunks.append(chunk)
        return chunks

    assert asyncio.run(consume()) == [b"0", b"1", b"2"]
    assert batches(transport) == [["before"], ["part 0", "part 1", "part 2", "end"]]


def test_a_body_that_is_closed_early(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """What it recorded until then is delivered, and what its close records."""

    async def close() -> None:
        streaming: Any = response(tracker).body_iterator
        assert await anext(streaming) == b"0"
        await streaming.aclose()

    asyncio.run(close())
    assert batches(transport) == [["before"], ["part 0", "end"]]


def test_a_body_without_a_close(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """Any async iterator may be a body."""

    class Parts:
        def __aiter__(self) -> Parts:
            return self

        async def __anext__(self) -> bytes:
            tracker.track("part")
            return b"0"

    @tracker.tracked
    def handler() -> StreamingResponse:
        return StreamingResponse(Parts())

    async def close() -> None:
        streaming: Any = handler().body_iterator
        assert await anext(streaming) == b"0"
        await streaming.aclose()

    asyncio.run(close())
    assert batches(transport) == [["part"]]


def test_a_body_that_raises(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """The exception passes, and what the body recorded is delivered."""

    @tracker.tracked
    def handler() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            tracker.track("part")
            yield b"0"
            raise LookupError("in the body")

        tracker.track("before")
        return StreamingResponse(parts())

    async def consume() -> None:
        async for _ in handler().body_iterator:
            pass

    with pytest.raises(LookupError, match="in the body"):
        asyncio.run(consume())
    assert batches(transport) == [["before"], ["part"]]


@pytest.mark.parametrize(("raises", "kept"), [(False, [["before", "part"]]), (True, [])])
def test_a_body_under_discard(
    raises: bool, kept: list[list[str]], tracker: doow.Tracker, transport: MemoryTransport
) -> None:
    """Whether anything counts is known when the body has ended, and not before."""

    @tracker.tracked(on_exception="discard")
    async def handler() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            tracker.track("part")
            yield b"0"
            if raises:
                raise LookupError("in the body")

        tracker.track("before")
        return StreamingResponse(parts())

    async def consume() -> None:
        async for _ in (await handler()).body_iterator:
            assert batches(transport) == []

    with pytest.raises(LookupError) if raises else nullcontext():
        asyncio.run(consume())
    assert batches(transport) == kept


@pytest.mark.parametrize("on_exception", ["flush", "discard"])
def test_an_abandoned_body(
    on_exception: str, tracker: doow.Tracker, transport: MemoryTransport
) -> None:
    """What it recorded is not lost where nobody ends it: it leaves with the next flush."""

    @tracker.tracked
    def another() -> None:
        tracker.track("another")

    async def abandon() -> None:
        streaming = response(tracker, on_exception=on_exception)
        assert await anext(streaming.body_iterator.__aiter__()) == b"0"

    asyncio.run(abandon())
    gc.collect()
    another()
    arrived = [event["measurements"][0]["metric_name"] for event in transport.events]
    assert sorted(arrived) == ["another", "before", "end", "part 0"]


def test_two_bodies_by_turns(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """On one task: each has its own POST, of what itself recorded."""

    async def consume() -> None:
        first, second = (
            response(tracker, attribution={"body": n}).body_iterator.__aiter__() for n in (1, 2)
        )
        for _ in range(3):
            await anext(first)
            await anext(second)
        for body in (second, first):
            with pytest.raises(StopAsyncIteration):
                await anext(body)

    asyncio.run(consume())
    bodies = [
        {event["attribution"]["body"] for event in json.loads(batch.json())["events"]}
        for batch in transport.batches
    ]
    assert bodies == [{1}, {2}, {2}, {1}]
