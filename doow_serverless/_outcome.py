"""What became of every event of one flush."""

from __future__ import annotations


class Outcome:
    """What became of every event of one flush.

    Attributes:
        accepted: How many events Doow accepted.
        rejected: Pairs of event id and reason, for events that will never be accepted.
        unsent: Reason (an :class:`~doow_serverless.errors.ErrorKind`) to the number of events that
            Doow has not confirmed in time. They stay in the backlog and are sent again later,
            except those under ``DROPPED_EVENTS``, for which there was no room.
        requests: How many POSTs were begun.
        elapsed_s: Seconds that the flush took, as the caller felt them.
        backlog: Events in the backlog after the flush, those of earlier flushes included.
        folded: Calls of ``track`` that became a part of another's event (see ``fold`` of
            :func:`~doow_serverless.configure`).

    Not guaranteed: an event counted under ``unsent`` may yet turn out to have been accepted, when
    only the answer was late. It is never counted twice, since its batch keeps its id.
    """

    __slots__ = ("accepted", "backlog", "elapsed_s", "folded", "rejected", "requests", "unsent")

    def __init__(
        self,
        accepted: int = 0,
        rejected: list[tuple[str, str]] | None = None,
        unsent: dict[str, int] | None = None,
        requests: int = 0,
        elapsed_s: float = 0.0,
        backlog: int = 0,
        folded: int = 0,
    ) -> None:
        self.accepted = accepted
        self.rejected = [] if rejected is None else rejected
        self.unsent = {} if unsent is None else unsent
        self.requests = requests
        self.elapsed_s = elapsed_s
        self.backlog = backlog
        self.folded = folded

    @property
    def recorded(self) -> int:
        """How many calls of ``track`` stand behind these events."""
        return self.accepted + len(self.rejected) + sum(self.unsent.values()) + self.folded

    @property
    def ok(self) -> bool:
        """Whether every event was accepted."""
        return not self.rejected and not self.unsent

    def add_unsent(self, reason: str, events: int) -> None:
        """Count ``events`` more as not delivered, for ``reason``."""
        if events:
            self.unsent[reason] = self.unsent.get(reason, 0) + events

    def add(self, other: Outcome) -> None:
        """Count what became of other events in with these."""
        self.accepted += other.accepted
        self.rejected += other.rejected
        for reason, events in other.unsent.items():
            self.add_unsent(reason, events)
        self.requests += other.requests
        self.folded += other.folded

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outcome):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # it is a record that grows, as a list is

    def __repr__(self) -> str:
        unsent = {str(reason): events for reason, events in self.unsent.items()}
        return (
            f"Outcome(accepted={self.accepted}, rejected={self.rejected}, unsent={unsent}, "
            f"requests={self.requests}, elapsed_s={self.elapsed_s:.4f}, "
            f"backlog={self.backlog}, folded={self.folded})"
        )
