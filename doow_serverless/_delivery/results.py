"""What becomes of a batch at one attempt: one of three things."""

from __future__ import annotations

from doow_serverless._process.log import counted
from doow_serverless.errors import DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from doow_serverless._sealing import Batch


class Settled:
    """The server has decided on every event of a batch, so that none is sent again.

    Attributes:
        accepted: How many events it took.
        rejected: Pairs of event id and reason.
        reason: Under which error kind rejections are reported.
        message: The answer in words.
        hold_s: Seconds for which the server will take no more, as it has said itself.
    """

    __slots__ = ("accepted", "hold_s", "message", "reason", "rejected")

    def __init__(
        self,
        batch: Batch,
        reason: ErrorKind,
        message: str,
        rejected: list[tuple[str, str]],
        hold_s: float = 0.0,
    ) -> None:
        self.hold_s = hold_s
        self.accepted = len(batch.event_ids) - len(rejected)
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
        is_ambiguous: Whether no answer of the server's came, though it may have the batch.
        is_in_flight: Whether the answer is what Doow says of a batch that it is at work on; it says
            the same when it has too much to do.
        is_stale: Whether the kept connection on which it went out turned out to be dead.
        is_unsent: True if it is known that nothing of the failed request can have reached the
            server: there was no connection (refused, no name, no file descriptor, no TLS), no key
            or no transport. Such a failure says nothing about the batch. If neither this nor
            ``is_ambiguous`` is True, the server itself has answered.
    """

    __slots__ = (
        "hold_s",
        "is_ambiguous",
        "is_in_flight",
        "is_stale",
        "is_unsent",
        "message",
        "reason",
    )

    def __init__(
        self,
        reason: ErrorKind,
        message: str,
        hold_s: float | None = None,
        *,
        is_ambiguous: bool = False,
        is_in_flight: bool = False,
        is_stale: bool = False,
        is_unsent: bool = False,
    ) -> None:
        self.reason = reason
        self.message = message
        self.hold_s = hold_s
        self.is_ambiguous = is_ambiguous
        self.is_in_flight = is_in_flight
        self.is_stale = is_stale
        self.is_unsent = is_unsent

    def __repr__(self) -> str:
        return f"Failed({self.reason}, {self.message!r}, hold_s={self.hold_s})"


if TYPE_CHECKING:
    Result: TypeAlias = Settled | Split | Failed
