"""What the state of the outbox orders, for the outbox to carry out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch
    from doow_serverless.errors import DoowError, ErrorKind

    from .flight import Attempt, Entry, Flight


class Orders:
    """Orders, to be carried out in the order of the attributes.

    Attributes:
        split: Batches that journal and log shall know by their halves, and if they are in the log.
        write_down: What was not delivered, and why: into the log.
        settled: Ids of batches that are no longer sent.
        given_up: Those of them that the journal keeps all the same, for the next process to try.
        release: What to call with how many events that are off its hands.
        report: Errors that no flush accounts for.
        abort: Ids of batches whose POSTs are to be cut off.
        send: Attempts to make.
        wake: Flights whose flush has something to look at.
    """

    __slots__ = (
        "abort",
        "given_up",
        "release",
        "report",
        "send",
        "settled",
        "split",
        "wake",
        "write_down",
    )

    def __init__(self) -> None:
        self.split: list[tuple[Batch, tuple[Batch, Batch], bool | None]] = []
        self.write_down: list[tuple[Entry, ErrorKind]] = []
        self.settled: list[str] = []
        self.given_up: list[str] = []
        self.release: list[tuple[Callable[[int], None], int]] = []
        self.report: list[DoowError] = []
        self.abort: list[str] = []
        self.send: list[Attempt] = []
        self.wake: list[Flight] = []

    def __repr__(self) -> str:
        said = (f"{name}={value!r}" for name in self.__slots__ if (value := getattr(self, name)))
        return f"Orders({', '.join(said)})"
