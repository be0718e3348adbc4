"""What is resumed from a snapshot begins anew, as a forked child does; its threads live on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._config import Config
from doow_serverless._delivery import guard
from doow_serverless._delivery.answers import Answer
from doow_serverless._engine import Engine
from doow_serverless._process import forks
from doow_serverless._process.workers import Workers
from doow_serverless.errors import DoowError, ErrorKind
from doow_serverless.testing import MemoryTransport
from tests.clock import Clock
from tests.metering import metrics
from tests.network import KEY

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._sealing import Batch

HOLD = Answer(429, {"retry-after": "3600"}, b"{}")


class Holding:
    """Asks everybody to wait, until it is asked to take what comes."""

    def __init__(self) -> None:
        self.is_on = True

    def __call__(self, _: Batch) -> int | Answer:
        return HOLD if self.is_on else 202


def new_engine(transport: MemoryTransport, clock: Any = None, **options: Any) -> Engine:
    given = {"license_id": "lic_1", "warm_up": False, "dead_letter": "off", **options}
    return Engine(Config(KEY, environ={}, **given), transport, clock or Clock())


def record(engine: Engine, *names: str) -> None:
    for name in names:
        engine.outside.record(name)


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_a_hold_off_ends_with_the_snapshot(hours: int) -> None:
    """Wherever the clock of the restored sandbox stands."""
    holding, clock = Holding(), Clock()
    transport = MemoryTransport(holding)
    clock.now = 36_000.0
    errors: list[DoowError] = []
    engine = new_engine(transport, clock, on_error=errors.append)
    record(engine, "before")
    engine.before_snapshot()
    assert [error.kind for error in errors] == ["RATE_LIMITED"]
    holding.is_on = False
    clock.now += hours * 3_600.0
    engine.after_restore()
    record(engine, "after")
    assert engine.flush(engine.unattended, 1.0).accepted == 1
    assert (metrics(transport.events), engine.outbox.kept_events) == (["after"], 0)


def test_ids_are_of_another_series() -> None:
    """A copy that goes on from there would name its events as this one does."""
    transport = MemoryTransport()
    engine = new_engine(transport)
    record(engine, "before")
    engine.before_snapshot()
    forks.after_restore()
    record(engine, "after")
    engine.flush(engine.unattended, 1.0)
    first, second = (event["event_id"][:-2] for event in transport.events)
    assert first != second


def test_what_is_recorded_in_between_is_reported_and_not_sent() -> None:
    """By its ids; each sandbox would send it."""
    errors: list[DoowError] = []
    transport = MemoryTransport()
    engine = new_engine(transport, on_error=errors.append)
    engine.before_snapshot()
    engine.outside.record("late", event_id="1")
    engine.after_restore()
    engine.last_flush(1.0)
    assert transport.batches == []
    assert [(error.kind, error.event_ids) for error in errors] == [(ErrorKind.NOT_READY, ("1",))]


def test_a_journal_is_left_empty(tmp_path: Path) -> None:
    """Else each sandbox would recover what it holds, after a crash."""
    options: dict[str, Any] = {"journal": tmp_path, "on_error": lambda _: None}
    engine = new_engine(MemoryTransport(Holding()), **options)
    record(engine, "before")
    engine.before_snapshot()
    assert list(tmp_path.iterdir()) == []
    record(engine, "late")
    engine.after_restore()
    assert list(tmp_path.iterdir()) == []
    record(engine, "after")
    assert len(list(tmp_path.iterdir())) == 1


def test_an_answer_to_what_was_sent_before_is_nobodys() -> None:
    """The thread that waited for it lives on; what it sent has been written down."""
    asked, allowed, left = threading.Event(), threading.Event(), threading.Event()

    def answer(batch: Batch) -> int:
        if batch.event_ids == ("before",):
            asked.set()
            allowed.wait(10)
            return 500
        return 202

    transport = MemoryTransport(answer)
    engine = new_engine(transport, flush_at=1, on_error=lambda _: None)
    engine.outside.record("tokens", event_id="before")
    assert asked.wait(10)
    engine.outbox.begin_anew()
    allowed.set()
    while engine.outbox.workers._busy:
        left.wait(0.001)
    assert engine.outbox.state.is_idle
    record(engine, "after")
    engine.last_flush(10.0)
    assert metrics(transport.events) == ["after"]
    assert len(transport.batches) == 2


def test_a_batch_that_waits_for_a_thread_is_not_sent_after_a_restore() -> None:
    """It has been written down before the snapshot, and every restored process would send it."""
    asked, allowed = threading.Event(), threading.Event()

    def answer(_: Batch) -> int:
        asked.set()
        allowed.wait(10)
        return 202

    transport = MemoryTransport(answer)
    engine = new_engine(transport, flush_at=1)
    workers = engine.outbox.workers = Workers(max_threads=1)
    record(engine, "first")
    assert asked.wait(10)
    record(engine, "second")
    while not workers._waiting:
        threading.Event().wait(0.001)
    engine.outbox.begin_anew()
    allowed.set()
    while workers._busy:
        threading.Event().wait(0.001)
    assert metrics(transport.events) == ["first"]
    assert engine.outbox.state.is_idle


def test_the_part_of_a_core_is_looked_up_anew() -> None:
    """Where a handler was called before the snapshot, as to have it warm."""
    assert guard.schedule() is guard.schedule()
    forks.after_restore()
    assert guard._schedule is None


@pytest.mark.contains
def test_a_fault_reaches_no_hook(
    monkeypatch: pytest.MonkeyPatch, contained_faults: list[str]
) -> None:
    """A hook that raises would have Lambda give up the version."""
    first, second = new_engine(MemoryTransport()), new_engine(MemoryTransport())

    def fail(_: Engine) -> None:
        raise ValueError("of a bug")

    monkeypatch.setattr(Engine, "before_snapshot", fail)
    monkeypatch.setattr(Engine, "after_restore", fail)
    forks.before_snapshot()
    forks.after_restore()
    assert len(contained_faults) >= 4
    del first, second
