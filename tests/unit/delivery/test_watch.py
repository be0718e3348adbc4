"""What is under way is looked at while no flush waits, and a freeze is told from a slow trickle."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import pytest

from doow_serverless._config import Config
from doow_serverless._delivery import outbox
from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.flushing import Flushing
from doow_serverless._engine import Engine
from doow_serverless._process.clock import FROZEN_S, WATCH_S, Budget
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import MemoryTransport, TransportFault
from tests.batches import batch
from tests.clock import Clock
from tests.network import KEY
from tests.unit.scripted_server import Alarms, Jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch

TIMEOUT_S = 2.0


class Hanging(MemoryTransport):
    """POSTs hang, and a test says meanwhile what happens around them, until they are cut off.

    Attributes:
        meanwhile: Called again and again while a POST hangs; it raises or returns an answer.
        cut_off: When POSTs were cut off, in seconds since they began, by batch.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(self.hang)
        self.clock = clock
        self.meanwhile: Callable[[], object] = lambda: None
        self.began_at: dict[str, float] = {}
        self.cut_off: list[float] = []
        self.rounds = 0

    def hang(self, batch: Batch) -> int | TransportFault:
        self.began_at[batch.id] = self.clock.now
        for _ in range(self.rounds):
            self.meanwhile()
            if self.cut_off:
                return TransportFault(ErrorKind.TIMEOUT, "cut off")
        return 202

    def abort(self, batch_id: str) -> None:
        self.cut_off.append(self.clock.now - self.began_at[batch_id])


class World:
    """An engine on one thread, with a clock and timers that a test moves."""

    def __init__(self, patch: pytest.MonkeyPatch, flush_at: int = 1) -> None:
        self.clock, self.alarms = Clock(), Alarms()
        self.transport = Hanging(self.clock)
        patch.setattr(outbox, "Workers", Jobs)
        patch.setattr(outbox, "timers", self.alarms)
        options: dict[str, Any] = {"warm_up": False, "flush_at": flush_at, "timeout": TIMEOUT_S}
        config = Config(KEY, environ={}, license_id="lic_1", dead_letter="off", **options)
        self.engine = Engine(config, self.transport, self.clock)

    def post(self, meanwhile: Callable[[], object], rounds: int = 20) -> list[float]:
        """Have one POST hang for so many rounds; return when it was cut off first, if it was."""
        self.transport.meanwhile, self.transport.rounds = meanwhile, rounds
        self.record()
        return self.transport.cut_off[:1]

    def record(self) -> None:
        self.engine.outside.record("tokens")

    def run(self, seconds: float = WATCH_S) -> None:
        """The process runs for so long, no longer than timers sleep."""
        self.clock.now += seconds
        self.alarms.ring()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_post_that_nobody_waits_for_is_cut_off(world: World) -> None:
    """At its timeout, though no invocation comes; then there is nothing to watch."""
    assert world.post(world.run) == [TIMEOUT_S + WATCH_S]
    world.run()
    assert (world.alarms.calls, world.engine.outbox.state.under_way) == ([], [])
    assert world.engine.outbox.kept_events == 0  # Its flight is still open.


def test_time_between_invocations_is_silence(world: World) -> None:
    """Facts more than a second apart are no freeze, since timers have fired in between."""

    def meanwhile() -> None:
        world.run()
        world.run()
        world.run()
        world.engine.outbox.look()

    assert world.post(meanwhile) == [TIMEOUT_S + WATCH_S]


def test_a_freeze_is_no_silence(world: World) -> None:
    """A timer that oversleeps shows it, and a POST has all of its timeout besides."""

    def meanwhile() -> None:
        if world.clock.now == 1_000.0:
            world.run(600.0)
        world.run()

    assert world.post(meanwhile) == [600.0 + TIMEOUT_S + WATCH_S]


def test_a_freeze_that_another_fact_shows(world: World) -> None:
    """A flush comes before the timer has woken: the freeze counts once."""

    def meanwhile() -> None:
        if world.clock.now == 1_000.0:
            world.clock.now += 600.0
            world.engine.outbox.look()
        world.run()

    assert world.post(meanwhile) == [600.0 + TIMEOUT_S + WATCH_S]


@pytest.mark.parametrize("seconds", [WATCH_S, FROZEN_S])
def test_timers_that_are_a_little_late(world: World, seconds: float) -> None:
    """Up to a second between two facts is time in which the process ran."""
    assert world.post(lambda: world.run(seconds)) == [TIMEOUT_S + seconds]


def test_nothing_is_watched_while_all_is_well(world: World) -> None:
    """Neither after a flush whose POST was answered, nor while a backlog waits."""
    engine = world.engine
    world.record()
    outcome = engine.flush(engine.unattended, 1.0)
    world.run()
    assert (outcome.accepted, world.alarms.calls) == (1, [])
    world.transport.rounds, world.transport.cut_off = 1, [0.0]  # Each POST fails at once.
    world.clock.tick = 0.01
    world.record()
    outcome = engine.flush(engine.unattended, 0.02)
    world.run()
    assert (outcome.backlog, world.alarms.calls) == (1, [])


def test_a_post_that_a_flush_leaves_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flush is over, and no other comes."""
    world = World(monkeypatch, flush_at=10)
    engine = world.engine
    workers: Any = engine.outbox.workers
    world.clock.tick = 0.01
    workers.is_slow = True
    world.record()
    assert engine.flush(engine.unattended, 0.02).unsent == {ErrorKind.NOT_READY: 1}
    assert len(world.alarms.calls) == 1
    workers.catch_up()
    world.run()
    world.run()
    assert (world.alarms.calls, len(world.transport.events)) == ([], 1)


def test_one_timer_watches_all(world: World) -> None:
    """However often somebody looks meanwhile."""
    timers: list[int] = []

    def meanwhile() -> None:
        world.engine.outbox.look()
        world.engine.outbox.watch()
        timers.append(len(world.alarms.calls))

    world.post(meanwhile, rounds=3)
    assert timers == [1, 1, 1]
    assert world.alarms.at <= time.monotonic() + WATCH_S


def test_what_begins_anew_is_watched_anew(world: World) -> None:
    """The timer of an outbox as it was before a restore does nothing any more."""
    outbox = world.engine.outbox
    timers: list[int] = []

    def afterwards() -> None:
        outbox.look()
        timers.append(len(world.alarms.calls))
        world.run()
        timers.append(len(world.alarms.calls))

    def meanwhile() -> None:
        outbox.begin_anew()
        world.transport.meanwhile = afterwards
        outbox.keep(batch(), ErrorKind.TIMEOUT)
        outbox.look()

    world.post(meanwhile, rounds=1)
    assert timers == [2, 1]


def test_a_system_that_starts_no_thread(world: World) -> None:
    """Whoever looks next watches again."""
    rescuers: Any = world.engine.outbox.rescuers
    timers: list[int] = []

    def meanwhile() -> None:
        with mock.patch.object(rescuers, "submit", return_value=False):
            world.run()
        timers.append(len(world.alarms.calls))
        world.engine.outbox.look()
        timers.append(len(world.alarms.calls))

    world.post(meanwhile, rounds=1)
    assert timers == [0, 1]


@pytest.mark.contains
def test_a_transport_that_fails_to_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch, contained_faults: list[str]
) -> None:
    """It is asked again: one of the user's own may raise."""
    asked: list[float] = []

    def abort(_: str) -> None:
        asked.append(world.clock.now - 1_000.0)
        raise RuntimeError

    monkeypatch.setattr(world.transport, "abort", abort)
    world.post(world.run, rounds=6)
    assert asked == [2.5, 3.0]
    said = "a fault of doow-serverless itself in cutting off a POST: RuntimeError()"
    assert contained_faults == [said, said]


def test_a_flush_is_looked_at_as_often(world: World) -> None:
    """However much time it has, since it may be the only one to show that the process runs."""
    now, workers = world.clock(), cast("Jobs", world.engine.outbox.workers)
    flight = Flight(lambda _: None, world.engine.outbox, now, now + 60.0)
    workers.is_slow = True
    world.engine.outbox.submit_all(world.engine.outbox.add(flight, batch()))
    assert world.engine.outbox.pause_s(flight) == WATCH_S


def test_the_last_flush_was_frozen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all of its budget besides, and its caller knows."""
    flight, workers = Flight(lambda _: None), cast("Jobs", world.engine.outbox.workers)
    pauses: list[float] = []

    def wait(pause_s: float) -> None:
        world.clock.now += pause_s if pauses else 600.0
        pauses.append(pause_s)

    event = SimpleNamespace(set=lambda: None, clear=lambda: None, wait=wait)
    monkeypatch.setattr(outbox, "threading", SimpleNamespace(Event=lambda: event))
    workers.is_slow = True
    world.engine.outbox.submit_all(world.engine.outbox.add(flight, batch()))
    budget = Budget(1.0, world.clock)
    world.engine.outbox.wait(flight, budget)
    assert (pauses, world.clock.now, budget.ends_at) == ([WATCH_S] * 3, 1_601.0, 1_601.0)


# ── the caller of a flush ───────────────────────────────────────────────────────────────────────


class Caller:
    """A flush that somebody waits for, without the threads.

    Attributes:
        looks: When somebody was to look.
    """

    def __init__(self, budget_s: float) -> None:
        self.clock = Clock()
        buffer: Any = None
        self.flushing = Flushing(buffer, Budget(budget_s, self.clock), self.clock)
        self.looks: list[float] = []

    def look(self, _: Flushing) -> None:
        self.looks.append(self.clock.now - 1_000.0)

    def pause(self, seconds: float | None = None) -> float | None:
        """Pause as long as it is to, or for so long; return how long the next pause is."""
        began, pause_s = self.clock.now, self.flushing.pause_s(self.look)
        if pause_s is not None:
            self.clock.now += pause_s if seconds is None else seconds
            self.flushing.note_pause(began)
        return pause_s


def test_a_caller_shows_that_the_process_runs() -> None:
    """It sleeps half a second at most, and has someone look then."""
    caller = Caller(1.2)
    pauses = [caller.pause() for _ in range(6)]
    assert pauses == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.2, None])
    assert caller.looks == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_a_caller_that_was_frozen_has_its_budget_still() -> None:
    """It looks at once, and leaves as much later as it was frozen."""
    caller = Caller(2.0)
    caller.pause()
    caller.pause(600.0)
    assert caller.flushing.budget.remaining() == 1.5
    pauses = [caller.pause() for _ in range(6)]
    looks = [0.5, *(600.5 + WATCH_S * number for number in range(5))]
    assert (pauses, caller.looks) == ([*[WATCH_S] * 5, None], looks)


def test_a_caller_stays_as_long_as_there_is_something_to_look_at() -> None:
    """A freeze that it has not noticed itself is no reason to leave before the worker ends."""
    caller = Caller(0.3)
    caller.pause()
    caller.flushing.look_again(2.0)
    pauses = [caller.pause() for _ in range(7)]
    assert pauses == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, None])
    assert caller.looks[0] == pytest.approx(0.3)  # As it had meant to: that does no harm.
