"""The crash journal: events recorded and not settled, in a file that outlives the process.

Each process appends to a file of its own and holds a lock on it, which the kernel releases when the
process dies, however it dies. A file whose lock can be taken was left behind: whoever locks it owns
it from then on, hands out its batches, and removes it once they are settled. So every record is at
any time in one file, with one owner.

Not guaranteed: anything across a crash of the machine itself, since nothing waits for the disk.

A file is a first line and records, each led by its newline, so that a torn one swallows no other.
A record is a checksum of 8 hex digits, a letter and its payload:

    E  an event: its id, its time, and the rest as the wire has it
    B  a sealed batch: [id, ids of its events, version, whether gzip], and its bytes in base64
    S  the id of a batch that is settled
    F  the ids of events that are not ours any more
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
from binascii import a2b_base64, b2a_base64
from contextlib import suppress
from errno import ENOSPC
from zlib import crc32

from ._event import Shape
from ._faults import warn
from ._ids import derived_id, new_id
from ._secrets import clean
from ._wire import MAX_BYTES, Batch, seal

try:
    import fcntl
except ImportError:  # Windows, where nothing releases a lock as dependably.
    fcntl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from ._event import Event

MAX_FILE_BYTES = 8 * 1024 * 1024
"""Bytes of a file from which on it takes no more events. Recovery holds as many in memory."""
COMPACT_FROM = 1024 * 1024
"""Bytes of a file from which on what is settled is cleared out of it."""
MAX_TAKEN = 64
"""Files of dead processes that one owner holds open at once."""

_FIRST_LINE = b"doow-journal 1"
_LONGEST_LINE = 3 * MAX_BYTES
# A sealed batch in base64 and the ids of its events fit.
_CREATE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
# Others may have put links and pipes into a shared folder: neither is followed, nor waited for.
_OPEN = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_quoted = json.JSONEncoder().encode
_decode = json.JSONDecoder().raw_decode


class Journal:
    """Keeps on disk what this process has recorded and not settled, and finds what others left.

    Every method may be called from any thread, and none raises. What goes wrong is said in one
    warning, by the next call that may take its time: never by :meth:`record` and
    :meth:`record_many`, which may be called with locks held.

    Args:
        directory: The folder; it is made if missing, else it must belong to this user. Default:
            one under the platform's temporary folder.
        audience: For whom the events are, such as endpoint and key. Only what was recorded for the
            same audience is recovered, so that two trackers never send each other's events.
        max_bytes: Bytes of the file from which on it takes no more events.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        audience: str = "",
        max_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        from hashlib import sha256  # Without a journal, nobody needs it this early.

        self._prefix = f"doow-{sha256(audience.encode()).hexdigest()[:16]}-"
        self._name = re.compile(self._prefix + r"[0-9a-f-]+\.journal")
        self._max_bytes = max_bytes
        self._complaints: set[str] = set()
        self._unsaid: list[str] = []
        self._is_off = False
        self._begin_anew()
        try:
            if fcntl is None:
                raise OSError("this platform has no file locks")
            self._directory = default_directory() if directory is None else os.fspath(directory)
        except OSError as problem:  # There may be no temporary folder at all.
            self._turn_off(problem)
        self._say()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._own: _File | None = None
        self._taken: list[_File] = []

    # ── what the process records ───────────────────────────────────────────────────────────────

    def record(self, event: Event) -> None:
        """Note an event. Call it before the event can be sealed."""
        self.record_many((event,))

    def record_many(self, events: Iterable[Event]) -> None:
        """Note events, all in one write."""
        if self._is_off:
            return
        ids = []
        lines = []
        for event in events:
            ids.append(event[0])
            lines.append(_line(b"E", _event_text(event)))
        data = b"".join(lines)
        with self._lock:
            file = self._own or self._begin()
            if file is None:
                return
            if file.size + len(data) > self._max_bytes:
                text = f"the journal is full at {file.size:,} bytes, and a crash may lose events"
                self._complain("full", text)
            elif self._append(file, data):
                file.add(ids)

    def sealed(self, batch: Batch) -> None:
        """Note a batch of recorded events. Call it before the first POST of it."""
        line = _line(b"B", _batch_text(batch))
        with self._lock:
            file = self._own or self._begin()
            if file is not None:
                held = file.subtract(batch.event_ids)
                has_room = not self._is_off and file.size + len(line) <= self._max_bytes
                if held or has_room:
                    if self._append(file, line):
                        file.batches.add(batch.id)
                    else:
                        # What cannot be told from unsealed events would be sent twice.
                        self._abandon(file)
        self._say()

    def split(self, batch: Batch, halves: tuple[Batch, Batch]) -> None:
        """Note that ``halves`` go out in the stead of ``batch``."""
        lines = b"".join(_line(b"B", _batch_text(half)) for half in halves)
        lines += _line(b"S", batch.id.encode())
        with self._lock:
            file = self._holder(batch.id)
            # If it fails, the batch will be sent again, and split into these same halves.
            if file is not None and self._append(file, lines):
                file.batches.remove(batch.id)
                file.batches.update(half.id for half in halves)
        self._say()

    def settled(self, batch_id: str) -> None:
        """Note that a batch needs no more sending: the server has decided, or it was dropped."""
        with self._lock:
            file = self._holder(batch_id)
            if file is not None:
                file.batches.remove(batch_id)
                # If it fails, the batch will be sent again, and recognised by its id.
                self._strike(file, _line(b"S", batch_id.encode()))
        self._say()

    def forget(self, event_ids: Iterable[str]) -> None:
        """Note that unsealed events will be sealed elsewhere, or never."""
        ids = list(event_ids)
        with self._lock:
            file = self._own
            if (
                file is not None
                and file.subtract(ids)
                and not self._strike(file, _line(b"F", _quoted(ids).encode()))
            ):
                self._abandon(file)
        self._say()

    # ── what dead processes left ───────────────────────────────────────────────────────────────

    def recover(self, *, max_bytes: int = MAX_BYTES, compress: bool = True) -> list[Batch]:
        """The batches that dead processes have left, as they were; their events, now sealed.

        No other process is given them while this one lives. What would be too much to hold stays
        where it is, for the next call.

        Args:
            max_bytes: Bytes of JSON for one batch, as for :func:`seal`.
            compress: Whether new batches are gzipped where it pays.
        """
        found: list[Batch] = []
        if self._is_off:
            return found
        try:
            _check_folder(self._directory)
            # By name is by age.
            names = sorted(filter(self._name.fullmatch, os.listdir(self._directory)))
        except FileNotFoundError:
            return found  # Nobody has recorded anything.
        except OSError as problem:
            self._turn_off(problem)
            names = []
        for name in names:
            if len(self._taken) >= MAX_TAKEN or sum(len(b.body) for b in found) > self._max_bytes:
                break
            found += self._recovered(os.path.join(self._directory, name), max_bytes, compress)
        self._say()
        return found

    def _recovered(self, path: str, max_bytes: int, compress: bool) -> list[Batch]:
        """Take over what stands in the file at ``path``, unless its owner lives."""
        try:
            file = _take(path)
        except (BlockingIOError, FileNotFoundError):
            return []  # Its owner lives, or another process was faster.
        except OSError as problem:
            self._complain("foreign", f"left {path} alone: {_why(problem)}")
            return []
        try:
            contents = _read(file.fd)
            if contents.torn:
                self._complain("torn", f"{contents.torn} torn records of a crash are lost")
            batches = [_batch_of(line) for line in contents.batches.values()]
            fresh = list(_sealed(contents.event_lines(), file.path, max_bytes, compress))
            lines = b"".join(_line(b"B", _batch_text(batch)) for batch in fresh)
            if not batches and not fresh:
                file.remove()
                return []
            file.append(lines)
        except Exception as problem:
            # A full disk, or records that make no sense: it stays as it is, for a better day.
            file.close()
            self._complain("recovery", f"cannot recover {path}: {_why(problem)}")
            return []
        file.batches.update(batch.id for batch in batches + fresh)
        with self._lock:
            self._taken.append(file)
        return batches + fresh

    # ── the life of the process ────────────────────────────────────────────────────────────────

    def after_fork(self) -> None:
        """In a child: leave all files, and what stands in them, to the parent.

        The lock belongs to what both have open, so that the parent keeps it when the child closes.
        """
        for file in self._files():
            file.close()
        self._begin_anew()

    def close(self) -> None:
        """Record no more. What is not settled stays, for another process to recover."""
        with self._lock:
            self._is_off = True
            for file in self._files():
                with suppress(OSError):
                    if file.is_settled:
                        os.unlink(file.path)
                file.close()
            self._own, self._taken = None, []
        self._say()

    # ── files; all of these with the lock held ─────────────────────────────────────────────────

    def _files(self) -> list[_File]:
        return self._taken if self._own is None else [self._own, *self._taken]

    def _holder(self, batch_id: str) -> _File | None:
        return next((file for file in self._files() if batch_id in file.batches), None)

    def _begin(self) -> _File | None:
        """Make this process's own file; None once the journal is off."""
        if self._is_off:
            return None
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            _check_folder(self._directory)
            name = f"{self._prefix}{time.time_ns():016x}-{new_id()}.journal"
            self._own = _create(os.path.join(self._directory, name))
        except OSError as problem:
            self._turn_off(problem)
        return self._own

    def _append(self, file: _File, lines: bytes) -> bool:
        try:
            file.append(lines)
        except OSError as problem:
            self._turn_off(problem)
            return False
        return True

    def _strike(self, file: _File, line: bytes) -> bool:
        """Add a line that ends something; a file in which nothing is left needs no such line."""
        if not file.is_settled:
            done = self._append(file, line)
            if done and file.size >= file.compact_at:
                _compact(file)
                # Seldom enough to cost little, and before the file is full.
                file.compact_at = max(
                    COMPACT_FROM, min(2 * file.size, (file.size + self._max_bytes) // 2)
                )
            return done
        if file is not self._own:
            self._taken.remove(file)
            file.remove()
            return True
        try:
            os.ftruncate(file.fd, 0)
            file.size = 0
        except OSError as problem:
            self._turn_off(problem)
            self._abandon(file)
        return True

    def _abandon(self, file: _File) -> None:
        """Give up the own file, with all that stands in it."""
        with suppress(OSError):
            os.ftruncate(file.fd, 0)
        file.remove()
        self._own = None

    def _turn_off(self, problem: OSError) -> None:
        self._is_off = True
        self._complain("off", f"the journal is off, and a crash may lose events: {_why(problem)}")

    def _complain(self, kind: str, text: str) -> None:
        if kind not in self._complaints:
            self._complaints.add(kind)
            self._unsaid.append(text)

    def _say(self) -> None:
        """Warn of what went wrong; without locks, since what handles a warning may record."""
        while self._unsaid:
            # Another thread may be faster, and an application's log handler may raise.
            with suppress(Exception):
                warn(self._unsaid.pop(0))


class _File:
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
        data = lines if self.size else _FIRST_LINE + lines
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


class _Contents:
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


def default_directory() -> str:
    """The folder under the platform's temporary one, apart for each user.

    Raises:
        OSError: The platform has no temporary folder.
    """
    import tempfile  # Dear at import.

    return os.path.join(tempfile.gettempdir(), f"doow-serverless-{os.getuid()}")


def _check_folder(directory: str) -> None:
    """Refuse a folder in which others may have put things, or from which they take them.

    Raises:
        OSError: It is one.
    """
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{directory} is no folder, and links are not followed")
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        raise OSError(f"{directory} belongs to another user, or others may write to it")


def _create(path: str) -> _File:
    """A new file at ``path``, locked."""
    for attempt in range(8):
        fd = os.open(path, _CREATE, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Before the lock was ours, someone may have taken it for left behind, and removed it.
            if os.fstat(fd).st_nlink:
                return _File(path, fd, 0)
        except BlockingIOError:
            pass  # As above; it is being removed.
        except OSError:
            os.unlink(path)
            os.close(fd)
            raise
        os.close(fd)
        path = f"{path.removesuffix('.journal')}{attempt}.journal"
    raise OSError(f"others remove what is made in {os.path.dirname(path)}")


def _take(path: str) -> _File:
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
        head = os.pread(fd, len(_FIRST_LINE) + 1, 0)
        if head != _FIRST_LINE + b"\n" and not _FIRST_LINE.startswith(head):
            raise OSError("it is no journal of this version")
    except OSError:
        os.close(fd)
        raise
    with suppress(OSError):
        os.unlink(_compacted(path))
    return _File(path, fd, ours.st_size)


def _compacted(path: str) -> str:
    """Where a file is written anew. Only who holds the lock of ``path`` may touch it."""
    return f"{path}.new"


def _compact(file: _File) -> None:
    """Write what is outstanding in ``file`` anew, and put it in its place at once."""
    fresh = _compacted(file.path)
    fd = None
    try:
        contents = _read(file.fd)
        kept = [*contents.batches.values(), *contents.event_lines()]
        data = _FIRST_LINE + b"".join(_line(line[:1], line[1:]) for line in kept)
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


def _read(fd: int) -> _Contents:
    """What is outstanding in an open file."""
    contents = _Contents()
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


def _line(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return b"\n%08x%b" % (crc32(body), body)


def _event_text(event: Event) -> bytes:
    """An event as it is recorded. Its time stays a number: to write it out takes longer."""
    event_id, moment, shape, quantity, metadata = event
    when = f'"{moment}"' if isinstance(moment, str) else repr(moment)
    extra = "" if metadata is None else f',"metadata":{metadata}'
    text = f"{_quoted(event_id)},{when},{shape.before}{quantity}{shape.after}{extra}"
    return text.encode("ascii")


def _event_of(line: bytes) -> Event:
    """The event of a line: one that the wire writes to the letter as it would have the original."""
    text = line[1:].decode("ascii")
    event_id, end = _decode(text)
    moment, end = _decode(text, end + 1)
    return event_id, moment, Shape(text[end + 1 :], ""), "", None


def _batch_text(batch: Batch) -> bytes:
    head = [batch.id, batch.event_ids, batch.sdk_version, batch.gzipped]
    return _quoted(head).encode("ascii") + b2a_base64(batch.body, newline=False)


def _batch_of(line: bytes) -> Batch:
    text = line[1:].decode("ascii")
    (batch_id, event_ids, sdk_version, gzipped), end = _decode(text)
    return Batch(batch_id, tuple(event_ids), a2b_base64(text[end:]), gzipped, sdk_version)


def _sealed(lines: list[bytes], path: str, max_bytes: int, compress: bool) -> Iterator[Batch]:
    """Events as batches, whose ids derive from those of the events and from where they stood.

    Where locks turn out not to hold, as on some network file systems, two processes that recover
    the same events so send them under the same ids, and the server counts them once.
    """

    def make_id(event_ids: Sequence[str]) -> str:
        return derived_id(os.path.basename(path), *event_ids)

    events = [_event_of(line) for line in lines]
    return seal(events, max_bytes=max_bytes, compress=compress, make_id=make_id)


def _why(problem: Exception) -> str:
    return clean(getattr(problem, "strerror", None) or str(problem))
