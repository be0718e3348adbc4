"""Delivers batches that no response waits for, one at a time: `replay`, `send` and relays do so.

Rate limits are waited out, and an outage for a while. A batch that fails goes behind the others,
and `Blame` decides whether it is at fault itself. It ends in one of three ways:

    the server accepts or rejects it          settled
    it is certainly at fault                  given up; a relay halves it first, to find the events
    nothing gets through, or time is over     handed back, to be brought again

A batch of which a half may have arrived is never handed back: another process would send it as a
whole, and the half would count twice. Its rest is given up instead. So a batch is halved only when
an event would be given up: if chance can be ruled out, or if it has failed for minutes in which
nothing else got through to compare it with.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress

from doow_serverless._sealing import Batch, split
from doow_serverless.errors import ErrorKind

from .blame import Blame
from .credentials import Credentials
from .flight import Entry
from .late_transport import http_transport
from .results import Failed, Split
from .sender import Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from doow_serverless._config import Config
    from doow_serverless._process.clock import Clock

    from .results import Settled

PATIENCE_S = 20.0
"""Seconds without a success after which batches are handed back."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0


class Undeliverable(Exception):
    """It is no use to go on: nothing gets through, the key is refused, or the time is over.

    Attributes:
        key_refused: Whether the server refused the key.
        ends_all: Whether other batches would fare no better, as far as is known.
    """

    def __init__(self, reason: str, *, key_refused: bool = False, ends_all: bool = True) -> None:
        super().__init__(reason)
        self.key_refused = key_refused
        self.ends_all = ends_all


class Delivery:
    """A batch, and the server's decisions on its events.

    Args:
        whole: The entry of the batch.

    Attributes:
        batch: The batch.
        whole: Its entry.
        accepted: How many events the server accepted.
        rejected: The ids of the events that it rejected, each with the reason.
        is_halved: Whether it was halved because it failed, and not for its size.
        is_split: Whether one of these halves may have arrived.
    """

    __slots__ = ("accepted", "batch", "is_halved", "is_split", "rejected", "whole")

    def __init__(self, whole: Entry) -> None:
        self.batch = whole.batch
        self.whole = whole
        self.accepted = 0
        self.rejected: list[tuple[str, str]] = []
        self.is_halved = False
        self.is_split = False

    def __repr__(self) -> str:
        return f"Delivery({self.batch!r}, {self.accepted} accepted)"


class PatientSender:
    """Sends batches, waits where that helps, and reports the end of each.

    Args:
        sender: Makes the attempts.
        settled: Called with each batch once the server has decided on it.
        given_up: Called with each batch, or part of one, that is given up, and with the reason.
        say: Called with a line about each wait.
        memory: Batches that failed in other senders, by id, and room for those of this one.
        blame: Judges them.
        halved: Ids of batches that were sent by halves.
        may_halve: Whether batches at fault are halved. Their ids are added to ``halved``, and
            ``given_up`` must keep their parts.
        patience_s: Seconds without a success after which it is no use to go on.
        rate: Events a minute that may be sent at most, a batch at a time; None for no such bound.
        ends_at: The time on ``clock`` from which on no attempt begins.
        sleep: Waits.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        sender: Sender,
        settled: Callable[[Delivery], object],
        given_up: Callable[[Batch, str], object],
        say: Callable[[str], object],
        *,
        memory: dict[str, Entry] | None = None,
        blame: Blame | None = None,
        halved: Container[str] = (),
        may_halve: bool = False,
        patience_s: float = PATIENCE_S,
        rate: float | None = None,
        ends_at: float = float("inf"),
        sleep: Callable[[float], object] = time.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._sender = sender
        self._settled, self._given_up, self._say = settled, given_up, say
        self._memory = {} if memory is None else memory
        self._blame = blame or Blame()
        self._halved = halved
        self._may_halve = may_halve
        self._patience_s = patience_s
        self._s_for_each = 0.0 if rate is None else 60.0 / rate
        self._ends_at = ends_at
        self._sleep, self._clock = sleep, clock
        self._queue: dict[Entry, Delivery] = {}
        self._next_at = clock()
        self._why = "the pace that is to be kept"
        self._failing_since: float | None = None
        self._failed_at_first = 0

    def __repr__(self) -> str:
        return f"PatientSender({len(self._queue)} waiting, {self._blame!r})"

    def send(self, batch: Batch) -> None:
        """Send ``batch``. If it fails, it waits behind the next one, unless that fails as well.

        Raises:
            Undeliverable: It is no use to go on.
        """
        entry = self._entry(batch)
        delivery = Delivery(entry)
        self._put(entry, delivery)
        while self._queue and (self._is_in_trouble or self._next().not_before <= self._clock()):
            self._step()

    def finish(self) -> None:
        """Send everything that waits; raises as `send` does."""
        while self._queue:
            self._step()

    def leave(self) -> list[Batch]:
        """Stop, and return the batches that are handed back, in order."""
        back: dict[str, Batch] = {}
        for entry, delivery in list(self._queue.items()):
            if delivery.is_split:
                self._give_up(entry, self._why)
                continue
            back[delivery.batch.id] = delivery.batch
            del self._queue[entry]
            for failed in (entry, delivery.whole):
                if failed.failures:  # Without its bytes: they are brought again.
                    failed.batch = Batch(failed.batch.id, (), b"", False, "")
                    self._memory[failed.batch.id] = failed
        return list(back.values())

    # ── one attempt after the other ────────────────────────────────────────────────────────────

    @property
    def _is_in_trouble(self) -> bool:
        """Whether several batches failed at first, and nothing has got through since."""
        return self._failed_at_first > 1

    def _next(self) -> Entry:
        """Return what is due first: a new batch at once, one that failed after its pause."""
        return min(self._queue, key=lambda entry: entry.not_before)

    def _step(self) -> None:
        """Make the next attempt; raises Undeliverable."""
        now, entry = self._clock(), self._next()
        if entry.not_before > now and self._is_hopeless(now):
            raise Undeliverable(self._why, ends_all=self._is_in_trouble)
        wait_s = max(0.0, entry.not_before - now, self._next_at - now)
        if now + wait_s >= self._ends_at:
            raise Undeliverable(self._why)
        if wait_s:
            self._sleep(wait_s)
        result = self._sender.send(entry.batch)
        is_unsent = isinstance(result, Failed) and result.is_unsent  # The key's store may be down.
        if result.reason is ErrorKind.AUTH_FAILURE and not is_unsent:
            # Also a 403, which settles a batch while others are to come: with a key that has the
            # scope this one can still be delivered.
            self._why = result.message
            raise Undeliverable(result.message, key_refused=True)
        if isinstance(result, Failed):
            self._failed(entry, result)
        else:
            self._got_through(entry, result)

    def _is_hopeless(self, now: float) -> bool:
        if self._failing_since is None or now - self._failing_since < self._patience_s:
            return False
        # What cannot be handed back is tried to the end.
        return not any(delivery.is_split for delivery in self._queue.values())

    def _got_through(self, entry: Entry, result: Settled | Split) -> None:
        self._blame.got_through(entry)
        self._failing_since, self._failed_at_first = None, 0
        delivery = self._queue.pop(entry)
        if isinstance(result, Split):
            self._put_halves(entry, result.halves, delivery)
            return
        self._next_at = self._clock() + max(self._s_for_each * len(entry.batch), result.hold_s)
        delivery.accepted += result.accepted
        delivery.rejected += result.rejected
        self._note_arrival(delivery)
        rest = [each for each, whose in self._queue.items() if whose is delivery]
        for each in rest:  # The server may be up for a moment only.
            each.not_before = min(each.not_before, self._next_at)
        if not rest:
            self._settled(delivery)

    def _failed(self, entry: Entry, failure: Failed) -> None:
        now, delivery = self._clock(), self._queue[entry]
        self._why = failure.message
        if failure.is_ambiguous:
            entry.is_ambiguous = True
            self._note_arrival(delivery)
        if failure.is_stale:
            return  # The connection had died while it was idle: the next one is a new one.
        is_first = not entry.pauses
        pause_s = min(FIRST_PAUSE_S * 2.0**entry.pauses, LONGEST_PAUSE_S)
        entry.pauses = min(entry.pauses + 1, 16)
        if failure.hold_s or failure.reason is ErrorKind.RATE_LIMITED:
            wait_s = failure.hold_s or pause_s
            self._say(f"{failure.message}: waiting {wait_s:,.0f} s, as the server asks")
            self._next_at = now + wait_s
            self._failing_since = None
            return
        if is_first:
            self._failed_at_first += 1
            self._say(f"{failure.message}: trying again for {self._patience_s:g} s")
        self._failing_since = now if self._failing_since is None else self._failing_since
        entry.not_before = now + pause_s
        is_compared = self._blame.successes > entry.seen_successes
        self._blame.failed(entry, failure, now)
        if not failure.is_unsent:
            self._judge(entry, failure, now, is_compared=is_compared)

    def _judge(self, entry: Entry, failure: Failed, now: float, *, is_compared: bool) -> None:
        """Halve a batch that failed, or give it up, if it is at fault."""
        is_at_fault = self._blame.is_at_fault(entry, now)
        if not self._may_halve or len(entry.batch) == 1 or entry.is_ambiguous:
            if is_at_fault:
                self._give_up(entry, failure.message)
            return
        # What cannot be handed back any more is halved on. A batch that is alone is compared with
        # its own halves, since there is nothing else.
        delivery = self._queue[entry]
        is_alone = self._is_hopeless(now) and self._blame.is_old(entry, now)
        if is_at_fault or (is_compared if delivery.is_split else is_alone):
            delivery.is_halved = True
            del self._queue[entry]
            self._put_halves(entry, split(entry.batch), delivery)
            self._failing_since, self._failed_at_first = None, 0

    # ── parts ──────────────────────────────────────────────────────────────────────────────────

    def _entry(self, batch: Batch, whole: Entry | None = None) -> Entry:
        """Return the entry of a batch, or of a part of ``whole``, with its earlier failures."""
        entry = self._memory.pop(batch.id, None)
        if entry is None:
            entry = Entry(batch) if whole is None else whole.part(batch)
        entry.batch = batch
        entry.not_before, entry.pauses = self._clock(), 0
        return entry

    def _put(self, entry: Entry, delivery: Delivery) -> None:
        if entry.batch.id in self._halved:
            # One half may be there already, under its own id: the whole would count it once more.
            self._put_halves(entry, split(entry.batch), delivery)
        else:
            self._queue[entry] = delivery

    def _put_halves(self, whole: Entry, halves: tuple[Batch, Batch], delivery: Delivery) -> None:
        for half in halves:
            self._put(self._entry(half, whole), delivery)

    def _note_arrival(self, delivery: Delivery) -> None:
        """Something of a batch may have arrived: if it is halved, the whole must never go again."""
        if delivery.is_halved:
            delivery.is_split = True
            self._halved.add(delivery.batch.id)  # type: ignore[attr-defined]  # see may_halve

    def _give_up(self, entry: Entry, why: str) -> None:
        delivery = self._queue.pop(entry)
        self._given_up(entry.batch, why)
        if entry is not delivery.whole and delivery not in self._queue.values():
            self._settled(delivery)


@contextmanager
def sending(config: Config, endpoint: str) -> Iterator[Sender]:
    """What makes the attempts; answers that drip are cut off, which no timeout of a socket does."""
    credentials = Credentials(config.api_key, config.key_place)
    with suppress(Exception):
        credentials.load()  # The first attempt says what is wrong.
    transport = http_transport()(endpoint, timeout_s=config.timeout_s, ca_bundle=config.ca_bundle)
    is_over = threading.Event()

    def reap() -> None:
        while not is_over.wait(1.0):
            transport.abort()

    threading.Thread(target=reap, daemon=True).start()
    try:
        yield Sender(lambda: transport, credentials, key_wait_s=PATIENCE_S)
    finally:
        is_over.set()
        transport.close_idle()
