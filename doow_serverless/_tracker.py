"""The tracker: ties buffers, batches, delivery and backlog together, for one key and endpoint."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from weakref import WeakSet

from ._backlog import Backlog
from ._budget import Budget
from ._config import Config
from ._deadletter import DeadLetters
from ._delivery import Courier, Shipment
from ._event import Defaults
from ._faults import call_hook, counted, debug, report_fault, warn
from ._gate import FIRST_HOLD_S, Gate
from ._guard import guard
from ._ids import derived_id
from ._invocation import Buffer, current
from ._outcome import Outcome
from ._recorder import Recorder
from ._shutdown import install
from ._wire import seal
from ._workers import Workers
from .errors import ConfigurationError, DoowError, ErrorKind, InvalidEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from ._budget import Clock
    from ._delivery import Fate, Transport
    from ._event import Event
    from ._ids import Identity
    from ._invocation import Scope
    from ._journal import Journal
    from ._wire import Batch

    T = TypeVar("T")

GUARD_LEAD_S = 0.25
"""Seconds before the platform's deadline at which what was recorded so far is delivered."""
LAST_WORDS_S = 0.08
"""Seconds of these that are left for writing down what could not be delivered."""
FORK_WAIT_S = 5.0
"""Seconds for which a fork waits for imports by other threads, whose locks stay shut in a child."""

_trackers: WeakSet[Tracker] = WeakSet()
_forks_are_guarded = False


class Tracker(Recorder):
    """Records events, and delivers them when their invocation ends.

    The functions of the package use a tracker made from the environment at first use, or by
    :func:`doow_serverless.configure`. Make one of your own to send with another key or elsewhere.

    Args:
        api_key: An SDK key of Doow; one that the environment gives wins.
        transport: Sends instead of HTTP.
        clock: Monotonic seconds, by which budgets and hold-offs are measured.
        **options: As of :func:`doow_serverless.configure`.

    Raises:
        ConfigurationError: An option is wrong.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock = time.monotonic,
        **options: Any,
    ) -> None:
        try:
            config = Config(api_key, **options)
        except TypeError as unknown:
            # Python's own words name the option: "got an unexpected keyword argument 'endpont'".
            text = str(unknown).replace("Config.__init__()", "configure()")
            raise ConfigurationError(text) from None
        self.config = config
        self.defaults = Defaults(config.license_id, config.attribution, config.removed)
        self._journal = _journal_of(config) if config.enabled else None
        self.strays = Buffer(config.max_queue_size, journal=self._journal)
        self._orphans: deque[list[Event]] = deque()
        self._clock = clock
        self._given_transport = transport
        self._warned: set[str] = set()
        self._begin_anew()
        _trackers.add(self)
        if config.enabled:
            install(_last_flush)
            _guard_forks()
            for line in config.problems:
                warn(line)
            self.report_removed(config.removed)
            if config.journal or (config.warm_up and not config.credentials.are_missing):
                self._start_warm_up()

    def __repr__(self) -> str:
        return (
            f"Tracker(endpoint={self.config.endpoint!r}, license_id={self.config.license_id!r}, "
            f"enabled={self.config.enabled})"
        )

    def _begin_anew(self) -> None:
        """Everything that belongs to this process alone: threads, connections, and their locks."""
        self._loading = threading.Lock()
        self._held: list[threading.Lock] = []
        self._warm_up: threading.Thread | None = None
        self._transport = self._given_transport
        self._dead_letters = DeadLetters(self.config.dead_letter)
        self.backlog = Backlog(
            self.config.max_queue_size, self.config.max_backlog_bytes, self._dead_letters.write
        )
        self._workers = Workers()
        self._gate = Gate(self._clock)
        if self.config.credentials.are_missing:
            self._gate.shut(ErrorKind.AUTH_FAILURE, "there is no API key", float("inf"))
        self.config.credentials.begin_anew()
        self._courier = Courier(self._loaded_transport, self.config.credentials)
        self._live: WeakSet[Buffer] = WeakSet()

    def _where(self) -> tuple[Tracker, Scope | None]:
        scope = current.get()
        return self, None if scope is None else scope.of(self)

    # ── what scopes and recorders ask for ──────────────────────────────────────────────────────

    def new_buffer(self, identity: Identity | None = None) -> Buffer:
        """A buffer for an invocation that begins; ``identity`` makes its ids derive from it."""
        buffer = Buffer(
            self.config.max_queue_size,
            identity=identity,
            journal=self._journal,
            orphans=self._orphans,
        )
        self._live.add(buffer)
        return buffer

    def send_early(self, buffer: Buffer) -> None:
        """Have full batches of ``buffer`` leave in the background."""
        events = buffer.take(at_least=self.config.flush_at)
        if events:
            with buffer.shipping:
                self._shipment_of(buffer).add(self._sealed(events, buffer))

    def conclude(self, transaction: Buffer, *, discard: bool) -> None:
        """End a transaction: its events are forgotten, or go to the buffer around it."""
        events = transaction.take_last()
        root = transaction.root
        own = transaction.is_own_work and transaction.parent is root and not root.is_closed
        if events and not discard and own:
            # Doow knows a batch again, not an event: so what may be done again apart from the rest
            # travels apart from it, as soon as it is done.
            with root.shipping:
                self._shipment_of(root).add(self._sealed(events, root))
            return
        transaction.count(-len(events))
        if discard or not events:
            return
        buffer = transaction.parent
        while buffer is not None and not buffer.adopt(events):
            buffer = buffer.parent
        if buffer is None:
            buffer = self.strays
            buffer.adopt(events)
        if buffer.parent is None:
            self.send_early(buffer)

    def refuse(self, problem: InvalidEvent, event_id: object) -> None:
        """Report an event that breaks a rule, or raise in strict mode."""
        if isinstance(event_id, str):
            problem.event_ids = (event_id,)
        if self.config.strict:
            raise problem
        self._report(problem)

    def report_removed(self, removed: list[str]) -> None:
        """Warn of what looked like a credential, once for each name."""
        while removed:
            name = removed.pop()
            if name not in self._warned and len(self._warned) < 1_000:
                self._warned.add(name)
                warn(f"{name} looked like a credential and was removed; the event goes on without")

    # ── flushing ───────────────────────────────────────────────────────────────────────────────

    def deliver(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """Send what ``buffer`` and the stray events hold; wait ``limit_s`` seconds at most.

        Args:
            buffer: The outermost buffer of an invocation, or the tracker's own.
            limit_s: Seconds of wall time.
            last: Whether the invocation is over, so that the buffer takes no more.

        Never raises an Exception.
        """
        budget = Budget(limit_s, self._clock)
        try:
            shipments = self._ship(buffer, last)
            try:
                for shipment in shipments:
                    shipment.wait(budget)
            finally:
                # Also where a signal ends the wait: what is not delivered must be kept.
                outcome = self._concluded(shipments, budget)
            return outcome
        except Exception as fault:
            report_fault("flushing", fault)
            return Outcome()

    async def adeliver(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """As :meth:`deliver`, without blocking the event loop."""
        budget = Budget(limit_s, self._clock)
        cancelled = None
        try:
            shipments = self._ship(buffer, last)
            try:
                for shipment in shipments:
                    from ._async import wait_for_shipment  # It imports asyncio, as async code has.

                    cancelled = await wait_for_shipment(shipment, budget) or cancelled
            finally:
                outcome = self._concluded(shipments, budget)
        except Exception as fault:
            report_fault("flushing", fault)
            return Outcome()
        if cancelled is not None:
            raise cancelled
        return outcome

    def watch(self, buffer: Buffer, remaining_s: Callable[[], float]) -> int | None:
        """Have what ``buffer`` holds delivered shortly before the platform kills the function."""
        try:
            lead_s = remaining_s() - GUARD_LEAD_S
        except Exception as fault:
            report_fault("asking for the deadline", fault)
            return None
        if not lead_s > 0:  # Nor where it is not a number.
            return None
        rescue = partial(self.deliver_meanwhile, buffer, lambda: remaining_s() - LAST_WORDS_S)
        return guard.watch(time.monotonic() + lead_s, rescue)

    def deliver_meanwhile(self, buffer: Buffer, limit_s: Callable[[], float]) -> None:
        """Have another thread deliver what was recorded so far, while the handler still runs."""
        job = partial(self._deliver_meanwhile, buffer, limit_s)
        if not self._workers.submit(job):
            job()  # Where there are no more threads nothing is sent either, but written down.

    def _deliver_meanwhile(self, buffer: Buffer, limit_s: Callable[[], float]) -> None:
        try:
            budget = Budget(limit_s(), self._clock)
            # Stray events as well, since the process may be about to be killed.
            self._load(buffer, last=False)
            shipment = buffer.shipment
            for one in (shipment, self.strays.shipment):
                if one is not None:
                    one.wait(budget)
            # Unless the handler has returned after all: then its own flush accounts for them.
            if buffer.shipment is shipment:
                self._concluded(self._detached(buffer), budget)
        except Exception as fault:
            report_fault("flushing meanwhile", fault)

    def _ship(self, buffer: Buffer, last: bool) -> list[Shipment]:
        """Put everything on its way that this flush has to account for."""
        self._load(buffer, last)
        return self._detached(buffer)

    def _load(self, buffer: Buffer, last: bool) -> None:
        """Put what ``buffer`` and the stray events hold into the shipment of ``buffer``."""
        events = buffer.take_last() if last else buffer.take()
        refused = buffer.take_refused()
        strays: list[Event] = []
        if buffer is not self.strays:
            strays = self.strays.take()
            self.strays.count(-len(strays))
            refused += self.strays.take_refused()
        if self._orphans:
            strays += self._orphaned()
        if strays:
            buffer.count(len(strays))
        if not events and not strays and not refused:
            return
        with buffer.shipping:
            shipment = self._shipment_of(buffer)
            shipment.refused(refused)
            if buffer.is_idempotent:
                # Stray events would change a batch that a retry is to seal alike.
                shipment.add(self._sealed(strays, self.strays))
            else:
                events += strays
            shipment.add(self._sealed(events, buffer))

    def _orphaned(self) -> list[Event]:
        """What buffers held that were dropped without an end."""
        events: list[Event] = []
        with suppress(IndexError):  # There are no more, or another thread has them.
            while True:
                events += self._orphans.popleft()
        return events

    def _detached(self, buffer: Buffer) -> list[Shipment]:
        """The shipments of ``buffer`` and of the stray events, which are the caller's now."""
        found = []
        for one in {buffer: None, self.strays: None}:
            with one.shipping:
                shipment, one.shipment = one.shipment, None
            if shipment is not None:
                found.append(shipment)
        return found

    def _shipment_of(self, buffer: Buffer) -> Shipment:
        """The shipment that the next flush of ``buffer`` accounts for."""
        if buffer.shipment is None:
            buffer.shipment = Shipment(
                self._courier,
                self._gate,
                self._workers,
                keep=self._keep,
                decided=self._note_decided,
                late=self._note_late,
                release=lambda events: buffer.count(-events),
                give_up_after_s=self.config.timeout_s,
                clock=self._clock,
            )
        return buffer.shipment

    def _sealed(self, events: list[Event], buffer: Buffer) -> Iterator[Batch]:
        for batch in seal(
            events,
            max_bytes=self.config.max_payload_bytes,
            compress=self.config.compress,
            make_id=_derived_batch_id if buffer.is_idempotent else None,
        ):
            if self._journal is not None:
                self._journal.sealed(batch)
            yield batch

    def _concluded(self, shipments: list[Shipment], budget: Budget) -> Outcome:
        outcome = Outcome()
        if not shipments:
            return outcome
        errors: list[DoowError] = []
        for shipment in shipments:
            errors += shipment.close(budget, outcome)
        outcome.elapsed_s = budget.spent()
        outcome.backlog = self.backlog.events
        self.redeliver()
        for error in errors:
            self._report(error)
        if self.config.debug:
            debug(f"flushed {outcome}")
        if self.config.on_flush is not None:
            call_hook("on_flush", self.config.on_flush, outcome)
        return outcome

    def _report(self, error: DoowError) -> None:
        if self.config.on_error is not None:
            call_hook("on_error", self.config.on_error, error)
        else:
            warn(f"{error.kind}: {error}")

    # ── what was not delivered ─────────────────────────────────────────────────────────────────

    def redeliver(self) -> None:
        """Have another thread send the backlog, if there is one and it is worth a try."""
        transport = self._transport
        if transport is not None:
            transport.reap()
        if len(self.backlog) and self._gate.begin_probe() and not self._workers.submit(self._drain):
            self._gate.end_probe()
            self._gate.failed(ErrorKind.TIMEOUT, "the system starts no more threads")

    def _drain(self) -> None:
        """Send the backlog, oldest first, until it is empty or an attempt fails."""
        try:
            while batch := self.backlog.oldest(self._is_under_way) or self._recover():
                # After a failure the kept connections are not to be trusted.
                fate = self._courier.send(batch, fresh=self._gate.is_shut)
                if not fate.is_settled and fate.halves is None:
                    self._gate.shut(fate.reason, fate.message, fate.hold_s)
                    return
                self._note_decided(batch, fate)
                self._settle_kept(batch, fate)
        except Exception as fault:
            report_fault("redelivering", fault)
        finally:
            self._gate.end_probe()

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

    def _recover(self) -> Batch | None:
        """Take over what crashed processes have left; the first of it."""
        if self._journal is None:
            return None
        found = self._journal.recover(
            max_bytes=self.config.max_payload_bytes, compress=self.config.compress
        )
        for batch in found:
            self._put(batch, None)
        return found[0] if found else None

    def _settle_kept(self, batch: Batch, fate: Fate) -> None:
        self._gate.opened()
        if fate.halves is not None:
            self.backlog.replace(batch, fate.halves)
        elif self.backlog.remove(batch.id):
            for error in fate.errors():
                self._report(error)

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
            self._report(DoowError(text, ErrorKind.DROPPED_EVENTS, ids))

    # ── the life of the process ────────────────────────────────────────────────────────────────

    def succeed(self, other: Tracker) -> None:
        """Take over what ``other`` has not delivered, and will not, now that it is replaced."""
        strays, other.strays = other.strays, self.strays
        events = strays.take_last()
        self.strays.adopt(events)
        self._orphans.append(other._orphaned())
        if other._journal is not None:
            other._journal.forget([event[0] for event in events])
        self._dead_letters.succeed(other._dead_letters)
        backlog, other.backlog = other.backlog, self.backlog
        for batch in backlog.drain():
            if self._journal is not None:
                self._journal.sealed(batch)
            self._put(batch, None)
            if other._journal is not None:
                other._journal.settled(batch.id)

    def _loaded_transport(self) -> Transport:
        """The transport; its first use imports requests, which is why it waits until here."""
        with self._loading:
            if self._transport is None:
                from ._transport import HttpTransport

                self._transport = HttpTransport(
                    self.config.endpoint,
                    timeout_s=self.config.timeout_s,
                    ca_bundle=self.config.ca_bundle,
                )
            return self._transport

    def _start_warm_up(self) -> None:
        warm_up = threading.Thread(target=self._warm, name="doow-warm-up", daemon=True)
        with suppress(RuntimeError):  # No more threads: then the first flush does its work.
            warm_up.start()
            self._warm_up = warm_up

    def _warm(self) -> None:
        try:
            if self._recover() is not None:
                self.redeliver()
            if not self.config.warm_up or self.config.credentials.are_missing:
                return
            transport = self._loaded_transport()
            key = self.config.credentials.current()
            if self.config.warm_up == "connect":
                transport.connect(key)
        except Exception as fault:
            # The first flush will meet the same trouble, and report it with the events it befell.
            if self.config.debug:
                debug(f"warm-up failed: {type(fault).__name__}")

    def last_flush(self, budget: Budget) -> None:
        """Try once more to deliver everything, since the process is about to end."""
        for buffer in (self.strays, *_members(self._live)):
            self.deliver(buffer, budget.remaining())
        if self.config.credentials.are_missing:
            return
        # One more attempt for what is kept, however lately the last one failed.
        self._gate.opened()
        self.redeliver()
        while len(self.backlog) and budget.remaining() and not self._gate.is_shut:
            time.sleep(min(0.005, budget.remaining()))

    def before_fork(self) -> None:
        """Let other threads finish what they import, and keep them from it during the fork."""
        ends_at = time.monotonic() + FORK_WAIT_S
        self._held = [
            lock
            for lock in (self._loading, self.config.credentials.lock)
            if lock.acquire(timeout=max(0.0, ends_at - time.monotonic()))
        ]

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._held:
            self._held.pop().release()

    def after_fork(self) -> None:
        """In a child: what was recorded before is the parent's to deliver."""
        if self._journal is not None:
            self._journal.after_fork()
        self._orphans.clear()
        self._begin_anew()


def _members(weak: WeakSet[T]) -> list[T]:
    """What ``weak`` holds, also while other threads add to it."""
    while True:
        with suppress(RuntimeError):  # It changed meanwhile.
            return list(weak)


def _last_flush(limit_s: float) -> None:
    budget = Budget(limit_s)
    for tracker in _members(_trackers):
        try:
            tracker.last_flush(budget)
        except Exception as fault:
            report_fault("the last flush", fault)


def _journal_of(config: Config) -> Journal | None:
    if not config.journal:
        return None
    from ._journal import Journal  # Who asks for no journal does not pay for its import.

    directory = None if config.journal is True else config.journal
    audience = f"{config.endpoint} {config.credentials.source}"
    return Journal(directory, audience=audience)


def _derived_batch_id(event_ids: Sequence[str]) -> str:
    # Sorted, since threads may record the same events in another order the next time.
    return derived_id(*sorted(event_ids))


def _before_fork() -> None:
    for tracker in list(_trackers):
        tracker.before_fork()


def _guard_forks() -> None:
    """Have forks wait for imports, once for all trackers."""
    global _forks_are_guarded
    if _forks_are_guarded or not hasattr(os, "register_at_fork"):
        return
    _forks_are_guarded = True
    # What is registered last runs first: logging takes its lock for the time of a fork, and the
    # imports that ours waits for need that lock.
    import logging  # noqa: F401

    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)


def _after_fork_in_parent() -> None:
    for tracker in list(_trackers):
        tracker.after_fork_in_parent()


def _after_fork() -> None:
    for tracker in list(_trackers):
        tracker.after_fork()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_after_fork)
