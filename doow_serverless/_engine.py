"""The tracker: what is recorded becomes batches, and a flush waits for what becomes of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from weakref import WeakSet

from ._api import Recorder
from ._config import Config
from ._delivery.outbox import Dispatch
from ._outcome import Outcome
from ._process.clock import Budget
from ._process.forks import members, register
from ._process.log import call_hook, debug, report_fault, warn
from ._process.timers import guard
from ._recording.buffer import Buffer, current
from ._recording.event import Defaults
from ._recording.ids import derived_id, new_id
from ._sealing import seal
from .errors import ConfigurationError, DoowError, InvalidEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ._delivery.flight import Shipment, Transport
    from ._keeping.journal import Journal
    from ._process.clock import Clock
    from ._recording.buffer import Scope
    from ._recording.event import Event
    from ._recording.ids import Identity
    from ._sealing import Batch

GUARD_LEAD_S = 0.25
"""Seconds before the platform's deadline at which what was recorded so far is delivered."""
LAST_WORDS_S = 0.08
"""Seconds of these that are left for writing down what could not be delivered."""


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
        self._warned: set[str] = set()
        self._live: WeakSet[Buffer] = WeakSet()
        self._warm_up: threading.Thread | None = None
        self.remaining_s: Callable[[], float] | None = None
        """What told the time that the platform leaves when it was last asked."""
        self.dispatch = Dispatch(config, self._journal, transport, clock)
        register(self)
        if config.enabled:
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
        self.dispatch.report(problem)

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
                    from ._delivery.async_wait import (
                        wait_for_shipment,  # It imports asyncio, as async code has.
                    )

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
        self.remaining_s = remaining_s
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
        if not self.dispatch.workers.submit(job):
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
        return [event if event[0] else (new_id(), *event[1:]) for event in events]

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
            buffer.shipment = self.dispatch.shipment(lambda events: buffer.count(-events))
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
        outcome.backlog = self.dispatch.backlog.events
        self.dispatch.redeliver()
        for error in errors:
            self.dispatch.report(error)
        if self.config.debug:
            debug(f"flushed {outcome}")
        if self.config.on_flush is not None:
            call_hook("on_flush", self.config.on_flush, outcome)
        return outcome

    # ── the life of the process ────────────────────────────────────────────────────────────────

    def succeed(self, other: Tracker) -> None:
        """Take over what ``other`` has not delivered, and will not, now that it is replaced."""
        strays, other.strays = other.strays, self.strays
        events = strays.take_last()
        self.strays.adopt(events)
        self._orphans.append(other._orphaned())
        if other._journal is not None:
            other._journal.forget([event[0] for event in events])
        self.dispatch.succeed(other.dispatch)

    def _start_warm_up(self) -> None:
        warm_up = threading.Thread(target=self._warm, name="doow-warm-up", daemon=True)
        with suppress(RuntimeError):  # No more threads: then the first flush does its work.
            warm_up.start()
            self._warm_up = warm_up

    def _warm(self) -> None:
        try:
            if self.dispatch.recover() is not None:
                self.dispatch.redeliver()
            if not self.config.warm_up or self.config.credentials.are_missing:
                return
            transport = self.dispatch.loaded_transport()
            key = self.config.credentials.current()
            if self.config.warm_up == "connect":
                transport.connect(key)
        except Exception as fault:
            # The first flush will meet the same trouble, and report it with the events it befell.
            if self.config.debug:
                debug(f"warm-up failed: {type(fault).__name__}")

    def last_flush(self, budget: Budget) -> None:
        """Try once more to deliver everything, since the process is about to end."""
        for buffer in (self.strays, *members(self._live)):
            self.deliver(buffer, budget.remaining())
        self.dispatch.redeliver_last(budget)

    def before_fork(self) -> None:
        """Let other threads finish what they import."""
        self.dispatch.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.dispatch.after_fork_in_parent()

    def after_fork(self) -> None:
        """In a child: what was recorded before is the parent's to deliver."""
        if self._journal is not None:
            self._journal.after_fork()
        self._orphans.clear()
        self._live = WeakSet()
        self._warm_up = None
        self.dispatch.begin_anew()


def _journal_of(config: Config) -> Journal | None:
    if not config.journal:
        return None
    from ._keeping.journal import Journal  # Who asks for no journal does not pay for its import.

    directory = None if config.journal is True else config.journal
    audience = f"{config.endpoint} {config.credentials.source}"
    return Journal(directory, audience=audience)


def _derived_batch_id(event_ids: Sequence[str]) -> str:
    # Sorted, since threads may record the same events in another order the next time.
    return derived_id(*sorted(event_ids))
