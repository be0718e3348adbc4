"""Transactions in generators: around their own code, whoever consumes them, and wherever."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._recording import generators
from doow_serverless.testing import MemoryTransport
from tests.metering import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from doow_serverless import Tracker


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def tracker(transport: MemoryTransport, new_tracker: Callable[..., Tracker]) -> Iterator[Tracker]:
    yield new_tracker(transport=transport)
    assert generators.blocks == {}


@pytest.fixture
def counted(tracker: Tracker, transport: MemoryTransport) -> Callable[[], dict[str, int]]:
    def flush() -> dict[str, int]:
        tracker.flush()
        return dict(Counter(metrics(transport.events)))

    return flush


@pytest.fixture
def chunks(tracker: Tracker) -> Callable[[int, bool], Iterator[int]]:
    """A generator that meters each chunk within one block, and may fail in the end."""

    def generator(count: int, fails: bool = False) -> Iterator[int]:
        with tracker.transaction():
            for number in range(count):
                tracker.track("chunks")
                yield number
            tracker.track("last")
            if fails:
                raise ValueError

    return generator


def consume(tracker: Tracker, stream: Iterator[int]) -> None:
    """A handler that meters for itself whatever comes, also of a stream that fails."""

    @tracker.tracked
    def handler() -> None:
        with contextlib.suppress(ValueError):
            for _ in stream:
                tracker.track("characters")

    handler()


def test_the_consumer_keeps_its_events(tracker: Tracker, chunks: Any, counted: Any) -> None:
    """They are none of the block's, also when that fails, and the caller's block is its own."""

    @tracker.tracked
    def handler() -> None:
        with contextlib.suppress(ValueError):
            for _ in chunks(3, True):
                tracker.track("characters")
        tracker.track("requests")
        with tracker.transaction():
            for number in chunks(5):
                tracker.track("in-both")
                if number == 1:
                    break
        tracker.track("requests")

    handler()
    assert counted() == {"characters": 3, "requests": 2, "in-both": 2, "chunks": 2}


def test_a_consumer_that_has_had_enough(tracker: Tracker, chunks: Any, counted: Any) -> None:
    """What was streamed until then, was."""

    @tracker.tracked
    def handler() -> None:
        stream = chunks(10)
        next(stream), next(stream)
        stream.close()

    handler()
    assert counted() == {"chunks": 2}


def test_a_block_of_the_consumer_that_begins_within(
    tracker: Tracker, chunks: Any, counted: Any
) -> None:
    """Each event is of the block of its own code, though they begin and end crosswise."""

    @tracker.tracked
    def handler() -> None:
        stream = chunks(2)
        next(stream)
        with contextlib.suppress(KeyError), tracker.transaction():
            tracker.track("consumed")
            assert list(stream) == [1]
            tracker.track("consumed")
            raise KeyError
        tracker.track("after")

    handler()
    assert counted() == {"chunks": 2, "last": 1, "after": 1}


def test_on_other_threads(tracker: Tracker, chunks: Any, counted: Any) -> None:
    """As Starlette runs a body: each step on some thread, in a fresh copy of the context."""

    def on_a_thread(call: Callable[[], object]) -> None:
        thread = threading.Thread(target=copy_context().run, args=(call,))
        thread.start()
        thread.join()

    @tracker.tracked
    def handler(fails: bool) -> None:
        stream = chunks(2, fails)
        for _ in range(3):
            on_a_thread(lambda: next(stream, None) if not fails else _next(stream))
        tracker.track("requests")

    handler(True)
    assert counted() == {"requests": 1}
    handler(False)
    assert counted() == {"requests": 2, "chunks": 2, "last": 1}


def _next(stream: Iterator[int]) -> None:
    with contextlib.suppress(ValueError):
        next(stream)


def test_async_generators(tracker: Tracker, counted: Any) -> None:
    """While one awaits, its block is around its own tasks and threads, and nothing else."""

    def record(metric: str) -> None:
        tracker.track(metric)

    async def record_later(metric: str) -> None:
        await asyncio.sleep(0)
        tracker.track(metric)

    async def stream(fails: bool) -> AsyncIterator[int]:
        with tracker.transaction():
            tracker.track("chunks")
            yield 1
            await record_later("awaited")
            await asyncio.create_task(record_later("task"))
            await asyncio.to_thread(record, "thread")
            yield 2
            if fails:
                raise ValueError

    @tracker.tracked
    async def handler(fails: bool) -> None:
        with contextlib.suppress(ValueError):
            async for _ in stream(fails):
                tracker.track("characters")
                await record_later("characters")

    asyncio.run(handler(True))
    assert counted() == {"characters": 4}
    asyncio.run(handler(False))
    own = {"chunks": 1, "awaited": 1, "task": 1, "thread": 1}
    assert counted() == {"characters": 8, **own}


def test_one_within_the_other(tracker: Tracker, chunks: Any, counted: Any) -> None:
    """Generators that consume generators, and blocks within the blocks of one."""

    def outer() -> Iterator[int]:
        with tracker.transaction():
            tracker.track("outer")
            with contextlib.suppress(ValueError):
                yield from chunks(2, True)
            with contextlib.suppress(KeyError), tracker.transaction():
                tracker.track("inner")
                yield 7
                raise KeyError
            tracker.track("outer")

    consume(tracker, outer())
    assert counted() == {"outer": 2, "characters": 3}


def test_a_context_manager_lends_its_block(tracker: Tracker, counted: Any) -> None:
    """That is what a ``@contextmanager`` is for, sync or async, also through an ExitStack."""

    @contextmanager
    def unit() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(tracker.transaction())
            yield

    @asynccontextmanager
    async def aunit() -> AsyncIterator[None]:
        with tracker.transaction():
            yield

    @tracker.tracked
    async def handler(fails: bool) -> None:
        with contextlib.suppress(ValueError), unit():
            tracker.track("sync")
            if fails:
                raise ValueError
        with contextlib.suppress(ValueError):
            async with aunit():
                tracker.track("async")
                if fails:
                    raise ValueError

    asyncio.run(handler(True))
    assert counted() == {}
    asyncio.run(handler(False))
    assert counted() == {"sync": 1, "async": 1}


def test_an_exit_stack_in_a_generator(tracker: Tracker, counted: Any) -> None:
    """The block is the generator's, whatever enters it there."""

    def stream() -> Iterator[int]:
        with ExitStack() as stack:
            stack.enter_context(tracker.transaction())
            tracker.track("chunks")
            yield 1
            raise ValueError

    consume(tracker, stream())
    assert counted() == {"characters": 1}


def test_a_tracked_function_that_a_generator_calls(
    tracker: Tracker, transport: MemoryTransport, counted: Any
) -> None:
    """What it records is of the block; what its consumer calls is not."""

    @tracker.tracked
    def step() -> None:
        tracker.track("steps")

    def stream() -> Iterator[int]:
        with tracker.transaction():
            step()
            yield 1
            raise ValueError

    @tracker.tracked
    def handler() -> None:
        with contextlib.suppress(ValueError):
            for _ in stream():
                step()

    handler()
    assert counted() == {"steps": 1}


class Compiled:
    """A coroutine of another type, as Cython makes them."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        return self._coroutine.throw(*args)

    def close(self) -> None:
        self._coroutine.close()


@pytest.mark.parametrize("made", [lambda coroutine: coroutine, Compiled], ids=["plain", "compiled"])
def test_above_a_plain_decorator(made: Any, tracker: Tracker, counted: Any) -> None:
    """A def that returns a coroutine: the block ends when that does, and not before."""

    async def fails() -> None:
        tracker.track("documents")
        raise ValueError

    def decorated() -> Any:
        return made(fails())

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        asyncio.run(_await(tracker.transaction()(decorated)()))
    assert counted() == {}


async def _await(awaitable: Any) -> Any:
    return await awaitable
