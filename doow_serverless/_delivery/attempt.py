"""One attempt: a batch is POSTed once, and one of three things becomes of it."""

from __future__ import annotations

import time

from doow_serverless._process.log import counted
from doow_serverless._sealing import split
from doow_serverless.errors import DoowError, ErrorKind

from .answers import TransportFault, Verdict, describe, judge, kind_of, rejections, wait_asked
from .breaker import KEY_REFUSED_HOLD_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol, TypeAlias

    from doow_serverless._process.clock import Clock
    from doow_serverless._sealing import Batch

    from .answers import Answer
    from .credentials import Credentials

    class Transport(Protocol):
        """What a tracker sends with."""

        def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
            """Send ``batch``, on a new connection if ``fresh``; raises TransportFault."""

        def has_idle(self) -> bool:
            """Whether the next POST goes out on a kept connection, which may have died."""

        def reap(self) -> None:
            """Cut off POSTs that have long been given up."""

        def connect(self, api_key: str) -> None:
            """Open a connection."""


class Settled:
    """The server has decided on every event of a batch, so that none is sent again.

    Attributes:
        accepted: How many events it took.
        rejected: Pairs of event id and reason.
        reason: Under which error kind rejections are reported.
        message: The answer in words.
    """

    __slots__ = ("accepted", "message", "reason", "rejected")

    def __init__(
        self, batch: Batch, reason: ErrorKind, message: str, rejected: list[tuple[str, str]]
    ) -> None:
        self.accepted = len(batch) - len(rejected)
        self.rejected = rejected
        self.reason = reason
        self.message = message

    def __repr__(self) -> str:
        return f"Settled({self.accepted} accepted, {len(self.rejected)} rejected)"

    def errors(self) -> Iterator[DoowError]:
        """One error for each reason of rejection, with the events that it befell."""
        by_reason: dict[str, list[str]] = {}
        for event_id, why in self.rejected:
            by_reason.setdefault(why, []).append(event_id)
        for why, event_ids in by_reason.items():
            text = f"Doow rejected {counted(len(event_ids))}: {why}"
            yield DoowError(text, self.reason, event_ids)


class Split:
    """The server takes no body of this size.

    Attributes:
        halves: The two batches to send in its stead.
        reason, message: As of `Failed`.
    """

    __slots__ = ("halves", "message", "reason")

    def __init__(self, halves: tuple[Batch, Batch], reason: ErrorKind, message: str) -> None:
        self.halves = halves
        self.reason = reason
        self.message = message

    def __repr__(self) -> str:
        return f"Split({self.halves!r})"


class Failed:
    """The server has not decided, as far as is known: the batch must be sent again.

    Attributes:
        reason: Why, as an error kind.
        message: Why, in words.
        hold_s: None if it may be sent again in a moment; else seconds for which nothing may be
            sent, 0.0 where the server did not say how many.
    """

    __slots__ = ("hold_s", "message", "reason")

    def __init__(self, reason: ErrorKind, message: str, hold_s: float | None = None) -> None:
        self.reason = reason
        self.message = message
        self.hold_s = hold_s

    def __repr__(self) -> str:
        return f"Failed({self.reason}, {self.message!r}, hold_s={self.hold_s})"


if TYPE_CHECKING:
    Result: TypeAlias = Settled | Split | Failed


class Sender:
    """Makes one attempt at a time to deliver a batch, and says what became of it.

    Args:
        transport: Makes the transport at the first attempt, or returns the one that is there.
        credentials: The key.
        wall_clock: Unix seconds, for the dates that servers send.
    """

    def __init__(
        self,
        transport: Callable[[], Transport],
        credentials: Credentials,
        wall_clock: Clock = time.time,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._wall_clock = wall_clock
        self.under_way: dict[str, float] = {}
        """When an attempt began, in seconds on the flight's clock, by batch id."""

    def reuses_connection(self) -> bool:
        """Whether the next attempt goes out on a kept connection, which may have died."""
        try:
            return self._transport().has_idle()
        except Exception:
            return False  # Sending meets the same trouble, and says so.

    def send(self, batch: Batch, *, fresh: bool = False) -> Result:
        """POST ``batch``, on a new connection if ``fresh``; blocks. Never raises an Exception."""
        try:
            return self._result(batch, self._answer(batch, fresh))
        except TransportFault as fault:
            return Failed(fault.kind, str(fault))
        except DoowError as problem:
            return Failed(problem.kind, str(problem), hold_s=0.0)
        except Exception as problem:
            return Failed(ErrorKind.TRANSPORT_ERROR, f"could not send: {type(problem).__name__}")

    def _answer(self, batch: Batch, fresh: bool) -> Answer:
        key = self._credentials.current()
        answer = self._transport().post(batch, key, fresh=fresh)
        if judge(answer) is Verdict.KEY_REFUSED and self._credentials.replace(key):
            answer = self._transport().post(batch, self._credentials.current())
        return answer

    def _result(self, batch: Batch, answer: Answer) -> Result:
        """What the answer means for the batch: here a 429, a 413, a 207 are decided."""
        verdict, kind, message = judge(answer), kind_of(answer), describe(answer)
        if verdict is Verdict.ACCEPTED:
            return Settled(batch, kind, message, [])
        if verdict is Verdict.PARTIAL:
            refused = rejections(answer, batch.event_ids)
            return Settled(batch, ErrorKind.PARTIAL_ACCEPT, message, refused)
        if verdict is Verdict.REJECTED or (verdict is Verdict.SPLIT and len(batch) == 1):
            return Settled(batch, kind, message, [(one, message) for one in batch.event_ids])
        if verdict is Verdict.SPLIT:
            return Split(split(batch), kind, message)
        if verdict is Verdict.RETRY:
            return Failed(kind, message)
        if verdict is Verdict.KEY_REFUSED:
            return Failed(kind, message, KEY_REFUSED_HOLD_S)
        return Failed(kind, message, wait_asked(answer, self._wall_clock()))
