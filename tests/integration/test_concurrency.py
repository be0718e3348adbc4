"""Invocations at once: no event in another's POST, none lost, none twice, no waiting in line."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from doow_serverless import Outcome
from doow_serverless._delivery.answers import Answer
from doow_serverless.local import Fault, Ingest
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker
    from doow_serverless._sealing import Batch

AT_ONCE = 32
each_number_of_rounds = pytest.mark.parametrize(
    "rounds", [20, pytest.param(200, marks=pytest.mark.extensive)]
)


class Memory:
    """A transport that keeps what it is given, and takes its time for some of it."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        self.sent.append(batch.json())
        time.sleep(len(self.sent) % 3 / 1000)
        return Answer(202, {}, b"{}")

    def has_idle(self) -> bool:
        return False

    def abort(self, batch_id: str) -> None:
        pass

    def connect(self, api_key: str) -> None:
        pass


def in_threads(call: Callable[[int], None]) -> None:
    """Have as many threads as there are callers make their calls."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(call, range(AT_ONCE)))


def calls(rounds: int) -> dict[str, int]:
    """The invocations of a test, and how many events each records."""
    names = [f"{caller}-{number}" for caller in range(AT_ONCE) for number in range(rounds)]
    return {name: 1 + index % 3 for index, name in enumerate(names)}


def check(ingest: Ingest, outcomes: list[Outcome], calls: dict[str, int]) -> None:
    """One batch for each invocation, with all of its events in their order and no other's."""
    # On a busy machine one may be sent again, since its kept connection seems dead.
    assert {post.status for post in ingest.posts()} == {202}
    posts = [post for post in ingest.posts() if not post.duplicate]
    carried: dict[str, list[tuple[str, int]]] = {post.batch_id or "": [] for post in posts}
    for event in ingest.events():
        recorded = (event["attribution"]["invocation"], event["measurements"][0]["quantity"])
        carried[event["batch_id"]].append(recorded)
    expected = [[(name, 1 + number) for number in range(events)] for name, events in calls.items()]
    assert sorted(carried.values()) == sorted(expected)
    assert len(posts) == len(expected)
    assert sum(outcome.requests for outcome in outcomes) == len(ingest.posts())
    for outcome in outcomes:
        outcome.elapsed_s = 0.0
        outcome.requests = 1
    assert Counter(map(repr, outcomes)) == Counter(
        repr(Outcome(events, requests=1)) for events in calls.values()
    )


@each_number_of_rounds
def test_threads(rounds: int, new_tracker: Callable[..., Tracker]) -> None:
    """32 threads at once, many times, each with events and attribution of its own."""
    outcomes: list[Outcome] = []
    together = threading.Barrier(AT_ONCE)
    events = calls(rounds)

    def call(caller: int) -> None:
        for number in range(rounds):
            together.wait(30)
            name = f"{caller}-{number}"
            assert handler(name) == name

    with Ingest() as ingest:
        tracker = new_tracker(ingest.url, budget=20.0, on_flush=outcomes.append)

        @tracker.tracked
        def handler(name: str) -> str:
            for number in range(events[name]):
                tracker.track("tokens", 1 + number, attribution={"invocation": name})
            return name

        in_threads(call)
        check(ingest, outcomes, events)


@each_number_of_rounds
def test_tasks(rounds: int, new_tracker: Callable[..., Tracker]) -> None:
    """32 tasks at once on one loop, whose events take turns, some recorded on other threads."""
    outcomes: list[Outcome] = []
    events = calls(rounds)

    async def call(caller: int) -> None:
        for number in range(rounds):
            name = f"{caller}-{number}"
            assert await handler(name) == name

    async def call_all() -> None:
        await asyncio.gather(*(call(caller) for caller in range(AT_ONCE)))

    with Ingest() as ingest:
        tracker = new_tracker(ingest.url, budget=20.0, on_flush=outcomes.append)

        def record(number: int, name: str) -> None:
            tracker.track("tokens", 1 + number, attribution={"invocation": name})

        @tracker.tracked
        async def handler(name: str) -> str:
            for number in range(events[name]):
                if number == 2:
                    await asyncio.to_thread(record, number, name)
                else:
                    record(number, name)
                    await asyncio.create_task(asyncio.sleep(0))
            return name

        asyncio.run(call_all())
        check(ingest, outcomes, events)


@each_number_of_rounds
def test_attribution_of_tracked(rounds: int, new_tracker: Callable[..., Tracker]) -> None:
    """Threads whose handlers have attribution and license of their own never see another's."""
    memory = Memory()
    tracker = new_tracker(transport=memory, budget=20.0)
    together = threading.Barrier(AT_ONCE)

    def call(caller: int) -> None:
        @tracker.tracked(license_id=f"lic_{caller}", attribution={"caller": caller})
        def handler() -> None:
            tracker.track("tokens", 3)
            with tracker.transaction():
                tracker.track("pages", 1)

        for _ in range(rounds):
            together.wait(30)
            handler()

    in_threads(call)
    seen = Counter(
        tuple((event["license_id"], event["attribution"]["caller"]) for event in body["events"])
        for body in map(json.loads, memory.sent)
    )
    assert seen == {((f"lic_{caller}", caller),) * 2: rounds for caller in range(AT_ONCE)}


def test_more_at_once_than_threads(new_tracker: Callable[..., Tracker]) -> None:
    """300 tasks that end together are all delivered in time, though not with a thread for each."""
    outcomes: list[Outcome] = []
    most_threads = 0

    class Slow(Memory):
        def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
            nonlocal most_threads
            most_threads = max(most_threads, threading.active_count())
            time.sleep(0.02)
            return super().post(batch, api_key)

    before = threading.active_count()
    tracker = new_tracker(transport=Slow(), budget=5.0, on_flush=outcomes.append)

    @tracker.tracked
    async def handler() -> None:
        tracker.track("tokens", 3)
        await asyncio.sleep(0)

    async def call_all() -> None:
        await asyncio.gather(*(handler() for _ in range(300)))

    asyncio.run(call_all())
    assert Counter((outcome.accepted, outcome.ok) for outcome in outcomes) == {(1, True): 300}
    assert most_threads - before <= 2 * 64  # Those that send, and those that write down.


def test_no_queue_behind_a_slow_post(new_tracker: Callable[..., Tracker]) -> None:
    """A quick invocation is delivered at once while another's POST is slow."""
    outcomes: list[Outcome] = []
    with Ingest() as ingest:
        tracker = new_tracker(ingest.url, budget=5.0, on_flush=outcomes.append)

        @tracker.tracked
        def handler() -> None:
            tracker.track("tokens", 3)

        ingest.fault(Fault(delay_s=1.0))
        slow = threading.Thread(target=handler)
        slow.start()
        while not ingest.posts():
            time.sleep(0.001)
        for _ in range(5):
            handler()
        quick = [outcome.elapsed_s for outcome in outcomes]
        slow.join()
    assert [outcome.accepted for outcome in outcomes] == [1] * 6
    assert len(quick) == 5
    within(max(quick), 0.2)
