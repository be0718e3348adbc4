"""A transaction passes its events on when it succeeds, whatever kind of callable it runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._recording.transaction import _entered
from doow_serverless.errors import ConfigurationError
from doow_serverless.testing import MemoryTransport
from tests.metering import metrics
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def tracker(transport: MemoryTransport) -> doow.Tracker:
    return doow.Tracker(KEY, transport=transport, license_id="lic_1", warm_up=False, environ={})


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of the usual kind: its ``def`` returns the coroutine of an ``async def``."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class CallableObject:
    """An object with ``__call__``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def awaited(result: Any) -> Any:
    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("is_async", "dress"),
    [
        (False, lambda function: function),
        (False, lambda function: partial(function)),
        (False, CallableObject),
        (True, lambda function: function),
        (True, plain),
        (True, CallableObject),
        (True, lambda function: partial(plain(function))),
    ],
    ids=["def", "partial", "object", "async", "def-of-async", "object-of-async", "partial-of-it"],
)
def test_a_call_that_fails_counts_nothing(
    tracker: doow.Tracker,
    transport: MemoryTransport,
    is_async: bool,
    dress: Callable[[Any], Any],
    fails: bool,
) -> None:
    """The events count if the call returns, or its coroutine does, and else they do not."""

    def work(number: int) -> int:
        tracker.track("documents")
        if fails:
            raise ValueError(number)
        return number

    async def work_async(number: int) -> int:
        await asyncio.sleep(0)
        return work(number)

    decorated = tracker.transaction()(dress(work_async if is_async else work))

    def call() -> Any:
        return awaited(decorated(7)) if is_async else decorated(7)

    if fails:
        with pytest.raises(ValueError, match="7"):
            call()
    else:
        assert call() == 7
    tracker.flush()
    assert metrics(transport.events) == ([] if fails else ["documents"])


def test_an_inner_failure_takes_only_its_own(
    tracker: doow.Tracker, transport: MemoryTransport
) -> None:
    """What is recorded around a block that fails still counts."""
    with tracker.transaction():
        tracker.track("outer")
        with suppress(KeyError), tracker.transaction():
            tracker.track("inner")
            raise KeyError
    tracker.flush()
    assert metrics(transport.events) == ["outer"]


def test_an_outer_failure_takes_all(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """A block that succeeds within one that fails is discarded with it."""
    with suppress(KeyError), tracker.transaction():
        with tracker.transaction():
            tracker.track("inner")
        raise KeyError
    tracker.flush()
    assert transport.batches == []


def test_events_of_an_open_transaction_stay(
    tracker: doow.Tracker, transport: MemoryTransport
) -> None:
    """A flush within the block delivers what is around it, and nothing of the block."""
    tracker.track("before")
    with tracker.transaction():
        tracker.track("within")
        tracker.flush()
        assert metrics(transport.events) == ["before"]
    tracker.flush()
    assert metrics(transport.events) == ["before", "within"]


def test_generator_functions_are_refused(tracker: doow.Tracker) -> None:
    """Their body runs after they have returned; the message says what to write instead."""

    def items() -> Any:
        yield 1

    with pytest.raises(ConfigurationError, match=r"use `with transaction\(\):` in it"):
        tracker.transaction()(items)


def test_one_object_for_all_invocations(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """Made once at the top of a module, and entered by tasks that overlap: each has its own."""
    shared = tracker.transaction()

    async def serve(name: str, enter_after: int, leave_after: int, *, fails: bool) -> None:
        for _ in range(enter_after):
            await asyncio.sleep(0)
        with suppress(ValueError), shared:
            tracker.track(name)
            for _ in range(leave_after):
                await asyncio.sleep(0)
            if fails:
                raise ValueError

    async def serve_all() -> None:
        await asyncio.gather(
            serve("fails", 0, 4, fails=True),
            serve("counts", 1, 1, fails=False),
            serve("counts-too", 2, 9, fails=False),
        )

    asyncio.run(serve_all())
    tracker.flush()
    assert sorted(metrics(transport.events)) == ["counts", "counts-too"]


def test_one_object_within_itself(tracker: doow.Tracker, transport: MemoryTransport) -> None:
    """The inner block ends first."""
    shared = tracker.transaction()
    with shared:
        tracker.track("outer")
        with suppress(ValueError), shared:
            tracker.track("inner")
            raise ValueError
        tracker.track("outer-again")
    tracker.flush()
    assert metrics(transport.events) == ["outer", "outer-again"]


def run_elsewhere(call: Callable[[], object]) -> None:
    """Run ``call`` in another thread, to its end."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("fails", [0, 1])
def test_halves_of_generators_in_other_threads(
    tracker: doow.Tracker, transport: MemoryTransport, fails: int
) -> None:
    """Of two that share a transaction, each ends its own, whoever runs its second half."""
    shared = tracker.transaction()

    def halves(name: str) -> Generator[None, None, None]:
        with shared:
            tracker.track(name)
            yield

    generators = [halves("first"), halves("second")]
    for generator in generators:
        next(generator)

    def fail() -> None:
        with suppress(ValueError):
            generators[fails].throw(ValueError())

    run_elsewhere(fail)
    run_elsewhere(lambda: next(generators[1 - fails], None))
    tracker.flush()
    assert metrics(transport.events) == [["second", "first"][fails]]


def test_what_is_left_elsewhere_is_not_remembered(tracker: doow.Tracker) -> None:
    """The context of the first half does not grow with every generator."""

    def halves() -> Generator[None, None, None]:
        with tracker.transaction():
            yield

    for _ in range(10):
        generator = halves()
        next(generator)
        run_elsewhere(partial(next, generator, None))
    assert len(_entered.get()) <= 1


def test_a_block_that_is_left_in_another_context(
    tracker: doow.Tracker, transport: MemoryTransport
) -> None:
    """As where a framework runs the two halves of a generator on two threads."""
    shared = tracker.transaction()
    first, second = contextvars.copy_context(), contextvars.copy_context()
    first.run(shared.__enter__)
    first.run(tracker.track, "tokens")
    second.run(shared.__exit__, None, None, None)
    tracker.flush()
    assert metrics(transport.events) == ["tokens"]
