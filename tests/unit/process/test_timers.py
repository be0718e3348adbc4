"""The timers of deadlines: it calls in time, once, in any order, and sleeps in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless._process.timers import Timers, timers
from tests.network import Metronome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEVER = float("inf")


class Calls:
    """What a timers has called, and when."""

    def __init__(self) -> None:
        self.made: list[tuple[str, float]] = []
        self._changed = threading.Condition()

    def named(self, name: str) -> Callable[[], None]:
        def call() -> None:
            with self._changed:
                self.made.append((name, time.monotonic()))
                self._changed.notify_all()

        return call

    def names(self, at_least: int) -> list[str]:
        """The names, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.made) >= at_least, 5)
            return [name for name, _ in self.made]


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def watching() -> Timers:
    return Timers()


def asleep(watching: Timers) -> Iterator[float]:
    """Until when the timers sleeps, each time it has fallen asleep."""
    while True:
        with watching._changed:
            sleeps = bool(watching._changed._waiters)  # type: ignore[attr-defined]  # CPython's
            until = watching._sleeps_until
        if sleeps:
            yield until
        time.sleep(0.001)


def test_it_calls_in_time(watching: Timers, calls: Calls) -> None:
    """Not before the moment, and hardly after it."""
    for _ in range(5):
        with Metronome() as noise:
            at = time.monotonic() + 0.05
            watching.call_at(at, calls.named("due"))
            calls.names(at_least=1)
        _, called_at = calls.made.pop()
        assert called_at >= at
        if called_at - at < 0.01 + noise.worst_s:
            return
    pytest.fail("late every time")


def test_each_at_its_own_moment(watching: Timers, calls: Calls) -> None:
    """Concurrent invocations have deadlines of their own, in any order."""
    began = time.monotonic()
    for name, after_s in (("c", 0.09), ("a", 0.03), ("d", 0.12), ("b", 0.06), ("past", -1.0)):
        watching.call_at(began + after_s, calls.named(name))
    assert calls.names(at_least=5) == ["past", "a", "b", "c", "d"]
    assert watching._calls == {}


def test_what_is_forgotten_is_not_called(watching: Timers, calls: Calls) -> None:
    """An invocation that ended in time is left alone, and so is the thread."""
    at = time.monotonic() + 0.03
    forgotten = watching.call_at(at, calls.named("forgotten"))
    watching.call_at(at + 0.03, calls.named("kept"))
    watching.cancel(forgotten)
    watching.cancel(forgotten)
    assert calls.names(at_least=1) == ["kept"]


def test_an_earlier_deadline_wakes_it(watching: Timers, calls: Calls) -> None:
    """It does not sleep through a deadline that comes up later and is due sooner."""
    sleeping = asleep(watching)
    far = watching.call_at(time.monotonic() + 3_600, calls.named("far"))
    assert next(sleeping) < NEVER
    watching.call_at(time.monotonic() + 0.02, calls.named("near"))
    assert calls.names(at_least=1) == ["near"]
    watching.cancel(far)


def test_a_later_deadline_does_not_wake_it(watching: Timers, calls: Calls) -> None:
    """Warm invocations, each due later than the one before, cost no change of threads."""
    sleeping = asleep(watching)
    first_at = time.monotonic() + 3_600
    numbers = [watching.call_at(first_at, calls.named("first"))]
    assert next(sleeping) == first_at
    (lock,) = watching._changed._waiters  # type: ignore[attr-defined]  # one for each wait
    for later_s in range(1_000):
        numbers.append(watching.call_at(first_at + later_s, calls.named("later")))
        watching.cancel(numbers.pop(0))
    with watching._changed:
        assert list(watching._changed._waiters) == [lock]  # type: ignore[attr-defined]
    assert next(sleeping) == first_at


def test_it_sleeps_for_ever_once_nothing_is_left(watching: Timers, calls: Calls) -> None:
    """After a forgotten deadline it looks once, and not again until there is another."""
    sleeping = asleep(watching)
    watching.cancel(watching.call_at(time.monotonic() + 0.03, calls.named("forgotten")))
    while next(sleeping) != NEVER:
        pass
    watching.call_at(time.monotonic() + 0.02, calls.named("next"))
    assert calls.names(at_least=1) == ["next"]
    while next(sleeping) != NEVER:
        pass


@pytest.mark.parametrize("at", [NEVER, 1e18])
def test_a_deadline_that_never_comes(watching: Timers, calls: Calls, at: float) -> None:
    """More seconds than a lock can wait for do no harm."""
    never = watching.call_at(at, calls.named("never"))
    watching.call_at(time.monotonic() + 0.02, calls.named("next"))
    assert calls.names(at_least=1) == ["next"]
    watching.cancel(never)


def test_one_thread_for_all(watching: Timers, calls: Calls) -> None:
    """A thousand invocations on ten threads share it, and none starts before the first."""
    before = threading.active_count()
    at = time.monotonic() + 0.2

    def watch(number: int) -> None:
        for each in range(100):
            watching.call_at(at, calls.named(f"{number}-{each}"))

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(10)]
    assert threading.active_count() == before
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threading.active_count() == before + 1
    expected = {f"{number}-{each}" for number in range(10) for each in range(100)}
    assert set(calls.names(at_least=1_000)) == expected


class _Moment(float):
    """A moment that, when it is looked at, does something, as other threads may."""

    when_compared: Callable[[str], None] = staticmethod(lambda _: None)

    def __lt__(self, other: float) -> bool:
        self.when_compared("<")
        return float(self) < other

    def __le__(self, other: float) -> bool:
        self.when_compared("<=")
        return float(self) <= other


@pytest.mark.parametrize("comparison", ["<", "<="])
def test_forgetting_while_it_looks(
    watching: Timers, calls: Calls, monkeypatch: pytest.MonkeyPatch, comparison: str
) -> None:
    """An invocation that ends just as the timers looks does not take the timers's thread down."""
    sleeping = asleep(watching)
    at = _Moment(time.monotonic() + 3_600)
    numbers = [watching.call_at(at, calls.named("forgotten")) for _ in range(10)]
    next(sleeping)

    def forget_one(made: str) -> None:
        if made == comparison and numbers:
            watching.cancel(numbers.pop())

    monkeypatch.setattr(_Moment, "when_compared", staticmethod(forget_one))
    for number in range(3):
        watching.call_at(time.monotonic(), calls.named(f"{number}"))
        calls.names(at_least=number + 1)
    assert len(numbers) < 10
    assert calls.names(at_least=3) == ["0", "1", "2"]


def test_a_thread_that_cannot_start_is_tried_again(
    watching: Timers, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system allows no more threads for now, the next deadline has one."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        watching.cancel(watching.call_at(time.monotonic(), calls.named("nobody")))
    watching.call_at(time.monotonic(), calls.named("called"))
    assert calls.names(at_least=1) == ["called"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot stop a process")
def test_a_frozen_process() -> None:
    """Deadlines that passed during a freeze: what is forgotten is not called, the rest at once."""
    script = """
        import os, signal, sys, threading, time
        from doow_serverless._process.timers import timers
        called = []
        def call(name):
            called.append(name)
            done.set()
        done = threading.Event()
        gone = timers.call_at(time.monotonic() + 0.1, lambda: call("forgotten"))
        timers.call_at(time.monotonic() + 0.2, lambda: call("missed"))
        timers.cancel(gone)
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        later = timers.call_at(time.monotonic() + 60, lambda: call("later"))
        done.wait(5)
        done.clear()
        soon = timers.call_at(time.monotonic() + 0.02, lambda: call("soon"))
        done.wait(5)
        print(*called)
    """
    with subprocess.Popen(
        [sys.executable, "-c", dedent(script)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        time.sleep(0.3)  # The deadlines pass.
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "missed soon\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork() -> None:
    """A child has a timers of its own; numbers from before the fork mean nothing to it."""
    script = """
        import os, threading, time
        from doow_serverless._process.timers import timers
        inherited = timers.call_at(time.monotonic() + 0.1, lambda: os.write(1, b"parent "))
        done = threading.Event()
        held = timers._changed.acquire()  # The worst moment for a fork.
        pid = os.fork()
        if pid == 0:
            own = timers.call_at(
                time.monotonic() + 0.3, lambda: (os.write(1, b"child"), done.set())
            )
            timers.cancel(inherited)
            os._exit(not done.wait(5))
        timers._changed.release()
        print(os.waitpid(pid, 0)[1])
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("parent child0\n", "", 0)


def test_the_guard_of_the_process() -> None:
    """Importing it starts no thread."""
    code = "import threading, doow_serverless; print(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert type(timers) is Timers
