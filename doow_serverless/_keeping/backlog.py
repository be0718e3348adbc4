"""Batches that were not delivered: bounded, oldest first, each kept until the server has it."""

from __future__ import annotations

import threading
from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch
    from doow_serverless.errors import ErrorKind

    Undelivered = Callable[[Batch, ErrorKind], None]


class Backlog:
    """Undelivered batches by id, at most ``max_events`` events and ``max_bytes`` sealed bytes.

    Args:
        max_events: The bound on events.
        max_bytes: The bound on sealed (compressed) bytes.
        on_undelivered: Called with every batch that comes in, and why: the seam for a record
            that outlives the process.
    """

    def __init__(
        self, max_events: int, max_bytes: int, on_undelivered: Undelivered | None = None
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._on_undelivered = on_undelivered
        self._lock = threading.Lock()
        self._batches: OrderedDict[str, Batch] = OrderedDict()
        self._bytes = 0
        self.events = 0

    def __repr__(self) -> str:
        return f"Backlog({len(self)} batches, {self.events} events, {self._bytes} bytes)"

    def put(self, batch: Batch, reason: ErrorKind | None) -> list[Batch]:
        """Keep ``batch``, and return what the bounds push out for it, oldest first.

        Args:
            batch: The batch.
            reason: Why it was not delivered; None if that has been written down before.
        """
        if self._on_undelivered is not None and reason is not None:
            self._on_undelivered(batch, reason)
        pushed_out = []
        with self._lock:
            if batch.id in self._batches:
                return []
            self._batches[batch.id] = batch
            self._count(batch, 1)
            while self.events > self._max_events or self._bytes > self._max_bytes:
                _, oldest = self._batches.popitem(last=False)
                self._count(oldest, -1)
                pushed_out.append(oldest)
        return pushed_out

    def oldest(self, skip: Callable[[str], bool] = lambda _: False) -> Batch | None:
        """The batch that has waited longest; it stays until :meth:`remove`.

        Args:
            skip: Says of a batch id whether to pass that batch over.
        """
        with self._lock:
            return next((one for one in self._batches.values() if not skip(one.id)), None)

    def remove(self, batch_id: str) -> bool:
        """Forget a batch that is settled; False where it was not here (any more)."""
        with self._lock:
            batch = self._batches.pop(batch_id, None)
            if batch is not None:
                self._count(batch, -1)
            return batch is not None

    def replace(self, batch: Batch, halves: tuple[Batch, Batch]) -> None:
        """Put the halves of a batch that must be split at the front, in its stead."""
        with self._lock:
            if self._batches.pop(batch.id, None) is None:
                return
            self._count(batch, -1)
            for half in reversed(halves):
                self._batches[half.id] = half
                self._batches.move_to_end(half.id, last=False)
                self._count(half, 1)

    def drain(self) -> list[Batch]:
        """Take everything out."""
        with self._lock:
            batches = list(self._batches.values())
            self._batches.clear()
            self._bytes = self.events = 0
            return batches

    def __len__(self) -> int:
        return len(self._batches)

    def _count(self, batch: Batch, sign: int) -> None:
        self.events += sign * len(batch)
        self._bytes += sign * len(batch.body)
