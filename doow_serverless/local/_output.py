"""What sandboxed processes write, read by a thread so that a full pipe never blocks them."""

from __future__ import annotations

import contextlib
import os
import select
import threading


class Output:
    """One pipe for the standard output and the standard error of one process after another.

    What a process has written can be read at once, also while it is frozen and after its death.
    """

    def __init__(self) -> None:
        self._written = bytearray()
        self._lock = threading.Lock()
        self._is_open = False
        self._read_fd = self._write_fd = -1
        self._thread = threading.Thread(target=self._pump, name="doow-local-output", daemon=True)

    def open(self) -> None:
        """Make the pipe, and start to read."""
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._is_open = True
        self._thread.start()

    def close(self) -> None:
        """Stop reading; the text stays."""
        self._drain()
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
        os.write(self._write_fd, b"\n")  # wakes the thread, and is never read
        self._thread.join()
        os.close(self._read_fd)
        os.close(self._write_fd)

    def fileno(self) -> int:
        """The end that the processes write to."""
        return self._write_fd

    def add(self, text: str) -> None:
        """Append what a process has said in another way."""
        with self._lock:
            self._written += text.encode()

    def size(self) -> int:
        """How many bytes have been written so far."""
        self._drain()
        return len(self._written)

    def text(self, offset: int = 0) -> str:
        """What has been written so far, from the byte ``offset`` on."""
        self._drain()
        return self._written[offset:].decode(errors="replace")

    def last_words(self) -> str:
        """The end of the text, for the message of an error."""
        return f"it wrote:\n{self.text()[-4000:]}"

    def _pump(self) -> None:
        while self._is_open:
            select.select([self._read_fd], [], [])
            self._drain()

    def _drain(self) -> None:
        """Take all that is in the pipe, also what the thread has not seen yet."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while self._is_open:
                self._written += os.read(self._read_fd, 65536)
