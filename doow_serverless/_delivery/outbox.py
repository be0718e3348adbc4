"""The way of sealed batches: on a shipment, or else kept, written down, and sent again."""

from __future__ import annotations

import threading
import time

from doow_serverless._keeping.backlog import Backlog
from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless._process.log import call_hook, counted, report_fault, warn
from doow_serverless._process.workers import Workers
from doow_serverless.errors import DoowError, ErrorKind

from .breaker import FIRST_HOLD_S, Gate
from .flight import Courier, Shipment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._config import Config
    from doow_serverless._keeping.journal import Journal
    from doow_serverless._process.clock import Budget, Clock
    from doow_serverless._sealing import Batch

    from .flight import Fate, Transport

FORK_WAIT_S = 5.0
"""Seconds for which a fork waits for imports by other threads, whose locks stay shut in a child."""


class Dispatch:
    """Sends batches, and stands for those that the server has not decided on yet.

    Args:
        config: Where to send, with which key, within which bounds.
        journal: Is told what is settled, where there is one.
        transport: Sends instead of HTTP.
        clock: Monotonic seconds.

    Attributes:
        backlog: What was not delivered.
        workers: The threads.
    """

    def __init__(
        self, config: Config, journal: Journal | None, transport: Transport | None, clock: Clock
    ) -> None:
        self._config = config
        self._journal = journal
        self._given_transport = transport
        self._clock = clock
        self.begin_anew()

    def begin_anew(self) -> None:
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
        self.gate = Gate(self._clock)
        if config.credentials.are_missing:
            self.gate.shut(ErrorKind.AUTH_FAILURE, "there is no API key", float("inf"))
        config.credentials.begin_anew()
        self._courier = Courier(self.loaded_transport, config.credentials)

    def shipment(self, release: Callable[[int], None]) -> Shipment:
        """A new one; ``release`` is called with the number of events that are off its hands."""
        return Shipment(
            self._courier,
            self.gate,
            self.workers,
            keep=self._keep,
            decided=self._note_decided,
            late=self._note_late,
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
        if len(self.backlog) and self.gate.begin_probe() and not self.workers.submit(self._drain):
            self.gate.end_probe()
            self.gate.failed(ErrorKind.TIMEOUT, "the system starts no more threads")

    def redeliver_last(self, budget: Budget) -> None:
        """One more attempt for what is kept, however lately the last one failed."""
        if self._config.credentials.are_missing:
            return
        self.gate.opened()
        self.redeliver()
        while len(self.backlog) and budget.remaining() and not self.gate.is_shut:
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

    def succeed(self, other: Dispatch) -> None:
        """Take over what ``other`` has not delivered, and will not, now that it is replaced."""
        self._dead_letters.succeed(other._dead_letters)
        backlog, other.backlog = other.backlog, self.backlog
        for batch in backlog.drain():
            if self._journal is not None:
                self._journal.sealed(batch)
            self._put(batch, None)
            if other._journal is not None:
                other._journal.settled(batch.id)

    def _drain(self) -> None:
        """Send the backlog, oldest first, until it is empty or an attempt fails."""
        try:
            while batch := self.backlog.oldest(self._is_under_way) or self.recover():
                # After a failure the kept connections are not to be trusted.
                fate = self._courier.send(batch, fresh=self.gate.is_shut)
                if not fate.is_settled and fate.halves is None:
                    self.gate.shut(fate.reason, fate.message, fate.hold_s)
                    return
                self._note_decided(batch, fate)
                self._settle_kept(batch, fate)
        except Exception as fault:
            report_fault("redelivering", fault)
        finally:
            self.gate.end_probe()

    def _is_under_way(self, batch_id: str) -> bool:
        """Whether a POST that nobody waits for has only just begun: its answer may yet come."""
        began_at = self._courier.under_way.get(batch_id)
        return began_at is not None and self._clock() - began_at < FIRST_HOLD_S

    def _note_late(self, batch: Batch, fate: Fate) -> None:
        """An answer came for a batch that had been given up."""
        if fate.is_settled or fate.halves is not None:
            self._settle_kept(batch, fate)
            self.redeliver()

    def _note_decided(self, batch: Batch, fate: Fate) -> None:
        if self._journal is None:
            return
        if fate.halves is not None:
            self._journal.split(batch, fate.halves)
        else:
            self._journal.settled(batch.id)

    def _settle_kept(self, batch: Batch, fate: Fate) -> None:
        self.gate.opened()
        if fate.halves is not None:
            self.backlog.replace(batch, fate.halves)
        elif self.backlog.remove(batch.id):
            for error in fate.errors():
                self.report(error)

    def _keep(self, batch: Batch, fate: Fate) -> None:
        self._put(batch, fate.reason)

    def _put(self, batch: Batch, reason: ErrorKind | None) -> None:
        pushed_out = self.backlog.put(batch, reason)
        if pushed_out:
            for dropped in pushed_out:
                # What came from a journal, or of a split, may not stand in the log so far.
                self._dead_letters.write(dropped, ErrorKind.DROPPED_EVENTS)
                if self._journal is not None:
                    self._journal.settled(dropped.id)
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
            for lock in (self._loading, self._config.credentials.lock)
            if lock.acquire(timeout=max(0.0, ends_at - time.monotonic()))
        ]

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._held:
            self._held.pop().release()
