"""A flush leaves nothing in memory: neither for the garbage collector, nor for ever."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.flight import Entry, Flight
from doow_serverless._delivery.flushing import Flushing
from doow_serverless._recording.buffer import Buffer
from tests.network import Server, accepting, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless import Outcome, Tracker


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Switch off the garbage collector, as some services do."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def in_memory() -> Counter[str]:
    """How many objects of one flush there are, by kind."""
    kinds = (Buffer, Flushing, Flight, Entry)
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)


def is_left(expected: Counter[str]) -> bool:
    """Whether that is in memory, as soon as no thread works on it any more."""
    ends_at = time.monotonic() + 10
    while in_memory() != expected and time.monotonic() < ends_at:
        time.sleep(0.01)
    return in_memory() == expected


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("hooks", [{}, {"on_flush": lambda _: None}])
def test_a_flush_leaves_no_cycles(
    hooks: dict[str, object], new_tracker: Callable[..., Tracker]
) -> None:
    """Its buffer would stay in memory if the garbage collector is off, as some services have it."""
    with Server(accepting) as server:
        tracker = new_tracker(server.url, **hooks)

        @tracker.tracked
        def handler() -> None:
            tracker.track("tokens", 3)

        @tracker.tracked
        async def on_a_loop() -> None:
            tracker.track("tokens", 3)

        before = in_memory()
        for _ in range(3):
            handler()
            asyncio.run(on_a_loop())
        tracker.flush()
        assert is_left(before)


def test_an_outage_leaves_what_is_kept(new_tracker: Callable[..., Tracker]) -> None:
    """A process that meters through an outage keeps its batches, and no account of each flush."""
    outcomes: list[Outcome] = []
    with refused_port() as url:
        tracker = new_tracker(
            url, budget=0.1, dead_letter="off", on_error=lambda _: None, on_flush=outcomes.append
        )

        @tracker.tracked
        def handler() -> None:
            tracker.track("tokens", 3)

        handler()
        before = in_memory()
        for _ in range(20):
            handler()
        assert is_left(before + Counter({"Entry": 20}))
    assert outcomes[-1].backlog == 21
