"""The batches of one flush on their way: threads send them, and the caller waits.

The caller waits no longer than its budget, whatever the network does; what is not settled by then
is given up, and the owner keeps it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial

from doow_serverless._outcome import Outcome
from doow_serverless._process.log import counted
from doow_serverless.errors import DoowError, ErrorKind

from .attempt import Failed, Settled, Split
from .breaker import uniform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from doow_serverless._process.clock import Budget, Clock
    from doow_serverless._process.workers import Workers
    from doow_serverless._sealing import Batch

    from .attempt import Result, Sender
    from .breaker import CircuitBreaker

    class Owner(Protocol):
        """Stands for batches before and after their flight. Called on whatever thread."""

        def on_decided(self, batch: Batch, result: Settled | Split) -> None:
            """The server has decided; called before any halves travel."""

        def on_given_up(self, batch: Batch, failure: Failed) -> None:
            """Nobody waits for this batch any more: keep it."""

        def on_late(self, batch: Batch, result: Result) -> None:
            """An attempt has come back for a batch that had been given up."""


PARALLEL = 4
"""Batches of one flush that travel at once."""
HEDGE_AFTER = 0.25
"""Part of the budget after which a silent kept connection is doubted."""
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 1.0
LONGEST_PAUSE_S = 3_600.0
"""A budget may have more seconds than a lock can wait for."""


class Flight:
    """The batches of one flush on their way.

    Batches may be added while others travel. Two threads may carry the same batch, when a silent
    connection is doubted: the first answer counts.

    Args:
        sender: Makes the attempts.
        breaker: Says whether sending is worth a try, and is told how it went.
        workers: The threads.
        owner: Is told what becomes of each batch.
        release: Called with the number of events that are settled or kept, on whatever thread.
        give_up_after_s: Seconds of failures after which a batch is given up while nobody waits.
        clock: Monotonic seconds.
        uniform: A random number from 0.0 up to 1.0.
    """

    def __init__(
        self,
        sender: Sender,
        breaker: CircuitBreaker,
        workers: Workers,
        owner: Owner,
        *,
        release: Callable[[int], None],
        give_up_after_s: float,
        clock: Clock = time.monotonic,
        uniform: Callable[[], float] = uniform,
    ) -> None:
        self._sender = sender
        self._breaker = breaker
        self._workers = workers
        self._owner = owner
        self._release = release
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._uniform = uniform
        self._changed = threading.Condition()
        self._pending: dict[str, Batch] = {}
        self._queue: deque[Batch] = deque()
        self._runners = 0
        self._on_reused_connection: dict[str, float] = {}
        self._last: dict[str, Failed] = {}
        self._wake: Callable[[], object] | None = None
        self._errors: list[DoowError] = []
        self._given_up: dict[tuple[ErrorKind, str, float | None], list[str]] = {}
        self._outcome = Outcome()
        self._is_closed = False
        self._leaving: set[str] = set()
        """Batches that are just being given to the owner to keep."""

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        return f"Flight({state}, {len(self._pending)} pending, {self._runners} threads)"

    def refused(self, events: int) -> None:
        """Account for events that were never recorded, for want of room."""
        if events:
            self._outcome.add_unsent(ErrorKind.DROPPED_EVENTS, events)
            why = "max_queue_size events were waiting already"
            self._errors.append(
                DoowError(f"{counted(events)} dropped: {why}", ErrorKind.DROPPED_EVENTS)
            )

    def add(self, batches: Iterable[Batch]) -> None:
        """Send ``batches``, or have them kept at once while sending is no use."""
        for batch in batches:
            with self._changed:
                self._pending[batch.id] = batch
            why = ErrorKind.TIMEOUT if self._is_closed else self._breaker.reason
            if why is not None:
                self._give_up([batch], Failed(why, f"holding off after: {self._breaker.message}"))
                continue
            with self._changed:
                self._queue.append(batch)
            self._start_runner()

    def waits(self, budget: Budget) -> Iterator[float]:
        """How many seconds to wait for a change, again and again, until the wait is over.

        On the way, what is silent on a kept connection goes out on a fresh one as well.
        """
        patience_s = budget.limit_s * HEDGE_AFTER
        began = self._clock()
        while self._pending and budget.remaining() and not self._breaker.is_open:
            pause = self._resend_silent(patience_s, began)
            yield min(pause, budget.remaining(), LONGEST_PAUSE_S)

    def wait(self, budget: Budget) -> None:
        """Block until everything is settled or given up, or ``budget`` is used up."""
        for pause in self.waits(budget):
            with self._changed:
                if self._pending:
                    self._changed.wait(pause)

    def on_change(self, wake: Callable[[], object]) -> None:
        """Have ``wake`` called, from any thread, once there is nothing to wait for."""
        with self._changed:
            self._wake = wake
        self._notify()

    def close(self, budget: Budget, outcome: Outcome) -> list[DoowError]:
        """Give up what is not settled, and add to ``outcome`` what became of each event.

        Returns:
            What must be reported.
        """
        silent = Failed(ErrorKind.TIMEOUT, "no answer came within the budget")
        worst: Failed | None = None
        while left := self._left_at_close():
            for batch in left:
                failure = self._last.get(batch.id, silent)
                worst = worst or failure
                self._give_up([batch], failure)
        if worst is not None and budget.limit_s:
            self._breaker.failed(worst.reason, worst.message)
        outcome.add(self._outcome)
        unsent = (
            DoowError(f"{counted(len(ids))} not delivered: {why}", reason, ids, hold_s or None)
            for (reason, why, hold_s), ids in self._given_up.items()
        )
        return [*self._errors, *unsent]

    def _left_at_close(self) -> list[Batch]:
        """What is pending. Asked until there is none, since a batch may just have become halves."""
        with self._changed:
            self._is_closed = True
            return list(self._pending.values())

    def _start_runner(self) -> None:
        with self._changed:
            if self._runners >= PARALLEL or not self._queue:
                return
            self._runners += 1
        if self._workers.submit(self._run):
            return
        with self._changed:
            self._runners -= 1
            others = self._runners
        if not others:
            self._halt(Failed(ErrorKind.TIMEOUT, "the system starts no more threads", 0.0))

    def _run(self) -> None:
        """Carry queued batches until none is left; runs on a worker."""
        while True:
            with self._changed:
                if not self._queue:
                    self._runners -= 1
                    return
                batch = self._queue.popleft()
            self._carry(batch)

    def _carry(self, batch: Batch, fresh: bool = False) -> None:
        """Try until ``batch`` is settled, or nobody wants it any more; runs on a worker."""
        began = self._clock()
        backoff_s = FIRST_BACKOFF_S
        while self._begin(batch, is_reused=not fresh and self._sender.reuses_connection()):
            result = self._sender.send(batch, fresh=fresh)
            again = self._note(batch, result)
            self._sender.under_way.pop(batch.id, None)
            if not again or not isinstance(result, Failed):
                return
            if result.hold_s is not None or self._clock() - began > self._give_up_after_s:
                self._halt(result)
                return
            with self._changed:
                self._changed.wait_for(
                    lambda: batch.id not in self._pending, self._uniform() * backoff_s
                )
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    def _begin(self, batch: Batch, is_reused: bool) -> bool:
        """Whether ``batch`` is still wanted; if so, count the attempt that follows."""
        with self._changed:
            if batch.id not in self._pending:
                return False
            self._outcome.requests += 1
            self._sender.under_way[batch.id] = self._clock()
            if is_reused:
                self._on_reused_connection[batch.id] = self._clock()
            return True

    def _note(self, batch: Batch, result: Result) -> bool:
        """Take in what an attempt brought; whether the batch must be sent again."""
        if not isinstance(result, Failed):
            self._owner.on_decided(batch, result)
        with self._changed:
            self._on_reused_connection.pop(batch.id, None)
            is_wanted = batch.id in self._pending
            if is_wanted:
                self._count(batch, result)
        if not is_wanted:
            self._note_late(batch, result)
            return False
        if isinstance(result, Settled):
            self._release(len(batch))
            self._breaker.close()
            self._notify()
        elif isinstance(result, Split):
            self._start_runner()
        return isinstance(result, Failed)

    def _count(self, batch: Batch, result: Result) -> None:
        """Enter a result for a batch that is wanted into the outcome; with the lock held."""
        if isinstance(result, Failed):
            self._last[batch.id] = result
            return
        del self._pending[batch.id]
        if isinstance(result, Settled):
            self._outcome.accepted += result.accepted
            self._outcome.rejected += result.rejected
            self._errors += result.errors()
        else:
            for half in result.halves:
                self._pending[half.id] = half
                self._queue.append(half)

    def _note_late(self, batch: Batch, result: Result) -> None:
        """Pass on the answer for a batch that is not pending any more."""
        with self._changed:
            # Another thread may just be giving it to the owner to keep; before that is done, the
            # owner would find nothing to remove.
            self._changed.wait_for(lambda: batch.id not in self._leaving)
        self._owner.on_late(batch, result)

    def _halt(self, failure: Failed) -> None:
        """Give everything up, since sending is of no use now."""
        self._breaker.open(failure.reason, failure.message, failure.hold_s)
        with self._changed:
            left = list(self._pending.values())
        self._give_up(left, failure)
        self._notify()

    def _give_up(self, batches: list[Batch], failure: Failed) -> None:
        for batch in batches:
            with self._changed:
                if self._pending.pop(batch.id, None) is None:
                    continue  # An answer came in the meantime.
                self._outcome.add_unsent(failure.reason, len(batch))
                why = (failure.reason, failure.message, failure.hold_s)
                self._given_up.setdefault(why, []).extend(batch.event_ids)
                self._leaving.add(batch.id)
            try:
                self._owner.on_given_up(batch, failure)
            finally:
                with self._changed:
                    self._leaving.discard(batch.id)
                    self._changed.notify_all()
            self._release(len(batch))

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
            wake = None if self._pending else self._wake
        if wake is not None:
            wake()

    def _resend_silent(self, patience_s: float, began: float) -> float:
        """Send again what has been silent for ``patience_s``; seconds until the next look.

        Silence counts from the attempt's own beginning, since a batch that waited for its turn has
        done nothing doubtful, and from the wait's: what came before it may be the handler's doing.
        """
        now = self._clock()
        next_look = now + patience_s
        silent: list[Batch] = []
        with self._changed:
            for batch_id, sent_at in list(self._on_reused_connection.items()):
                doubt_at = max(sent_at, began) + patience_s
                if doubt_at > now:
                    next_look = min(next_look, doubt_at)
                elif batch_id in self._pending:
                    del self._on_reused_connection[batch_id]
                    silent.append(self._pending[batch_id])
            self._runners += len(silent)
        for batch in silent:
            if not self._workers.submit(partial(self._stand_in, batch)):
                with self._changed:
                    self._runners -= 1
        return next_look - now

    def _stand_in(self, batch: Batch) -> None:
        """Do as the runner would that is stuck with ``batch``; runs on a worker."""
        self._carry(batch, fresh=True)
        self._run()
