"""One file of the crash journal: its lock, what is outstanding in it, and its compaction."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from errno import ENOSPC
from zlib import crc32

from doow_serverless._sealing import MAX_BYTES

from .journal_format import FIRST_LINE, line_of

try:
    import fcntl
except ImportError:  # Windows, where nothing releases a lock as dependably.
    fcntl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

COMPACT_FROM = 1024 * 1024
"""Bytes of a file from which on what is settled is cleared out of it."""
CAN_LOCK = fcntl is not None

_LONGEST_LINE = 3 * MAX_BYTES
# A sealed batch in base64 and the ids of its events fit.
_CREATE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
# Others may have put links and pipes into a shared folder: neither is followed, nor waited for.
_OPEN = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_decode = json.JSONDecoder().raw_decode


class JournalFile:
    """A file whose lock is held, and what is outstanding in it."""

    __slots__ = ("batches", "compact_at", "events", "fd", "path", "size")

    def __init__(self, path: str, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.size = size
        self.events: dict[str, int] = {}
        """How often each id was recorded: users may give several events the same."""
        self.batches: set[str] = set()
        self.compact_at = COMPACT_FROM

    def __repr__(self) -> str:
        held = f"{len(self.events)} events, {len(self.batches)} batches"
        return f"JournalFile({held}, {self.size} bytes)"

    @property
    def is_settled(self) -> bool:
        return not self.events and not self.batches

    def add(self, ids: Iterable[str]) -> None:
        for event_id in ids:
            self.events[event_id] = self.events.get(event_id, 0) + 1

    def subtract(self, ids: Iterable[str]) -> int:
        """Strike each of ``ids`` once; how many were there."""
        struck = 0
        for event_id in ids:
            count = self.events.pop(event_id, 0)
            if count > 1:
                self.events[event_id] = count - 1
            struck += count > 0
        return struck

    def append(self, lines: bytes) -> None:
        """Add whole lines, or nothing at all."""
        data = lines if self.size else FIRST_LINE + lines
        try:
            _write(self.fd, data)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.fd)

    def remove(self) -> None:
        """Unlink and close, in this order: unlocked, it would be another's."""
        with suppress(OSError):
            os.unlink(self.path)
        self.close()


class Contents:
    """What is outstanding in a file, as the lines that say so, and how many lines were torn."""

    def __init__(self) -> None:
        self.events: dict[str, list[bytes]] = {}
        self.batches: dict[str, bytes] = {}
        self.torn = 0

    def event_lines(self) -> list[bytes]:
        return [line for lines in self.events.values() for line in lines]

    def take(self, line: bytes) -> None:
        """Apply a line, without its checksum.

        Raises:
            ValueError: It makes no sense.
        """
        kind, text = line[:1], line[1:].decode("ascii")
        if kind == b"E":
            self.events.setdefault(_decode(text)[0], []).append(line)
        elif kind == b"R":
            event_id = _decode(text)[0]
            if event_id in self.events:  # Else it has left, or there was no room for it.
                self.events[event_id][-1] = b"E" + line[1:]
        elif kind == b"B":
            batch_id, ids = _decode(text)[0][:2]
            self._strike(ids)
            self.batches[batch_id] = line
        elif kind == b"S":
            self.batches.pop(text, None)
        elif kind == b"F":
            self._strike(json.loads(text))
        else:
            raise ValueError("a kind of a later version")

    def _strike(self, ids: Iterable[str]) -> None:
        for event_id in ids:
            lines = self.events.get(event_id)
            if lines:
                del lines[0]
                if not lines:
                    del self.events[event_id]


def check_folder(directory: str) -> None:
    """Refuse a folder in which others may have put things, or from which they take them.

    Raises:
        OSError: It is one.
    """
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{directory} is no folder, and links are not followed")
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        raise OSError(f"{directory} belongs to another user, or others may write to it")


def create(path: str) -> JournalFile:
    """A new file at ``path``, locked."""
    for attempt in range(8):
        fd = os.open(path, _CREATE, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Before the lock was ours, someone may have taken it for left behind, and removed it.
            if os.fstat(fd).st_nlink:
                return JournalFile(path, fd, 0)
        except BlockingIOError:
            pass  # As above; it is being removed.
        except OSError:
            os.unlink(path)
            os.close(fd)
            raise
        os.close(fd)
        path = f"{path.removesuffix('.journal')}{attempt}.journal"
    raise OSError(f"others remove what is made in {os.path.dirname(path)}")


def take(path: str) -> JournalFile:
    """The file of a dead process, locked for this one.

    Raises:
        BlockingIOError: Its owner lives.
        FileNotFoundError: It is gone.
        OSError: It is nothing that this library has made.
    """
    fd = os.open(path, _OPEN)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, there = os.fstat(fd), os.lstat(path)
        if (ours.st_ino, ours.st_dev) != (there.st_ino, there.st_dev):
            raise FileNotFoundError(path)  # Its last owner removed or replaced it, then died.
        if not stat.S_ISREG(ours.st_mode) or ours.st_uid != os.geteuid() or ours.st_nlink != 1:
            raise OSError("it was not made by this user")
        head = os.pread(fd, len(FIRST_LINE) + 1, 0)
        if head != FIRST_LINE + b"\n" and not FIRST_LINE.startswith(head):
            raise OSError("it is no journal of this version")
    except OSError:
        os.close(fd)
        raise
    with suppress(OSError):
        os.unlink(_compacted(path))
    return JournalFile(path, fd, ours.st_size)


def _compacted(path: str) -> str:
    """Where a file is written anew. Only who holds the lock of ``path`` may touch it."""
    return f"{path}.new"


def compact(file: JournalFile) -> None:
    """Write what is outstanding in ``file`` anew, and put it in its place at once."""
    fresh = _compacted(file.path)
    fd = None
    try:
        contents = read(file.fd)
        kept = [*contents.batches.values(), *contents.event_lines()]
        data = FIRST_LINE + b"".join(line_of(line[:1], line[1:]) for line in kept)
        fd = os.open(fresh, _CREATE, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(fd, data)
        os.replace(fresh, file.path)
    except OSError:
        # Then it grows on. What is there is as good as it was.
        if fd is not None:
            os.close(fd)
            with suppress(OSError):
                os.unlink(fresh)
        return
    os.close(file.fd)
    file.fd, file.size = fd, len(data)


def _write(fd: int, data: bytes) -> None:
    """Write all of ``data``: a disk that fills up takes a part without a complaint."""
    if data and os.write(fd, data) != len(data):
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def read(fd: int) -> Contents:
    """What is outstanding in an open file."""
    contents = Contents()
    with open(fd, "rb", closefd=False) as reader:
        reader.seek(0)
        reader.readline(_LONGEST_LINE)
        for line in _lines(reader):
            try:
                if int(line[:8], 16) != crc32(line[8:]):
                    raise ValueError("torn")
                contents.take(line[8:])
            except (ValueError, TypeError, IndexError):
                contents.torn += 1
    return contents


def _lines(reader: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, none of them longer than any record."""
    while line := reader.readline(_LONGEST_LINE):
        yield line.removesuffix(b"\n")
