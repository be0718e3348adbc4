"""Replays exported logs: delivers the batches whose frames stand in them, each once."""

from __future__ import annotations

from urllib.parse import quote

from doow_serverless._delivery.patient import Undeliverable
from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.envelopes import Unread
from doow_serverless._frames.format import BY_LOG
from doow_serverless._frames.reader import Damage, Part
from doow_serverless._keeping.refolding import Folded
from doow_serverless._recording.ids import derived_id, is_random

from .export_findings import Stray
from .exports import frames_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from doow_serverless._delivery.patient import Delivery, PatientSender
    from doow_serverless._frames.assembly import DeadLetter
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

    def __contains__(self, batch_id: str) -> bool:
        return self._line(batch_id) in self._delivered

    def add(self, *batch_ids: str) -> None:
        """Remember batches, at once: what follows may be interrupted at any time."""
        if self._path is not None:
            # What an interruption has left of a line must not spoil this one.
            with self._path.open("a", encoding="ascii") as file:
                file.writelines(f"\n{self._line(each)}\n" for each in batch_ids)

    def _line(self, batch_id: str) -> str:
        return f"{self._endpoint} {quote(batch_id, safe='', errors='surrogatepass')}"


class Span:
    """From when to when the records are of that are to be replayed.

    Args:
        since, until: As records have times; both belong to it.
    """

    def __init__(self, since: str = "", until: str = "~") -> None:
        self._since = since
        self._until = until

    def holds(self, record: Part | Damage) -> bool:
        """Whether a record belongs to it; where a log has lost the time, nothing speaks against."""
        return not record.timestamp or self._since <= record.timestamp <= self._until


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


class Signatures:
    """Tells frames that were signed with a log key from all others.

    Args:
        keys: The keys; without any, every frame is believed.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._keys = keys

    def accept(self, frame: Part) -> bool:
        """Return whether ``frame`` is to be believed."""
        return not self._keys or self.prove(frame)

    def prove(self, frame: Part) -> bool:
        """Return whether ``frame`` proves that a holder of a key has written it."""
        return frame.is_signed_by(self._keys)


class Oddities:
    """Counts findings, and keeps the first few of each reason for the report.

    Attributes:
        total: How many there were.
        examples: Reason, place and count of the first few.
    """

    _MOST = 10

    def __init__(self) -> None:
        self.total = 0
        self.examples: list[tuple[str, str, int]] = []

    def note(self, why: str, place: str, count: int = 1) -> None:
        """Count so many findings more, all in one place."""
        self.total += count
        if sum(each == why for each, _, _ in self.examples) < self._MOST:
            self.examples.append((why, place, count))


class Replay:
    """Reads exported logs, and delivers the batches that it finds, each once.

    Args:
        make_sender: Makes the sender from the callbacks for settled batches, and for those that
            are given up. None: nothing is sent.
        ledger: The batches that were delivered before.
        span: Frames of another time are left out.
        keys: Log keys: frames that none of them has signed are refused; empty if there are none.
        fold: Whether events that a relay would have folded are: see :meth:`finish`.
        tell: Called after each batch.

    Attributes:
        records: How many frames there were.
        repeated: How many of these said again what was known.
        left_out: How many were left out for their time.
        distrusted: Frames that were refused for their signature.
        strays: Markers that were no whole frame, and were left alone.
        unread: Input that could not be unwrapped, although it may hold usage.
        found: Whole batches.
        earlier: Those of them that the ledger names, and were left out.
        accepted: Batches of which the server took something, and the events that it took.
        refused: Batches of which it took nothing, and all events that it did not take.
        undelivered: Batches on which it did not decide.
        folded: Events that have become a part of others.
        rejected: Batch id, event id and reason of every event that the server refused.
        trouble: The last reason for which a batch was not delivered; "" if there is none.
    """

    def __init__(
        self,
        make_sender: Callable[..., PatientSender] | None,
        ledger: Ledger,
        span: Span | None = None,
        *,
        keys: Sequence[bytes] = (),
        fold: bool | Collection[str] = False,
        tell: Callable[[], object] = bool,
    ) -> None:
        self._sender = make_sender and make_sender(settled=self._settled, given_up=self._given_up)
        self._ledger = ledger
        self._span = span or Span()
        self._signatures = Signatures(keys)
        self._fold = fold
        self._tell = tell
        self._assembly = Assembly()
        self._gathered: dict[str, int] = {}
        self._sealed: set[str] = set()
        self._events = Folded(fold)
        self.records = 0
        self.left_out = 0
        self.distrusted = Oddities()
        self.strays = Oddities()
        self.unread = Oddities()
        self.folded = 0
        self.found = Count()
        self.earlier = Count()
        self.accepted = Count()
        self.refused = Count()
        self.undelivered = Count()
        self.rejected: list[tuple[str, str, str]] = []
        self.trouble = ""

    @property
    def oddities(self) -> int:
        """How many findings must be looked at, beside damaged frames and rejected events."""
        return self.strays.total + self.distrusted.total + self.unread.total

    @property
    def repeated(self) -> int:
        """How many records said again what was known."""
        return self._assembly.repeated

    @property
    def done(self) -> int:
        """Events of which it is known what has become of them."""
        told = (self.earlier, self.accepted, self.refused, self.undelivered)
        return self.folded + sum(count.events for count in told)

    def problems(self) -> list[tuple[str | None, str]]:
        """Batch ids, None where that is lost, and why no whole batch came of the records."""
        return self._assembly.problems()

    def read(self, stream: io.BufferedReader, name: str = "") -> None:
        """Take in an exported log.

        Args:
            stream: The log.
            name: The name of the file, for the report.

        Raises:
            Undeliverable: There is no use in going on.
            Unreadable: The log cannot be read to its end.
        """
        for found in frames_in(stream, self._signatures.prove):
            if isinstance(found, Stray):
                self.strays.note(found.why, f"{name}, {found.origin}", found.markers)
            elif isinstance(found, Unread):
                self.unread.note(found.why, f"{name}, {found.origin}")
            else:
                self._take(found, name)

    def _take(self, record: Part | Damage, name: str) -> None:
        self.records += 1
        if isinstance(record, Part) and not self._signatures.accept(record):
            why = "signed by another key" if record.is_signed else "not signed"
            self.distrusted.note(why, f"{name}, batch {record.batch_id}")
            return
        if not self._span.holds(record):
            self.left_out += 1
            return
        letter = self._assembly.add(record)
        if letter is None:
            return
        batch = letter.batch
        self.found.add(len(batch))
        if batch.id in self._ledger:
            self.earlier.add(len(batch))
        elif self._sender is not None and not self._gathers(letter):
            self._send(batch, self._sender)
        self._tell()

    def _gathers(self, letter: DeadLetter) -> bool:
        """Keep the events of a batch to be folded with others, if nothing else delivers it.

        A dead letter may be delivered by its function yet, and work may be done again: these Doow
        must know again by their own ids.
        """
        batch = letter.batch
        is_free = self._fold and letter.reason == BY_LOG and is_random(batch.id)
        if not is_free or not self._folds(batch):
            return False
        self._gathered[batch.id] = len(batch)
        return True

    def _folds(self, batch: Batch) -> bool:
        """Take in the events of ``batch`` to be folded; False if they cannot be."""
        try:
            return bool(self._events.take(batch))
        except Exception:  # Anybody may have written it, and one batch must not end all others.
            return False

    def finish(self) -> None:
        """Deliver what waits, and what was folded, under ids that derive from its batches.

        So the same input makes the same batches. What was delivered before is no part of it, where
        a ledger says so.

        Raises:
            Undeliverable: There is no use in going on.
        """
        if self._sender is None:
            return
        self.folded = sum(self._gathered.values()) - len(self._events.events)
        folded = list(self._events.sealed(derived_id("replay", *sorted(self._gathered))))
        self._sealed = {batch.id for batch in folded}
        try:
            for batch in folded:
                self._send(batch, self._sender)
            self._sender.finish()
        finally:
            if self._gathered and not self._sealed:
                self._ledger.add(*self._gathered)

    def leave(self) -> None:
        """Count what is not delivered, since there is no use in going on."""
        for batch in [] if self._sender is None else self._sender.leave():
            self.undelivered.add(len(batch))

    def _send(self, batch: Batch, sender: PatientSender) -> None:
        try:
            sender.send(batch)
        except Undeliverable:
            raise
        except Exception as problem:  # Anybody may have written it: it ends no other batch.
            self.undelivered.add(len(batch))
            why = f"holds events that cannot be split ({type(problem).__name__})"
            self.unread.note(why, f"batch {batch.id}")

    def _settled(self, delivery: Delivery) -> None:
        batch, rejected = delivery.batch, delivery.rejected
        self.accepted.add(delivery.accepted, bool(delivery.accepted))
        self.refused.add(len(rejected), bool(rejected) and not delivery.accepted)
        self.rejected += ((batch.id, event_id, why) for event_id, why in rejected)
        if delivery.accepted == len(batch):
            self._ledger.add(batch.id)
            self._sealed.discard(batch.id)
        self._tell()

    def _given_up(self, batch: Batch, why: str) -> None:
        self.undelivered.add(len(batch))
        self.trouble = why
