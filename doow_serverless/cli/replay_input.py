"""What ``replay`` reads: files, directories, gzip, standard input, and times as users say them."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import shutil
import sys
import zlib
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import NamedTemporaryFile

from doow_serverless._frames.format import SPLIT
from doow_serverless._frames.reader import Part, read_frame
from doow_serverless._process.clock import iso_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doow_serverless._frames.reader import Damage

STANDARD_INPUT = Path("-")
_BLOCK = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


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


@contextmanager
def twice_readable(paths: list[Path]) -> Iterator[list[Path]]:
    """The same files, with a copy of standard input in the place of ``-``."""
    if STANDARD_INPUT not in paths:
        yield paths
        return
    with NamedTemporaryFile(prefix="doow-replay-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield [Path(copy.name) if path == STANDARD_INPUT else path for path in paths]


class Finder:
    """Finds the lines that are frames in a text that comes block by block."""

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, block: str) -> Iterator[Part | Damage]:
        """The frames up to the end of ``block``."""
        *lines, self._kept = (self._kept + block).split("\n")
        yield from filter(None, map(read_frame, lines))

    def close(self) -> Iterator[Part | Damage]:
        """The frame at the end of the text."""
        yield from filter(None, [read_frame(self._kept)])


class Survey:
    """What logs hold, looked through once before anything is sent.

    Args:
        paths: Files; what cannot be read is told when it is replayed.
        is_wanted: Says which records are to be replayed.

    Attributes:
        halved: Ids of batches of which the logs say that they were halved, be it at their end.
        events: How many events there are to be delivered, at the most.
    """

    def __init__(self, paths: Iterable[Path], is_wanted: Callable[[Part | Damage], bool]) -> None:
        self._is_wanted = is_wanted
        self.halved: set[str] = set()
        self._events: dict[str, int] = {}
        for path in paths:
            finder = Finder()
            with suppress(OSError, Unreadable), path.open("rb") as stream:
                for block in blocks_of(stream):
                    self._take(finder.feed(block))
                self._take(finder.close())
        self.events = sum(self._events.values())

    def _take(self, records: Iterable[Part | Damage]) -> None:
        for one in records:
            if isinstance(one, Part):
                if one.reason == SPLIT:
                    self.halved.add(one.batch_id)
                if self._is_wanted(one):
                    self._events[one.batch_id] = one.events


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
