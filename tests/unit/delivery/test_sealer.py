"""Sealing within a budget: what is not sealed in time is kept by others, and nothing is lost."""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._delivery import sealer
from doow_serverless._recording import scope
from doow_serverless._recording.scope import Life, Scope
from doow_serverless._sealing import seal
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import MemoryTransport
from tests.clock import Clock
from tests.frames import letters_in
from tests.lambda_context import LambdaContext
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless import Outcome
    from doow_serverless._recording.buffer import Buffer


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


def new_tracker(transport: MemoryTransport, clock: Any = time.monotonic, **options: Any) -> Any:
    return doow.Tracker(
        KEY,
        transport=transport,
        license_id="lic_1",
        warm_up=False,
        environ={},
        clock=clock,
        dead_letter="off",
        on_error=lambda _: None,
        **options,
    )


def numbers(transport: MemoryTransport) -> list[int]:
    """Which events have arrived."""
    return sorted(event["metadata"]["n"] for event in transport.events)


def wait_for(transport: MemoryTransport, tracker: Any, events: int) -> None:
    ends_at = time.monotonic() + 10
    while len(transport.events) < events and time.monotonic() < ends_at:
        tracker.engine.outbox.redeliver()
        time.sleep(0.005)


def test_the_budget_covers_sealing(transport: MemoryTransport) -> None:
    """Batch by batch: the rest is sealed by another thread, kept, and delivered all the same."""
    clock = Clock()
    outcomes: list[Outcome] = []
    tracker = new_tracker(transport, clock, flush_at=500, on_flush=outcomes.append)
    root = tracker.engine.new_buffer()
    scope = Scope(tracker.engine, root, tracker.engine.defaults, None, Life())
    root._batch_bytes = float("inf")
    tracker.engine.flush_at = 10_000
    tracker.engine.config.flush_at = 10_000
    for n in range(2_000):
        scope.record("tokens", metadata={"n": n})
    clock.tick = 0.06
    outcome = tracker.engine.flush(root, 0.1, last=True)
    clock.tick = 0.0
    assert sum(outcome.unsent.values()) + outcome.accepted == 2_000
    assert outcome.unsent[ErrorKind.TIMEOUT] >= 1_000
    clock.now += 2_000
    wait_for(transport, tracker, 2_000)
    assert numbers(transport) == list(range(2_000))
    assert root.in_hand == 0


def test_the_last_flush_seals_what_was_late(transport: MemoryTransport) -> None:
    """Also where no thread has come to do it."""
    tracker = new_tracker(transport)
    sealer = tracker.engine._flusher._sealer
    tracker.engine.outside.record("tokens", metadata={"n": 1})
    sealer._late.append((tracker.engine.unattended.take(), False))
    tracker.engine.last_flush(1.0)
    assert numbers(transport) == [1]


@pytest.mark.contains
@pytest.mark.parametrize("sealed", [0, 2])
def test_a_fault_while_events_are_sealed_loses_none(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch, sealed: int
) -> None:
    """Each event is delivered once: now, or by a later flush."""
    tracker = new_tracker(transport, flush_at=500)
    for n in range(400):
        tracker.engine.outside.record("tokens", metadata={"n": n})
    tracker.engine.config.max_payload_bytes = 20_000  # Several batches.

    def sealing(*given: Any, **options: Any) -> Iterator[Any]:
        for number, batch in enumerate(seal(*given, **options)):
            if number == sealed:
                raise MemoryError
            yield batch

    monkeypatch.setattr(sealer, "seal", sealing)
    tracker.flush(1.0)
    monkeypatch.undo()
    assert tracker.engine.last_flush(5.0) is None
    wait_for(transport, tracker, 400)
    assert numbers(transport) == list(range(400))
    assert tracker.engine.unattended.in_hand == 0


# ── finalizers, and handlers of signals ─────────────────────────────────────────────────────────


def test_a_flush_within_a_flush_leaves_all_to_the_next(transport: MemoryTransport) -> None:
    """As where a hook, a finalizer or a signal's handler flushes: it waits for nothing."""
    inner: list[Outcome] = []

    def hook(_: Outcome) -> None:
        tracker.track("tokens", metadata={"n": len(inner)})
        inner.append(tracker.flush())

    tracker = new_tracker(transport, on_flush=hook)
    tracker.track("tokens", metadata={"n": 10})
    tracker.flush()
    assert (inner[0].accepted, inner[0].ok) == (0, True)
    assert numbers(transport) == [10]
    tracker.engine.last_flush(1.0)
    assert numbers(transport) == [0, 10]


def test_an_event_that_interrupts_the_journal_is_set_aside(
    transport: MemoryTransport, tmp_path: Any
) -> None:
    """Where another thread holds the buffer, and may wait for what this one holds: no dead lock."""
    tracker = new_tracker(transport, journal=tmp_path)
    buffer: Buffer = tracker.engine.unattended
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with buffer._lock:
            held.set()
            over.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)

    class Finalized:
        def __del__(self) -> None:
            tracker.track("tokens", metadata={"n": 7})

    journal = tracker.engine._journal
    with journal._lock:
        Finalized()  # Collected at once, in the middle of this.
    over.set()
    other.join()
    tracker.track("tokens", metadata={"n": 8})
    tracker.flush()
    assert numbers(transport) == [7, 8]


def test_an_event_that_interrupts_the_outbox_is_set_aside(transport: MemoryTransport) -> None:
    """Though it fills a batch: what it would lead to must wait until the lock is free again."""
    tracker = new_tracker(transport, flush_at=1)
    outbox = tracker.engine.outbox
    flushes: list[Outcome] = []

    def fact(_: float) -> None:  # As a finalizer, in the middle of one.
        tracker.track("tokens", metadata={"n": 1})
        flushes.append(tracker.flush())

    outbox._note(fact)
    assert (transport.events, flushes[0].requests) == ([], 0)
    assert tracker.flush().accepted == 1


def test_what_was_set_aside_outlives_its_buffer(transport: MemoryTransport) -> None:
    """As where a WSGI server never calls close(): the next flush sends it."""
    tracker = new_tracker(transport)
    root = tracker.engine.new_buffer()
    tracker.engine.outside.record("template")
    _, time_, template, quantity, _ = tracker.engine.unattended.take()[0]
    root._aside.append((None, time_, template, quantity, '{"n":5}'))
    del root
    gc.collect()
    assert tracker.flush().accepted == 1
    assert numbers(transport) == [5]


def test_an_event_that_interrupts_the_journal_is_noted_before_it_is_sealed(tmp_path: Any) -> None:
    """A crash after that does not send it twice, and a crash before it does not lose it."""
    tracker = new_tracker(MemoryTransport(), journal=tmp_path)
    journal = tracker.engine._journal
    with journal._lock:
        tracker.track("tokens", metadata={"n": 1})
    assert len(journal._aside) == 1
    tracker.track("tokens", metadata={"n": 2})
    assert journal._aside == []
    assert journal._own is not None
    assert len(journal._own.events) == 2


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────


def test_a_full_batch_leaves_early_whatever_fills_it(transport: MemoryTransport) -> None:
    """By its number of events, or by their size."""
    tracker = new_tracker(transport, max_payload_bytes=20_000)

    @tracker.tracked  # type: ignore[untyped-decorator]  # any tracker
    def handler() -> None:
        for n in range(5):
            tracker.track("tokens", metadata={"n": n, "t": "x" * 6_000})
        wait_for(transport, tracker, 4)
        assert numbers(transport) == [0, 1, 2, 3]

    handler()
    assert numbers(transport) == [0, 1, 2, 3, 4]


def test_the_bytes_in_hand_are_bounded(transport: MemoryTransport) -> None:
    """Beyond max_queue_bytes events are refused, and counted; what is settled makes room again."""
    outcomes: list[Outcome] = []
    tracker = new_tracker(transport, max_queue_bytes=10_000, on_flush=outcomes.append)

    @tracker.tracked  # type: ignore[untyped-decorator]  # any tracker
    def handler() -> None:
        for n in range(5):
            tracker.track("tokens", metadata={"n": n, "t": "x" * 4_000})

    handler()
    handler()
    assert [(outcome.accepted, outcome.unsent) for outcome in outcomes] == [
        (3, {"DROPPED_EVENTS": 2})
    ] * 2
    tracker.track("tokens", metadata={"n": 0, "t": "x" * 9_999})
    tracker.track("tokens", metadata={"n": 1})
    assert tracker.flush().unsent == {"DROPPED_EVENTS": 1}
    tracker.track("tokens", metadata={"n": 1})
    assert tracker.flush().accepted == 1


def test_a_retry_is_cut_alike_for_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """Its events have other times, which pack to another size; its batches have the same ids."""
    tracker = doow.Tracker(
        license_id="lic_1", delivery="log", environ={"AWS_LAMBDA_FUNCTION_NAME": "f"}, budget=5.0
    )
    clock = [1_795_347_180.0]

    @tracker.tracked(idempotent=True)
    def work(events: int, _context: LambdaContext, pause_s: float) -> None:
        for number in range(events):
            clock[0] += pause_s
            tracker.track("tokens", number * 7_919 % 5_000 + 1, attribution={"team": "search"})

    def ids(events: int, pause_s: float) -> list[tuple[str, tuple[str, ...]]]:
        work(events, LambdaContext(request_id=f"r-{events}"), pause_s)
        # Two threads may write them, in either order.
        letters = letters_in(capfd.readouterr().out)
        return sorted((one.batch.id, one.batch.event_ids) for one in letters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scope, "time", lambda: clock[0])
        for events in range(60, 180, 5):
            first, again = ids(events, 0.0), ids(events, 0.137)
            assert first == again
            assert sum(len(names) for _, names in first) == events
