"""The input of ``replay``: files, directories, standard input, and times as users write them."""

from __future__ import annotations

import re
import shutil
import sys
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import NamedTemporaryFile

from doow_serverless._frames.format import SPLIT
from doow_serverless._frames.reader import Part
from doow_serverless._process.clock import iso_time

from .export_bytes import Unreadable
from .exports import frames_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STANDARD_INPUT = Path("-")
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


class Survey:
    """Looks through logs once before anything is sent.

    Args:
        paths: Files. What cannot be read is reported when it is replayed.
        is_ours: Returns whether a frame is to be believed.
        is_wanted: Returns whether it is of the time that is to be replayed.
        proves: Returns whether a frame is signed with a log key.

    Attributes:
        halved: Ids of batches that were split, according to the logs, even at their end.
        events: The number of events to be delivered, at most.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        is_ours: Callable[[Part], bool],
        is_wanted: Callable[[Part], bool],
        proves: Callable[[Part], bool] = lambda _: False,
    ) -> None:
        self._is_wanted = is_wanted
        self.halved: set[str] = set()
        self._events: dict[str, int] = {}
        for path in paths:
            with suppress(OSError, Unreadable), path.open("rb") as stream:
                for one in frames_in(stream, proves):
                    if isinstance(one, Part) and is_ours(one):
                        self._take(one)
        self.events = sum(self._events.values())

    def _take(self, frame: Part) -> None:
        if frame.reason == SPLIT:
            self.halved.add(frame.batch_id)
        if self._is_wanted(frame):
            self._events[frame.batch_id] = frame.events


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
