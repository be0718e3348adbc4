"""A flush: a buffer is emptied, its events are sealed and sent, and the outcome is awaited."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from functools import partial
from weakref import WeakSet, ref

from doow_serverless._outcome import Outcome
from doow_serverless._process.clock import Budget
from doow_serverless._process.forks import listed
from doow_serverless._process.log import counted, debug, report_fault
from doow_serverless._process.workers import do_here, is_job_here
from doow_serverless._recording.buffer import Buffer, endless_transactions
from doow_serverless._recording.ids import new_id
from doow_serverless.errors import DoowError, ErrorKind

from .flight import NEVER, Flight, summed_up
from .flushing import Flushing
from .hooks import HOOKS_WAIT_S, LATE_S
from .sealer import Sealer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._config import Config
    from doow_serverless._keeping.journal import Journal
    from doow_serverless._process.clock import Clock
    from doow_serverless._recording.event import Event
    from doow_serverless._recording.ids import Identity

    from .flight import Attempt
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
        return bool(self.dropped) or not self.unattended.is_idle or self._sealer.is_late

    # ── what leaves before the flush ───────────────────────────────────────────────────────────

    def send_early(self, buffer: Buffer, at_least: int | None = None) -> None:
        """Have what waits in ``buffer`` leave in the background, if that is a batch, or so much.

        The batch is cut off here, so that a batch has the same events whatever workers do.
        """
        if buffer.set_off(at_least or self._config.flush_at):
            self._seal_meanwhile(buffer)

    def _seal_meanwhile(self, buffer: Buffer) -> None:
        """Have a worker seal what has left ``buffer``; the next flush does if there is none.

        Never this thread, which may have been interrupted while it seals.
        """
        self._outbox.rescuers.submit(partial(self._seal_leaving, buffer))

    def _seal_leaving(self, buffer: Buffer) -> None:
        """Seal a lot that has left ``buffer``, on a flight that its next flush accounts for.

        No more than the lot for which this was asked: what a flush has set off is the flush's.
        """
        try:
            with buffer.sealing:
                if buffer.leaving:
                    early = [each for each in buffer.flights if self._takes_more(each)]
                    flight = early[0] if early else self._new_flight(buffer)
                    attempts = self._seal_lots(buffer, flight, None, most=1)
                    flight.outbox.watch()
                    flight.outbox.submit_all(attempts)
        except Exception as fault:
            report_fault("sealing", fault)

    def _seal_lots(
        self, buffer: Buffer, flight: Flight, budget: Budget | None, most: int | None = None
    ) -> list[Attempt]:
        """Seal lots that are leaving ``buffer``, all or the oldest; return as of `Sealer.seal`."""
        attempts: list[Attempt] = []
        for _ in buffer.leaving[:most]:
            if attempts:
                flight.outbox.submit_all(attempts)
            attempts = self._sealer.seal(
                buffer.leaving[0], flight, is_derived=buffer.is_idempotent, budget=budget
            )
            del buffer.leaving[0]  # Before that a fault leaves the rest of it to the next flush.
        return attempts

    def _takes_more(self, flight: Flight) -> bool:
        """Whether this flight, for which nobody waits, takes what leaves early from now on."""
        is_free = flight.waiting_since == NEVER and not flight.is_closed
        return is_free and flight.outbox is self._outbox

    def _new_flight(self, buffer: Buffer, budget: Budget | None = None) -> Flight:
        """A flight that ``buffer`` knows of until it is accounted for; waited for in a budget."""
        # The buffer may be garbage-collected: nothing that travels keeps it alive.
        release = partial(_release, ref(buffer))
        if budget is None:
            flight = Flight(release, self._outbox)
        else:
            flight = Flight(release, self._outbox, budget.began_at, budget.ends_at)
        buffer.flights.append(flight)
        return flight

    def end_transaction(self, transaction: Buffer, *, discard: bool) -> None:
        """Forget the events of a transaction, or pass them to the buffer around it."""
        events: list[Event] = []
        is_counted = False
        try:
            events = transaction.take_last()
            is_counted = True
            root = transaction.root
            if events and not discard and transaction.goes_apart:
                # Doow knows a batch again, not an event: so what may be done again apart from the
                # rest travels apart from it, as soon as it is done.
                root.folded += transaction.take_folded()
                root.leaving.append(events)
                events = []  # They are on their way, whatever a signal raises from here on.
                self._seal_meanwhile(root)
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

    # ── the flush, as its caller sees it ───────────────────────────────────────────────────────

    def flush(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """Send what ``buffer`` and the unattended one hold; wait ``limit_s`` seconds at most.

        A worker does all of it, and waits for all that is under way from here; this thread waits
        for the worker.

        Args:
            buffer: The outermost buffer of an invocation, or the unattended one.
            limit_s: Seconds of wall time.
            last: Whether the invocation is over, so that the buffer takes no more.
        """
        if self._is_needless(buffer, last):
            return Outcome()
        return self.flush_in_job(buffer, limit_s, last=last)

    def flush_in_job(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """As :meth:`flush`, also on a thread that runs jobs: for those jobs themselves."""
        flushing = Flushing(buffer, Budget(limit_s, self._clock), self._clock)
        try:
            self._set_off(buffer, last)
            if is_job_here():  # As many as there may be jobs: they must not wait for one another.
                self._make(flushing, may_send=False)
                flushing.wait(self._look_at)
                return flushing.outcome or flushing.unknown()
            self._begin(flushing)
            flushing.wait(self._have_looked)
        except BaseException as fault:
            # The handler of a signal has raised it: the events leave before it passes.
            self._set_off(buffer, last)
            try:
                self._begin(flushing)
                flushing.wait(self._have_looked)
            except BaseException:  # Another one.
                self._have_awaited(flushing)
                raise
            report_fault("flushing", fault)
        return flushing.outcome or flushing.unknown()

    async def aflush(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """As :meth:`flush`, without blocking the event loop."""
        if self._is_needless(buffer, last):
            return Outcome()
        from .async_wait import wait_for  # It imports asyncio, as async code has.

        budget = Budget(limit_s, self._clock)
        flushing = Flushing(buffer, budget, self._clock)
        try:
            self._set_off(buffer, last)
            self._begin(flushing)
            self._outbox.watch(anyway=True)  # Others may block the loop, which is no freeze.
            cancelled = await wait_for(flushing, self._have_looked)
        except BaseException as fault:  # The coroutine is closed, say, or its loop.
            self._have_awaited(flushing)
            if not isinstance(fault, Exception):
                raise
            report_fault("flushing", fault)
            return flushing.unknown()
        if cancelled is not None:
            raise cancelled
        return flushing.outcome or flushing.unknown()

    def flush_meanwhile(self, buffer: Buffer, limit_s: Callable[[], float]) -> None:
        """Have other threads deliver what was recorded so far, while the handler still runs.

        Args:
            buffer: As of :meth:`flush`.
            limit_s: Gives the seconds to wait, once such a thread runs.
        """

        # If there are no more threads, nothing is sent either, but written down.
        def flush() -> None:
            self.flush_in_job(buffer, limit_s())

        self._outbox.rescuers.run(flush)

    def _is_needless(self, buffer: Buffer, last: bool) -> bool:
        """Whether there is nothing to flush, or this is no thread to wait on."""
        if self._outbox.is_driven_here or buffer.is_held_here:
            return True  # A finalizer, or the handler of a signal: the next flush takes it along.
        unattended = self.unattended
        if buffer.is_idle and not self.dropped and (buffer is unattended or unattended.is_idle):
            return not last or buffer is unattended or buffer.close_if_idle()
        return False

    def _set_off(self, buffer: Buffer, last: bool) -> None:
        """Cut off here what a flush takes, so that it has the same events whatever workers do.

        Work that is done again must lead to the same batches, whose ids derive from their events.
        """
        # The unattended one outlives whatever invocation flushes it.
        buffer.set_off(is_last=last and buffer is not self.unattended)

    def _begin(self, flushing: Flushing) -> None:
        """Have a worker make a flush, that of the first call; this thread if there is none."""
        outbox = self._outbox
        if not outbox.workers.offer(partial(self._make, flushing, may_send=True)):
            # All may hang: what others cannot send in time they can still write down.
            outbox.rescuers.run(partial(self._make, flushing, may_send=False))

    def _have_looked(self, flushing: Flushing) -> None:
        """Have a worker look at a flush whose time has come; see `Flushing.wait`."""
        self._outbox.rescuers.run(partial(self._look_at, flushing))

    def _have_awaited(self, flushing: Flushing) -> None:
        """Have a worker wait for a flush whose caller is gone: somebody must look, and end it."""
        self._outbox.rescuers.submit(partial(flushing.wait, self._look_at))

    # ── the flush; runs on a worker ────────────────────────────────────────────────────────────

    def _make(self, flushing: Flushing, *, may_send: bool) -> None:
        """Seal and send what is to be flushed; if ``may_send``, the last batch on this thread."""
        if not flushing.take():
            return
        try:
            flights, attempts = self._depart(flushing)
            outbox = flights[0].outbox
            first = attempts.pop(0) if may_send and attempts else None
            if attempts:
                outbox.submit_all(attempts)
            for flight in flights:
                flight.wake = partial(self._look, flushing)
            flushing.flights = flights  # From here on whoever looks may end it.
            if first is not None:
                outbox.send(first, outbox.state)  # Once it begins, the flush looks.
            if not flushing.is_over:
                self._look(flushing)
        except Exception as fault:
            report_fault("flushing", fault)
            if flushing.take_end():
                self._end(flushing)

    def _depart(self, flushing: Flushing) -> tuple[list[Flight], list[Attempt]]:
        """Put everything on its way that a flush has to account for.

        Returns:
            The flights that account for it, and as of `Sealer.seal`.
        """
        buffer = flushing.buffer
        with buffer.sealing:
            earlier = buffer.flights[:]
            flights = [self._new_flight(buffer, flushing.budget)]
            try:
                attempts = self._seal_all(flushing, flights)
                if earlier:
                    self._join(flights, buffer, earlier)
            except BaseException:  # The next flush accounts for what has departed.
                for flight in flights:
                    flight.waiting_since = flight.ends_at = NEVER
                raise
        return flights, attempts

    def _seal_all(self, flushing: Flushing, flights: list[Flight]) -> list[Attempt]:
        """Seal what waits in the buffer of a flush, and elsewhere; return as of `Sealer.seal`."""
        buffer, budget, flight = flushing.buffer, flushing.budget, flights[0]
        events = buffer.leaving.pop() if buffer.leaving else []
        try:
            attempts = self._seal_lots(buffer, flight, budget)
        except BaseException:
            buffer.leaving.append(events)
            raise
        _note_counts(buffer, flight)
        others = self._take_others(buffer, flights)
        # Unattended events would change a batch that a retry is to seal alike.
        apart, joined = [(events, True), (others, False)], [([*events, *others], False)]
        lots = apart if buffer.is_idempotent else joined
        try:
            for lot, is_derived in lots:
                if lot:
                    if attempts:
                        flight.outbox.submit_all(attempts)
                    attempts = self._sealer.seal(lot, flight, is_derived=is_derived, budget=budget)
        except BaseException:  # The next flush takes the rest along.
            for lot, _ in lots:
                buffer.count(-len(lot))
                self.dropped.append(lot)
            raise
        return attempts

    def _take_others(self, buffer: Buffer, flights: list[Flight]) -> list[Event]:
        """Take what no invocation has recorded, and what buffers held that are gone."""
        flight, unattended = flights[0], self.unattended
        events: list[Event] = []
        if buffer is not unattended and not unattended.is_idle:
            with unattended.sealing:
                for lot in (*unattended.leaving, unattended.take()):
                    events += lot
                unattended.leaving.clear()
                unattended.count(-len(events))
                _note_counts(unattended, flight)
                self._join(flights, unattended, unattended.flights[:])
        if self.dropped:
            self.take_dropped(into=events)
        if events:
            # They travel, and are released, with the events of ``buffer``: so does the count.
            buffer.count(len(events))
        return events

    def _join(self, flights: list[Flight], buffer: Buffer, earlier: list[Flight]) -> None:
        """Let ``flights`` wait for those that left ``buffer`` earlier.

        They account for those of them that no other flush accounts for.
        """
        for other in earlier:
            outbox = other.outbox
            mine = next((one for one in flights if one.outbox is outbox), None)
            if mine is None:  # Another tracker has taken over since then.
                first = flights[0]
                mine = Flight(other.release, outbox, first.waiting_since, first.ends_at)
                buffer.flights.append(mine)
                flights.append(mine)
            outbox.submit_all(outbox.join(mine, other))
            if other.is_closed:
                _discard(buffer, other)

    def _look_at(self, flushing: Flushing) -> None:
        """Time has passed: what hangs is cut off, what is due is sent, and what is over ends."""
        try:
            for flight in flushing.flights:
                flight.outbox.look()
            self._look(flushing)
        except Exception as fault:
            report_fault("flushing", fault)

    def _look(self, flushing: Flushing) -> None:
        """See whether a flush is over, or when to look again."""
        if not flushing.flights:
            return  # A worker seals yet, and will look.
        waited_for = [flight for flight in flushing.flights if flight.pending]
        pauses_s = [flight.outbox.pause_s(flight) for flight in waited_for]
        waits_s = [pause_s for pause_s in pauses_s if pause_s is not None]
        if waits_s:
            flushing.look_again(min(waits_s))
        elif flushing.take_end():
            self._end(flushing)

    def _end(self, flushing: Flushing) -> None:
        """Account for a flush: what is not settled is kept; report, and call the hooks."""
        outcome = Outcome()
        errors: list[DoowError] = []
        for flight in flushing.flights:
            errors += flight.outbox.close(flight, outcome)
            with suppress(ValueError):  # Another flush has accounted for it.
                flushing.buffer.flights.remove(flight)
        flushing.account(outcome)
        if self._config.debug:
            debug(f"flushed {outcome}")
        if errors:
            errors = summed_up(errors)
        reporter = self._outbox.reporter
        if reporter.is_wanted:
            left_s = min(max(flushing.budget.remaining(), HOOKS_WAIT_S), LATE_S)
            flushing.leave_within(0.0 if reporter.is_late else left_s)
        if reporter.is_wanted or errors:
            reporter.tell(errors, outcome, flushing.end)
        else:
            flushing.end()

    def take_dropped(self, into: list[Event]) -> None:
        """Move what buffers held that were garbage-collected before their invocation ended."""
        with suppress(IndexError):  # There are no more, or another thread has them.
            while True:
                into += self.dropped.popleft()
        into[:] = [event if event[0] else (new_id(), *event[1:]) for event in into]

    # ── the life of the process ────────────────────────────────────────────────────────────────

    def flush_last(self, limit_s: float, patience_s: float = 0.0) -> None:
        """Deliver everything, or write it down: the process is about to end."""
        budget = Budget(limit_s, self._clock)
        self._sealer.seal_late()
        for transaction in endless_transactions():
            if not transaction.is_closed and transaction.root in self.buffers():
                self.end_transaction(transaction, discard=False)
        flushes: list[Flushing] = []
        do_here(partial(self._make_last, flushes, budget, patience_s))
        for flushing in flushes:
            flushing.wait(lambda *_: None)  # For the hooks.

    def _make_last(self, flushes: list[Flushing], budget: Budget, patience_s: float) -> None:
        for each in reversed(self.buffers()):  # The first takes along what is unattended.
            if not each.is_idle or (self.dropped and each is self.unattended):
                flushing = Flushing(each, budget, self._clock)
                self._set_off(each, last=False)
                flushing.flights, attempts = self._depart(flushing)
                self._outbox.submit_all(attempts)
                flushes.append(flushing)
        self._outbox.deliver_last(budget, patience_s)
        for flushing in flushes:
            self._end(flushing)

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
        for buffer in other.buffers():
            for flight in [each for each in buffer.flights if not each.is_waited_for]:
                _discard(buffer, flight)
                for error in flight.outbox.close(flight, Outcome()):
                    other._outbox.report(error)

    def write_down_all(self, patience_s: float) -> None:
        """Write down what waits, and send none of it: other processes have the same in hand.

        All of them do so under the same ids, so that it is known again however often it is read.
        """
        events: list[Event] = []
        for buffer in self.buffers():
            with buffer.sealing:
                while buffer.leaving:
                    events += buffer.leaving.pop(0)
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
        # What a child records for an invocation that only its parent ends must leave, too.
        self._live = WeakSet(listed(self._live))
        self._sealer.begin_anew()
        self.dropped.clear()


def _note_counts(buffer: Buffer, flight: Flight) -> None:
    """Let ``flight`` account for what ``buffer`` has refused, and folded."""
    if buffer.refused:
        flight.refused(buffer.take_refused())
    if buffer.folded:
        flight.folded(buffer.take_folded())


def _release(buffer: ref[Buffer], events: int) -> None:
    alive = buffer()
    if alive is not None:
        alive.count(-events)


def _discard(buffer: Buffer, flight: Flight) -> None:
    with suppress(ValueError):  # Another flush has accounted for it.
        buffer.flights.remove(flight)
