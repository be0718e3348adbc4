"""Replays dead letters: finds them in what logs were exported to, and delivers each batch once."""

from __future__ import annotations

from urllib.parse import quote

from doow_serverless._delivery.patient import Undeliverable
from doow_serverless._keeping.dead_letter_reader import Assembly, Finder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from doow_serverless._delivery.patient import Delivers
    from doow_serverless._keeping.dead_letter_reader import Damage, Part
    from doow_serverless._sealing import Batch


class Ledger:
    """The batches that were delivered whole, in a file that outlives an interruption.

    Args:
        path: The file; None remembers nothing.
        endpoint: Where to: what went elsewhere does not count.

    Raises:
        OSError: The file cannot be used.
    """

    def __init__(self, path: Path | None, endpoint: str) -> None:
        self._endpoint = endpoint
        self._path = path
        self._delivered: set[str] = set()
        if path is not None:
            path.touch()  # A path that is no good is better found now.
            self._delivered.update(path.read_text("ascii", "replace").split("\n"))

    def __contains__(self, batch: Batch) -> bool:
        return self._line(batch) in self._delivered

    def add(self, batch: Batch) -> None:
        """Remember ``batch``, at once: what follows may be interrupted at any time."""
        if self._path is not None:
            # What an interruption has left of a line must not spoil this one.
            with self._path.open("a", encoding="ascii") as file:
                file.write(f"\n{self._line(batch)}\n")

    def _line(self, batch: Batch) -> str:
        return f"{self._endpoint} {quote(batch.id, safe='', errors='surrogatepass')}"


class Count:
    """Batches, and the events in them."""

    __slots__ = ("batches", "events")

    def __init__(self) -> None:
        self.batches = 0
        self.events = 0

    def add(self, events: int, batches: int = 1) -> None:
        """Count so many more."""
        self.batches += batches
        self.events += events


class Replay:
    """Takes in text, and delivers the batches that it finds, each once.

    Args:
        sender: Delivers; None only looks.
        ledger: What was delivered before.
        since: Records of an earlier time are left out; "" takes all.

    Attributes:
        records: How many records there were.
        repeated: How many of these said again what was known.
        too_old: How many were left out for their time.
        found: Whole batches.
        earlier: Those of them that the ledger names, and were left out.
        accepted: Batches of which the server took something, and the events that it took.
        refused: Batches of which it took nothing, and all events that it did not take.
        undelivered: Batches on which it did not decide.
        rejected: Batch id, event id and reason of every event that the server refused.
        trouble: The last reason for which a batch was not delivered; "" if there is none.
        key_refused: Whether the key was refused.
    """

    def __init__(self, sender: Delivers | None, ledger: Ledger, since: str = "") -> None:
        self._sender = sender
        self._ledger = ledger
        self._since = since
        self._assembly = Assembly()
        self.records = 0
        self.too_old = 0
        self.found = Count()
        self.earlier = Count()
        self.accepted = Count()
        self.refused = Count()
        self.undelivered = Count()
        self.rejected: list[tuple[str, str, str]] = []
        self.trouble = ""
        self.key_refused = False

    @property
    def repeated(self) -> int:
        """How many records said again what was known."""
        return self._assembly.repeated

    def problems(self) -> list[tuple[str | None, str]]:
        """Batch ids, None where that is lost, and why no whole batch came of the records."""
        return self._assembly.problems()

    def read(self, blocks: Iterable[str]) -> None:
        """Take in a text that comes in ``blocks``.

        Raises:
            Undeliverable: There is no use in going on.
        """
        finder = Finder()
        for block in blocks:
            for record in finder.feed(block):
                self._take(record)
        for record in finder.close():
            self._take(record)

    def _take(self, record: Part | Damage) -> None:
        self.records += 1
        if record.timestamp and record.timestamp < self._since:
            self.too_old += 1
            return
        letter = self._assembly.add(record)
        if letter is None:
            return
        batch = letter.batch
        self.found.add(len(batch))
        if batch in self._ledger:
            self.earlier.add(len(batch))
        elif self._sender is not None:
            self._deliver(batch, self._sender)

    def _deliver(self, batch: Batch, sender: Delivers) -> None:
        try:
            delivery = sender.deliver(batch)
        except Undeliverable as problem:
            self.undelivered.add(len(batch))
            self.trouble = str(problem)
            self.key_refused = problem.key_refused
            if problem.ends_all:
                raise
            return
        self.accepted.add(delivery.accepted, bool(delivery.accepted))
        self.refused.add(len(delivery.rejected), not delivery.accepted)
        self.rejected += ((batch.id, event_id, why) for event_id, why in delivery.rejected)
        if not delivery.rejected:
            self._ledger.add(batch)
