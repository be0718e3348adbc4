"""The engine puts recording, delivery and keeping together, and takes over from an earlier one."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Tracker
from doow_serverless._config import Config
from doow_serverless._delivery.outbox_state import OutboxState
from doow_serverless._engine import Engine
from doow_serverless._process.timers import timers
from doow_serverless._recording.scope import Life, Scope
from doow_serverless.errors import DoowError, InvalidEvent
from doow_serverless.testing import MemoryTransport
from tests.clock import Clock
from tests.metering import metrics
from tests.network import KEY
from tests.unit.keeping.journals import crash

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._recording.buffer import Buffer
    from doow_serverless._recording.rules import LeftOut
    from doow_serverless._sealing import Batch


def new_engine(transport: MemoryTransport, clock: Any = None, **options: Any) -> Engine:
    config = Config(KEY, environ={}, **{"license_id": "lic_1", "warm_up": False, **options})
    return Engine(config, transport, clock or Clock())


def inside(engine: Engine, buffer: Buffer) -> Scope:
    """The scope of an invocation."""
    return Scope(engine, buffer, engine.defaults, None, Life())


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


def test_unattended_events_leave_with_the_flush_of_an_invocation(
    transport: MemoryTransport,
) -> None:
    """In one batch, and the outcome counts both."""
    engine = new_engine(transport)
    buffer = engine.new_buffer()
    engine.outside.record("outside")
    inside(engine, buffer).record("inside")
    outcome = engine.flush(buffer, 1.0, last=True)
    assert (outcome.accepted, len(transport.batches)) == (2, 1)
    assert sorted(metrics(transport.events)) == ["inside", "outside"]


def test_a_flush_of_nothing_asks_nobody(transport: MemoryTransport) -> None:
    """No batch, and an outcome that is ok."""
    engine = new_engine(transport)
    outcome = engine.flush(engine.new_buffer(), 1.0, last=True)
    assert (outcome.ok, outcome.accepted, transport.batches) == (True, 0, [])


def test_what_is_refused_is_reported_with_its_id(transport: MemoryTransport) -> None:
    """Or raised, in strict mode."""
    told: list[DoowError] = []
    new_engine(transport, on_error=told.append).refuse(InvalidEvent("wrong"), "evt_1")
    assert [(str(error), error.event_ids) for error in told] == [("wrong", ("evt_1",))]
    with pytest.raises(InvalidEvent, match="wrong"):
        new_engine(transport, strict=True).refuse(InvalidEvent("wrong"), "evt_1")


def test_names_of_credentials_are_told_once(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """Each name once for each engine, and the list is emptied."""
    engine = new_engine(transport)
    for _ in range(2):
        names: list[LeftOut] = ["attribution['password']"]
        engine.report_removed(names)
        assert names == []
    assert len(caplog.messages) == 1


def test_what_is_left_out_is_told_to_the_user(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """By name, to ``on_error`` where there is one, once; the event is delivered."""
    told: list[str] = []
    tracker = Tracker(
        "dk_" + "0" * 64, transport=transport, license_id="lic", environ={},
        on_error=lambda error: told.append(f"{error.kind} {error}"),
    )  # fmt: skip
    for _ in range(2):
        tracker.track("tokens", attribution={"tags": ["a"]}, metadata={"a": object, "b": 1})
    assert tracker.flush().accepted == 2
    end = ", and was left out; the event goes on without it"
    assert told == [
        f"INVALID_EVENT metadata['a'] must be JSON, not <class 'object'>{end}",
        f"INVALID_EVENT attribution['tags'] must be a string, number or bool, not ['a']{end}",
    ]
    assert [event["metadata"] for event in transport.events] == [{"b": 1}] * 2
    # Trackers of other tests may still have something of their own to say.
    assert [said for said in caplog.messages if "left out" in said] == []


@pytest.mark.parametrize("left_s", [0.25, 0.0, -1.0])
def test_no_rescue_where_it_is_too_late(transport: MemoryTransport, left_s: float) -> None:
    """An invocation that begins within the lead is not watched."""
    engine = new_engine(transport)
    assert engine.flush_before(time.monotonic() + left_s, Life().flush_meanwhile) is None


def test_a_rescue_can_be_cancelled(transport: MemoryTransport) -> None:
    """By the guard that it is given."""
    engine = new_engine(transport)
    guard = engine.flush_before(time.monotonic() + 60.0, Life().flush_meanwhile)
    assert guard is not None
    assert guard._number in timers._calls
    guard.cancel()
    assert guard._number not in timers._calls


def test_what_an_engine_has_recorded_is_its_successors_to_deliver(
    transport: MemoryTransport,
) -> None:
    """Also what somebody records with the earlier one afterwards; each event once."""
    earlier, later = new_engine(MemoryTransport()), new_engine(transport)
    earlier.outside.record("before")
    later.take_over(earlier)
    earlier.outside.record("afterwards")
    later.flush(later.unattended, 1.0)
    earlier.flush(earlier.unattended, 1.0)
    assert sorted(metrics(transport.events)) == ["afterwards", "before"]


def test_who_is_interrupted_while_it_seals_may_record(transport: MemoryTransport) -> None:
    """The system starts no thread, and the handler of a signal fills a batch: it does not hang."""
    engine = new_engine(transport, flush_at=2)
    engine.outbox.rescuers.submit = lambda job: False  # type: ignore[method-assign]

    def interrupted() -> None:
        with engine.unattended.sealing:
            for _ in range(2):
                engine.outside.record("tokens")

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert engine.flush(engine.unattended, 1.0).accepted == 2


@pytest.mark.parametrize("has_journal", [False, True])
def test_an_open_invocation_outlives_its_engine(
    transport: MemoryTransport, tmp_path: Path, has_journal: bool
) -> None:
    """What it has recorded by then leaves once, by way of the successor; so do those after it."""
    wrong = MemoryTransport()
    journal: Any = tmp_path if has_journal else False
    first, second, third = (new_engine(each, journal=journal) for each in (wrong, wrong, transport))
    buffer = first.new_buffer()
    scope = Scope(first, buffer, first.defaults, None, Life())
    scope.record("before")
    second.take_over(first)
    third.take_over(second)
    scope.record("after")
    outcome = first.flush(buffer, 1.0, last=True)
    assert (outcome.accepted, wrong.events) == (2, [])
    assert metrics(transport.events) == ["before", "after"]
    for engine in (first, second, third):
        assert engine._journal is None or engine._journal.recover() == []
    del first, second, scope, buffer
    gc.collect()
    fourth = new_engine(transport, journal=journal)
    fourth.outbox.recover()
    fourth.last_flush(1.0)
    assert len(transport.batches) == 1


def test_what_a_crash_has_left_is_said_to_be_halved(tmp_path: Path) -> None:
    """The process that is gone may have written the whole down, and its replay must know better."""
    options: dict[str, Any] = {
        "journal": tmp_path / "journal",
        "on_error": lambda _: None,
        "clock": time.monotonic,
    }
    logs = tmp_path / "first", tmp_path / "second"
    first = new_engine(MemoryTransport([500] * 99), dead_letter=str(logs[0]), **options)
    for _ in range(2):
        first.outside.record("tokens")
    first.flush(first.unattended, 0.1)
    assert first._journal is not None
    crash(first._journal)

    taking = MemoryTransport(lambda batch: 413 if len(batch) > 1 else 202)
    second = new_engine(taking, dead_letter=str(logs[1]), **options)
    assert second.warm_up is not None
    second.warm_up.join()  # It has recovered what there is.
    second.last_flush(5.0)

    assert len(taking.events) == 2
    assert [count_of(one, '"TIMEOUT"', '"TRANSPORT_ERROR"') for one in logs] == [1, 0]
    assert [count_of(one, '"SPLIT"') for one in logs] == [0, 1]


def count_of(folder: Path, *words: str) -> int:
    """How many dead letters of a folder hold one of these words."""
    texts = [file.read_text() for file in folder.iterdir()]
    return sum(any(word in text for word in words) for text in texts)


def test_what_has_left_early_stays_with_its_engine(transport: MemoryTransport) -> None:
    """Until it has come back: what failed is then the successor's to deliver."""
    answered = threading.Event()

    def answer(_: Batch) -> int:
        answered.wait(10)
        return 500

    first = new_engine(MemoryTransport(answer), on_error=lambda _: None)
    second = new_engine(transport)
    buffer = first.new_buffer()
    Scope(first, buffer, first.defaults, None, Life()).record("early")
    first.send_early(buffer, 1)
    while not buffer.flights:
        time.sleep(0.001)
    second.take_over(first)
    assert second.outbox.kept_events == 0
    answered.set()
    while not second.outbox.kept_events and not transport.events:
        time.sleep(0.001)
    second.last_flush(1.0)
    assert metrics(transport.events) == ["early"]


@pytest.mark.parametrize("answers", [True, False])
def test_replaced_while_a_flush_waits(answers: bool, transport: MemoryTransport) -> None:
    """It waits on where its batches are; what it gives up is the successor's to deliver."""
    is_sent, may_answer = threading.Event(), threading.Event()

    def answer(_: Batch) -> int:
        is_sent.set()
        may_answer.wait(10)
        return 202 if answers else 500

    clock = time.monotonic
    first = new_engine(MemoryTransport(answer), clock, on_error=lambda _: None)
    second, third = new_engine(transport, clock), new_engine(transport, clock)
    outbox = first.outbox
    buffer = first.new_buffer()
    inside(first, buffer).record("tokens")
    with ThreadPoolExecutor(1) as pool:
        flush = pool.submit(first.flush, buffer, 10.0 if answers else 0.1, last=True)
        assert is_sent.wait(10)
        second.take_over(first)
        if answers:
            may_answer.set()
        outcome = flush.result()
        may_answer.set()
    assert (outcome.accepted, outcome.ok) == (1, True) if answers else (0, False)
    for _ in range(10_000):
        if not outbox.has_in_hand:
            break
        time.sleep(0.001)
    third.take_over(second)
    third.last_flush(5.0)
    assert metrics(transport.events) == ([] if answers else ["tokens"])
    assert third.outbox.kept_events == 0


@pytest.mark.contains
def test_a_fault_of_ours_amid_a_takeover(
    transport: MemoryTransport, contained_faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and does not reach who calls ``configure()``; what was in hand is delivered."""
    first, second = new_engine(transport), new_engine(transport)
    first.outside.record("before")
    monkeypatch.setattr(OutboxState, "drain", lambda _: 1 / 0)
    second.take_over(first)
    assert "ZeroDivisionError" in "".join(contained_faults)
    second.flush(second.unattended, 5.0)
    first.flush(first.unattended, 5.0)
    assert metrics(transport.events) == ["before"]


def test_threads_that_end_at_once_leave_no_predecessor(transport: MemoryTransport) -> None:
    """Each of the earlier engine's has the successor take over; the last of them is it."""

    class Slow(list[Any]):
        """Lets another thread come in between a look and what follows from it."""

        def __contains__(self, one: object) -> bool:
            found = super().__contains__(one)
            time.sleep(0.01)
            return found

    first, second = new_engine(MemoryTransport()), new_engine(transport)
    second.outbox._predecessors = Slow([first.outbox])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(second.outbox.take_over, [first.outbox] * 4))
    assert second.outbox._predecessors == []
    assert not second.outbox.has_in_hand


def test_the_last_flush_delivers_every_invocation_that_still_runs(
    transport: MemoryTransport,
) -> None:
    """And what no invocation can be seen for."""
    engine = new_engine(transport)
    running = [engine.new_buffer() for _ in range(2)]
    engine.outside.record("outside")
    for buffer in running:
        inside(engine, buffer).record("inside")
    engine.last_flush(1.0)
    assert sorted(metrics(transport.events)) == ["inside", "inside", "outside"]


def test_a_child_of_a_fork_leaves_to_its_parent_what_that_recorded(
    transport: MemoryTransport,
) -> None:
    """What it records itself it delivers."""
    engine = new_engine(transport)
    engine.outside.record("the parent's")
    engine.unattended.begin_anew()  # As each buffer does, in a child.
    late, under_way = engine.new_buffer(), new_engine(MemoryTransport())
    Scope(engine, late, engine.defaults, None, Life()).record("late in the parent")
    engine._flusher._sealer._late.append((late.take(), False))
    engine.outbox._predecessors.append(under_way.outbox)
    engine.after_fork_in_child()
    assert engine.outbox._predecessors == []
    engine.last_flush(1.0)
    engine.outside.record("the child's")
    engine.flush(engine.unattended, 1.0)
    assert metrics(transport.events) == ["the child's"]


def test_the_state_is_in_the_repr(transport: MemoryTransport) -> None:
    """Who debugs sees what waits and what is kept."""
    engine = new_engine(transport)
    buffer = engine.new_buffer()
    engine.outside.record("tokens")
    text = repr(engine)
    assert "1 invocations" in text
    assert "1 waiting" in text
    del buffer


def test_time_for_which_a_process_was_frozen_is_not_the_servers() -> None:
    """Also where the answer is the first that is heard of after it."""
    clock = Clock()
    arrived, may_answer = threading.Event(), threading.Event()

    def answer(_: Batch) -> int:
        arrived.set()
        may_answer.wait(10)
        return 202

    engine = new_engine(MemoryTransport(answer), clock, flush_at=1)
    engine.outside.record("tokens")
    assert arrived.wait(10)
    clock.now += 3_600.0
    may_answer.set()
    while not engine.outbox.state.is_idle:
        threading.Event().wait(0.001)
    assert repr(engine.outbox.state._pace).startswith("Pace(0.0,")
