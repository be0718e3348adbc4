"""Threads, tasks and cancellation around tracked handlers."""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

import doow_serverless as doow
from doow_serverless.testing import MemoryTransport
from tests.metering import metrics
from tests.platforms.aws.handlers import WAIT_S, Silent, call, configure, native, plain

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch


def test_a_cancelled_handler_flushes(events: MemoryTransport) -> None:
    """The cancellation reaches the caller once the events are delivered."""

    @doow.tracked
    async def handler(began: asyncio.Event) -> None:
        doow.track("tokens")
        began.set()
        await asyncio.Event().wait()

    async def main() -> bool:
        began = asyncio.Event()
        task = asyncio.ensure_future(handler(began))
        await began.wait()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert metrics(events.events) == ["tokens"]


def test_a_flush_that_is_cancelled_completes(silent: Silent) -> None:
    """A cancellation while the flush waits is kept until the answer is there."""
    configure(silent, budget=5.0)
    handler = doow.tracked(native)

    async def main() -> bool:
        task = asyncio.ensure_future(handler({}, None))
        await asyncio.to_thread(silent.posted.wait, WAIT_S)
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        silent.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert metrics(silent.events) == ["tokens"]


def test_the_loop_turns_while_a_flush_waits(silent: Silent) -> None:
    """An async flush leaves the event loop to others."""
    configure(silent, budget=5.0)

    async def main() -> Any:
        async def answer() -> None:
            await asyncio.to_thread(silent.posted.wait, WAIT_S)
            silent.may_answer.set()

        return (await asyncio.gather(doow.tracked(native)(5, None), answer()))[0]

    assert asyncio.run(main()) == 5
    assert metrics(silent.events) == ["tokens"]


def test_concurrent_invocations_never_mix(events: MemoryTransport) -> None:
    """Each task and each thread sends its own, in a batch of its own."""
    together = threading.Barrier(4)

    @doow.tracked
    def handler(number: int) -> None:
        doow.track(f"m{number}")
        together.wait(WAIT_S)
        doow.track(f"m{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(handler, range(4)))

    @doow.tracked
    async def async_handler(number: int) -> None:
        doow.track(f"m{number}")
        await asyncio.sleep(0)
        doow.track(f"m{number}")

    async def main() -> None:
        await asyncio.gather(*(async_handler(number) for number in range(4, 8)))

    asyncio.run(main())
    batches = [metrics_of(batch) for batch in events.batches]
    assert sorted(batches) == [[f"m{number}"] * 2 for number in range(8)]


def metrics_of(batch: Batch) -> list[str]:
    return metrics(json.loads(batch.json())["events"])


def test_executor_threads_record_into_the_invocation(events: MemoryTransport) -> None:
    """``asyncio.to_thread`` carries the invocation along."""

    @doow.tracked
    async def handler() -> None:
        await asyncio.to_thread(doow.track, "in a thread")
        doow.track("in the task")

    asyncio.run(handler())
    assert [metrics_of(batch) for batch in events.batches] == [["in a thread", "in the task"]]


def test_raw_threads_leave_with_the_next_flush(events: MemoryTransport) -> None:
    """A thread that sees no invocation loses nothing."""

    @doow.tracked
    def handler() -> None:
        thread = threading.Thread(target=doow.track, args=("in a raw thread",))
        thread.start()
        thread.join()
        doow.track("in the handler")

    handler()
    assert [sorted(metrics_of(batch)) for batch in events.batches] == [
        ["in a raw thread", "in the handler"]
    ]


def test_early_batches_of_raw_threads_are_reported() -> None:
    """What the server refuses of them is told, by the next flush at the latest."""
    told: list[str] = []
    transport = MemoryTransport(lambda _: 400)
    configure(transport, flush_at=2, on_error=lambda error: told.extend(error.event_ids))

    def in_thread() -> None:
        doow.track("tokens", event_id="1")
        doow.track("tokens", event_id="2")

    @doow.tracked
    def handler() -> None:
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        doow.track("tokens", event_id="3")

    handler()
    handler()
    assert set(told) == {"1", "2", "3"}


def test_what_outlives_its_invocation_leaves_with_the_next(events: MemoryTransport) -> None:
    """A late task and a late thread record after the end: kept, and sent with the next flush."""
    may_go_on = threading.Event()
    threads: list[threading.Thread] = []

    def late() -> None:
        may_go_on.wait(WAIT_S)
        doow.track("late")

    @doow.tracked
    def handler(first: bool) -> None:
        doow.track("in time")
        if first:
            context = contextvars.copy_context()
            threads.append(threading.Thread(target=context.run, args=(late,)))
            threads[0].start()

    handler(True)
    may_go_on.set()
    threads[0].join()
    handler(False)
    assert [sorted(metrics_of(batch)) for batch in events.batches] == [
        ["in time"],
        ["in time", "late"],
    ]


def test_a_late_task(events: MemoryTransport) -> None:
    """A task that outlives its invocation neither raises nor is lost."""

    async def late(ended: asyncio.Event) -> None:
        await ended.wait()
        with doow.transaction():
            doow.track("late")

    @doow.tracked
    async def handler(ended: asyncio.Event) -> asyncio.Task[None]:
        return asyncio.create_task(late(ended))

    async def main() -> None:
        ended = asyncio.Event()
        task = await handler(ended)
        ended.set()
        await task
        await doow.aflush()

    asyncio.run(main())
    assert metrics(events.events) == ["late"]


def test_a_tracked_call_in_a_late_context_flushes_itself(events: MemoryTransport) -> None:
    """Where the invocation around it is over, a wrapper is outermost again."""
    contexts: list[contextvars.Context] = []
    doow.tracked(lambda: contexts.append(contextvars.copy_context()))()
    contexts[0].run(doow.tracked(plain), None, None)
    assert (metrics(events.events), len(events.batches)) == (["tokens"], 1)


def test_a_transaction_across_contexts(events: MemoryTransport) -> None:
    """The halves of a generator may run in two contexts, as frameworks have it."""

    def dependency() -> Any:
        with doow.transaction():
            doow.track("tokens")
            yield

    halves = dependency()
    contextvars.copy_context().run(next, halves)
    contextvars.copy_context().run(next, halves, None)
    doow.flush()
    assert metrics(events.events) == ["tokens"]


def test_the_handler_runs_once_per_call(events: MemoryTransport) -> None:
    """Nothing is retried but what is ours."""
    configure(MemoryTransport([500, 500]), budget=1.0)
    handler = MagicMock(side_effect=plain)
    call(doow.tracked(handler))
    assert handler.call_count == 1
    assert sys.exc_info() == (None, None, None)
