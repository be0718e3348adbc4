"""Batches go out and something becomes of each: attempts, the duty after each answer, retries.

A `Courier` makes one attempt. A `Shipment` is the batches of one flush on their way: threads send
them, and the caller waits no longer than its budget, whatever the network does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial

from doow_serverless._outcome import Outcome
from doow_serverless._process.log import counted
from doow_serverless._sealing import split
from doow_serverless.errors import DoowError, ErrorKind

from .answers import TransportFault, Verdict, describe, judge, kind_of, rejections, wait_asked
from .breaker import KEY_REFUSED_HOLD_S, uniform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from doow_serverless._process.clock import Budget, Clock
    from doow_serverless._process.workers import Workers
    from doow_serverless._sealing import Batch

    from .answers import Answer
    from .breaker import Gate
    from .credentials import Credentials

    class Transport(Protocol):
        """What a tracker sends with."""

        def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
            """Send ``batch``, on a new connection if ``fresh``; raises TransportFault."""

        def has_idle(self) -> bool:
            """Whether the next POST goes out on a kept connection, which may have died."""

        def reap(self) -> None:
            """Cut off POSTs that have long been given up."""

        def connect(self, api_key: str) -> None:
            """Open a connection."""


PARALLEL = 4
"""Batches of one flush that travel at once."""
HEDGE_AFTER = 0.25
"""Part of the budget after which a silent kept connection is doubted."""
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 1.0
LONGEST_PAUSE_S = 3_600.0
"""A budget may have more seconds than a lock can wait for."""


class Fate:
    """What became of a batch by one attempt.

    Attributes:
        is_settled: Whether the server has decided on every event, so that none is sent again.
        accepted: Events accepted.
        rejected: Pairs of event id and reason.
        halves: The two batches to send in its stead.
        reason: Why something was rejected, or the batch is still to be sent.
        message: The reason in words.
        hold_s: None if the batch may be sent again in a moment; else seconds for which nothing may
            be sent, 0.0 where the server did not say how many.
    """

    __slots__ = ("accepted", "halves", "hold_s", "is_settled", "message", "reason", "rejected")

    def __init__(self, reason: ErrorKind, message: str, hold_s: float | None = None) -> None:
        self.is_settled = False
        self.accepted = 0
        self.rejected: list[tuple[str, str]] = []
        self.halves: tuple[Batch, Batch] | None = None
        self.reason = reason
        self.message = message
        self.hold_s = hold_s

    @classmethod
    def settled(
        cls, batch: Batch, reason: ErrorKind, message: str, rejected: list[tuple[str, str]]
    ) -> Fate:
        """The server has decided: all of ``batch`` is accepted but what is ``rejected``."""
        fate = cls(reason, message)
        fate.is_settled = True
        fate.rejected = rejected
        fate.accepted = len(batch) - len(rejected)
        return fate

    @classmethod
    def too_large(cls, batch: Batch, reason: ErrorKind, message: str) -> Fate:
        """The server takes no body of this size."""
        if len(batch) == 1:
            return cls.settled(batch, reason, message, [(batch.event_ids[0], message)])
        fate = cls(reason, message)
        fate.halves = split(batch)
        return fate

    def errors(self) -> Iterator[DoowError]:
        """One error for each reason of rejection, with the events that it befell."""
        by_reason: dict[str, list[str]] = {}
        for event_id, why in self.rejected:
            by_reason.setdefault(why, []).append(event_id)
        for why, event_ids in by_reason.items():
            text = f"Doow rejected {counted(len(event_ids))}: {why}"
            yield DoowError(text, self.reason, event_ids)


class Courier:
    """Makes one attempt at a time to deliver a batch, and says what became of it.

    Args:
        transport: Makes the transport at the first attempt, or returns the one that is there.
        credentials: The key.
        wall_clock: Unix seconds, for the dates that servers send.
    """

    def __init__(
        self,
        transport: Callable[[], Transport],
        credentials: Credentials,
        wall_clock: Clock = time.time,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._wall_clock = wall_clock
        self.under_way: dict[str, float] = {}
        """When an attempt began, in seconds on the shipment's clock, by batch id."""

    def is_kept(self) -> bool:
        """Whether the next attempt goes out on a kept connection, which may have died."""
        try:
            return self._transport().has_idle()
        except Exception:
            return False  # Sending meets the same trouble, and says so.

    def send(self, batch: Batch, *, fresh: bool = False) -> Fate:
        """POST ``batch``, on a new connection if ``fresh``. Never raises an Exception."""
        try:
            return self._fate(batch, self._answer(batch, fresh))
        except TransportFault as fault:
            return Fate(fault.kind, str(fault))
        except DoowError as problem:
            return Fate(problem.kind, str(problem), hold_s=0.0)
        except Exception as problem:
            return Fate(ErrorKind.TRANSPORT_ERROR, f"could not send: {type(problem).__name__}")

    def _answer(self, batch: Batch, fresh: bool) -> Answer:
        key = self._credentials.current()
        answer = self._transport().post(batch, key, fresh=fresh)
        if judge(answer) is Verdict.KEY_REFUSED and self._credentials.replace(key):
            answer = self._transport().post(batch, self._credentials.current())
        return answer

    def _fate(self, batch: Batch, answer: Answer) -> Fate:
        verdict = judge(answer)
        kind, message = kind_of(answer), describe(answer)
        if verdict is Verdict.ACCEPTED:
            return Fate.settled(batch, kind, message, [])
        if verdict is Verdict.PARTIAL:
            rejected = rejections(answer, batch.event_ids)
            return Fate.settled(batch, ErrorKind.PARTIAL_ACCEPT, message, rejected)
        if verdict is Verdict.REJECTED:
            return Fate.settled(batch, kind, message, [(one, message) for one in batch.event_ids])
        if verdict is Verdict.SPLIT:
            return Fate.too_large(batch, kind, message)
        if verdict is Verdict.RETRY:
            return Fate(kind, message)
        if verdict is Verdict.KEY_REFUSED:
            return Fate(kind, message, KEY_REFUSED_HOLD_S)
        return Fate(kind, message, wait_asked(answer, self._wall_clock()))


class Shipment:
    """The batches of one flush on their way.

    Batches may be added while others travel. Two threads may carry the same batch, when a silent
    connection is doubted: the first answer counts.

    Args:
        courier: Makes the attempts.
        gate: Says whether sending is worth a try, and is told how it went.
        workers: The threads.
        keep: Called with each batch that is given up, and why.
        decided: Called with each batch that the server has decided on, before its halves travel.
        late: Called with each answer for a batch that had been given up.
        release: Called with the number of events that are settled or kept.
        give_up_after_s: Seconds of failures after which a batch is given up while nobody waits.
        clock: Monotonic seconds.
        uniform: A random number from 0.0 up to 1.0.
    """

    def __init__(
        self,
        courier: Courier,
        gate: Gate,
        workers: Workers,
        *,
        keep: Callable[[Batch, Fate], None],
        decided: Callable[[Batch, Fate], None],
        late: Callable[[Batch, Fate], None],
        release: Callable[[int], None],
        give_up_after_s: float,
        clock: Clock = time.monotonic,
        uniform: Callable[[], float] = uniform,
    ) -> None:
        self._courier = courier
        self._gate = gate
        self._workers = workers
        self._keep = keep
        self._decided = decided
        self._late = late
        self._release = release
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._uniform = uniform
        self._changed = threading.Condition()
        self._pending: dict[str, Batch] = {}
        self._queue: deque[Batch] = deque()
        self._runners = 0
        self._on_kept_connection: dict[str, float] = {}
        self._last: dict[str, Fate] = {}
        self._wake: Callable[[], object] | None = None
        self._errors: list[DoowError] = []
        self._given_up: dict[tuple[ErrorKind, str, float | None], list[str]] = {}
        self._outcome = Outcome()
        self._is_closed = False
        self._leaving: set[str] = set()

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
            shut = ErrorKind.TIMEOUT if self._is_closed else self._gate.reason
            if shut is not None:
                self._give_up([batch], Fate(shut, f"holding off after: {self._gate.message}"))
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
        while self._pending and budget.remaining() and not self._gate.is_shut:
            pause = self._doubt_kept_connections(patience_s, began)
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
        silent = Fate(ErrorKind.TIMEOUT, "no answer came within the budget")
        worst: Fate | None = None
        while left := self._close():
            for batch in left:
                fate = self._last.get(batch.id, silent)
                worst = worst or fate
                self._give_up([batch], fate)
        if worst is not None and budget.limit_s:
            self._gate.failed(worst.reason, worst.message)
        outcome.add(self._outcome)
        unsent = (
            DoowError(f"{counted(len(ids))} not delivered: {why}", reason, ids, hold_s or None)
            for (reason, why, hold_s), ids in self._given_up.items()
        )
        return [*self._errors, *unsent]

    def _close(self) -> list[Batch]:
        """What is pending: again and again, since a batch may just have become its halves."""
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
            self._halt(Fate(ErrorKind.TIMEOUT, "the system starts no more threads", 0.0))

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
        """Try until ``batch`` is settled, or nobody wants it any more."""
        began = self._clock()
        backoff_s = FIRST_BACKOFF_S
        while self._begin(batch, on_kept=not fresh and self._courier.is_kept()):
            fate = self._courier.send(batch, fresh=fresh)
            again = self._note(batch, fate)
            self._courier.under_way.pop(batch.id, None)
            if not again:
                return
            if fate.hold_s is not None or self._clock() - began > self._give_up_after_s:
                self._halt(fate)
                return
            with self._changed:
                self._changed.wait_for(
                    lambda: batch.id not in self._pending, self._uniform() * backoff_s
                )
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    def _begin(self, batch: Batch, on_kept: bool) -> bool:
        """Whether ``batch`` is still wanted; if so, count the attempt that follows."""
        with self._changed:
            if batch.id not in self._pending:
                return False
            self._outcome.requests += 1
            self._courier.under_way[batch.id] = self._clock()
            if on_kept:
                self._on_kept_connection[batch.id] = self._clock()
            return True

    def _note(self, batch: Batch, fate: Fate) -> bool:
        """Take in what an attempt brought; whether the batch must be sent again."""
        decided = fate.is_settled or fate.halves is not None
        if decided:
            self._decided(batch, fate)
        with self._changed:
            self._on_kept_connection.pop(batch.id, None)
            wanted = batch.id in self._pending
            if wanted and decided:
                del self._pending[batch.id]
                self._outcome.accepted += fate.accepted
                self._outcome.rejected += fate.rejected
                self._errors += fate.errors()
                for half in fate.halves or ():
                    self._pending[half.id] = half
                    self._queue.append(half)
            elif wanted:
                self._last[batch.id] = fate
        if not wanted:
            with self._changed:
                # What is just being kept must be there before it can be settled.
                self._changed.wait_for(lambda: batch.id not in self._leaving)
            self._late(batch, fate)
        elif fate.is_settled:
            self._release(len(batch))
            self._gate.opened()
            self._notify()
        elif decided:
            self._start_runner()
        return wanted and not decided

    def _halt(self, fate: Fate) -> None:
        """Give everything up, since sending is of no use now."""
        self._gate.shut(fate.reason, fate.message, fate.hold_s)
        with self._changed:
            left = list(self._pending.values())
        self._give_up(left, fate)
        self._notify()

    def _give_up(self, batches: list[Batch], fate: Fate) -> None:
        for batch in batches:
            with self._changed:
                if self._pending.pop(batch.id, None) is None:
                    continue  # An answer came in the meantime.
                self._outcome.add_unsent(fate.reason, len(batch))
                why = (fate.reason, fate.message, fate.hold_s)
                self._given_up.setdefault(why, []).extend(batch.event_ids)
                self._leaving.add(batch.id)
            try:
                self._keep(batch, fate)
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

    def _doubt_kept_connections(self, patience_s: float, began: float) -> float:
        """Send again what has been silent for ``patience_s``; seconds until the next look.

        Silence counts from the attempt's own beginning, since a batch that waited for its turn has
        done nothing doubtful, and from the wait's: what came before it may be the handler's doing.
        """
        now = self._clock()
        next_look = now + patience_s
        silent: list[Batch] = []
        with self._changed:
            for batch_id, sent_at in list(self._on_kept_connection.items()):
                doubt_at = max(sent_at, began) + patience_s
                if doubt_at > now:
                    next_look = min(next_look, doubt_at)
                elif batch_id in self._pending:
                    del self._on_kept_connection[batch_id]
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
