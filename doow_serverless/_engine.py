"""The engine of one tracker: it puts recording, delivery and keeping together.

Scopes and invocations ask it, and it asks delivery; users hold it through a tracker.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress

from ._delivery.credentials import Credentials
from ._delivery.flush import Flusher
from ._delivery.guard import Guard, schedule
from ._delivery.outbox import Outbox
from ._frames import format as frame_format
from ._process import children, forks, init_phase
from ._process.log import debug, report_fault, warn
from ._process.orphans import adopt
from ._process.shutdown import install, serve
from ._process.snapshots import guard_snapshots
from ._process.timers import timers
from ._recording.event import Defaults
from ._recording.outside import Outside, Strays
from ._recording.plain import plain
from ._recording.rules import MAX_TEXT
from ._redaction import looks_secret
from .errors import DoowError, InvalidEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._config import Config
    from ._delivery.sender import Transport
    from ._keeping.journal import Journal
    from ._outcome import Outcome
    from ._process.clock import Clock
    from ._recording.buffer import Buffer
    from ._recording.event import Event
    from ._recording.ids import Identity
    from ._recording.rules import LeftOut

SOON_S = 0.5
"""Seconds after which what a forked child records leaves it, where no invocation of it ends."""
INIT_WAIT_S = 3.0
"""Seconds of an init phase for which keys and connections are waited for, by all engines together:
the phase lasts ten seconds at most."""
SNAPSHOT_LIMIT_S = 10.0
"""Seconds of an init phase for the flush before a snapshot; Lambda grants it 130 at least."""
_PATIENCE_S = 1.0
"""Seconds beyond that, and after a restore, for what is being written down; Lambda grants 10."""
_MAX_WARNED = 1_000
"""Things left out that are remembered, so that each is reported once."""
_MOST_TOLD = 5
"""Reports of what was left out of one event."""
_waited_s = 0.0
"""Seconds of them that are used up."""
_reported: set[tuple[str, str]] = set()
"""Malformed variables of this process that have been reported."""
_LATE = (
    "requests is imported during an invocation, which takes seconds on a small function: decorate, "
    "or import doow_serverless.asgi (or .wsgi, .powertools), while your module loads, with the key "
    "named by a variable; or call doow.configure() there"
)


class Engine:
    """Records and delivers for one tracker.

    It lives as long as somebody holds it (a tracker, an invocation, a scope), and then until what
    it has in hand is delivered or written down. So nothing that it holds refers back to it, but for
    what an invocation has: else it would live until the next collection of garbage.

    Every method may be called from any thread, and none raises an Exception but :meth:`refuse`.

    Args:
        config: What it goes by.
        transport: Sends instead of HTTP.
        clock: Monotonic seconds, by which budgets and hold-offs are measured.

    Attributes:
        enabled, strict, flush_at: Those of the configuration.
        defaults: License and attribution of events that name none.
        outbox: Owns the batches that are sealed and not settled.
        ends_at: The platform's deadline, on the monotonic clock, when it last told one.
    """

    def __init__(self, config: Config, transport: Transport | None, clock: Clock) -> None:
        self.config = config
        self.enabled = config.enabled
        self.strict = config.strict
        self.flush_at = config.flush_at
        self.defaults = Defaults(config.license_id, config.attribution, config.removed, config.fold)
        credentials = Credentials(config.api_key, config.key_place, clock=clock)
        self._credentials = credentials
        self._journal = _journal_of(config, credentials) if config.enabled else None
        self._clock = clock
        self.outbox = Outbox(config, credentials, self._journal, transport, clock)
        self._flusher = Flusher(config, self.outbox, self._journal, clock)
        self._strays = Strays(
            config.license_id, config.attribution, config.removed, config.fold, clock
        )
        self.ends_at: float | None = None
        self._is_replaced = False
        self._warned: set[str] = set()
        self._leaves_soon = False
        self.warm_up: threading.Thread | None = None
        self._is_left = False
        forks.register(self)
        if config.enabled:
            self._begin()

    def _begin(self) -> None:
        install()
        forks.guard_forks()
        guard_snapshots()
        children.install()
        if children.is_one():
            self.unattended.leave_soon()
        for name, problem in self.config.problems:
            if (name, problem) not in _reported:
                warn(problem)
            if self.config.is_of_process and name != "api_key":
                # Once a process: a decorator may make a tracker before configure() makes another.
                _reported.add((name, problem))
        self.report_removed(self.config.removed)
        self._warm_up()

    def __repr__(self) -> str:
        return f"Engine({self._flusher!r}, {self.outbox!r})"

    # ── what recording asks for ────────────────────────────────────────────────────────────────

    @property
    def outside(self) -> Outside:
        """The scope of code that no invocation can be seen for."""
        forks.notice()
        return Outside(self, self.unattended, self._strays)

    @property
    def unattended(self) -> Buffer:
        """Takes events that no invocation can be seen for."""
        return self._flusher.unattended

    def send_early(self, buffer: Buffer, at_least: int | None = None) -> None:
        """Have what waits in ``buffer`` leave in the background, if that is a batch, or so much."""
        if not buffer.is_endless or at_least:
            self.load()
            self._flusher.send_early(buffer, at_least)
        elif not buffer.is_idempotent and not self._leaves_soon:
            # Not what a retry is to send in the same batches: that leaves at the end alone.
            self._leaves_soon = True
            timers.call_at(time.monotonic() + SOON_S, self._flush_endless)

    def _flush_endless(self) -> None:
        self._leaves_soon = False
        for buffer in self._flusher.buffers():
            if buffer.is_endless and buffer.has_waiting and not buffer.is_idempotent:
                self.flush_meanwhile(buffer, lambda: self.config.budget_s)

    def end_transaction(self, transaction: Buffer, *, discard: bool) -> None:
        """Forget the events of a transaction, or pass them to the buffer around it."""
        self._flusher.end_transaction(transaction, discard=discard)
        if transaction.root.is_endless:
            self.send_early(transaction.root)

    def refuse(self, problem: InvalidEvent, event_id: object) -> None:
        """Report an event that breaks a rule, or raise in strict mode."""
        event_id = plain(event_id)
        if type(event_id) is str and len(event_id) <= MAX_TEXT and not looks_secret(event_id):
            problem.event_ids = (event_id,)
        if self.strict:
            raise problem
        self.outbox.report(problem)

    def complain(self, problem: DoowError) -> None:
        """Report a call that is wrong, each thing once, or raise in strict mode."""
        if self.strict:
            raise problem
        if self.enabled and self._is_new(str(problem)):
            self.outbox.report(problem)

    def report_removed(self, left_out: list[LeftOut]) -> None:
        """Report what was left out of an event, each thing once, and empty the list.

        At most `_MOST_TOLD` times: the last report sums up the rest.
        """
        if not left_out:  # Nearly always; each invocation asks.
            return
        new = [said for said in _told(left_out) if self._is_new(said)]
        told = new if len(new) <= _MOST_TOLD else new[: _MOST_TOLD - 1]
        for said in told:
            self.outbox.report(InvalidEvent(said))
        if len(told) < len(new):
            rest = len(new) - len(told)
            self.outbox.report(
                InvalidEvent(f"{rest} more labels of the same event were left out, and it goes on")
            )

    def _is_new(self, said: str) -> bool:
        """Return True the first time; again once `_MAX_WARNED` other things have been said."""
        if said in self._warned:
            return False
        if len(self._warned) >= _MAX_WARNED:
            self._warned.clear()
        self._warned.add(said)
        return True

    # ── what invocations ask for ───────────────────────────────────────────────────────────────

    def load(self) -> None:
        """Import the modules that sending needs, once. Only for threads of the application."""
        if self.outbox.is_loaded:
            return
        if self.config.warm_up and init_phase.is_missed() and "requests" not in sys.modules:
            warn(_LATE)
        self.outbox.load()

    def new_buffer(self, identity: Identity | None = None) -> Buffer:
        """A buffer for an invocation that begins; ``identity`` makes its ids derive from it."""
        init_phase.end()
        serve()
        return self._flusher.new_buffer(identity, self._take_dropped)

    def _take_dropped(self, events: list[Event]) -> None:
        """Have the next flush send what a buffer held that was garbage-collected."""
        self._flusher.dropped.append(events)
        if self._is_left:  # Both were collected at once, and there will be no next flush.
            adopt(self)

    def flush(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """As of `Flusher.flush`."""
        return self._flusher.flush(buffer, limit_s, last=last)

    async def aflush(self, buffer: Buffer, limit_s: float, *, last: bool = False) -> Outcome:
        """As of `Flusher.aflush`."""
        return await self._flusher.aflush(buffer, limit_s, last=last)

    def flush_meanwhile(self, buffer: Buffer, limit_s: Callable[[], float]) -> None:
        """As of `Flusher.flush_meanwhile`."""
        self._flusher.flush_meanwhile(buffer, limit_s)

    def flush_before(
        self, ends_at: float, deliver: Callable[[Callable[[], float]], None]
    ) -> Guard | None:
        """Have ``deliver`` called shortly before the platform kills the function.

        Args:
            ends_at: When it does, on the monotonic clock.
            deliver: As of `Guard`.

        Returns:
            What to cancel it by; None where it is too late.
        """
        self.ends_at = ends_at
        if ends_at - time.monotonic() <= schedule().leads_s[-1]:
            return None
        return Guard(ends_at, deliver)

    # ── the life of the process ────────────────────────────────────────────────────────────────

    def take_over(self, other: Engine) -> None:
        """Take over what ``other`` has not delivered, and will not, now that it is replaced."""
        try:
            self._flusher.take_over(other._flusher)
            self.outbox.take_over(other.outbox)
        except Exception as fault:  # Then it delivers by itself, once it is dropped.
            report_fault("taking over from an earlier tracker", fault)
            return
        other.outbox = self.outbox
        other._is_replaced = True

    def _warm_up(self) -> None:
        """Make ready what the first flush would wait for.

        The imports come at once: later they would compete with the handler, and on a thread of ours
        with its own imports. The network may be silent for longer than an init phase lasts, so it
        is asked on a thread.
        """
        mode = self.config.warm_up
        frame_format.load()
        if mode:
            self.load()
        jobs = [self.outbox.recover] if self.config.journal else []
        is_free = bool(mode) and init_phase.is_on()
        if jobs and is_free:
            self._run_all([jobs.pop()])
        if mode and self.config.needs_network and (self.config.key_place or mode == "connect"):
            jobs.append(self._reach)
        if mode:
            self.outbox.log_key.fetch_aside()
        if mode and is_free and self.config.delivery == "log":  # Dead letters do not wait for it.
            with suppress(DoowError):  # The first flush will report it.
                _wait_in_init(self.outbox.log_key.prepare)
        if jobs:
            self.warm_up = self._start_warm_up(jobs)
        if self.warm_up is not None and is_free:
            _wait_in_init(self.warm_up.join)

    def _start_warm_up(self, jobs: list[Callable[[], None]]) -> threading.Thread | None:
        thread = threading.Thread(
            target=self._run_all, args=(jobs,), name="doow-warm-up", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # No more threads: then the first flush does its work.
            return None
        return thread

    def _run_all(self, jobs: list[Callable[[], None]]) -> None:
        for job in jobs:
            try:
                job()
            except Exception as fault:
                # The first flush will meet the same trouble, and report it with the events it
                # befell.
                if self.config.debug:
                    debug(f"warm-up failed: {type(fault).__name__}")

    def _reach(self) -> None:
        """Fetch the key if it is kept elsewhere, and open a connection if that is asked for."""
        if self.config.key_place:
            self._credentials.current(INIT_WAIT_S)
        if self.config.warm_up == "connect":
            self.outbox.sender.connect()

    def last_flush(self, limit_s: float, patience_s: float = 0.0) -> None:
        """Try once more to deliver everything, since the process is about to end.

        Args:
            limit_s: Seconds for all of it.
            patience_s: Seconds beyond that for what is still being written down.
        """
        self._flusher.flush_last(limit_s, patience_s)

    def __del__(self) -> None:
        # In the middle of whatever this thread was doing: no locks, and no sending.
        if sys.is_finalizing() or not hasattr(self, "_is_left"):
            return  # The last flush has been; or a signal came while it was made.
        self._is_left = True
        if self._flusher.has_in_hand or (not self._is_replaced and self.outbox.has_in_hand):
            adopt(self)
        else:
            self._close()

    def settle(self) -> None:
        """Deliver what is in hand, or write it down, since nobody holds this engine any more."""
        if self._is_replaced:  # Then its successor does what is left to be done.
            self._flusher.flush_in_job(self.unattended, self.config.timeout_s)
        else:
            self.outbox.close_idle()  # A collector has closed their sockets.
            self.last_flush(self.config.timeout_s, _PATIENCE_S)
        self._close()

    def _close(self) -> None:
        if not self._is_replaced:
            self.outbox.close_idle()
        if self._journal is not None:  # What is not settled stays there to be recovered.
            self._journal.close()

    def before_fork(self) -> None:
        """Let other threads finish what they import."""
        if not self._is_replaced:  # Else the outbox is that of another engine.
            self.outbox.before_fork()

    def after_fork_in_parent(self) -> None:
        """Release what :meth:`before_fork` took."""
        if not self._is_replaced:
            self.outbox.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """In a child: what was recorded before is the parent's to deliver."""
        if not self._is_replaced:
            self.outbox.reset_after_fork()
        self._begin_anew()

    def before_snapshot(self) -> None:
        """Deliver what waits, or write it down, since each restored process would deliver it."""
        if self.enabled and not self._is_replaced:
            began = time.monotonic()
            if self.warm_up is not None:
                # Else it opens a journal of its own when the earlier one has been left.
                self.warm_up.join(SNAPSHOT_LIMIT_S)
            left_s = SNAPSHOT_LIMIT_S - (time.monotonic() - began)
            self.last_flush(max(0.0, left_s), _PATIENCE_S)
            self._leave_here()

    def after_restore(self) -> None:
        """In a restored process: what was recorded before is in all the others, too."""
        if self.enabled and not self._is_replaced:
            self._flusher.write_down_all(_PATIENCE_S)
        self._leave_here()

    def _leave_here(self) -> None:
        """Begin anew where the earlier process is not there any more to settle its journal."""
        if self._journal is not None:
            self._journal.discard()
        if not self._is_replaced:
            self.outbox.begin_anew()
            # Nobody refuses a signature here, and the snapshot may be months old.
            self.outbox.log_key.expire()
            self._credentials.expire()
        self._begin_anew()

    def _begin_anew(self) -> None:
        if self._journal is not None:
            self._journal.after_fork()
        self._flusher.begin_anew()
        self._leaves_soon = False
        self.warm_up = None
        self.ends_at = None


def _wait_in_init(wait: Callable[[float], None]) -> None:
    """Call ``wait`` with the seconds that are left of `INIT_WAIT_S`."""
    global _waited_s
    began = time.monotonic()
    try:
        wait(max(0.0, INIT_WAIT_S - _waited_s))
    finally:
        _waited_s += time.monotonic() - began


def _told(left_out: list[LeftOut]) -> Iterator[str]:
    """Take from the list what was left out, in the words of a report."""
    with suppress(IndexError):  # There is no more, or another thread has it.
        while True:
            what = left_out.pop()
            why = " looked like a credential and" if isinstance(what, str) else ", and"
            yield f"{what}{why} was left out; the event goes on without it"


def _journal_of(config: Config, credentials: Credentials) -> Journal | None:
    if not config.journal:
        return None
    from ._keeping.journal import Journal  # Who asks for no journal does not pay for its import.

    directory = None if config.journal is True else config.journal
    return Journal(directory, audience=f"{config.endpoint} {credentials.source}")
