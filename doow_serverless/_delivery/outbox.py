"""Owns every sealed batch that the server has not decided on.

It gives batches to flights, keeps, logs and resends what failed, and tells the journal what is
settled.
"""

from __future__ import annotations

import threading
import time

from doow_serverless._config import NO_KEY
from doow_serverless._keeping.backlog import Backlog
from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless._process.log import call_hook, counted, report_fault, warn
from doow_serverless._process.workers import Workers
from doow_serverless.errors import DoowError, ErrorKind

from .attempt import Failed, Sender, Settled, Split
from .breaker import FIRST_HOLD_S, CircuitBreaker
from .flight import Flight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._config import Config
    from doow_serverless._keeping.journal import Journal
    from doow_serverless._process.clock import Budget, Clock
    from doow_serverless._sealing import Batch

    from .attempt import Result, Transport
    from .credentials import Credentials

FORK_WAIT_S = 5.0
"""Seconds for which a fork waits for imports by other threads, whose locks stay shut in a child."""


class Outbox:
    """Sends batches, and stands for those that the server has not decided on yet.

    Every method may be called from any thread, and none raises an Exception.

    Args:
        config: Where to send, and within which bounds.
        credentials: The key to send with.
        journal: Is told what is settled, where there is one.
        transport: Sends instead of HTTP.
        clock: Monotonic seconds.

    Attributes:
        backlog: What was not delivered.
        breaker: Whether sending is worth a wait.
        workers: The threads.
    """

    def __init__(
        self,
        config: Config,
        credentials: Credentials,
        journal: Journal | None,
        transport: Transport | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._journal = journal
        self._given_transport = transport
        self._clock = clock
        self.reset_after_fork()

    def __repr__(self) -> str:
        return f"Outbox({self.backlog!r}, {self.breaker!r}, {self.workers!r})"

    def reset_after_fork(self) -> None:
        """Everything that belongs to this process alone: threads, connections, and their locks."""
        config = self._config
        self._loading = threading.Lock()
        self._held: list[threading.Lock] = []
        self._transport = self._given_transport
        self._dead_letters = DeadLetters(config.dead_letter)
        self.backlog = Backlog(
            config.max_queue_size, config.max_backlog_bytes, self._dead_letters.write
        )
        self.workers = Workers()
        self.breaker = CircuitBreaker(self._clock)
        if not config.has_key:
            self.breaker.open(ErrorKind.AUTH_FAILURE, NO_KEY, float("inf"))
        self._credentials.reset_after_fork()
        self._sender = Sender(self.loaded_transport, self._credentials)

    def new_flight(self, release: Callable[[int], None]) -> Flight:
        """A flight whose ``release`` is called with the number of events that are off its hands."""
        return Flight(
            self._sender,
            self.breaker,
            self.workers,
            self,
            release=release,
            give_up_after_s=self._config.timeout_s,
            clock=self._clock,
        )

    def report(self, error: DoowError) -> None:
        """Tell the user of ``error``."""
        if self._config.on_error is not None:
            call_hook("on_error", self._config.on_error, error)
        else:
            warn(f"{error.kind}: {error}")

    # ── what was not delivered ─────────────────────────────────────────────────────────────────

    def redeliver(self) -> None:
        """Have another thread send the backlog, if there is one and it is worth a try."""
        transport = self._transport
        if transport is not None:
            transport.reap()
        if (
            len(self.backlog)
            and self.breaker.begin_probe()
            and not self.workers.submit(self._drain)
        ):
            self.breaker.end_probe()
            self.breaker.failed(ErrorKind.TIMEOUT, "the system starts no more threads")

    def redeliver_last(self, budget: Budget) -> None:
        """One more attempt for what is kept, however lately the last one failed."""
        if not self._config.has_key:
            return
        self.breaker.close()
        self.redeliver()
        while len(self.backlog) and budget.remaining() and not self.breaker.is_open:
            time.sleep(min(0.005, budget.remaining()))

    def recover(self) -> Batch | None:
        """Take over what crashed processes have left; the first of it."""
        if self._journal is None:
            return None
        found = self._journal.recover(
            max_bytes=self._config.max_payload_bytes, compress=self._config.compress
        )
        for batch in found:
            self._put(batch, None)
        return found[0] if found else None

    def take_over(self, other: Outbox) -> None:
        """Take over what ``other`` has not delivered, and will not, now that it is replaced."""
        self._dead_letters.take_over(other._dead_letters)
        backlog, other.backlog = other.backlog, self.backlog
        for batch in backlog.drain():
            if self._journal is not None:
                self._journal.note_sealed(batch)
            self._put(batch, None)
            if other._journal is not None:
                other._journal.note_settled(batch.id)

    def _drain(self) -> None:
        """Send the backlog, oldest first, until it is empty or an attempt fails."""
        try:
            while batch := self.backlog.oldest(self._is_under_way) or self.recover():
                # After a failure the kept connections are not to be trusted.
                result = self._sender.send(batch, fresh=self.breaker.is_open)
                if isinstance(result, Failed):
                    self.breaker.open(result.reason, result.message, result.hold_s)
                    return
                self.on_decided(batch, result)
                self._settle_kept(batch, result)
        except Exception as fault:
            report_fault("redelivering", fault)
        finally:
            self.breaker.end_probe()

    def _is_under_way(self, batch_id: str) -> bool:
        """Whether a POST that nobody waits for has only just begun: its answer may yet come."""
        began_at = self._sender.under_way.get(batch_id)
        return began_at is not None and self._clock() - began_at < FIRST_HOLD_S

    def on_late(self, batch: Batch, result: Result) -> None:
        """An answer came for a batch that had been given up."""
        if not isinstance(result, Failed):
            self._settle_kept(batch, result)
            self.redeliver()

    def on_decided(self, batch: Batch, result: Settled | Split) -> None:
        """Have the journal know what the server has decided."""
        if self._journal is None:
            return
        if isinstance(result, Split):
            self._journal.note_split(batch, result.halves)
        else:
            self._journal.note_settled(batch.id)

    def on_given_up(self, batch: Batch, failure: Failed) -> None:
        """Keep a batch that nobody waits for any more."""
        self._put(batch, failure.reason)

    def _settle_kept(self, batch: Batch, result: Settled | Split) -> None:
        self.breaker.close()
        if isinstance(result, Split):
            self.backlog.replace(batch, result.halves)
        elif self.backlog.remove(batch.id):
            for error in result.errors():
                self.report(error)

    def _put(self, batch: Batch, reason: ErrorKind | None) -> None:
        pushed_out = self.backlog.put(batch, reason)
        if pushed_out:
            for dropped in pushed_out:
                # What came from a journal, or of a split, may not stand in the log so far.
                self._dead_letters.write(dropped, ErrorKind.DROPPED_EVENTS)
                if self._journal is not None:
                    self._journal.note_settled(dropped.id)
            ids = [event_id for batch in pushed_out for event_id in batch.event_ids]
            text = f"the backlog is full: {counted(len(ids))} dropped, the oldest"
            self.report(DoowError(text, ErrorKind.DROPPED_EVENTS, ids))

    # ── the connection, and forks ──────────────────────────────────────────────────────────────

    def loaded_transport(self) -> Transport:
        """The transport; its first use imports requests, which is why it waits until here."""
        with self._loading:
            if self._transport is None:
                from .transport import HttpTransport

                self._transport = HttpTransport(
                    self._config.endpoint,
                    timeout_s=self._config.timeout_s,
                    ca_bundle=self._config.ca_bundle,
                )
            return self._transport

    def before_fork(self) -> None:
        """Let other threads finish what they import, and keep them from it during the fork."""
        ends_at = time.monotonic() + FORK_WAIT_S
        self._held = [
            lock
            for lock in (self._loading, self._credentials.lock)
            if lock.acquire(timeout=max(0.0, ends_at - time.monotonic()))
        ]

    def after_fork_in_parent(self) -> None:
        """Release what :meth:`before_fork` took."""
        while self._held:
            self._held.pop().release()
