"""The threads that send: bounded, kept, and in the caller's context."""

from __future__ import annotations

import gc
import threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from doow_serverless._process.workers import IdleThreads, Workers

variable: ContextVar[str] = ContextVar("variable", default="nothing")
WAIT_S = 10


class Job:
    """A job that says where it runs, and goes on until it is let go."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.saw = ""
        self.began = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> None:
        self.thread, self.saw = threading.current_thread(), variable.get()
        self.began.set()
        assert self.may_end.wait(WAIT_S)


def run(workers: Workers) -> Job:
    job = Job()
    assert workers.submit(job)
    assert job.began.wait(WAIT_S)
    return job


def end(workers: Workers, *jobs: Job) -> None:
    """Let the jobs end one after the other, each before the next, and their threads rest."""
    for job in jobs:
        idle = len(workers._idle)
        assert job.thread is not None
        job.may_end.set()
        for _ in range(1_000):
            if len(workers._idle) > idle or not job.thread.is_alive():
                break
            job.thread.join(0.01)


@pytest.fixture
def idle() -> IdleThreads:
    """Threads that no other test has left."""
    return IdleThreads()


def test_threads_are_daemons_and_kept(idle: IdleThreads) -> None:
    """The next job takes the thread of the last, which keeps no process alive."""
    workers = Workers(idle=idle)
    first = run(workers)
    end(workers, first)
    second = run(workers)
    assert second.thread is first.thread
    assert second.thread is not None
    assert second.thread.daemon
    end(workers, second)


def test_the_one_that_rested_shortest_is_taken(idle: IdleThreads) -> None:
    """Last in, first out: the fewest threads stay warm."""
    workers = Workers(idle=idle)
    first, second = run(workers), run(workers)
    assert first.thread is not second.thread
    end(workers, first, second)
    third = run(workers)
    assert third.thread is second.thread
    end(workers, third)


def test_threads_are_bounded_and_jobs_wait_in_order() -> None:
    """With all threads busy, jobs wait for one to be free, first come, first served."""
    workers = Workers(max_threads=1)
    first = run(workers)
    order: list[int] = []
    done = threading.Event()
    for number in range(3):
        assert workers.submit(lambda number=number: order.append(number))  # type: ignore[misc]
    assert workers.submit(done.set)
    assert (order, done.is_set()) == ([], False)
    first.may_end.set()
    assert done.wait(WAIT_S)
    assert order == [0, 1, 2]


def test_idle_threads_are_bounded() -> None:
    """Beyond the bound on idle threads, a thread ends with its job."""
    workers = Workers(idle=IdleThreads(max_idle=1))
    jobs = [run(workers) for _ in range(3)]
    end(workers, *jobs)
    for job in jobs[1:]:
        assert job.thread is not None
        job.thread.join(WAIT_S)
    assert [job.thread is not None and job.thread.is_alive() for job in jobs] == [
        True,
        False,
        False,
    ]


def test_jobs_run_in_the_callers_context(idle: IdleThreads) -> None:
    """What the caller's ContextVars say is seen, on new and on kept threads, and does not stay."""
    workers = Workers(idle=idle)
    saw = []
    for value in ("one", "two"):
        token = variable.set(value)
        job = run(workers)
        variable.reset(token)
        end(workers, job)
        saw.append(job.saw)
    assert saw == ["one", "two"]


def test_a_job_that_waits_for_a_thread_runs_in_its_own_context(idle: IdleThreads) -> None:
    """Not in that of the job before it."""
    workers = Workers(max_threads=1, idle=idle)
    first, second = run(workers), Job()
    token = variable.set("mine")
    workers.submit(second)
    variable.reset(token)
    first.may_end.set()
    assert second.began.wait(WAIT_S)
    assert second.saw == "mine"
    end(workers, second)


def test_an_idle_thread_keeps_nothing_alive(idle: IdleThreads) -> None:
    """Neither the job nor its context outlives its run."""
    workers = Workers(idle=idle)
    job = run(workers)
    gone = weakref.ref(job)
    end(workers, job)
    del job
    gc.collect()
    assert gone() is None


def test_without_threads(monkeypatch: pytest.MonkeyPatch, idle: IdleThreads) -> None:
    """Where the system starts no thread the caller is told, and the next try may succeed."""
    workers = Workers(max_threads=1, idle=idle)

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert workers.submit(lambda: None) is False
    end(workers, run(workers))


def test_threads_are_the_processs_and_not_of_who_had_jobs(idle: IdleThreads) -> None:
    """Many that have one job each, one after the other, leave one thread."""
    threads = set()
    for _ in range(50):
        workers = Workers(idle=idle)
        job = run(workers)
        end(workers, job)
        threads.add(job.thread)
    assert (len(threads), len(idle)) == (1, 1)


@pytest.mark.contains
@pytest.mark.parametrize("problem", [ValueError("of a bug"), SystemExit("of a bug")])
def test_a_job_that_fails_takes_no_thread_with_it(
    problem: BaseException, idle: IdleThreads, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported, and the one that waits for its place comes next."""
    workers = Workers(max_threads=1, idle=idle)

    def fail() -> None:
        raise problem

    first, last = run(workers), Job()
    workers.submit(fail)
    workers.submit(last)
    first.may_end.set()
    assert last.began.wait(WAIT_S)
    end(workers, last)
    assert last.thread is first.thread
    assert "of a bug" in caplog.text
