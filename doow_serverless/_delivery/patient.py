"""How batches go out that no response waits for: one after the other, waiting where that helps.

So ``replay`` and a relay send: a rate limit is waited out, and an outage for a while.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress

from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind

from .credentials import Credentials
from .late_transport import http_transport
from .results import Failed, Settled
from .sender import Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from typing import Protocol

    from doow_serverless._config import Config
    from doow_serverless._process.clock import Clock
    from doow_serverless._sealing import Batch

    from .results import Split

    class Delivers(Protocol):
        """What delivers."""

        def deliver(self, batch: Batch) -> Delivery:
            """Send ``batch`` until the server has decided on it; raises `Undeliverable`."""


PATIENCE_S = 20.0
"""Seconds of failures after which a batch is given up."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0


class Delivery:
    """What the server decided on a batch.

    Attributes:
        accepted: How many events it took.
        rejected: The ids of the others, each with the reason.
    """

    __slots__ = ("accepted", "rejected")

    def __init__(self, accepted: int, rejected: list[tuple[str, str]]) -> None:
        self.accepted = accepted
        self.rejected = rejected


class Undeliverable(Exception):
    """A batch could not be delivered.

    Attributes:
        ends_all: Whether there is no use in trying others.
        key_refused: Whether it is because of the key.
        is_answered: Whether the server itself has answered that it cannot take it just now.
        is_ambiguous: Whether an answer was lost meanwhile, so that the server may have it.
    """

    def __init__(
        self,
        reason: str,
        *,
        ends_all: bool,
        key_refused: bool = False,
        is_answered: bool = False,
        is_ambiguous: bool = False,
    ) -> None:
        super().__init__(reason)
        self.ends_all = ends_all
        self.key_refused = key_refused
        self.is_answered = is_answered
        self.is_ambiguous = is_ambiguous


class PatientSender:
    """Delivers one batch after the other, and waits where that helps.

    Args:
        sender: Makes the attempts.
        say: Told about every wait, in a line.
        patience_s: Seconds of failures after which a batch is given up. The next one is then tried
            once; if that fails too, the server is taken to be down.
        halved: Ids of batches that are known to have been sent by halves.
        rate: Events a minute that may be sent at most, a batch at a time; None for no such bound.
        ends_at: When all must be done, on ``clock``: what cannot be tried until then is given up.
        sleep: Waits.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        sender: Sender,
        say: Callable[[str], object],
        *,
        patience_s: float = PATIENCE_S,
        halved: Container[str] = (),
        rate: float | None = None,
        ends_at: float = float("inf"),
        sleep: Callable[[float], object] = time.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._sender = sender
        self._say = say
        self._patience_s = patience_s
        self._halved = halved
        self._sleep = sleep
        self._clock = clock
        self._gave_up = False
        self._is_ambiguous = False
        self._s_for_each = 0.0 if rate is None else 60.0 / rate
        self._next_at = clock()
        self._ends_at = ends_at

    def deliver(self, batch: Batch) -> Delivery:
        """Send ``batch``, or the halves of it, until the server has decided on every event.

        Raises:
            Undeliverable: The key is refused, or the server did not decide.
        """
        # One half may be there already, under its own id: the whole would count it once more.
        result = None if batch.id in self._halved else self._result(batch)
        if isinstance(result, Settled):
            return Delivery(result.accepted, result.rejected)
        first, second = map(self.deliver, split(batch) if result is None else result.halves)
        return Delivery(first.accepted + second.accepted, first.rejected + second.rejected)

    def _result(self, batch: Batch) -> Settled | Split:
        """What the server decided; raises Undeliverable."""
        self._is_ambiguous = False
        try:
            return self._decided(batch)
        except Undeliverable as problem:
            problem.is_ambiguous = self._is_ambiguous
            raise

    def _decided(self, batch: Batch) -> Settled | Split:
        """Attempt after attempt, with waits between them, until the server decides."""
        pause_s = FIRST_PAUSE_S
        failing_since: float | None = None
        while True:
            self._wait(self._next_at - self._clock(), "the pace that is to be kept")
            result = self._sender.send(batch)
            if result.reason is ErrorKind.AUTH_FAILURE:
                # Also a 403, which settles a batch while others are to come: with a key that has
                # the scope this one can still be delivered.
                raise Undeliverable(result.message, ends_all=True, key_refused=True)
            if isinstance(result, Failed):
                self._is_ambiguous = self._is_ambiguous or result.is_ambiguous
            else:
                self._gave_up = False
                if isinstance(result, Settled):  # Else its halves are yet to be sent.
                    apart_s = max(self._s_for_each * len(batch), result.hold_s)
                    self._next_at = self._clock() + apart_s
                return result
            if result.is_stale:
                continue  # The connection had died while it was idle: the next one is a new one.
            if result.hold_s or result.reason is ErrorKind.RATE_LIMITED:
                wait_s = result.hold_s or pause_s
                self._say(f"{result.message}: waiting {wait_s:,.0f} s, as the server asks")
                failing_since = None
            else:
                now = self._clock()
                failing_since = now if failing_since is None else failing_since
                self._check_patience(result, now - failing_since)
                wait_s = pause_s
                if pause_s == FIRST_PAUSE_S:
                    self._say(f"{result.message}: trying again for {self._patience_s:g} s")
            self._wait(wait_s, result.message)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _wait(self, seconds: float, why: str) -> None:
        seconds = max(0.0, seconds)  # What may go has often been allowed to for a while.
        if self._clock() + seconds >= self._ends_at:
            raise Undeliverable(why, ends_all=True)
        if seconds > 0:
            self._sleep(seconds)

    def _check_patience(self, failure: Failed, failing_s: float) -> None:
        if self._gave_up or failing_s >= self._patience_s:
            was_down, self._gave_up = self._gave_up, True
            is_answered = failure.reason is ErrorKind.TRANSPORT_ERROR and not failure.is_ambiguous
            raise Undeliverable(failure.message, ends_all=was_down, is_answered=is_answered)


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
