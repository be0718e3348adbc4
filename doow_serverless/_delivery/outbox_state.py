"""What the outbox knows of every batch that is not settled, and what it decides: a state machine.

Facts go in, as calls, each with the time at which it came true; orders come out of
:meth:`OutboxState.take_orders`, for the outbox to carry out. There are no threads, clocks, locks or
sockets here, so that every order of facts can be tried.

Where a batch stands, and where a fact puts it, the table `NEXT` of the ledger says. Here is decided
which of these facts an answer, the time, or a flush stands for:

    add         joined; at once left, while the breaker is open
    begin       a POST that was ordered begins
    answer      ended (decided, or halved), or failed: to be sent again
    close       left, and written down, once the last flight that accounted for a batch is over

What goes out next: while the breaker is closed, up to PARALLEL batches of each flight, and one of
the backlog, after a rate limit at the pace of the account; while it is open, nothing; once it is
due, one probe, which is whatever has failed least. What failed goes behind what did not. Whether a
batch that fails is at fault itself, `Blame` decides.
"""

from __future__ import annotations

from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind

from .blame import Blame, Verdict
from .breaker import FIRST_HOLD_S, LONGEST_HOLD_S, CircuitBreaker, uniform
from .flight import NEVER, Attempt, Entry, State
from .ledger import Fact, Ledger, Orders
from .pace import BacklogPace, Hedges, Pace
from .results import Failed, Settled, Split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch

    from .flight import Flight
    from .results import Result

PARALLEL = 4
"""Batches of one flight that travel at once."""
MOST_ATTEMPTS = 4
"""POSTs of one batch that may hang at once."""
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 1.0
CUT_OFF_AGAIN_S = 0.05
"""Seconds between attempts to cut off a POST that has outlasted the timeout."""
SILENT = Failed(ErrorKind.TIMEOUT, "no answer came within the budget")
UNREADY = Failed(
    ErrorKind.NOT_READY,
    "the budget was used up before anything could be sent (imports, the key, or a thread)",
)
NO_THREADS = "the system starts no more threads"
USED_UP = "the rate limit is used up, as the answer to what was accepted last says"


class OutboxState:
    """The batches that are not settled. Facts are methods; each may leave orders behind.

    Args:
        max_events, max_bytes: Bounds of the backlog, in events and in sealed bytes.
        give_up_after_s: Seconds of silence after which a POST is cut off.
        uniform: A random number from 0.0 up to 1.0.

    Attributes:
        breaker: Whether sending is worth a try.
        entries: Those of all batches that are not settled, by batch id.
        kept: The backlog.
        under_way: All attempts that were ordered and have not come back.
    """

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        give_up_after_s: float,
        uniform: Callable[[], float] = uniform,
    ) -> None:
        self._give_up_after_s = give_up_after_s
        self._uniform = uniform
        self.under_way: list[Attempt] = []
        self._probe: Attempt | None = None
        self._blame = Blame()
        self._pace = Pace()
        self._hedges = Hedges()
        self._backlog_pace = BacklogPace(uniform)
        self._ledger = Ledger(max_events, max_bytes)
        self._lacks_hedges = False
        self._looked_at = self._pumped_at = 0.0
        self.entries = self._ledger.entries
        self.kept = self._ledger.kept
        self.breaker = CircuitBreaker(uniform)

    def __repr__(self) -> str:
        return (
            f"{len(self._ledger.flights)} flights, {len(self.under_way)} POSTs under way, "
            f"{self.kept!r}, {self.breaker!r}"
        )

    def take_orders(self) -> Orders:
        """The orders that the facts so far have led to, each once."""
        orders, self._ledger.orders = self._ledger.orders, Orders()
        return orders

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send, and nothing under way."""
        return not self.entries and not self.under_way

    @property
    def unsettled_bytes(self) -> int:
        """Sealed bytes that are neither settled nor written down."""
        entries = self.entries.values()
        return sum(len(each.batch.body) for each in entries if not each.is_written)

    # ── facts: batches ─────────────────────────────────────────────────────────────────────────

    def add(self, batch: Batch, flight: Flight, now: float) -> None:
        """A batch is sealed, for which ``flight`` accounts."""
        entry = self._ledger.account(batch, flight)
        if flight.is_closed or (self.breaker.is_open and not self.breaker.is_due(now)):
            self._ledger.give_up(flight, entry, self._held_off() or SILENT)
        else:
            self._begin_wait(flight, now)

    def keep(
        self,
        batch: Batch,
        _: float,
        *,
        is_written: bool | None,
        reason: ErrorKind | None = None,
        logged_as: ErrorKind | str | None = None,
    ) -> None:
        """A batch is to be delivered for which nobody waits, as one that a crash has left.

        Whether it ``is_written`` in the log of a process that is gone nobody knows: None. With a
        ``reason`` it is written down. Otherwise it may have been sent or written before: unless
        ``logged_as`` says as what, it goes to no log as one that a relay may gather.
        """
        if batch.id not in self.entries:
            entry = Entry(batch)
            entry.is_written = is_written
            entry.is_released = True
            entry.is_ambiguous = reason is None  # A process that is gone may have sent it.
            entry.logged_as = logged_as or (ErrorKind.TIMEOUT if reason is None else None)
            self._ledger.keep(entry, reason)

    def drain(self) -> list[Entry]:
        """Take out what is kept and not under way: another outbox delivers it."""
        free = [entry for entry in self.kept if not entry.attempts]
        for entry in free:
            self._ledger.move(entry, Fact.ENDED)
        return free

    def end(self, _: float) -> None:
        """The process may end at any moment: what is not settled is written down, whoever waits."""
        for entry in self.entries.values():
            self._ledger.write_down(entry, entry.last.reason if entry.last else ErrorKind.TIMEOUT)

    # ── facts: flushes ─────────────────────────────────────────────────────────────────────────

    def wait(self, flight: Flight, ends_at: float, now: float) -> None:
        """A flush begins to wait for a flight."""
        flight.waiting_since, flight.ends_at = now, ends_at
        self._begin_wait(flight, now)

    def _begin_wait(self, flight: Flight, now: float) -> None:
        if flight.waiting_since < NEVER:
            if self.breaker.is_open and self.breaker.is_due(now) and not flight.probe_ends_at:
                wait_s = self.breaker.probe_wait_s(now, flight.ends_at - now)
                flight.probe_ends_at = now + wait_s
            for entry in flight.queue:
                if not entry.was_in_flight:  # What failed in the background is due, as is the rest.
                    entry.not_before = now
        self.tick(now)

    def join(self, flight: Flight, other: Flight, now: float) -> None:
        """A flush has to account for what ``other`` has on its way, or to wait for it as well."""
        if other.is_waited_for:
            for entry in list(other.pending.values()):
                self._ledger.join(entry, flight)
        elif not other.is_closed:
            self._ledger.absorb(flight, other)
        self._begin_wait(flight, now)

    def wait_for_all(self, flight: Flight, now: float) -> None:
        """A flush is about to wait for whatever is not settled: the last one of the process."""
        self.breaker.close()
        for entry in self.entries.values():
            entry.not_before = now
            self._ledger.join(entry, flight)

    def pause_s(self, flight: Flight, now: float) -> float | None:
        """Seconds until the flush should look again; None when there is nothing to wait for."""
        if not flight.pending:
            return None
        ends_at = self._waits_until(flight, now) if self.breaker.is_open else flight.ends_at
        hopes = [e for e in flight.pending.values() if e.attempts or e.not_before < ends_at]
        if ends_at <= now or not hopes:
            return None
        looks = [self._cut_off_at(attempt, now) for attempt in self.under_way]
        sends: list[float] = []
        if not self.breaker.is_open:
            sends = [entry.not_before for entry in flight.queue]
            looks += [self._pace.doubt_at(flight, each) for each in self._doubtful_of(flight)]
            looks += [self._pace.outage_at(each.attempts[0]) for each in self._unwaited()]
        # A moment that has come since the last fact would be missed if nobody looked now.
        moments = [at for at in sends if at > self._pumped_at]
        moments += [at for at in looks if at > self._looked_at]
        return max(0.0, min([ends_at, *moments]) - now)

    def _waits_until(self, flight: Flight, now: float) -> float:
        """How long a flush waits while the breaker is open, in seconds on the clock of the facts.

        It waits for its POSTs that are under way, since they may succeed whatever others have
        brought. For a probe it waits as long as `CircuitBreaker.probe_wait_s` allows.
        """
        attempts = (one for entry in flight.pending.values() for one in entry.attempts)
        if any(one.began_at is not None and not one.is_probe for one in attempts):
            return flight.ends_at
        return min(flight.ends_at, flight.probe_ends_at) if self.breaker.is_due(now) else now

    def _cut_off_at(self, attempt: Attempt, now: float) -> float:
        """Return when to cut off ``attempt``: a little late, and again and again if it is overdue.

        The transport counts the timeout from its POST, which begins after the attempt.
        """
        ends_at = (attempt.began_at or now) + self._give_up_after_s
        return max(now, ends_at) + CUT_OFF_AGAIN_S

    def close(self, flight: Flight, now: float) -> None:
        """A flush stops waiting: what is not settled is kept, and written down."""
        if self.breaker.is_open and flight.probe_ends_at:
            self.breaker.note_wait(now - flight.waiting_since)
        worst = None
        for entry in list(flight.pending.values()):
            failure = entry.last or self._why_unanswered(entry)
            if worst is None and self._is_telling(entry, now):
                worst = failure
            self._ledger.give_up(flight, entry, failure)
        flight.is_closed = True
        self._ledger.leave(flight)
        if (
            flight.probe_ends_at
            and self._probe is not None
            and self._pace.outage_at(self._probe) <= now
        ):
            worst = worst or SILENT
        if worst is not None:
            self.breaker.failed(now, worst.reason, worst.message)
        self.tick(now)

    def _why_unanswered(self, entry: Entry) -> Failed:
        """Why no attempt of a batch has come back before its flush was over."""
        if any(attempt.began_at is not None for attempt in entry.attempts):
            return SILENT
        has_begun = any(attempt.began_at is not None for attempt in self.under_way)
        return self._held_off() or (SILENT if has_begun else UNREADY)

    def _held_off(self) -> Failed | None:
        """Why nothing is sent just now; None if batches are sent."""
        if self.breaker.reason is None:
            return None
        return Failed(self.breaker.reason, f"holding off after: {self.breaker.message}")

    def _is_telling(self, entry: Entry, now: float) -> bool:
        """Whether a batch that nobody waits for says that the server or network is in trouble."""
        if entry.failures:
            return entry.seen_successes == self._blame.successes
        return any(
            one.seen_successes == self._blame.successes and self._pace.outage_at(one) <= now
            for one in entry.attempts
        )

    # ── facts: attempts and time ───────────────────────────────────────────────────────────────

    def begin(self, attempt: Attempt, now: float, *, is_reused: bool) -> bool:
        """An attempt is about to be made; False where nobody wants it any more."""
        entry = attempt.entry
        if attempt.began_at is not None:
            return False  # A signal came just when it was ordered: so it was ordered twice.
        if entry.state is State.GONE:
            self._drop(attempt)
            return False
        attempt.began_at, attempt.is_reused = now, is_reused
        attempt.seen_successes = self._blame.successes
        for flight in entry.flights:
            flight.requests += 1
            self._ledger.orders.wake.append(flight)  # It may have to doubt this connection.
        return True

    def cannot_send(self, attempt: Attempt, now: float, *, why: str = NO_THREADS) -> None:
        """An attempt came to nothing by trouble of our own, not the server's."""
        self._drop(attempt)
        entry = attempt.entry
        entry.is_ambiguous = entry.is_ambiguous or attempt.began_at is not None
        entry.not_before = now + FIRST_HOLD_S
        if self._ledger.knows(entry) and not entry.attempts:
            self._ledger.move(entry, Fact.FAILED, first=True)
            failure = Failed(ErrorKind.TIMEOUT, why)
            for flight in list(entry.flights):
                self._ledger.give_up(flight, entry, failure)
                self._ledger.orders.wake.append(flight)

    def answer(self, attempt: Attempt, result: Result, now: float) -> None:
        """An attempt has come back."""
        self._drop(attempt)
        entry = attempt.entry
        if entry.state is State.GONE:
            return  # Another attempt was faster.
        if not isinstance(result, Failed):
            self._got_through(attempt, now)
        if isinstance(result, Settled):
            self._ledger.settle(entry, result)
            if result.hold_s:
                self._open(Failed(ErrorKind.RATE_LIMITED, USED_UP, result.hold_s), now)
        elif isinstance(result, Split):
            self._ledger.halve(entry, result.halves)
        else:
            self._failed(attempt, result, now)
        self._ledger.orders.wake += entry.flights
        if self._lacks_hedges and not isinstance(result, Failed):  # Which may allow one more.
            self.tick(now)
        else:
            self._pump(now)

    def tick(self, now: float) -> None:
        """Time has passed: doubt what is silent, cut off what hangs, send what is due."""
        self._looked_at = now
        begun = [attempt for attempt in self.under_way if attempt.began_at is not None]
        if begun:
            self._look_at(begun, now)
        self._pump(now)

    def _look_at(self, begun: list[Attempt], now: float) -> None:
        """Cut off what hangs, note an outage, and doubt what is silent on kept connections."""
        for attempt in begun:
            if self._is_overdue(attempt, now):
                self._ledger.orders.abort.append(attempt.entry.batch.id)
        if not self.breaker.is_open and [e for e in self._unwaited() if self._is_telling(e, now)]:
            self.breaker.failed(now, SILENT.reason, SILENT.message)
            self._ledger.orders.wake += self._ledger.flights
        for flight in self._ledger.flights:
            if flight.is_waited_for and not self.breaker.is_open:
                for attempt in self._doubtful_of(flight):
                    if self._pace.doubt_at(flight, attempt) <= now:
                        self._hedge(attempt, now)

    def _hedge(self, attempt: Attempt, now: float) -> None:
        """Send a batch once more on a new connection, unless that is done too often."""
        self._lacks_hedges = not self._hedges.take()
        if not self._lacks_hedges:
            attempt.is_doubted = True
            self._order(attempt.entry, now, is_fresh=True).is_hedge = True

    def _is_overdue(self, attempt: Attempt, now: float) -> bool:
        """Whether to cut off ``attempt``.

        A function that is quick, and frozen in between, hardly runs: what it still hangs on after
        a second freeze is measured by the clock.
        """
        frozen_too = attempt.freezes > 1
        silent_s = now - attempt.ordered_at if frozen_too else attempt.silent_s(now)
        return silent_s > self._give_up_after_s

    def _unwaited(self) -> list[Entry]:
        """What is under way though no flush waits for it any more."""
        return [
            one.entry
            for one in self.under_way
            if not one.entry.flights and not one.is_doubted and not one.entry.failures
        ]

    def thaw(self, gap_s: float) -> None:
        """The process was frozen for so long: that was nobody's silence, and no budget.

        Whether the connections live is not known, so what is under way may go out once more.
        """
        for attempt in self.under_way:
            attempt.is_doubted = True
            attempt.freezes += 1
            if attempt.began_at is not None:
                attempt.began_at += gap_s
        self._probe = None
        self._looked_at += gap_s
        self._pumped_at += gap_s
        for flight in self._ledger.flights:
            flight.waiting_since += gap_s
            flight.ends_at += gap_s
            flight.probe_ends_at += gap_s if flight.probe_ends_at else 0.0

    # ── what goes out next ─────────────────────────────────────────────────────────────────────

    def _pump(self, now: float) -> None:
        self._pumped_at = now
        if self.breaker.is_open:
            is_free = self._probe is None or self._is_hopeless(self._probe, now)
            if is_free and self.breaker.is_due(now):
                entry = self._next_probe(now)
                if entry is not None:
                    self._probe = self._order(entry, now, is_fresh=not _was_unsent(entry))
                    self._probe.is_probe = True
            return
        for flight in self._ledger.flights:
            # A flush that is about to leave sends no more: what is not sent is about to be kept.
            if flight.queue and flight.ends_at > now:
                travelling = len([entry for entry in flight.pending.values() if entry.attempts])
                for entry in list(flight.queue):
                    if travelling < PARALLEL and entry.not_before <= now:
                        self._order(entry, now, is_fresh=_needs_new(entry))
                        travelling += 1
        if self.kept.events or self._backlog_pace.is_limited:
            self._pump_kept(now)

    def _pump_kept(self, now: float) -> None:
        if not self.kept:
            self._backlog_pace.catch_up()
        elif self._backlog_pace.allows(now) and not any(
            self._is_background(attempt, now) for attempt in self.under_way
        ):
            kept = self._next_kept(now)
            if kept is not None:
                self._order(kept, now, is_fresh=_needs_new(kept))

    def _is_background(self, attempt: Attempt, now: float) -> bool:
        """Whether an attempt is one that nobody waits for, and is not to be despaired of."""
        return not attempt.entry.flights and not self._is_hopeless(attempt, now)

    def _is_hopeless(self, attempt: Attempt, now: float) -> bool:
        if attempt.began_at is None:  # A signal may have come between the order and the thread.
            return now - attempt.ordered_at >= FIRST_HOLD_S
        return attempt.is_doubted or attempt.silent_s(now) >= FIRST_HOLD_S

    def _next_probe(self, now: float) -> Entry | None:
        """What has failed least; of two, the one that somebody waits for."""
        queued = [
            entry
            for flight in self._ledger.flights
            for entry in flight.queue
            if entry.not_before <= now
        ]
        kept = self._next_kept(now)
        entries = queued if kept is None else [*queued, kept]
        return min(entries, key=lambda entry: entry.failures, default=None)

    def _next_kept(self, now: float) -> Entry | None:
        due = (
            entry
            for entry in self.kept
            if entry.not_before <= now
            and len(entry.attempts) < MOST_ATTEMPTS
            and all(self._is_hopeless(one, now) for one in entry.attempts)
        )
        return min(due, key=lambda entry: entry.failures, default=None)

    def _order(self, entry: Entry, now: float, *, is_fresh: bool) -> Attempt:
        self._ledger.move(entry, Fact.ORDERED)
        attempt = Attempt(entry, now, is_fresh=is_fresh)
        entry.attempts.append(attempt)
        self.under_way.append(attempt)
        self._ledger.orders.send.append(attempt)
        return attempt

    def _drop(self, attempt: Attempt) -> None:
        self.under_way.remove(attempt)
        attempt.entry.attempts.remove(attempt)
        if self._probe is attempt:
            self._probe = None

    def _doubtful_of(self, flight: Flight) -> list[Attempt]:
        """Attempts of a flight on kept connections, which may be doubted."""
        return [
            entry.attempts[0]
            for entry in flight.pending.values()
            if len(entry.attempts) == 1
            and entry.attempts[0].is_reused
            and not entry.attempts[0].is_doubted
        ]

    # ── what an answer leads to ────────────────────────────────────────────────────────────────

    def _got_through(self, attempt: Attempt, now: float) -> None:
        self._blame.got_through(attempt.entry)
        self._pace.note(now - (attempt.began_at or now))
        self._hedges.note_answer()
        if attempt.is_hedge:
            self._hedges.note_won()
        self._backlog_pace.note(len(attempt.entry.batch.event_ids), now)
        if self.breaker.is_open and not self.breaker.is_asked(now):
            self.breaker.close()
            self._ledger.orders.wake += self._ledger.flights
            for entry in self.kept:  # The outage was to blame.
                entry.not_before = min(entry.not_before, now)
                entry.pauses = 0

    def _failed(self, attempt: Attempt, failure: Failed, now: float) -> None:
        """An attempt of a batch that is not settled has failed."""
        entry = attempt.entry
        entry.is_ambiguous = entry.is_ambiguous or failure.is_ambiguous
        if entry.attempts and failure.is_in_flight:
            # Should the other bring nothing.
            self._send_again(entry, now + (failure.hold_s or FIRST_HOLD_S))
            return
        if entry.attempts and not self._is_hopeless(entry.attempts[0], now):
            return  # The other attempt, which is under way, has the last word.
        if attempt.is_reused and failure.is_stale:
            # The server had closed it while it was idle: that is no failure of the server.
            entry.last = failure
            self._send_again(entry, now)
            return
        if failure.is_in_flight and entry.is_ambiguous and not entry.was_in_flight:
            # Another attempt, of which we know nothing any more, is being processed just now.
            entry.was_in_flight = True
            entry.last = failure
            self._send_again(entry, now + (failure.hold_s or FIRST_HOLD_S))
            return
        entry.last = failure
        if failure.hold_s or failure.reason is ErrorKind.RATE_LIMITED:
            # The server complains of its load, or of the key: not of this batch.
            self._open(failure, now)
            self._ledger.move(entry, Fact.FAILED, first=True)
        else:
            self._blame.failed(entry, failure, now)
            verdict = Verdict.AGAIN if entry.attempts else self._blame.verdict(entry, now)
            if verdict is Verdict.SPLIT:
                self._ledger.halve(entry, split(entry.batch))
            elif verdict is Verdict.GIVE_UP:
                self._ledger.abandon(entry, failure)
            else:
                self._failed_again(attempt, failure, now)

    def _failed_again(self, attempt: Attempt, failure: Failed, now: float) -> None:
        # One batch that fails in the background may be at fault itself: a flush will find out.
        entry = attempt.entry
        alone = attempt.seen_successes == self._blame.successes
        if alone and (self.breaker.is_open or (failure.hold_s == 0.0 and entry.flights)):
            self._open(failure, now)
        self._send_again(entry, now + self._backoff_s(entry, now))

    def _send_again(self, entry: Entry, not_before: float) -> None:
        """A batch is to be sent once more, behind those that have not failed."""
        entry.not_before = not_before
        self._ledger.move(entry, Fact.FAILED)

    def _open(self, failure: Failed, now: float) -> None:
        if failure.reason is ErrorKind.RATE_LIMITED:
            self._backlog_pace.limit()
        self.breaker.open(now, failure.reason, failure.message, failure.hold_s)
        self._ledger.orders.wake += self._ledger.flights

    def _backoff_s(self, entry: Entry, now: float) -> float:
        if not any(flight.is_waited_for for flight in entry.flights):
            entry.pauses += 1
            return min(FIRST_HOLD_S * 2.0 ** min(entry.pauses - 1, 16), LONGEST_HOLD_S)
        longest_s = min(FIRST_BACKOFF_S * 2.0 ** min(entry.failures - 1, 16), LONGEST_BACKOFF_S)
        left_s = max(flight.ends_at for flight in entry.flights) - now
        # As long as there is time, there is another attempt.
        return self._uniform() * min(longest_s, max(left_s, FIRST_BACKOFF_S))


def _needs_new(entry: Entry) -> bool:
    """Whether a batch must go out on a new connection, since it has failed on one that was up."""
    return entry.last is not None and not entry.last.is_unsent


def _was_unsent(entry: Entry) -> bool:
    """Whether a new connection has just been refused: then a kept one may still be up."""
    return entry.last is not None and entry.last.is_unsent
