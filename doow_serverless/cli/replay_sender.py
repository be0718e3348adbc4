"""How ``replay`` sends: one batch after the other, waiting where that helps.

Nobody waits for a response here, so a rate limit is waited out, and an outage for a while.
"""

from __future__ import annotations

import time

from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from doow_serverless._delivery.results import Split
    from doow_serverless._delivery.sender import Sender
    from doow_serverless._process.clock import Clock
    from doow_serverless._sealing import Batch

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
    """

    def __init__(self, reason: str, *, ends_all: bool, key_refused: bool = False) -> None:
        super().__init__(reason)
        self.ends_all = ends_all
        self.key_refused = key_refused


class PatientSender:
    """Delivers one batch after the other, and waits where that helps.

    Args:
        sender: Makes the attempts.
        say: Told about every wait, in a line.
        patience_s: Seconds of failures after which a batch is given up. The next one is then tried
            once; if that fails too, the server is taken to be down.
        halved: Ids of batches that are known to have been sent by halves.
        rate: Events a minute that may be sent at most, a batch at a time; None for no such bound.
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
        self._s_for_each = 0.0 if rate is None else 60.0 / rate
        self._next_at = clock()

    def deliver(self, batch: Batch) -> Delivery:
        """Send ``batch``, or the halves of it, until the server has decided on every event.

        Raises:
            Undeliverable: The key is refused, or the server did not decide.
        """
        # One half may be there already, under its own id: the whole would count it once more.
        result = None if batch.id in self._halved else self._decided(batch)
        if isinstance(result, Settled):
            return Delivery(result.accepted, result.rejected)
        first, second = map(self.deliver, split(batch) if result is None else result.halves)
        return Delivery(first.accepted + second.accepted, first.rejected + second.rejected)

    def _decided(self, batch: Batch) -> Settled | Split:
        """Attempt after attempt, with waits between them, until the server decides."""
        pause_s = FIRST_PAUSE_S
        failing_since: float | None = None
        while True:
            if (early_s := self._next_at - self._clock()) > 0:
                self._sleep(early_s)
            result = self._sender.send(batch)
            if result.reason is ErrorKind.AUTH_FAILURE:
                # Also a 403, which settles a batch while others are to come: with a key that has
                # the scope this one can still be delivered.
                raise Undeliverable(result.message, ends_all=True, key_refused=True)
            if not isinstance(result, Failed):
                self._gave_up = False
                if isinstance(result, Settled):  # Else its halves are yet to be sent.
                    self._next_at = self._clock() + self._s_for_each * len(batch)
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
            self._sleep(wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _check_patience(self, failure: Failed, failing_s: float) -> None:
        if self._gave_up or failing_s >= self._patience_s:
            was_down, self._gave_up = self._gave_up, True
            raise Undeliverable(failure.message, ends_all=was_down)
