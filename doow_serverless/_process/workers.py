"""Daemon threads that are kept between jobs, and bounded in number.

Daemons, because a thread that waits on a dead network must keep no process alive; kept, because
starting one costs more than the job; and not ``concurrent.futures``, which joins its threads at
exit however long they hang.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Job = Callable[[], None]

MAX_THREADS = 64
"""Threads at the most, those included that were abandoned to a silent network."""
MAX_IDLE = 8
"""Idle threads that are kept for the next job."""


class Workers:
    """Runs jobs on idle threads, the one that rested shortest first, or else on new ones.

    Where no more are allowed, jobs wait for a thread in the order of their coming.
    """

    def __init__(self, max_threads: int = MAX_THREADS, max_idle: int = MAX_IDLE) -> None:
        self._max_threads = max_threads
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._waiting: deque[Job] = deque()
        self._threads = 0

    def __repr__(self) -> str:
        return f"Workers({self._threads} threads, {len(self._idle)} idle)"

    def submit(self, job: Job) -> bool:
        """Run ``job`` on another thread; False where the system starts none.

        The job must not raise. It runs in a copy of the caller's context, since Vercel's runtime
        tells by a ContextVar to which request a log line belongs.
        """
        job = partial(copy_context().run, job)
        with self._lock:
            worker = self._idle.pop() if self._idle else None
            if worker is None:
                if self._threads >= self._max_threads:
                    self._waiting.append(job)
                    return True
                self._threads += 1
        if worker is None:
            return self._start(job)
        worker.give(job)
        return True

    def _start(self, job: Job) -> bool:
        worker = _Worker(self)
        worker.give(job)
        try:
            threading.Thread(target=worker.run, name="doow-sender", daemon=True).start()
        except RuntimeError:
            # The system allows no more threads, or the interpreter is shutting down.
            self._forget()
            return False
        return True

    def _forget(self) -> None:
        with self._lock:
            self._threads -= 1

    def _rest(self, worker: _Worker) -> bool:
        """Whether ``worker`` should wait for another job, which it may be given at once."""
        with self._lock:
            if self._waiting:
                worker.give(self._waiting.popleft())
                return True
            if len(self._idle) >= self._max_idle:
                self._threads -= 1
                return False
            self._idle.append(worker)
            return True


class _Worker:
    """One thread and the job that it was given."""

    __slots__ = ("_given", "_job", "_workers")

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._given = threading.Lock()
        self._given.acquire()
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        self._job = job
        self._given.release()

    def run(self) -> None:
        while True:
            self._given.acquire()
            job, self._job = self._job, None
            if job is not None:
                job()
            del job  # An idle thread must keep nothing alive.
            if not self._workers._rest(self):
                return
