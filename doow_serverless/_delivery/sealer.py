"""Has events sealed and given to the outbox, in the time that there is; the rest a worker does."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from doow_serverless._process.log import report_fault
from doow_serverless._recording.ids import derived_id
from doow_serverless._sealing import seal
from doow_serverless.errors import ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doow_serverless._config import Config
    from doow_serverless._keeping.journal import Journal
    from doow_serverless._process.clock import Budget
    from doow_serverless._recording.event import Event
    from doow_serverless._sealing import Batch

    from .flight import Attempt, Flight
    from .outbox import Outbox


class Sealer:
    """Makes batches of events.

    Args:
        config: Bounds.
        outbox: Takes the batches for which nobody waits.
        event_log: The journal in which the events are noted when they are recorded.

    Attributes:
        outbox: That of the successor, once there is one.
        event_log: As given.
    """

    def __init__(self, config: Config, outbox: Outbox, event_log: Journal | None) -> None:
        self._config = config
        self.outbox = outbox
        self.event_log = event_log
        self._late: deque[tuple[Sequence[Event], bool]] = deque()

    def __repr__(self) -> str:
        return f"Sealer({len(self._late)} lots are late)"

    def seal(
        self,
        events: list[Event],
        flight: Flight,
        *,
        is_derived: bool,
        budget: Budget | None,
    ) -> list[Attempt]:
        """Seal ``events``, batch by batch, on the account of ``flight``.

        Args:
            events: In the order of recording. Those that are sealed are deleted from it.
            flight: Accounts for them.
            is_derived: Whether the ids of the batches derive from those of their events.
            budget: What is not sealed when it is used up becomes another worker's, and is kept.

        Returns:
            The attempts that the last batch has led to; workers make those before it meanwhile.
        """
        outbox = flight.outbox
        attempts: list[Attempt] = []
        try:
            for batch in self._batches_of(tuple(events), outbox, is_derived):
                if attempts:
                    outbox.submit_all(attempts)
                attempts = outbox.add(flight, batch)
                del events[: len(batch.event_ids)]
                if events and budget is not None and not budget.remaining():
                    break
        except BaseException:
            outbox.submit_all(attempts)
            raise
        if events:
            outbox.note_late(flight, len(events))
            self._late.append((tuple(events), is_derived))
            events.clear()
            outbox.rescuers.submit(self.seal_late)
        return attempts

    @property
    def is_late(self) -> bool:
        """Whether there is something that was not sealed in time."""
        return bool(self._late)

    def seal_late(self) -> None:
        """Seal what was not sealed in time: it is kept, and written down."""
        with suppress(IndexError):  # There is no more, or another thread has it.
            while True:
                events, is_derived = self._late.popleft()
                self.keep(events, ErrorKind.TIMEOUT, is_derived=is_derived)

    def keep(self, events: Sequence[Event], reason: ErrorKind, *, is_derived: bool) -> list[str]:
        """Seal ``events``, for which nobody waits, have them written down, and return their ids."""
        ids: list[str] = []
        outbox = self.outbox
        try:
            for batch in self._batches_of(events, outbox, is_derived):
                outbox.keep(batch, reason)
                ids += batch.event_ids
        except Exception as fault:
            report_fault("sealing", fault)
        return ids

    def begin_anew(self) -> None:
        """What is late is another process's to seal, and to send."""
        self._late.clear()

    def _batches_of(
        self, events: Sequence[Event], outbox: Outbox, is_derived: bool
    ) -> Iterator[Batch]:
        journal = outbox.journal
        for batch in seal(
            events,
            max_bytes=self._config.max_payload_bytes,
            # A retry has other times, which pack to other sizes, and must be cut as before. Its
            # batches may take several lines.
            max_packed=None if is_derived else self._config.max_packed_bytes,
            compress=self._config.compress,
            make_id=_derived_batch_id if is_derived else None,
        ):
            if journal is not None:
                journal.note_sealed(batch)
            if self.event_log is not None and self.event_log is not journal:
                self.event_log.forget(batch.event_ids)
            yield batch


def _derived_batch_id(event_ids: Sequence[str]) -> str:
    # Sorted, since threads may record the same events in another order the next time.
    return derived_id(*sorted(event_ids))
