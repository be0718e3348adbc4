"""Writes undelivered batches where they outlive the process: to the log, or into a directory."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from functools import partial

from doow_serverless._frames.format import frames_of
from doow_serverless._frames.keys import LogKey
from doow_serverless._frames.stdout import StandardOutput
from doow_serverless._process.log import report_fault, warn
from doow_serverless._process.workers import Workers
from doow_serverless._recording.ids import new_id
from doow_serverless._redaction import show
from doow_serverless._sealing import LINE_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from doow_serverless._sealing import Batch
    from doow_serverless.errors import ErrorKind

WAIT_S = 0.1
"""Seconds for which a handler waits for a pipe that does not take its lines."""
MAX_WAITING = 16 * 1024 * 1024
"""Sealed bytes that may wait for such a pipe."""

_UNSIGNED = (
    "a dead letter was written unsigned, because the log key has not been fetched yet; a relay "
    "with a log key refuses it. Its events are still delivered by this process if it lives on; "
    "otherwise give these lines alone to doow-serverless replay, without a log key"
)


class DeadLetters:
    """Writes undelivered batches without holding up or failing the caller.

    The records are made and written on one thread at a time, in order, each line whole. The caller
    may :meth:`wait` until its own are out, since a sandbox may be frozen next, but no longer than
    :data:`WAIT_S`; while the writing is stuck nobody else waits. What is late is written as soon as
    that can be done.

    After a fork, make a new one: what waits is the parent's to write.

    Args:
        target: ``"log"`` for standard output, ``"off"``, or a directory, which is made if needed.
        stream: Written to instead of standard output.
        wall_clock: Unix seconds.
        limit, least_level: As of `frames_of`.
        log_key: Signs the records. They are written at once: unsigned if it is not at hand.
    """

    def __init__(
        self,
        target: str,
        stream: TextIO | None = None,
        wall_clock: Callable[[], float] = time.time,
        *,
        limit: int = LINE_LIMIT,
        least_level: str = "",
        log_key: LogKey | None = None,
    ) -> None:
        self._target = target
        self._log = StandardOutput(stream)
        self._wall_clock = wall_clock
        self._make_records = partial(frames_of, limit=limit, least_level=least_level)
        self._log_key = log_key or LogKey()
        self._thread = Workers(max_threads=1)
        self._lock = threading.RLock()
        self._waiting = 0
        self._is_late = False
        self._last: threading.Event | None = None
        self._left_out = 0
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"DeadLetters({self._target!r}, {self._waiting} bytes waiting)"

    def write(self, batch: Batch, reason: ErrorKind | str) -> bool:
        """Have ``batch`` written, and do not wait for it; False where too much waits already.

        A batch that stands in the log and is halved is written once more, for the reason ``SPLIT``.
        """
        if self._target == "off":
            return True
        with self._lock:
            if self._waiting and self._waiting + len(batch.body) > MAX_WAITING:
                # It stays in the backlog; a warning would wait for the same pipe, or worse.
                self._left_out += 1
                return False
            self._waiting += len(batch.body)
            written = self._last = threading.Event()
        at_unix_s = self._wall_clock()
        job = partial(self._write, batch, reason, at_unix_s, written)
        self._thread.run(job)  # If no thread can be started, here: better to wait than to lose it.
        return True

    def wait(self, limit_s: float = WAIT_S) -> None:
        """Until what was to be written is written, or ``limit_s`` seconds, or the pipe is stuck."""
        last = self._last
        if last is not None and not self._is_late and not last.wait(limit_s):
            with self._lock:
                self._is_late = not last.is_set()

    def _write(
        self,
        batch: Batch,
        reason: ErrorKind | str,
        at_unix_s: float,
        written: threading.Event,
    ) -> None:
        """Write one batch; runs on the thread, in the context of the caller."""
        left_out = 0
        is_unsigned = False
        try:
            key = self._log_key.signing_key()
            records = self._make_records(batch, reason, at_unix_s, key=key)
            if self._target == "log" or not self._put_in_directory(batch.id, records):
                self._put_in_log(records)
            is_unsigned = key is None and self._log_key.is_missing
        except Exception as fault:
            report_fault("writing a dead letter", fault)
        finally:  # Also if the handler of a signal has raised.
            with self._lock:
                self._waiting -= len(batch.body)
                self._is_late = False
                left_out, self._left_out = self._left_out, 0
                written.set()
        if is_unsigned:
            self._warn_once(_UNSIGNED, self._log_key.trouble)
        if left_out:
            warn(f"{left_out} dead letters were not written, since standard output was stuck")

    def _put_in_log(self, records: list[str]) -> None:
        trouble = self._log.write(records)
        if trouble is not None:
            said = show(trouble, 200)
            self._warn_once(f"dead letters cannot be written to standard output: {said}")

    def _put_in_directory(self, batch_id: str, records: list[str]) -> bool:
        """Whether the batch has become a file, whole or not at all, for the owner to read."""
        path = os.path.join(self._target, _file_name(batch_id))
        temporary = f"{path}.{new_id()}.tmp"
        try:
            os.makedirs(self._target, mode=0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.writelines(f"{record}\n" for record in records)
            os.replace(temporary, path)
        except (OSError, ValueError) as problem:
            with suppress(OSError, ValueError):  # It may not even have come to be.
                os.unlink(temporary)
            self._warn_once(
                f"dead letters cannot be written to the directory {show(self._target, 200)}, and "
                f"go to standard output instead: {show(problem, 200)}"
            )
            return False
        return True

    def _warn_once(self, message: str, detail: str = "") -> None:
        if message not in self._warned and len(self._warned) < 10:
            self._warned.add(message)
            warn(f"{message} ({detail})" if detail else message)


def _file_name(batch_id: str) -> str:
    """A name that is safe in a directory, and the same for the same batch."""
    if batch_id.replace("-", "").isalnum() and batch_id.isascii() and len(batch_id) <= 100:
        return f"doow-{batch_id}.jsonl"
    from hashlib import sha256  # Ids of our own need none.

    return f"doow-{sha256(batch_id.encode(errors='surrogatepass')).hexdigest()}.jsonl"
