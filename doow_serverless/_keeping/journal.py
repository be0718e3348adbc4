"""The crash journal: events recorded and not settled, in a file that outlives the process.

Each process appends to a file of its own and holds a lock on it, which the kernel releases when the
process dies, however it dies. A file whose lock can be taken was left behind: whoever locks it owns
it from then on, hands out its batches, and removes it once they are settled. So every record is at
any time in one file, with one owner.

Not guaranteed: anything across a crash of the machine itself, since nothing waits for the disk.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import suppress
from functools import partial

from doow_serverless._process.log import warn
from doow_serverless._recording.ids import derived_id, new_id
from doow_serverless._redaction import clean
from doow_serverless._sealing import MAX_BYTES, Batch, seal

from .journal_file import (
    CAN_LOCK,
    COMPACT_FROM,
    JournalFile,
    check_folder,
    compact,
    create,
    read,
    take,
)
from .journal_format import batch_of, batch_text, event_of, event_text, line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from doow_serverless._recording.event import Event

MAX_FILE_BYTES = 8 * 1024 * 1024
"""Bytes of a file from which on it takes no more events. Recovery holds as many in memory."""
MAX_TAKEN = 64
"""Files of dead processes that one owner holds open at once."""

_quoted = json.JSONEncoder().encode


class Journal:
    """Keeps on disk what this process has recorded and not settled, and finds what others left.

    Every method may be called from any thread, and none raises. What goes wrong is said in one
    warning, by the next call that may take its time: never by
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

        self._prefix = f"doow-{sha256(audience.encode(errors='surrogatepass')).hexdigest()[:16]}-"
        self._name = re.compile(self._prefix + r"[0-9a-f-]+\.journal")
        self._max_bytes = max_bytes
        self._complaints: set[str] = set()
        self._unsaid: list[str] = []
        self._is_off = False
        self._reset()
        try:
            if not CAN_LOCK:
                raise OSError("this platform has no file locks")
            self._directory = default_directory() if directory is None else os.fspath(directory)
        except OSError as problem:  # There may be no temporary folder at all.
            self._turn_off(problem)
        self._say()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._aside: list[Event] = []
        self._own: JournalFile | None = None
        self._taken: list[JournalFile] = []

    # ── what the process records ───────────────────────────────────────────────────────────────

    def __repr__(self) -> str:
        state = "off" if self._is_off else repr(self._own) if self._own else "nothing recorded"
        return f"Journal({state}, {len(self._taken)} files taken over)"

    def record_many(self, events: Iterable[Event]) -> None:
        """Note events, all in one write. Call it before they can be sealed."""
        if self._is_off:
            return
        if self.is_interrupted():
            self._aside += events
            return
        with self._lock:
            self._take_in()
            self._record(events)

    def replace(self, event: Event) -> None:
        """Note ``event`` in the place of one of its id, which is not sealed."""
        with self._lock:
            self._take_in()
            file = self._own
            line = line_of(b"R", event_text(event))
            if self._is_off or file is None or event[0] not in file.events:
                return
            if file.size + len(line) > self._max_bytes:
                self._complain_of_size(file)
            else:
                self._append(file, line)

    def is_interrupted(self) -> bool:
        """Whether this thread has been interrupted in here, by a finalizer or a signal."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as Condition does

    def _take_in(self) -> None:
        """Note what was recorded in such a moment, before it can be sealed; with the lock held."""
        while self._aside:
            self._record([self._aside.pop(0)])

    def _record(self, events: Iterable[Event]) -> None:
        ids = []
        lines = []
        for event in events:
            ids.append(event[0])
            lines.append(line_of(b"E", event_text(event)))
        data = b"".join(lines)
        if data:
            file = self._own or self._begin()
            if file is None:
                return
            if file.size + len(data) > self._max_bytes:
                self._complain_of_size(file)
            elif self._append(file, data):
                file.add(ids)

    def note_sealed(self, batch: Batch) -> None:
        """Note a batch of recorded events. Call it before the first POST of it."""
        line = line_of(b"B", batch_text(batch))
        with self._lock:
            self._take_in()
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

    def note_split(self, batch: Batch, halves: tuple[Batch, Batch]) -> None:
        """Note that ``halves`` go out in the stead of ``batch``."""
        lines = b"".join(line_of(b"B", batch_text(half)) for half in halves)
        lines += line_of(b"S", batch.id.encode())
        with self._lock:
            file = self._holder(batch.id)
            # If it fails, the batch will be sent again, and split into these same halves.
            if file is not None and self._append(file, lines):
                file.batches.remove(batch.id)
                file.batches.update(half.id for half in halves)
        self._say()

    def note_settled(self, batch_id: str) -> None:
        """Note that a batch needs no more sending: the server has decided, or it was dropped."""
        with self._lock:
            file = self._holder(batch_id)
            if file is not None:
                file.batches.remove(batch_id)
                # If it fails, the batch will be sent again, and recognised by its id.
                self._strike(file, line_of(b"S", batch_id.encode()))
        self._say()

    def forget(self, event_ids: Iterable[str]) -> None:
        """Note that unsealed events will be sealed elsewhere, or never."""
        ids = list(event_ids)
        with self._lock:
            self._take_in()
            file = self._own
            if (
                file is not None
                and file.subtract(ids)
                and not self._strike(file, line_of(b"F", _quoted(ids).encode()))
            ):
                self._abandon(file)
        self._say()

    # ── what dead processes left ───────────────────────────────────────────────────────────────

    def recover(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_packed: int | None = None,
        compress: bool = True,
    ) -> list[Batch]:
        """The batches that dead processes have left, as they were; their events, now sealed.

        No other process is given them while this one lives. What would be too much to hold stays
        where it is, for the next call.

        Args:
            max_bytes: For new batches, the same as for :func:`seal`.
            max_packed: The same.
            compress: The same.
        """
        reseal = partial(seal, max_bytes=max_bytes, max_packed=max_packed, compress=compress)
        found: list[Batch] = []
        if self._is_off:
            return found
        try:
            check_folder(self._directory)
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
            found += self._recovered(os.path.join(self._directory, name), reseal)
        self._say()
        return found

    def _recovered(self, path: str, reseal: Callable[..., Iterator[Batch]]) -> list[Batch]:
        """Take over what stands in the file at ``path``, unless its owner lives."""
        try:
            file = take(path)
        except (BlockingIOError, FileNotFoundError):
            return []  # Its owner lives, or another process was faster.
        except OSError as problem:
            self._complain("foreign", f"left {path} alone: {_why(problem)}")
            return []
        try:
            contents = read(file.fd)
            if contents.torn:
                self._complain("torn", f"{contents.torn} torn records of a crash are lost")
            batches = [batch_of(line) for line in contents.batches.values()]
            events = [event_of(line) for line in contents.event_lines()]
            fresh = list(reseal(events, make_id=partial(_recovered_id, file.path)))
            lines = b"".join(line_of(b"B", batch_text(batch)) for batch in fresh)
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
        self._reset()

    def discard(self) -> None:
        """Forget all that is not settled: it is written down elsewhere, or nobody's to send."""
        with self._lock:
            for file in self._files():
                with suppress(OSError):
                    os.ftruncate(file.fd, 0)
                file.remove()
            self._own, self._taken, self._aside = None, [], []

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

    def _files(self) -> list[JournalFile]:
        return self._taken if self._own is None else [self._own, *self._taken]

    def _holder(self, batch_id: str) -> JournalFile | None:
        return next((file for file in self._files() if batch_id in file.batches), None)

    def _begin(self) -> JournalFile | None:
        """Make this process's own file; None once the journal is off."""
        if self._is_off:
            return None
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            check_folder(self._directory)
            name = f"{self._prefix}{time.time_ns():016x}-{new_id()}.journal"
            self._own = create(os.path.join(self._directory, name))
        except OSError as problem:
            self._turn_off(problem)
        return self._own

    def _append(self, file: JournalFile, lines: bytes) -> bool:
        try:
            file.append(lines)
        except OSError as problem:
            self._turn_off(problem)
            return False
        return True

    def _strike(self, file: JournalFile, line: bytes) -> bool:
        """Add a line that ends something; a file in which nothing is left needs no such line."""
        if not file.is_settled:
            done = self._append(file, line)
            if done and file.size >= file.compact_at:
                compact(file)
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

    def _abandon(self, file: JournalFile) -> None:
        """Give up the own file, with all that stands in it."""
        with suppress(OSError):
            os.ftruncate(file.fd, 0)
        file.remove()
        self._own = None

    def _turn_off(self, problem: OSError) -> None:
        self._is_off = True
        self._complain("off", f"the journal is off, and a crash may lose events: {_why(problem)}")

    def _complain_of_size(self, file: JournalFile) -> None:
        text = f"the journal is full at {file.size:,} bytes, and a crash may lose events"
        self._complain("full", text)

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


def default_directory() -> str:
    """The folder under the platform's temporary one, apart for each user.

    Raises:
        OSError: The platform has no temporary folder.
    """
    import tempfile  # Dear at import.

    return os.path.join(tempfile.gettempdir(), f"doow-serverless-{os.getuid()}")


def _recovered_id(path: str, event_ids: Sequence[str]) -> str:
    """The id of a batch of recovered events: it derives from theirs, and from where they stood.

    If locks turn out not to hold, as on some network file systems, two processes may recover the
    same events. They then send them under the same ids, and the server counts them once.
    """
    return derived_id(os.path.basename(path), *event_ids)


def _why(problem: Exception) -> str:
    return clean(getattr(problem, "strerror", None) or str(problem))
