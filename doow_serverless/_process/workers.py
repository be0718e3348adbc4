"""Jobs on other threads: the threads are the process's, and each of its many ``Workers`` a bound.

Code of the user's may run inside a job: a hook, or a finalizer, which runs on any thread in the
middle of whatever that was doing. It must not wait there for another job: hence `is_job_here`.

Daemons, because a thread that waits on a dead network must keep no process alive; kept between
jobs, because starting one costs more than the job; kept by the process, so that whoever had jobs
leaves no threads behind; and not ``concurrent.futures``, which joins its threads at exit however
long they hang.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial

from .forks import reset_in_child
from .log import tell_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Job = Callable[[], None]

MAX_THREADS = 64
"""Threads at the most, those included that were abandoned to a silent network."""
MAX_IDLE = 8
"""Idle threads of the process that are kept for the next job, about."""


class IdleThreads:
    """Threads that wait for whoever has a job; the one that rested shortest takes it.

    There is no lock: a list is popped from, and appended to, in one step.
    """

    def __init__(self, max_idle: int = MAX_IDLE) -> None:
        self._max_idle = max_idle
        self._idle: list[_Thread] = []

    def __repr__(self) -> str:
        return f"IdleThreads({len(self._idle)})"

    def __len__(self) -> int:
        return len(self._idle)

    def run(self, job: Job) -> None:
        """Run ``job`` on one of them, or on a new one; RuntimeError if the system starts none."""
        try:
            thread = self._idle.pop()
        except IndexError:
            thread = _Thread(self)
            thread.give(job)
            thread.start()
        else:
            thread.give(job)

    def rest(self, thread: _Thread) -> bool:
        """Whether ``thread`` should wait for another job, which it may be given at once."""
        if len(self._idle) >= self._max_idle:
            return False
        self._idle.append(thread)
        return True

    def forget(self) -> None:
        """In a forked child: its parent has them all."""
        self._idle.clear()


class _Thread:
    """One thread and the job that it was given."""

    __slots__ = ("_given", "_home", "_job")

    def __init__(self, home: IdleThreads) -> None:
        self._home = home
        self._given = threading.Lock()
        self._given.acquire()
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        self._job = job
        self._given.release()

    def start(self) -> None:
        # In no context: some interpreters have a thread keep that of its starter for good.
        Context().run(self._start)

    def _start(self) -> None:
        me = threading.get_ident()
        if me in _starting:
            # A finalizer, or the handler of a signal, has interrupted the start of another thread,
            # and `threading` holds a lock for that which it cannot take again.
            _thread.start_new_thread(self._run, ())
            return
        _starting.add(me)
        try:
            threading.Thread(target=self._run, name="doow-sender", daemon=True).start()
        finally:
            _starting.discard(me)

    def _run(self) -> None:
        do_here(self._do_jobs)

    def _do_jobs(self) -> None:
        while True:
            self._given.acquire()
            job, self._job = self._job, None
            if job is not None:
                job()
            del job  # An idle thread must keep nothing alive.
            if not self._home.rest(self):
                return


def do_here(job: Job) -> None:
    """Run ``job`` on this thread."""
    me = threading.get_ident()
    is_first = me not in _at_job
    try:  # Around both, since the handler of a signal may raise between them.
        _at_job.add(me)
        job()
    finally:
        if is_first:
            _at_job.discard(me)


def is_job_here() -> bool:
    """Whether this thread runs a job."""
    return threading.get_ident() in _at_job


_idle = IdleThreads()
_starting: set[int] = set()
"""Threads that are starting another one."""
_at_job: set[int] = set()
"""Threads that run jobs."""
reset_in_child(_idle.forget)
reset_in_child(_starting.clear)
reset_in_child(_at_job.clear)


class Workers:
    """Runs jobs on threads of the process, so many at once.

    Where no more are allowed, jobs wait for a thread in the order of their coming.

    Args:
        max_threads: Jobs that run at once.
        idle: Where threads come from, and go to. Default: those of the process.
    """

    def __init__(self, max_threads: int = MAX_THREADS, idle: IdleThreads = _idle) -> None:
        self._max_threads = max_threads
        self._idle = idle
        self._lock = threading.RLock()  # Finalizers may submit, in the middle of a submit.
        self._waiting: deque[Job] = deque()
        self._busy = 0

    def __repr__(self) -> str:
        return f"Workers({self._busy} busy, {len(self._waiting)} jobs waiting)"

    def submit(self, job: Job) -> bool:
        """Run ``job`` on another thread; False where the system starts none.

        The job must not raise. It runs in a copy of the caller's context, since Vercel's runtime
        tells by a ContextVar to which request a log line belongs.
        """
        job = partial(copy_context().run, job)
        with self._lock:
            if self._busy >= self._max_threads:
                self._waiting.append(job)
                return True
            self._busy += 1
        return self._start(job)

    def run(self, job: Job) -> None:
        """As :meth:`submit`; on this thread if the system starts no other."""
        if not self.submit(job):
            do_here(job)

    def offer(self, job: Job) -> bool:
        """As :meth:`submit`, but False if the job would have to wait for a thread as well."""
        return self._busy < self._max_threads and self.submit(job)

    def _start(self, job: Job) -> bool:
        unbegun = [job]
        try:
            self._idle.run(partial(self._work, unbegun))
        except BaseException as problem:
            if unbegun:  # Else it runs, and gives the slot back.
                unbegun.clear()
                self._forget()
            if not isinstance(problem, RuntimeError):  # The handler of a signal has raised it.
                raise
            # The system allows no more threads, or the interpreter is shutting down.
            return False
        return True

    def _forget(self) -> None:
        with self._lock:
            self._busy -= 1

    def _work(self, unbegun: list[Job]) -> None:
        """Do a job, and then those that wait; runs on a thread."""
        job = unbegun.pop() if unbegun else None
        while job is not None:
            try:
                job()
            except BaseException as fault:  # Whatever it is, also an exit, the slot is given back.
                with suppress(BaseException):  # As of a handler of the log that exits.
                    tell_fault("a job", fault)
            job = self._next()

    def _next(self) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._busy -= 1
            return None
