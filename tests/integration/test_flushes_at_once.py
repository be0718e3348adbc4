"""Flushes beside each other: each waits for its invocation's requests, and ends no other's."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless import Outcome
from doow_serverless._sealing import seal
from doow_serverless.errors import DoowError, ErrorKind
from tests.network import ACCEPTED, Server, accepting, refused_port
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker
    from tests.network import Peer

LAST = ACCEPTED.replace(
    b"\r\n\r\n", b"\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 60\r\n\r\n", 1
)


def on_threads(*calls: Callable[[], object]) -> list[threading.Thread]:
    """Start a thread of this invocation for each of these calls."""
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(call,)) for call in calls
    ]
    for thread in threads:
        thread.start()
    return threads


def timeless(outcomes: list[Outcome]) -> list[Outcome]:
    """Return outcomes without what time has a part in."""
    for outcome in outcomes:
        outcome.elapsed_s, outcome.backlog = 0.0, 0
    return outcomes


class SlowServer(Server):
    """Takes a while for each answer, and notes when it answers."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_asked = threading.Event()
        super().__init__(self._behave)

    def _behave(self, peer: Peer) -> None:
        while peer.request():
            self.is_asked.set()
            time.sleep(0.3)
            self.seen.append("answered")
            peer.send(ACCEPTED)


def test_a_handler_waits_for_the_flush_of_its_thread(new_tracker: Callable[..., Tracker]) -> None:
    """A platform may end the process once the handler has returned."""
    with SlowServer() as server:
        tracker = new_tracker(server.url, budget=30.0)

        def work() -> None:
            tracker.track("tokens", 3)
            tracker.flush()

        @tracker.tracked
        def handler() -> None:
            on_threads(work)
            assert server.is_asked.wait(30)

        handler()
        server.seen.append("returned")
        assert server.seen == ["answered", "returned"]


def test_an_async_handler_waits_for_the_flush_of_its_task(
    new_tracker: Callable[..., Tracker],
) -> None:
    """Though the task lives on."""
    with SlowServer() as server:
        tracker = new_tracker(server.url, budget=30.0)

        async def work() -> None:
            tracker.track("tokens", 3)
            await tracker.aflush()

        @tracker.tracked
        async def handler() -> asyncio.Task[None]:
            task = asyncio.create_task(work())
            await asyncio.to_thread(server.is_asked.wait, 30)
            return task

        async def main() -> None:
            task = await handler()
            server.seen.append("returned")
            await task

        asyncio.run(main())
        assert server.seen == ["answered", "returned"]


def test_each_of_several_flushes_reports_what_it_waited_for(
    new_tracker: Callable[..., Tracker],
) -> None:
    """None says that all is well before the events of its thread have arrived."""
    arrived: list[str] = []
    said: list[tuple[bool, bool, bool]] = []
    at_once = threading.Barrier(3)

    def behave(peer: Peer) -> None:
        while request := peer.request():
            time.sleep(0.3)
            arrived.extend(event["attribution"]["who"] for event in request.batch["events"])
            peer.send(ACCEPTED)

    with Server(behave) as server:
        tracker = new_tracker(server.url, budget=30.0)

        def work(who: str) -> None:
            tracker.track("tokens", 3, attribution={"who": who})
            at_once.wait(30)
            outcome = tracker.flush()
            said.append((outcome.ok, outcome.accepted > 0, who in arrived))

        @tracker.tracked
        def handler() -> None:
            for thread in on_threads(*(lambda who=who: work(who) for who in "abc")):
                thread.join()

        handler()
    assert said == [(True, True, True)] * 3


def test_a_limit_that_is_used_up_ends_no_request_under_way(
    new_tracker: Callable[..., Tracker],
) -> None:
    """The first of four answers says that it was the last; all four are accepted."""
    all_there, is_used_up = threading.Barrier(4), threading.Event()
    outcomes: list[Outcome] = []

    def behave(peer: Peer) -> None:
        while peer.request():
            if all_there.wait(30) == 0:
                peer.send(LAST)
                is_used_up.set()
            else:
                is_used_up.wait(30)
                time.sleep(0.2)
                peer.send(ACCEPTED)

    with Server(behave) as server:
        tracker = new_tracker(server.url, budget=30.0, on_flush=outcomes.append)

        @tracker.tracked
        def handler() -> None:
            for _ in range(2_000):
                tracker.track("tokens", 3)

        handler()
    assert timeless(outcomes) == [Outcome(2_000, requests=4)]


def test_a_flush_that_gives_up_ends_no_other(new_tracker: Callable[..., Tracker]) -> None:
    """The answers come when the shorter one is over: the longer one has waited for its own."""
    may_answer = threading.Event()
    may_answer.set()
    outcomes: list[Outcome] = []

    def behave(peer: Peer) -> None:
        while peer.request():
            may_answer.wait(30)
            peer.send(ACCEPTED)

    with Server(behave) as server:
        tracker = new_tracker(
            server.url, dead_letter="off", on_error=lambda _: None, on_flush=outcomes.append
        )

        def handler() -> None:
            tracker.track("tokens", 3)

        shorter, longer = (tracker.tracked(budget=each)(handler) for each in (0.4, 30.0))
        longer()  # The server is known to be quick.
        may_answer.clear()
        (long,) = on_threads(longer)
        while len(server.requests) < 2:
            time.sleep(0.01)
        shorter()
        long.join(0.5)  # It would be over by now.
        may_answer.set()
        long.join()
    for outcome in outcomes:
        outcome.requests = 1  # A silent kept connection may be doubted.
    assert timeless(outcomes) == [
        Outcome(1, requests=1),
        Outcome(unsent={ErrorKind.TIMEOUT: 1}, requests=1),
        Outcome(1, requests=1),
    ]


def test_a_coroutine_that_is_closed_has_its_hooks_called(
    new_tracker: Callable[..., Tracker],
) -> None:
    """By the thread of the hooks, since nobody runs on its event loop any more."""
    called = threading.Event()
    outcomes: list[Outcome] = []

    def on_flush(outcome: Outcome) -> None:
        outcomes.append(outcome)
        called.set()

    with SlowServer() as server:
        tracker = new_tracker(server.url, budget=30.0, on_flush=on_flush)

        async def main() -> None:
            tracker.track("tokens", 3)
            flush = tracker.aflush()
            flush.send(None)
            flush.close()

        asyncio.run(main())
        assert called.wait(30)
    assert timeless(outcomes) == [Outcome(1, requests=1)]


@pytest.mark.parametrize("is_async", [False, True])
def test_who_leaves_before_the_outcome_reports_no_success(
    is_async: bool, new_tracker: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known to have arrived; the hooks are called once it is known."""
    may_seal, called = threading.Event(), threading.Event()

    def late(*args: object, **options: object) -> object:
        may_seal.wait(30)
        return seal(*args, **options)  # type: ignore[arg-type]  # as given

    monkeypatch.setattr("doow_serverless._delivery.sealer.seal", late)
    with Server(accepting) as server:
        tracker = new_tracker(
            server.url, dead_letter="off", on_error=lambda _: None, on_flush=lambda _: called.set()
        )
        tracker.track("tokens", 3)
        outcome = asyncio.run(tracker.aflush(0.1)) if is_async else tracker.flush(0.1)
        assert timeless([outcome]) == [Outcome(unsent={ErrorKind.TIMEOUT: 1})]
        may_seal.set()
        assert called.wait(30)


# ── hooks ───────────────────────────────────────────────────────────────────────────────────────


def test_a_hook_that_hangs_ends_no_metering(new_tracker: Callable[..., Tracker]) -> None:
    """More invocations than threads that send: each hook would have had one of them."""
    may_return = threading.Event()
    with Server(accepting) as server:
        tracker = new_tracker(server.url, budget=0.1, on_flush=lambda _: may_return.wait(60))

        @tracker.tracked
        def handler() -> None:
            tracker.track("tokens", 3)

        for _ in range(70):
            handler()
        arrived = {each for request in server.requests for each in request.event_ids}
        may_return.set()
    assert len(arrived) == 70


def test_a_hook_may_wait_for_a_flush_on_another_thread(
    new_tracker: Callable[..., Tracker],
) -> None:
    """As one does that hands its work to a pool, when a full backlog drops what leaves early."""
    told: list[str] = []

    def on_error(error: DoowError) -> None:
        for thread in on_threads(lambda: tracker.flush(0.1)):
            thread.join()
        told.append(error.kind)

    with refused_port() as url:
        tracker = new_tracker(
            url, budget=0.2, dead_letter="off", on_error=on_error, max_queue_size=5, flush_at=2
        )

        @tracker.tracked
        def handler() -> None:
            for number in range(4):
                tracker.track("tokens", number + 1)

        ends_at = time.monotonic() + 30
        while "DROPPED_EVENTS" not in told and time.monotonic() < ends_at:
            handler()
    assert "DROPPED_EVENTS" in told


def test_many_refusals_do_not_wait_for_a_hook_each(new_tracker: Callable[..., Tracker]) -> None:
    """One that takes a while is waited for once, and called for all of them."""
    is_over = threading.Event()
    told = threading.Semaphore(0)

    def on_error(_: DoowError) -> None:
        is_over.wait(0.2)
        told.release()

    with Server(accepting) as server:
        tracker = new_tracker(server.url, on_error=on_error)
        began = time.monotonic()
        for _ in range(40):
            tracker.track("", 3)
        took_s = time.monotonic() - began
        is_over.set()
        assert all(told.acquire(timeout=30) for _ in range(40))
    within(took_s, 2.0)  # And not 4.
