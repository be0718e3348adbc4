"""Trackers that are replaced or dropped leave no threads, sockets or engines, and lose no event."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._process import orphans
from doow_serverless._process.forks import members
from doow_serverless._process.workers import Workers
from doow_serverless.local import Fault
from doow_serverless.testing import MemoryTransport
from doow_serverless.wsgi import DoowMiddleware
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.errors import DoowError
    from doow_serverless.local import Ingest

MANY = 400
FEW = 10
"""Threads of the library, or open files, that many trackers may add: those kept for the next."""
PLENTY_S = 30.0


def our_threads() -> int:
    return sum(thread.name.startswith("doow-") for thread in threading.enumerate())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def options(ingest: Ingest, **more: Any) -> dict[str, Any]:
    return {"endpoint": ingest.url, "license_id": "lic_1", "budget": 30.0, "environ": {}, **more}


def wait_for(ingest: Ingest, event_ids: list[str]) -> None:
    """Until these events have arrived, each once."""
    pause = threading.Event()
    for _ in range(int(PLENTY_S / 0.01)):
        if len(ingest.events()) >= len(event_ids):
            break
        pause.wait(0.01)
    assert sorted(event["event_id"] for event in ingest.events()) == sorted(event_ids)


def wait_until_settled() -> None:
    """Until nothing is held any more that was dropped."""
    pause = threading.Event()
    for _ in range(int(PLENTY_S / 0.01)):
        if not orphans._orphans:
            return
        pause.wait(0.01)
    pytest.fail(f"never settled: {orphans._orphans}")


@pytest.fixture(autouse=True)
def _no_other_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have dropped, with servers that never answer, takes its time elsewhere."""
    gc.collect()
    monkeypatch.setattr(orphans, "_orphans", [])
    monkeypatch.setattr(orphans, "_workers", Workers(orphans._AT_ONCE))


@pytest.fixture
def bounded() -> Iterator[None]:
    """What a test leaves behind, once its garbage is collected, is no more than a few."""
    gc.collect()
    before = our_threads(), open_files(), len(members())
    yield
    gc.collect()
    wait_until_settled()
    gc.collect()
    threads, files, engines = before
    assert our_threads() <= threads + FEW
    assert open_files() <= files + FEW
    assert len(members()) <= engines + 1


@pytest.mark.usefixtures("bounded")
def test_configured_again_and_again(ingest: Ingest) -> None:
    """As by a handler that configures itself at each invocation; some events are stray."""

    @doow.tracked
    def handler(number: int) -> None:
        doow.track("tokens", event_id=f"tracked-{number}")

    for number in range(MANY):
        doow.configure(KEY, **options(ingest))
        if number % 10 == 0:
            doow.track("tokens", event_id=f"stray-{number}")
        handler(number)
    strays = [f"stray-{number}" for number in range(0, MANY, 10)]
    wait_for(ingest, [*strays, *(f"tracked-{number}" for number in range(MANY))])


@pytest.mark.usefixtures("bounded")
def test_configured_while_others_wait_in_an_outage(ingest: Ingest) -> None:
    """What a flush gives up while its tracker is replaced leaves with the last one, once."""
    ingest.fault(Fault(status=500, delay_s=0.02, times=None))

    @doow.tracked
    def handler(event_id: str) -> None:
        doow.track("tokens", event_id=event_id)

    def serve(thread: int) -> list[str]:
        event_ids = [f"{thread}-{number}" for number in range(40)]
        for event_id in event_ids:
            doow.configure(KEY, **options(ingest, budget=0.1, on_error=lambda _: None))
            handler(event_id)
        return event_ids

    with ThreadPoolExecutor(4) as pool:
        expected = [event_id for ids in pool.map(serve, range(4)) for event_id in ids]
    ingest.clear_faults()
    doow.configure(KEY, **options(ingest))
    for number in range(200):
        if len(ingest.events()) >= len(expected):
            break
        handler(f"after-{number}")
        expected.append(f"after-{number}")
        time.sleep(0.02)
    wait_for(ingest, expected)
    assert doow.configure(KEY, **options(ingest)).engine.outbox.kept_events == 0


@pytest.mark.usefixtures("bounded")
def test_made_and_dropped(ingest: Ingest) -> None:
    """What a dropped tracker has in hand is delivered all the same."""
    expected = []
    for number in range(MANY):
        tracker = doow.Tracker(KEY, **options(ingest, warm_up=False))

        @tracker.tracked
        def handler(number: int, tracker: doow.Tracker) -> None:
            tracker.track("tokens", event_id=f"tracked-{number}")

        handler(number, tracker)
        expected.append(f"tracked-{number}")
        if number % 10 == 0:
            tracker.track("tokens", event_id=f"stray-{number}")
            expected.append(f"stray-{number}")
    del tracker, handler
    wait_for(ingest, expected)


@pytest.mark.usefixtures("bounded")
def test_journals_are_closed(ingest: Ingest, tmp_path: Any) -> None:
    """Their files as well; nothing is left in the folder."""
    expected = [f"stray-{number}" for number in range(40)]
    for event_id in expected:
        tracker = doow.Tracker(KEY, **options(ingest, warm_up=False, journal=tmp_path))
        tracker.track("tokens", event_id=event_id)
    del tracker
    wait_for(ingest, expected)
    wait_until_settled()
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_dropped_tracker_closes_its_connections_at_once(ingest: Ingest) -> None:
    """Without a collection of garbage."""
    gc.collect()
    gc.disable()
    try:
        tracker = doow.Tracker(KEY, **options(ingest, warm_up=False))
        tracker.track("tokens")
        assert tracker.flush().accepted == 1
        engine = weakref.ref(tracker.engine)
        connections = tracker.engine.outbox._transport.loaded()._idle  # type: ignore[attr-defined]
        assert len(connections) == 1
        del tracker
        assert engine() is None
        assert connections == []
    finally:
        gc.enable()


@pytest.mark.parametrize("hangs", [False, True])
def test_dropped_with_a_batch_under_way(hangs: bool) -> None:
    """It is delivered, or else written down, though nobody flushes any more."""
    errors: list[DoowError] = []
    transport = MemoryTransport([500] * 99 if hangs else None)
    tracker = doow.Tracker(
        KEY,
        transport=transport,
        license_id="lic_1",
        warm_up=False,
        environ={},
        timeout=0.2,
        flush_at=2,
        on_error=errors.append,
        dead_letter="off",
    )
    for number in range(3):
        tracker.track("tokens", event_id=str(number))
    del tracker
    gc.collect()
    wait_until_settled()
    if hangs:
        assert {one for error in errors for one in error.event_ids} >= {"2"}
    else:
        assert sorted(event["event_id"] for event in transport.events) == ["0", "1", "2"]


def test_dropped_with_a_buffer_that_nobody_has_flushed(ingest: Ingest) -> None:
    """As of a streamed body that a server never closes: both are collected at once."""
    tracker = doow.Tracker(KEY, **options(ingest, warm_up=False))

    application: Any = partial(respond, tracker)
    body: Any = DoowMiddleware(application, tracker=tracker)({}, application)
    next(iter(body))
    cycle: list[Any] = [tracker, application, body]
    cycle.append(cycle)
    del tracker, application, body, cycle
    gc.collect()
    wait_for(ingest, ["1"])


def respond(tracker: doow.Tracker, *_: object) -> list[bytes]:
    """A WSGI application."""
    return Body(tracker, [b"1", b"2"])


class Body(list[bytes]):
    """A body that records."""

    def __init__(self, tracker: doow.Tracker, parts: list[bytes]) -> None:
        super().__init__(parts)
        self._tracker = tracker

    def __iter__(self) -> Iterator[bytes]:
        self._tracker.track("tokens", event_id="1")
        return super().__iter__()
