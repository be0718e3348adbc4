"""Replays dead letters: finds them in what logs were exported to, and delivers them at leisure.

Nobody waits for a response here, so a rate limit is waited out, and an outage for a while.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import time
import zlib
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

from doow_serverless._keeping.dead_letter_reader import Assembly, Finder
from doow_serverless._recording.event import iso_time
from doow_serverless.errors import ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Protocol

    from doow_serverless._delivery.flight import Courier, Fate
    from doow_serverless._keeping.dead_letter_reader import Damage, Part
    from doow_serverless._process.clock import Clock
    from doow_serverless._sealing import Batch

    class Sender(Protocol):
        """What delivers."""

        def deliver(self, batch: Batch) -> Delivery:
            """Send ``batch`` until the server has decided on it; raises `Undeliverable`."""


PATIENCE_S = 20.0
"""Seconds of failures after which a batch is given up."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
_BLOCK = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


# ── what is read ────────────────────────────────────────────────────────────────────────────────


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that ``paths`` name; of a directory all that lie below it, by name."""
    for path in paths:
        if path.is_dir():
            # A dead letter has the suffix until it is whole.
            yield from sorted(
                one for one in path.rglob("*") if one.is_file() and one.suffix != ".tmp"
            )
        else:
            yield path


class Unreadable(Exception):
    """An input cannot be read, or not to its end."""


def blocks_of(stream: io.BufferedReader) -> Iterator[str]:
    """The text of a stream as it comes, gzip unpacked; only ASCII is sure to come out right.

    Raises:
        Unreadable: It cannot be read, or its gzip is damaged or cut off.
    """
    try:
        if stream.peek(2)[:2] == _GZIP_MAGIC:
            stream = io.BufferedReader(gzip.GzipFile(fileobj=stream))
        # PowerShell writes what a program prints as UTF-16.
        encoding = _UTF_16.get(stream.peek(2)[:2], "latin-1")
        decode = codecs.getincrementaldecoder(encoding)("replace").decode
        while block := stream.read1(_BLOCK):
            yield decode(block)
    except (OSError, EOFError, zlib.error) as problem:
        raise Unreadable(getattr(problem, "strerror", None) or str(problem)) from None


def moment(text: str, now: datetime) -> str:
    """A time as records have it, of ISO 8601 (UTC unless it says otherwise), or so long ago.

    Raises:
        ValueError: It is neither.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if ago:
        when = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        # Python 3.10 reads no Z.
        when = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return iso_time(int(when.timestamp() * 1000))


# ── what is delivered ───────────────────────────────────────────────────────────────────────────


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


class Postman:
    """Delivers one batch after the other, and waits where that helps.

    Args:
        courier: Makes the attempts.
        say: Told about every wait, in a line.
        patience_s: Seconds of failures after which a batch is given up. The next one is then tried
            once; if that fails too, the server is taken to be down.
        sleep: Waits.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        courier: Courier,
        say: Callable[[str], object],
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], object] = time.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._courier = courier
        self._say = say
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._gave_up = False

    def deliver(self, batch: Batch) -> Delivery:
        """Send ``batch``, or the halves of it, until the server has decided on every event.

        Raises:
            Undeliverable: The key is refused, or the server did not decide.
        """
        fate = self._decided(batch)
        if fate.halves is None:
            return Delivery(fate.accepted, fate.rejected)
        first, second = map(self.deliver, fate.halves)
        return Delivery(first.accepted + second.accepted, first.rejected + second.rejected)

    def _decided(self, batch: Batch) -> Fate:
        pause_s = FIRST_PAUSE_S
        failing_since: float | None = None
        while True:
            fate = self._courier.send(batch)
            if fate.reason is ErrorKind.AUTH_FAILURE:
                # Also a 403, which settles a batch while others are to come: with a key that has
                # the scope this one can still be delivered.
                raise Undeliverable(fate.message, ends_all=True, key_refused=True)
            if fate.is_settled or fate.halves is not None:
                self._gave_up = False
                return fate
            if fate.hold_s or fate.reason is ErrorKind.RATE_LIMITED:
                wait_s = fate.hold_s or pause_s
                self._say(f"{fate.message}: waiting {wait_s:,.0f} s, as the server asks")
                failing_since = None
            else:
                now = self._clock()
                failing_since = now if failing_since is None else failing_since
                self._check_patience(fate, now - failing_since)
                wait_s = pause_s
                if pause_s == FIRST_PAUSE_S:
                    self._say(f"{fate.message}: trying again for {self._patience_s:g} s")
            self._sleep(wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _check_patience(self, fate: Fate, failing_s: float) -> None:
        if self._gave_up or failing_s >= self._patience_s:
            was_down, self._gave_up = self._gave_up, True
            raise Undeliverable(fate.message, ends_all=was_down)


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


# ── all together ────────────────────────────────────────────────────────────────────────────────


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

    def __init__(self, sender: Sender | None, ledger: Ledger, since: str = "") -> None:
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

    def _deliver(self, batch: Batch, sender: Sender) -> None:
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
