"""A flush: a buffer is emptied, its events are sealed and sent, and the outcome is awaited."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext, suppress
from functools import partial
from weakref import WeakSet

from doow_serverless._outcome import Outcome
from doow_serverless._process.at_work import AtWork, is_at_work
from doow_serverless._process.clock import Budget
from doow_serverless._process.forks import listed
from doow_serverless._process.log import counted, debug, report_fault
from doow_serverless._recording.buffer import Buffer, endless_transactions
from doow_serverless._recording.ids import new_id
from doow_serverless.errors import DoowError, ErrorKind

from .departures import Departures
from .flight import summed_up
from .hooks import tell, tell_within
from .sealer import Sealer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._config import Config
    from doow_serverless._keeping.journal import Journal
    from doow_serverless._process.clock import Clock
    from doow_serverless._recording.event import Event
    from doow_serverless._recording.ids import Identity

    from .departures import OwnedFlight
    from .outbox import Outbox


TOO_LATE = (
    "recorded after the last flush before a snapshot, which all that is restored from it holds; "
    "hooks that record must be registered after the tracker is made, so that they run before it"
)


class Flusher:
    """Empties buffers into flights, and waits for what becomes of them.

    Every method may be called from any thread, and none raises an Exception.

    Args:
        config: Bounds, and the hook ``on_flush``.
        outbox: Sends, and keeps what is not delivered.
        journal: Is told what is sealed, where there is one.
        clock: Monotonic seconds.

    Attributes:
        unattended: Events that no invocation can be seen for; each flush takes them along.
        dropped: Events of buffers that were garbage-collected before their invocation ended.
    """

    def __init__(
        self, config: Config, outbox: Outbox, journal: Journal | None, clock: Clock
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._sealer = Sealer(config, outbox, journal)
        self._clock = clock
        self._departures = Departures()
        self._live: WeakSet[Buffer] = WeakSet()
        self._replaced: WeakSet[Flusher] = WeakSet()
        self.unattended = self._buffer()
        self.dropped: deque[list[Event]] = deque()

    def __repr__(self) -> str:
        return f"Flusher({len(self._live)} invocations, unattended: {self.unattended!r})"

    def new_buffer(
        self, identity: Identity | None, dropped: Callable[[list[Event]], object]
    ) -> Buffer:
        """A buffer for an invocation that begins.

        Args:
            identity: Makes its ids derive from it.
            dropped: As of `Buffer`; it puts them into :attr:`dropped`.
        """
        buffer = self._buffer(identity, dropped)
        self._live.add(buffer)
        return buffer

    def _buffer(
        self,
        identity: Identity | None = None,
        dropped: Callable[[list[Event]], object] | None = None,
    ) -> Buffer:
        return Buffer(
            self._config.max_queue_size,
            identity=identity,
            log=self._sealer.event_log,
            dropped=dropped,
            max_bytes=self._config.max_queue_bytes,
            batch_bytes=self._config.max_payload_bytes,
        )

    def buffers(self) -> list[Buffer]:
        """Those of all invocations that run, and the unattended one."""
        return [self.unattended, *listed(self._live)]

    @property
    def has_in_hand(self) -> bool:
        """Whether events wait here that no invocation will flush; no locks are taken."""
        return bool(self.dropped) or self.unattended.has_waiting or self._sealer.is_late

    # ── what leaves before the flush ───────────────────────────────────────────────────────────

    def send_early(self, buffer: Buffer, at_least: int | None = None) -> None:
        """Have what waits in ``buffer`` leave in the background, if that is a batch, or so much."""
        events: list[Event] = []
        with AtWork() as is_first:
            if not is_first:
                return  # They wait for the next event, or the flush.
            try:
                events = buffer.take(at_least or self._config.flush_at)
                if events:
                    self._add(buffer, events, buffer)
            except BaseException:
                self._put_off(buffer, events)
                raise

    def _put_off(self, buffer: Buffer, events: list[Event]) -> None:
        """Have the next flush take along what a signal has kept from being sealed."""
        buffer.count(-len(events))
        self.dropped.append(events)

    def end_transaction(self, transaction: Buffer, *, discard: bool) -> None:
        """Forget the events of a transaction, or pass them to the buffer around it."""
        events: list[Event] = []
        is_counted = False
        try:
            events = transaction.take_last()
            is_counted = True
            root = transaction.root
            if events and not discard and transaction.goes_apart and not is_at_work():
                # Doow knows a batch again, not an event: so what may be done again apart from the
                # rest travels apart from it, as soon as it is done.
                with AtWork():
                    root.folded += transaction.take_folded()
                    self._add(root, events, root)
                return
            is_counted = False
            transaction.count(-len(events))
            if events and not discard:
                self._adopt(transaction.parent, events, transaction)
        except BaseException:
            if is_counted:
                transaction.count(-len(events))
            if not discard:
                self.dropped.append(events)
            raise

    def _adopt(self, buffer: Buffer | None, events: list[Event], other: Buffer) -> None:
        """Put ``events`` of ``other`` into ``buffer``, or the nearest that still takes some."""
        while buffer is not None and not buffer.adopt(events, other):
            buffer = buffer.parent
        if buffer is None:
            buffer = self.unattended
            buffer.adopt(events, other)
        if buffer.parent is None:
            self.send_early(buffer)

    # ── the flush ──────────────────────────────────────────────────────────────────────────────

    def flush(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """Send what ``buffer`` and the unattended one hold; wait ``limit_s`` seconds at most.

        Args:
            buffer: The outermost buffer of an invocation, or the unattended one.
            limit_s: Seconds of wall time.
            last: Whether the invocation is over, so that the buffer takes no more.
        """
        budget = Budget(limit_s, self._clock)
        with AtWork() as is_first:
            if not is_first:  # A finalizer, or a signal's handler: the next flush takes it along.
                return Outcome()
            try:
                return self._flush_anyway(buffer, budget, last)
            except Exception as fault:
                report_fault("flushing", fault)
                return Outcome()

    def _flush_anyway(self, buffer: Buffer, budget: Budget, last: bool) -> Outcome:
        """Flush, and once more where the handler of a signal raises meanwhile."""
        try:
            return self._flush(buffer, budget, last)
        except BaseException:
            self._flush(buffer, budget, last)
            raise

    def _flush(self, buffer: Buffer, budget: Budget, last: bool) -> Outcome:
        flights = self._depart(buffer, last, budget)
        try:
            for flight in flights:
                flight.outbox.wait(flight, budget)
        finally:
            # Also where a signal ends the wait: what is not delivered must be kept.
            outcome = self._outcome_of(flights, budget)
        return outcome

    async def aflush(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """As :meth:`flush`, without blocking the event loop."""
        budget = Budget(limit_s, self._clock)
        cancelled = None
        try:
            with AtWork():
                flights = self._depart(buffer, last, budget)
            try:
                for flight in flights:
                    from .async_wait import (
                        wait_for_flight,  # It imports asyncio, as async code has.
                    )

                    cancelled = await wait_for_flight(flight, budget) or cancelled
            finally:
                with AtWork():
                    # The hooks of async code expect its event loop.
                    outcome = self._outcome_of(flights, budget, hooks_are_here=True)
        except Exception as fault:
            report_fault("flushing", fault)
            return Outcome()
        if cancelled is not None:
            raise cancelled
        return outcome

    def flush_meanwhile(self, buffer: Buffer, limit_s: Callable[[], float]) -> None:
        """Have another thread deliver what was recorded so far, while the handler still runs.

        Args:
            buffer: As of :meth:`flush`.
            limit_s: Gives the seconds to wait, once that thread runs.
        """
        job = partial(self._flush_meanwhile, buffer, limit_s)
        if not self._outbox.rescuers.submit(job):
            job()  # Where there are no more threads nothing is sent either, but written down.

    def _flush_meanwhile(self, buffer: Buffer, limit_s: Callable[[], float]) -> None:
        try:
            budget = Budget(limit_s(), self._clock)
            # Unattended events as well, since the process may be about to be killed.
            self._load(buffer, last=False, budget=budget)
            flight = self._departures.flight_of(buffer)
            for one in (flight, self._departures.flight_of(self.unattended)):
                if one is not None:
                    one.outbox.wait(one, budget)
            # Unless the handler has returned after all: then its own flush accounts for them.
            with self._departures.of(buffer).lock:
                is_ours = self._departures.flight_of(buffer) is flight
                flights = self._departures.take(buffer, self.unattended) if is_ours else []
            self._outcome_of(flights, budget)
        except Exception as fault:
            report_fault("flushing meanwhile", fault)

    def _depart(self, buffer: Buffer, last: bool, budget: Budget | None) -> list[OwnedFlight]:
        """Put everything on its way that this flush has to account for; the flights of it."""
        departure = self._departures.get(buffer)
        # Else the guard could take away in between what is loaded here.
        with nullcontext() if departure is None else departure.lock:
            self._load(buffer, last, budget)
            return self._departures.take(buffer, self.unattended)

    def _load(self, buffer: Buffer, last: bool, budget: Budget | None) -> None:
        """Put what ``buffer`` and the unattended one hold on the flight of ``buffer``."""
        events: list[Event] = []
        unattended: list[Event] = []
        try:
            # The unattended one outlives whatever invocation flushes it.
            is_end = last and buffer is not self.unattended
            events = buffer.take_last() if is_end else buffer.take()
            refused, folded = buffer.take_refused(), buffer.take_folded()
            if buffer is not self.unattended:
                unattended = self.unattended.take()
                # They travel, and are released, with the events of ``buffer``: so does the count.
                self.unattended.count(-len(unattended))
                refused += self.unattended.take_refused()
                folded += self.unattended.take_folded()
            if self.dropped:
                self.take_dropped(into=unattended)
            if unattended:
                buffer.count(len(unattended))
            if events or unattended or refused or folded:
                self._seal(buffer, events, unattended, (refused, folded), budget)
        except BaseException:
            self._put_off(buffer, [*events, *unattended])
            raise

    def _seal(
        self,
        buffer: Buffer,
        events: list[Event],
        unattended: list[Event],
        counts: tuple[int, int],
        budget: Budget | None,
    ) -> None:
        """Seal what a flush has taken; ``counts`` are of the events refused, and folded."""
        refused, folded = counts
        departure = self._departures.of(buffer)
        with departure.lock:
            flight = departure.begun(self._outbox)
            flight.refused(refused)
            flight.folded(folded)
            if buffer.is_idempotent:
                # Unattended events would change a batch that a retry is to seal alike.
                self._add(buffer, unattended, self.unattended, budget)
            else:
                events += unattended
                unattended.clear()
            self._add(buffer, events, buffer, budget)

    def take_dropped(self, into: list[Event]) -> None:
        """Move what buffers held that were garbage-collected before their invocation ended."""
        with suppress(IndexError):  # There are no more, or another thread has them.
            while True:
                lot = self.dropped[0]
                # Nothing is called between these two, so that no signal can come in between.
                into += lot
                del lot[:]
                with suppress(ValueError):
                    self.dropped.remove(lot)
        into[:] = [event if event[0] else (new_id(), *event[1:]) for event in into]

    def _outcome_of(
        self, flights: list[OwnedFlight], budget: Budget, *, hooks_are_here: bool = False
    ) -> Outcome:
        """Close ``flights``: what is not settled is kept; report, and call the hooks."""
        outcome = Outcome()
        if not flights:
            return outcome
        errors = _closed(flights, outcome)
        outcome.elapsed_s = budget.spent()
        if self._config.debug:
            debug(f"flushed {outcome}")
        errors = summed_up(errors)
        if hooks_are_here:
            tell(self._config, self._outbox, errors, outcome)
        else:
            tell_within(budget.remaining(), self._config, self._outbox, errors, outcome)
        return outcome

    # ── the flight of a buffer ─────────────────────────────────────────────────────────────────

    def _add(
        self, buffer: Buffer, events: list[Event], origin: Buffer, budget: Budget | None = None
    ) -> None:
        """Seal ``events`` as those of ``origin``, on the flight that ``buffer`` accounts for."""
        departure = self._departures.of(buffer)
        with departure.lock:
            flight = departure.begun(self._outbox)
            self._sealer.seal(events, flight, is_derived=origin.is_idempotent, budget=budget)

    # ── the life of the process ────────────────────────────────────────────────────────────────

    def flush_last(self, limit_s: float, patience_s: float = 0.0) -> None:
        """Deliver everything, or write it down: the process is about to end."""
        budget = Budget(limit_s, self._clock)
        self._sealer.seal_late()
        for transaction in endless_transactions():
            if not transaction.is_closed and transaction.root in self.buffers():
                self.end_transaction(transaction, discard=False)
        flights = [
            flight
            for each in self.buffers()
            for flight in self._depart(each, last=False, budget=None)
        ]
        self._outbox.deliver_last(budget, patience_s)
        self._outcome_of(flights, budget)

    def take_over(self, other: Flusher) -> None:
        """Take over what ``other`` has recorded and not sealed; it records here from now on.

        What its open invocations hold is sealed when they end, and sent by our outbox: with the new
        key, to the new endpoint.
        """
        self._take_back_early(other)
        theirs, other.unattended = other.unattended, self.unattended
        events = theirs.take_last()
        ids = [event[0] for event in events]
        self.unattended.adopt(events, theirs)
        lot: list[Event] = []
        other.take_dropped(into=lot)
        self.dropped.append(lot)
        if other._sealer.event_log is not None:
            other._sealer.event_log.forget(ids)
        for each in (other, *listed(other._replaced)):
            each._outbox = each._sealer.outbox = self._outbox
            self._replaced.add(each)

    def _take_back_early(self, other: Flusher) -> None:
        """Have what ``other`` has sent early be nobody's to wait for."""
        for error in _closed(other._departures.take_all(), Outcome()):
            other._outbox.report(error)

    def write_down_all(self, patience_s: float) -> None:
        """Write down what waits, and send none of it: other processes have the same in hand.

        All of them do so under the same ids, so that it is known again however often it is read.
        """
        events: list[Event] = []
        for buffer in self.buffers():
            events += buffer.take()
        self.take_dropped(into=events)
        self._sealer.seal_late()
        ids = self._sealer.keep(events, ErrorKind.NOT_READY, is_derived=True)
        self._outbox.write_down_all(patience_s)
        if ids:
            text = f"{counted(len(ids))} not delivered, but written down: {TOO_LATE}"
            self._outbox.report(DoowError(text, ErrorKind.NOT_READY, ids))

    def begin_anew(self) -> None:
        """What was recorded before is another process's to deliver."""
        self._departures = Departures()
        # What a child records for an invocation that only its parent ends must leave, too.
        self._live = WeakSet(listed(self._live))
        self._sealer.begin_anew()
        self.dropped.clear()


def _closed(flights: list[OwnedFlight], outcome: Outcome) -> list[DoowError]:
    """Close ``flights``, and add to ``outcome`` what became of them; what must be reported."""
    errors = []
    for outbox in dict.fromkeys(flight.outbox for flight in flights):
        errors += outbox.close([one for one in flights if one.outbox is outbox], outcome)
    return errors
