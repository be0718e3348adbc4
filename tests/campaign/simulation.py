"""Threads that share a simulated clock: one at a time runs until it waits, then time moves on.

They are the system's, so that the code that runs on them finds what it knows. The same seed gives
the same interleaving, and waiting costs nothing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from doow_serverless import _api
from doow_serverless._delivery import flushing, hooks, outbox
from doow_serverless._delivery.outbox_state import OutboxState
from doow_serverless._handlers import invocation
from doow_serverless._process.workers import Workers

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    Sleeper = list["_Thread"]


class Over(BaseException):
    """Raised in all threads that wait when the simulation is over."""


class World:
    """The clock, and what is due on it.

    Attributes:
        now: Seconds.
    """

    def __init__(self) -> None:
        self.now = 1_000.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._is_over = False
        self._running: _Thread | None = None
        self._waiting: dict[_Thread, Sleeper] = {}

    def __call__(self) -> float:
        return self.now

    def run(self, job: Callable[[], object]) -> None:
        """Run ``job`` on a thread of its own, as `IdleThreads.run` does."""
        self._at(self.now, lambda: self._resume(_idle.pop() if _idle else _Thread(), job))

    def sleep(self, seconds: float) -> None:
        """Let so much time pass for this thread."""
        self.wait([], seconds)

    def wait(self, sleeper: Sleeper, seconds: float = float("inf")) -> bool:
        """Wait until `wake` is called with ``sleeper``; False if so much time passes before."""
        thread = self._running
        assert thread is not None, "the simulation itself does not wait"
        if not self._is_over:
            sleeper.append(thread)
            if seconds < float("inf"):
                self._at(self.now + max(0.0, seconds), partial(self._end_wait, sleeper, False))
            self._waiting[thread] = sleeper
            thread.pause()
            del self._waiting[thread]
        if self._is_over:
            raise Over
        return thread.is_woken

    def wake(self, sleeper: Sleeper) -> None:
        """End the wait of the thread that waits with ``sleeper``, if any."""
        self._at(self.now, partial(self._end_wait, sleeper, True))

    def step(self) -> bool:
        """Have happen whatever is due next; False if nothing is."""
        if not self._due:
            return False
        at, _, call = heappop(self._due)
        self.now = max(self.now, at)  # What was due while the process was frozen is late.
        call()
        return True

    def end(self) -> None:
        """Have no thread wait any more."""
        self._is_over = True
        while self._waiting or self._due:
            for sleeper in list(self._waiting.values()):
                self._end_wait(sleeper, False)
            self.step()

    def _at(self, at: float, call: Callable[[], object]) -> None:
        heappush(self._due, (at, next(self._numbers), call))

    def _end_wait(self, sleeper: Sleeper, is_woken: bool) -> None:
        if sleeper:
            thread = sleeper.pop()
            thread.is_woken = is_woken
            self._resume(thread)

    def _resume(self, thread: _Thread, job: Callable[[], object] | None = None) -> None:
        """Let ``thread`` run, with a new job or on with its own, until it waits or is idle."""
        self._running = thread
        thread.go_on(job)
        self._running = None


class _Thread:
    """A thread that runs only while the simulation waits for it.

    Attributes:
        is_woken: Whether another thread has ended its wait, and not the clock.
    """

    def __init__(self) -> None:
        self.is_woken = False
        self._job: Callable[[], object] | None = None
        self._may_run, self._has_paused = threading.Lock(), threading.Lock()
        self._may_run.acquire()
        self._has_paused.acquire()
        threading.Thread(target=self._run, name="simulated", daemon=True).start()

    def go_on(self, job: Callable[[], object] | None) -> None:
        self._job = job or self._job
        self._may_run.release()
        self._has_paused.acquire()

    def pause(self) -> None:
        self._has_paused.release()
        self._may_run.acquire()

    def _run(self) -> None:
        self._may_run.acquire()
        while self._job is not None:
            try:
                self._job()
            except Over:
                pass
            finally:
                self._job = None
                _idle.append(self)
            self.pause()


_idle: list[_Thread] = []


class _Lock:
    """Stands in for `threading.Lock`, for a thread that waits and another that releases."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_held = False
        self._sleeper: Sleeper = []

    def acquire(self, timeout: float = float("inf")) -> bool:
        if self._is_held:
            return self._world.wait(self._sleeper, timeout)
        self._is_held = True
        return True

    def release(self) -> None:
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        if self._sleeper:
            self._world.wake(self._sleeper)  # Which holds it from now on.
        else:
            self._is_held = False


@contextmanager
def simulated(world: World, chance: random.Random) -> Iterator[None]:
    """Have trackers that are made within run on threads and the clock of ``world``."""
    workers = partial(Workers, idle=world)  # type: ignore[arg-type]  # a stand-in
    fakes: list[tuple[Any, str, Any]] = [
        (outbox, "Workers", workers),
        (hooks, "Workers", workers),
        (hooks, "monotonic", world),
        (outbox, "OutboxState", partial(OutboxState, uniform=chance.random)),
        (invocation, "monotonic", world),
        (_api, "monotonic", world),
        (flushing, "threading", SimpleNamespace(Lock=partial(_Lock, world))),
    ]
    patches = [mock.patch.object(*each) for each in fakes]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        world.end()
        for patch in patches:
            patch.stop()
