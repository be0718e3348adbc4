"""The outbox: owns every sealed batch that the server has not decided on.

It is the driver of `OutboxState`: it brings it the facts, and carries out its orders. All of that
runs on threads of ours, unless the system starts none.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from doow_serverless._frames.format import BY_LOG, SPLIT
from doow_serverless._frames.keys import LogKey
from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless._process.clock import FROZEN_S, WATCH_S
from doow_serverless._process.log import debug, report_fault
from doow_serverless._process.signals import is_from_signal
from doow_serverless._process.timers import timers
from doow_serverless._process.workers import Workers, is_job_here
from doow_serverless._redaction import show

from .flight import Flight
from .hooks import Reporter
from .late_transport import LateTransport
from .outbox_state import OutboxState
from .sender import Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._config import Config
    from doow_serverless._keeping.journal import Journal
    from doow_serverless._outcome import Outcome
    from doow_serverless._process.clock import Budget, Clock
    from doow_serverless._sealing import Batch
    from doow_serverless.errors import DoowError, ErrorKind

    from .credentials import Credentials
    from .flight import Attempt, Entry
    from .ledger import Orders
    from .log_sender import LogSender
    from .results import Result
    from .sender import Transport

FORK_WAIT_S = 5.0
"""Seconds for which a fork waits for imports by other threads, whose locks stay shut in a child."""
LEAST_WRITING_S = 0.03
"""Seconds of the last flush that are left for writing down what it could not deliver, at least."""
WRITTEN_PER_S = 4e6
"""Sealed bytes that are written down in a second where the machine is slow."""


class Outbox:
    """Sends batches, and stands for those that the server has not decided on yet.

    Every method may be called from any thread, and none raises an Exception.

    While a flush waits or a POST is under way, someone looks at least every :data:`WATCH_S`
    seconds: the flush's caller, or a timer. So a longer gap between two facts shows that the
    process was frozen, or that its machine had no processor for it; neither is the server's doing.

    Args:
        config: Where to send, and within which bounds.
        credentials: The key to send with.
        journal: Is told what is settled, where there is one.
        transport: Sends instead of HTTP.
        clock: Monotonic seconds.

    Attributes:
        journal: As given.
        log_key: Signs what is written to the log.
        is_loaded: True if the modules that sending needs are imported.
        state: What is known of the batches; read it alone, or with the outbox at rest.
        workers: The threads that send. All of them may hang.
        rescuers: Threads for jobs that are urgent and end in time, so that they wait for no sender.
        sender: Makes the attempts.
        reporter: Tells the user's hooks.
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
        self.log_key = LogKey.of(config, clock)
        self.journal = journal
        self._given_transport = transport
        self._clock = clock
        self._successor: Outbox | None = None
        self._watched: OutboxState | None = None
        self.reset_after_fork()  # As a child does, it begins with nothing.

    def __repr__(self) -> str:
        return f"Outbox({self.state!r}, {self.workers!r})"

    def reset_after_fork(self) -> None:
        """In a child: threads, connections and locks are the parent's; begin anew."""
        self._lock = threading.RLock()
        self._held: list[threading.Lock] = []
        self._transport = LateTransport(self._config, self._given_transport)
        self.is_loaded = False
        self.workers = Workers()
        self.rescuers = Workers()
        self.reporter = Reporter(self._config)
        self._credentials.reset_after_fork()
        self.log_key.reset_after_fork()
        self.sender = self._new_sender()
        self.begin_anew()

    def _new_sender(self) -> Sender | LogSender:
        if self._config.delivery == "log" and self._given_transport is None:
            from .log_sender import LogSender  # Who sends does not pay for its import.

            return LogSender(self._config, self.log_key)
        return Sender(self._transport.loaded, self._credentials)

    def begin_anew(self) -> None:
        """Leave to another process what it had sealed, measured, and connected to.

        The key stays: should it have been replaced meanwhile, the server's refusal has it fetched.
        """
        config = self._config
        with self._lock:
            self._predecessors: list[Outbox] = []
            self._dead_letters = DeadLetters(
                config.dead_letter,
                limit=config.record_limit,
                least_level=config.least_level,
                log_key=self.log_key,
            )
            self._is_recovering = False
            self._last_sign_at = self._clock()
            self.state = OutboxState(
                config.max_queue_size, config.max_backlog_bytes, config.timeout_s
            )
            if config.obstacle is not None:
                self.state.breaker.open(0.0, *config.obstacle, float("inf"))
        self.close_idle()

    def load(self) -> None:
        """Import the modules that sending needs. Only for threads of the application.

        A failure is reported with the events that could not be sent, and the next flush tries
        again.
        """
        try:
            if self._config.needs_network:
                self._transport.load()
                self._credentials.load()
            self.log_key.load()
            self.is_loaded = True
        except Exception as problem:
            if is_from_signal(problem):
                raise
            if self._config.debug:
                debug(f"sending is not ready: {show(problem, 200)}")

    @property
    def has_in_hand(self) -> bool:
        """Whether any batch is not settled, here or where it took over; no locks are taken."""
        return not self.state.is_idle or bool(self._predecessors)

    @property
    def kept_events(self) -> int:
        """Events in the backlog: not delivered, and not waited for."""
        return self.state.kept.events

    def report(self, error: DoowError) -> None:
        """Tell the user of ``error``."""
        self.reporter.report(error)

    # ── what a flush asks for ──────────────────────────────────────────────────────────────────

    @property
    def is_driven_here(self) -> bool:
        """Whether this thread runs a job, or has been interrupted while it held the lock."""
        return is_job_here() or self._lock._is_owned()  # type: ignore[attr-defined]  # as `Condition`

    def add(self, flight: Flight, batch: Batch) -> list[Attempt]:
        """Have ``flight`` account for ``batch``; return the attempts that are to be made."""
        return self._bring(self.state.add, batch, flight)

    def join(self, flight: Flight, other: Flight) -> list[Attempt]:
        """Have ``flight`` account for ``other``, or wait for it as well; return as of `add`."""
        return self._bring(self.state.join, flight, other)

    def note_late(self, flight: Flight, events: int) -> None:
        """So many events of ``flight`` could not be sealed in time."""
        with self._lock:
            flight.late(events)
        flight.release(events)

    def keep(self, batch: Batch, reason: ErrorKind) -> None:
        """Keep ``batch``, for which nobody waits, and write it down."""
        self._note(partial(self.state.keep, is_written=False, reason=reason), batch)

    def look(self) -> None:
        """Time has passed: cut off what hangs, send what is due, and watch what is under way."""
        try:
            self._note(self.state.tick)
        finally:  # A given transport may raise when it is to cut something off.
            self.watch()

    def watch(self, *, anyway: bool = False) -> None:
        """Have a timer look again soon if anything is under way, or ``anyway``."""
        state = self.state
        if not (anyway or state.under_way):
            return
        with self._lock:
            if self._watched is state:
                return
            self._watched = state
        timers.call_at(time.monotonic() + WATCH_S, partial(self._have_looked, state))

    def _have_looked(self, state: OutboxState) -> None:
        """Have a worker look at ``state``; runs on the thread of the timers."""
        if self._watched is state:  # Otherwise the outbox has begun anew.
            self._watched = None
            self.rescuers.submit(self.look)

    def wait(self, flight: Flight, budget: Budget) -> None:
        """Block until everything of ``flight`` is settled or given up, or ``budget`` is used up."""
        changed = threading.Event()
        flight.wake = changed.set
        self._note(self.state.wait, flight, budget.ends_at)
        while (pause_s := self.pause_s(flight)) is not None:
            changed.wait(pause_s)
            changed.clear()
            self._note(self.state.tick)
        budget.ends_at = flight.ends_at  # Later than before if the process was frozen meanwhile.

    def close(self, flight: Flight, outcome: Outcome) -> list[DoowError]:
        """Give up what is not settled; add to ``outcome``, and return, as of `Flight.account`."""
        with self._lock:
            # What is settled has left already, unless it waited for a probe.
            flight.is_closed = is_settled = not (flight.pending or flight.probe_ends_at)
        if not is_settled:
            self._note(self.state.close, flight)
        if self.state.under_way:
            self.watch()
        errors = flight.account(outcome)
        if errors:
            self._dead_letters.wait()
        outcome.backlog += self.state.kept.events
        return errors

    def pause_s(self, flight: Flight) -> float | None:
        """Seconds until the next look at ``flight``; None if there is nothing to wait for."""
        with self._lock:
            pause_s = self.state.pause_s(flight, self._clock())
        return None if pause_s is None else min(pause_s, WATCH_S)

    # ── what nobody waits for ──────────────────────────────────────────────────────────────────

    def redeliver(self) -> None:
        """Have other threads send what is kept, as far as that is worth a try."""
        if self.state.entries:
            self.rescuers.submit(self.look)

    def recover(self) -> None:
        """Take over what crashed processes have left."""
        if self.journal is None:
            return
        found = self.journal.recover(
            max_bytes=self._config.max_payload_bytes,
            max_packed=self._config.max_packed_bytes,
            compress=self._config.compress,
        )
        self._is_recovering = bool(found)
        for batch in found:
            self._note(partial(self.state.keep, is_written=None), batch)
        if found:
            self.redeliver()

    def take_over(self, other: Outbox) -> None:
        """Take over what ``other`` has not delivered, and will not, now that it is replaced.

        What it has under way stays there until that has come back.
        """
        other._successor = self
        with other._lock:
            kept = other.state.drain()
        for entry in kept:
            if self.journal is not None:
                self.journal.note_sealed(entry.batch)
            keep = partial(self.state.keep, is_written=entry.is_written, logged_as=entry.logged_as)
            self._note(keep, entry.batch)
            if other.journal is not None:
                other.journal.note_settled(entry.batch.id)
        other.close_idle()
        self._note_predecessor(other)
        self._hand_over()

    def _hand_over(self) -> None:
        """Leave to a successor what nobody waits for here, now that this outbox is replaced."""
        if self._successor is not None:
            self._successor.take_over(self)

    def _note_predecessor(self, other: Outbox) -> None:
        """Remember ``other`` until it is idle; its threads may end all at once."""
        with self._lock, other._lock:
            is_known = other in self._predecessors
            if other.state.is_idle and is_known:
                self._predecessors.remove(other)
            elif not other.state.is_idle and not is_known:
                self._predecessors.append(other)

    def deliver_last(self, budget: Budget, patience_s: float = 0.0) -> None:
        """Deliver all that there is, whoever waits for it, and write down the rest.

        The process is about to end: a part of the budget is left for writing, and so many seconds
        beyond it, should that not be enough.
        """
        flight = Flight(lambda _: None, self)
        if self._config.obstacle is None:
            self._note(self.state.wait_for_all, flight)
        with self._lock:
            writing_s = LEAST_WRITING_S + self.state.unsettled_bytes / WRITTEN_PER_S
        writing_s = min(writing_s, budget.remaining() / 2)
        budget.extend(-writing_s)
        self.wait(flight, budget)
        budget.extend(writing_s)
        self._note(self.state.close, flight)
        for outbox in (self, *self._predecessors):
            outbox.write_down_all(budget.remaining() + patience_s)

    def write_down_all(self, patience_s: float) -> None:
        """Write down what is not settled, and wait so many seconds at most until that is done."""
        self._note(self.state.end)
        self._dead_letters.wait(patience_s)

    # ── facts and orders ───────────────────────────────────────────────────────────────────────

    def _note(self, fact: Callable[..., object], *args: object) -> None:
        """Bring a fact to the state, and carry out what it orders."""
        self.submit_all(self._bring(fact, *args))

    def _bring(self, fact: Callable[..., object], *args: object) -> list[Attempt]:
        """Bring a fact to the state, carry out all that it orders but to send, and return that."""
        with self._lock:
            fact(*args, self._now())
            orders = self.state.take_orders()
        self._carry_out(orders)
        if self._successor is not None:
            self._hand_over()
        return orders.send

    def _now(self) -> float:
        """The time of a fact, before which the process may have been frozen; with the lock held."""
        now = self._clock()
        gap_s, self._last_sign_at = now - self._last_sign_at, now
        if gap_s > FROZEN_S:
            self.state.thaw(gap_s)
        return now

    def _carry_out(self, orders: Orders) -> None:
        """Do as ordered, without locks, since buffers have theirs; all but to send."""
        if orders.write_down or orders.split or (orders.settled and self.journal is not None):
            self._write_down(orders)
        for release, events in orders.release:
            release(events)
        for error in orders.report:
            self.report(error)
        for batch_id in orders.abort:
            self.sender.abort(batch_id)
        for flight in orders.wake:
            if flight.wake is not None:
                flight.wake()

    def _write_down(self, orders: Orders) -> None:
        """Have journal and log know what has become of batches, before anything is sent."""
        for entry, reason in orders.write_down:
            why = reason if self._config.dead_letter == "off" else self._log_as(entry, reason)
            entry.is_written = self._dead_letters.write(entry.batch, why)
        for batch, halves, is_written in orders.split:
            if is_written is not False:
                self._dead_letters.write(batch, SPLIT)
            if self.journal is not None:
                self.journal.note_split(batch, halves)
        for batch_id in orders.settled:
            if self.journal is not None and batch_id not in orders.given_up:
                self.journal.note_settled(batch_id)

    def _log_as(self, entry: Entry, reason: ErrorKind | str) -> ErrorKind | str:
        """Return the reason for a frame of ``entry``: LOG for all of its frames, or for none.

        A relay may gather the events of a frame that says LOG, and then the batch's id is lost to
        Doow: a frame with another reason, of a dead letter, would be counted besides.
        """
        with self._lock:
            if entry.logged_as is None or BY_LOG not in (entry.logged_as, reason):
                entry.logged_as = reason
            return entry.logged_as

    # ── sending; runs on a worker ──────────────────────────────────────────────────────────────

    def submit_all(self, attempts: list[Attempt]) -> None:
        """Have workers make ``attempts``."""
        for attempt in attempts:
            if not self.workers.submit(partial(self.send, attempt, self.state)):
                self._note(self.state.cannot_send, attempt)

    def send(self, attempt: Attempt, state: OutboxState) -> None:
        """Make an attempt that ``state`` has ordered, and those that follow; blocks."""
        following: Attempt | None = attempt
        try:
            while following is not None:
                following = self._try(following, state)
            if self._is_recovering and not self.state.kept:
                self.recover()
            if self._successor is not None:
                self._hand_over()
        except Exception as fault:
            report_fault("sending", fault)
            if following in state.under_way:
                self._note(partial(state.cannot_send, why="a fault of doow-serverless"), following)

    def _try(self, attempt: Attempt, state: OutboxState) -> Attempt | None:
        """Make an attempt; the next one for this thread, if any."""
        # The server has no part in how long that takes.
        trouble = None if self.sender.is_ready else self.sender.prepare()
        if self.log_key.kept is not None:
            self.log_key.fetch_aside()
        is_reused = not attempt.is_fresh and self.sender.reuses_connection()
        if not self._begins(attempt, state, is_reused):
            return None
        result = trouble or self._sent(attempt)
        with self._lock:
            if self.state is not state:
                return None  # What has begun anew since then leaves it to another process.
            state.answer(attempt, result, self._now())
            orders = state.take_orders()
        following = orders.send.pop(0) if orders.send else None
        if orders.send:
            self.submit_all(orders.send)
        self._carry_out(orders)
        return following

    def _begins(self, attempt: Attempt, state: OutboxState, is_reused: bool) -> bool:
        """Let ``attempt`` begin; False if nobody wants it, or if it is another process's now.

        The order may have waited for a thread while this outbox began anew, as after a restore.
        """
        with self._lock:
            if self.state is not state:
                return False
            begins = state.begin(attempt, self._now(), is_reused=is_reused)
            orders = state.take_orders()
        if orders.send:
            self.submit_all(orders.send)
        self._carry_out(orders)
        return begins

    def _sent(self, attempt: Attempt) -> Result:
        """Send the batch of an attempt; return the answer."""
        entry, fresh = attempt.entry, attempt.is_fresh
        if self._config.delivery != "log":
            return self.sender.send(entry.batch, fresh=fresh)
        return self.sender.send(entry.batch, fresh=fresh, reason=self._log_as(entry, BY_LOG))

    # ── the connection, and forks ──────────────────────────────────────────────────────────────

    def close_idle(self) -> None:
        """Close the kept connections; no locks are taken."""
        self._transport.close_idle()

    def before_fork(self) -> None:
        """Let other threads finish what they import, and keep them from it during the fork."""
        ends_at = time.monotonic() + FORK_WAIT_S
        kept = (self._credentials.kept, self.log_key.kept)
        locks = [text.importing for text in kept if text is not None]
        for lock in (self._transport.loading, *locks):
            if lock.acquire(timeout=max(0.0, ends_at - time.monotonic())):
                self._held.append(lock)

    def after_fork_in_parent(self) -> None:
        """Release what :meth:`before_fork` took."""
        while self._held:
            self._held.pop().release()
