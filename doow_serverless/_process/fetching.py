"""Keys that are fetched over a network: by one thread at a time, and waited for within bounds."""

from __future__ import annotations

import threading
from contextvars import Context
from functools import partial

from .signals import is_from_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from doow_serverless._process.clock import Clock

    Keys: TypeAlias = tuple[bytes, ...]

FRESH_S = 3_600.0
"""Seconds after which fetched keys are old and are fetched again. The old ones stay in use."""
RETRY_S = 30.0
"""Seconds after a failure in which no other fetch is begun: everybody shares the failure."""
LOST_S = 60.0
"""Seconds after which a fetch counts as lost: it hangs, or its sandbox was frozen meanwhile."""
DOUBT_S = 60.0
"""Seconds after which an unknown signature may cause another fetch: anyone can write one."""


class Fetch:
    """One fetch that is under way.

    Attributes:
        began_at: When it began.
        is_done: Set when it has succeeded or failed.
    """

    __slots__ = ("began_at", "is_done")

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.is_done = threading.Event()

    def __repr__(self) -> str:
        return f"Fetch(began_at={self.began_at})"


class FetchState:
    """Says when to fetch and how long to wait; a state machine without threads, locks and clocks.

    There are keys or none, a fetch is under way or none, and the last one may have failed a short
    time ago. Facts are methods, each with the time at which it came true.

    Args:
        doubt_s: See `DOUBT_S`.

    Attributes:
        keys: The keys that were fetched last; empty before.
        trouble: Why the last fetch failed; "" if it did not.
    """

    def __init__(self, doubt_s: float = DOUBT_S) -> None:
        self._doubt_s = doubt_s
        self.keys: Keys = ()
        self.trouble = ""
        self._fetch: Fetch | None = None
        self._was_lost = False
        self._fetched_at = self._failed_at = self._doubted_at = float("-inf")

    def __repr__(self) -> str:
        return f"FetchState({len(self.keys)} keys, {self._fetch!r}, {self.trouble!r})"

    @property
    def is_under_way(self) -> bool:
        """Whether a fetch has neither succeeded nor failed yet."""
        return self._fetch is not None

    @property
    def has_failed(self) -> bool:
        """Whether the last fetch failed or was lost."""
        return bool(self.trouble) or self._was_lost

    def begin(self, now: float, retry_s: float = RETRY_S) -> Fetch | None:
        """Return the fetch to make now; None if none is due, or another one is under way."""
        is_fresh = bool(self.keys) and now - self._fetched_at < FRESH_S
        is_under_way = self._fetch is not None and now - self._fetch.began_at < LOST_S
        if is_fresh or is_under_way or now - self._failed_at < retry_s:
            return None
        self._was_lost = self._was_lost or self._fetch is not None
        self._fetch = Fetch(now)
        return self._fetch

    def wait(self, now: float, missing_s: float, old_s: float) -> tuple[Fetch, float] | None:
        """Return the fetch to wait for, and the seconds to wait; None if that is no use.

        Args:
            now: The time.
            missing_s: Age up to which a fetch is waited for if there are no keys.
            old_s: The same if there are old ones; unless the last fetch was lost, perhaps since a
                sandbox was frozen that had waited no longer than this.
        """
        if self._fetch is None:
            return None
        age_s = old_s if self.keys and not self._was_lost else missing_s
        left_s = self._fetch.began_at + age_s - now
        return (self._fetch, min(left_s, age_s)) if left_s > 0 else None

    def succeeded(self, fetch: Fetch, keys: Keys) -> None:
        """``fetch`` has brought ``keys``, which are as old as the fetch."""
        if fetch is self._fetch:
            self._fetch, self._was_lost = None, False
            self._fetched_at, self._failed_at = fetch.began_at, float("-inf")
            self.keys, self.trouble = keys, ""
        elif not self.keys:
            self.keys = keys  # Of a lost fetch: old from the beginning, but better than none.

    def failed(self, fetch: Fetch, why: str, now: float) -> None:
        """``fetch`` has failed. Others share that, unless a freeze may have been the cause."""
        if fetch is self._fetch:
            self._fetch = None
            self.trouble = why
            self._was_lost = now - fetch.began_at >= LOST_S
            if not self._was_lost:
                self._failed_at = now

    def doubt(self, now: float) -> None:
        """Call the keys old, since none of them fits, unless that was done within `doubt_s`."""
        if now - self._doubted_at >= self._doubt_s:
            self._doubted_at = now
            self._fetched_at = float("-inf")

    def forgive(self) -> None:
        """Forget a failure: its cause is gone."""
        self._failed_at = float("-inf")

    def forget_fetch(self) -> None:
        """Forget the fetch that is under way: its thread is gone."""
        self._fetch = None

    def expire(self) -> None:
        """Call the keys old, and forget all times: much time may have passed unnoticed."""
        self._fetched_at = self._failed_at = self._doubted_at = float("-inf")
        self._fetch, self._was_lost = None, False


class FetchedKeys:
    """Keys, and the thread that fetches them. Every method may be called from any thread.

    Args:
        fetch: Fetches the keys, however long that takes; takes those that are at hand.
        clock: Monotonic seconds.
        thread_name: The name of the thread.
        doubt_s: See `FetchState`.

    Attributes:
        state: Read it; the methods change it.
    """

    def __init__(
        self,
        fetch: Callable[[Keys], Keys],
        clock: Clock,
        thread_name: str,
        *,
        doubt_s: float = DOUBT_S,
    ) -> None:
        self._get = fetch
        self._clock = clock
        self._thread_name = thread_name
        self.state = FetchState(doubt_s)
        self.reset_after_fork()

    def __repr__(self) -> str:
        return f"FetchedKeys({self.state!r})"

    def reset_after_fork(self) -> None:
        """Forget lock and thread, which are the parent's, and keep the keys."""
        self._lock = threading.Lock()
        self.state.forget_fetch()

    def ask(self, retry_s: float = RETRY_S, *, aside: bool = False) -> None:
        """Begin to fetch the keys on another thread if they are missing or old.

        Args:
            retry_s: Seconds after a failure in which that is not done.
            aside: If no thread can be started, give up; otherwise fetch them here.
        """
        with self._lock:
            fetch = self.state.begin(self._clock(), retry_s)
        if fetch is None:
            return
        job = partial(self._run, fetch, is_inline=False)
        thread = threading.Thread(target=job, name=self._thread_name, daemon=True)
        try:
            Context().run(thread.start)  # See `_process.workers`.
        except RuntimeError:
            if aside:
                self._end(fetch, "the system starts no more threads")
            else:
                self._run(fetch, is_inline=True)

    def wait(self, missing_s: float, old_s: float) -> None:
        """Wait for a fetch that is under way; see `FetchState.wait`."""
        with self._lock:
            found = self.state.wait(self._clock(), missing_s, old_s)
        if found is not None:
            fetch, left_s = found
            fetch.is_done.wait(left_s)

    def expire(self) -> None:
        """See `FetchState.expire`."""
        with self._lock:
            self.state.expire()

    def doubt(self) -> None:
        """See `FetchState.doubt`."""
        with self._lock:
            self.state.doubt(self._clock())

    def forgive(self) -> None:
        """See `FetchState.forgive`."""
        with self._lock:
            self.state.forgive()

    def _run(self, fetch: Fetch, *, is_inline: bool) -> None:
        try:
            keys = self._get(self.state.keys)
        except BaseException as problem:  # Whatever a client of AWS raises: others wait.
            self._end(fetch, str(problem))
            if is_inline and is_from_signal(problem):
                raise  # It interrupts the application.
        else:
            self._end(fetch, keys)

    def _end(self, fetch: Fetch, result: Keys | str) -> None:
        with self._lock:
            if isinstance(result, str):
                self.state.failed(fetch, result, self._clock())
            else:
                self.state.succeeded(fetch, result)
        fetch.is_done.set()
