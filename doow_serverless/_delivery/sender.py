"""One attempt to deliver a batch: it is POSTed once, and the answer is judged."""

from __future__ import annotations

import time

from doow_serverless._process.log import report_fault
from doow_serverless._process.signals import is_from_signal
from doow_serverless._sealing import split
from doow_serverless.errors import DoowError, ErrorKind

from .answers import (
    LOST_BY_A_GATEWAY,
    TransportFault,
    Verdict,
    describe,
    judge,
    kind_of,
    rejections,
    wait_asked,
    wait_told,
)
from .results import Failed, Settled, Split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from doow_serverless._process.clock import Clock
    from doow_serverless._sealing import Batch

    from .answers import Answer
    from .credentials import Credentials
    from .results import Result

    class Transport(Protocol):
        """What a tracker sends with."""

        def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
            """Send ``batch``, on a new connection if ``fresh``; raises TransportFault."""

        def has_idle(self) -> bool:
            """Whether the next POST goes out on a kept connection, which may have died."""

        def abort(self, batch_id: str) -> None:
            """Cut off the POSTs of a batch that have gone on for longer than the timeout."""

        def connect(self, api_key: str) -> None:
            """Open a connection."""


class Sender:
    """Makes one attempt at a time to deliver a batch, and says what became of it.

    Args:
        transport: Returns the transport. It imports nothing, since attempts run on our threads.
        credentials: The key.
        wall_clock: Unix seconds, for the dates that servers send.
        key_wait_s: See `Credentials.current`.

    Attributes:
        is_ready: Whether the key and the transport have been at hand, which they then stay.
    """

    def __init__(
        self,
        transport: Callable[[], Transport],
        credentials: Credentials,
        wall_clock: Clock = time.time,
        key_wait_s: float | None = None,
    ) -> None:
        self._key_wait_s = key_wait_s
        self._transport = transport
        self._credentials = credentials
        self._wall_clock = wall_clock
        self.is_ready = False

    def connect(self) -> None:
        """Have a connection at hand, and the key; blocks, and may raise."""
        key = self._credentials.current()
        self._transport().connect(key)

    def abort(self, batch_id: str) -> None:
        """Cut off the attempts at a batch that have gone on for longer than the timeout."""
        try:
            self._transport().abort(batch_id)
        except Exception as fault:  # Of a given transport; whoever notes a fact must go on.
            _pass_on_signal(fault)
            report_fault("cutting off a POST", fault)

    def prepare(self) -> Failed | None:
        """Fetch the key if it is missing; return why nothing can be sent.

        That is an outage like any other: it says nothing about a batch.
        """
        try:
            self._transport()
            self._credentials.current()
        except BaseException as problem:  # Whatever a client of AWS raises.
            _pass_on_signal(problem)
            return _trouble(problem, is_unsent=True, is_ambiguous=False)
        self.is_ready = True
        return None

    def reuses_connection(self) -> bool:
        """Whether the next attempt goes out on a kept connection, which may have died."""
        try:
            return self._transport().has_idle()
        except BaseException as problem:
            _pass_on_signal(problem)
            return False  # Sending meets the same trouble, and says so.

    def send(self, batch: Batch, *, fresh: bool = False, **_: object) -> Result:
        """POST ``batch``, on a new connection if ``fresh``; blocks. Raises nothing itself."""
        is_unsent, is_under_way = True, False
        try:
            key, transport = self._credentials.current(self._key_wait_s), self._transport()
            is_unsent, is_under_way = False, True
            answer = transport.post(batch, key, fresh=fresh)
            if answer.status == 401:
                is_under_way = False
                if self._credentials.replace(key):
                    key = self._credentials.current()
                    is_under_way = True
                    answer = transport.post(batch, key)
            return self._result(batch, answer)
        except TransportFault as fault:
            return Failed(
                fault.kind,
                str(fault),
                is_ambiguous=not fault.is_unsent,
                is_stale=fault.is_stale,
                is_unsent=fault.is_unsent,
            )
        except BaseException as problem:  # Whatever a given transport raises.
            _pass_on_signal(problem)
            return _trouble(problem, is_unsent=is_unsent, is_ambiguous=is_under_way)

    def _result(self, batch: Batch, answer: Answer) -> Result:
        """What the answer means for the batch: here a 429, a 413, a 207 are decided."""
        verdict = judge(answer)
        if verdict is Verdict.ACCEPTED:
            hold_s = wait_told(answer, self._wall_clock())
            return Settled(batch, ErrorKind.PARTIAL_ACCEPT, "", [], hold_s)
        kind, message = kind_of(answer), describe(answer)
        if verdict is Verdict.PARTIAL:
            refused = rejections(answer, batch.event_ids)
            hold_s = wait_told(answer, self._wall_clock())
            return Settled(batch, ErrorKind.PARTIAL_ACCEPT, message, refused, hold_s)
        if verdict is Verdict.REJECTED or (verdict is Verdict.SPLIT and len(batch) == 1):
            return Settled(batch, kind, message, [(one, message) for one in batch.event_ids])
        if verdict is Verdict.SPLIT:
            return Split(split(batch), kind, message)
        is_ambiguous = answer.status in LOST_BY_A_GATEWAY
        if verdict is Verdict.RETRY:
            return Failed(kind, message, is_ambiguous=is_ambiguous)
        if verdict is Verdict.KEY_REFUSED:
            return Failed(kind, message, self._credentials.refused_hold_s())
        hold_s = wait_asked(answer, self._wall_clock())
        is_in_flight = answer.status == 503
        return Failed(kind, message, hold_s, is_ambiguous=is_ambiguous, is_in_flight=is_in_flight)


def _pass_on_signal(problem: BaseException) -> None:
    """Raise ``problem`` if it interrupts the application: `replay` sends on its main thread."""
    if not isinstance(problem, Exception) and is_from_signal(problem):
        raise problem


def _trouble(problem: BaseException, *, is_unsent: bool, is_ambiguous: bool) -> Failed:
    """Return the result of an attempt that ended with an error of our own, or of the key's store.

    Args:
        problem: The error.
        is_unsent: Whether it came before the transport was called.
        is_ambiguous: Whether it came out of the transport: nobody knows what was sent by then.
    """
    if isinstance(problem, DoowError):
        kind, message, hold_s = problem.kind, str(problem), 0.0
    else:
        kind, message = ErrorKind.TRANSPORT_ERROR, f"could not send: {type(problem).__name__}"
        hold_s = None
    return Failed(kind, message, hold_s, is_unsent=is_unsent, is_ambiguous=is_ambiguous)
