"""Writes frames to the process's real standard output, each whole and on a line of its own."""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from itertools import count

from doow_serverless._process.signals import is_from_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_MOST_STARTS = 10
"""Times that a frame is written from its start because other frames came in between its parts."""
_POLL_MS = 1_000
"""Milliseconds after which a write is tried again although nothing says that there is room."""
_PAUSE_S = 0.01
"""Seconds between attempts if the platform cannot say when there is room."""


class StandardOutput:
    """The process's real standard output, or its standard error if there is no standard output.

    Each frame is written in one call, with a newline before and after it: it stands on its own line
    even if the application has not ended the line before. The call goes to the descriptor, not to
    the text stream. So it takes no lock that a fork or a signal handler could leave shut, it does
    not mix with a half-full buffer of the application's, and a pipe keeps it whole beside the
    writes of all other threads and processes, up to 4,096 bytes.

    Whatever replaces ``sys.stdout``, such as ``contextlib.redirect_stdout``, is the application's:
    no frame goes there. The one exception is Vercel's runtime, whose replacement sends each write
    to the platform together with the request it belongs to.

    Args:
        stream: Written to instead.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"StandardOutput({self._stream!r})"

    def write(self, frames: Sequence[str]) -> BaseException | None:
        """Write ``frames``, which are ASCII; return the problem if they are not all written.

        Blocks while the stream has no room. Another stream takes the frames only if the first
        does not exist and has taken nothing: a frame that is begun is never repeated elsewhere.
        """
        lines = [f"\n{frame}\n".encode("ascii", "backslashreplace") for frame in frames]
        trouble: BaseException = OSError("there is no standard output")
        for stream in self._candidates():
            writer = _Writer(stream)
            try:
                for line in lines:
                    writer.write(line)
            except BaseException as problem:  # Whatever a stream of the user's raises.
                if is_from_signal(problem):
                    raise
                trouble = problem
                if writer.has_begun or not writer.is_missing(problem):
                    break
            else:
                return None
        return trouble

    def _candidates(self) -> list[TextIO]:
        streams = (self._stream, _find_vercel_stream(), _find_original())
        first = next((stream for stream in streams if stream is not None), None)
        error = getattr(sys, "__stderr__", None)  # The application may have deleted it.
        return [stream for stream in (first, error) if stream is not None]


class _Writer:
    """Writes lines to one stream, by its descriptor if it has one.

    Attributes:
        has_begun: True once the stream has taken something.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.has_begun = False

    def write(self, line: bytes) -> None:
        """Write ``line`` whole; raise whatever prevents it."""
        descriptor = _descriptor_of(self._stream)
        if descriptor is None:
            self._write_text(line.decode("ascii"))
            return
        for _ in range(_MOST_STARTS):
            if self._write_once(descriptor, line):
                return
        raise OSError("other frames keep coming in between the parts of a frame")

    def is_missing(self, problem: BaseException) -> bool:
        """Return True if ``problem`` says that the stream does not exist, or has no reader."""
        if isinstance(problem, OSError) and problem.errno in {errno.EBADF, errno.EPIPE}:
            return True
        return _is_closed(self._stream) or not hasattr(self._stream, "write")

    def _write_text(self, text: str) -> None:
        self._stream.write(text)
        self.has_begun = True
        self._stream.flush()

    def _write_once(self, descriptor: int, line: bytes) -> bool:
        """Write ``line``, and return False if another frame may stand within it.

        Pipes and files take a frame in one call. A socket or a terminal may take it in parts, and
        then another thread, or a signal handler, may write its own frame in between.
        """
        turn = _Turn()
        try:
            turn.begin()
            taken = self._write_some(descriptor, line)
            if taken == len(line):
                return True
            while taken < len(line):
                taken += self._write_some(descriptor, line[taken:])
            return turn.was_alone()
        finally:
            turn.end()

    def _write_some(self, descriptor: int, data: bytes) -> int:
        """Write ``data`` or the beginning of it, once there is room, and return how many bytes."""
        has_waited = False
        while True:
            try:
                taken = os.write(descriptor, data)
            except BlockingIOError:
                # Somebody has made it non-blocking, for every process that shares it.
                _wait_for_room(descriptor, is_in_doubt=has_waited)
                has_waited = True
            else:
                self.has_begun = True
                return taken


_numbers = count()
_turns: set[tuple[int, _Turn]] = set()


class _Turn:
    """The time in which one frame is written.

    It tells whether other frames of this process were written in the same time, without a lock: a
    lock could stay shut after a fork, and a signal handler cannot wait for the code it interrupts.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._entry = (self._pid, self)
        self._number = 0
        self._is_first = False

    def begin(self) -> None:
        """Begin it; call :meth:`end` whatever is raised."""
        # First the entry, then the number: whoever takes a later number sees the entry.
        _turns.add(self._entry)
        self._number = next(_numbers)
        # After a fork there are entries of threads that only the parent has.
        self._is_first = [pid for pid, _ in list(_turns)].count(self._pid) == 1

    def end(self) -> None:
        """End it."""
        _turns.discard(self._entry)

    def was_alone(self) -> bool:
        """Return True if no other turn was under way at the start, and none has begun since."""
        return self._is_first and next(_numbers) == self._number + 1


def _wait_for_room(descriptor: int, *, is_in_doubt: bool) -> None:
    """Wait until ``descriptor`` may have room, as a write to a blocking pipe would.

    Args:
        descriptor: It has no room now.
        is_in_doubt: True if it had none the last time, either, after a wait.
    """
    poll = getattr(select, "poll", None)  # Windows has none.
    if poll is not None:
        room = poll()
        room.register(descriptor, select.POLLOUT)
        room.poll(_POLL_MS)
    if poll is None or is_in_doubt:
        time.sleep(_PAUSE_S)


def _descriptor_of(stream: TextIO) -> int | None:
    """The descriptor to write to, or None if only the text stream will do."""
    # Vercel's stream passes on the descriptor of the one below, which knows of no request.
    if _is_of_vercel(stream):
        return None
    try:
        # A closed stream says so. Its descriptor may belong to another file of the application.
        descriptor = stream.fileno()
    except Exception:  # Or it is no file, or a stream of the user's, which may raise anything.
        return None
    return descriptor if type(descriptor) is int and descriptor >= 0 else None


def _find_original() -> TextIO | None:
    """Return the process's own text stream, or the one that has taken over its descriptor.

    ``io.TextIOWrapper(sys.stdout.detach())`` leaves an original that can do nothing any more.
    """
    original: TextIO | None = getattr(sys, "__stdout__", None)
    other: TextIO | None = getattr(sys, "stdout", None)
    if original is None or other is None or _descriptor_of(original) is not None:
        return original
    is_same = _original_descriptor is not None and _descriptor_of(other) == _original_descriptor
    return other if is_same else original


def _is_closed(stream: TextIO) -> bool:
    try:
        return bool(stream.closed)
    except ValueError:  # It was detached.
        return True
    except Exception:  # Streams of the user's may lack it.
        return False


# ── Vercel's runtime ────────────────────────────────────────────────────────────────────────────

_vercel_stream: TextIO | None = None


def _find_vercel_stream() -> TextIO | None:
    """The object by which Vercel's runtime has replaced ``sys.stdout``; None elsewhere.

    The runtime does so before it imports the application. So the object is found when this module
    is imported, and is remembered: later ``sys.stdout`` may be a text of the application's.
    """
    global _vercel_stream
    stream = getattr(sys, "stdout", None)  # The application may have deleted it.
    if _vercel_stream is None and _is_of_vercel(stream):
        _vercel_stream = stream
    return _vercel_stream


def _is_of_vercel(stream: object) -> bool:
    """Return True for the object that Vercel's runtime makes for standard output.

    Its class is made within a function of the bootstrap, and has no importable name. It is known
    by that function and by the two variables of it that the class writes to; the bootstrap itself
    is a module of another name in each version.
    """
    kind = type(stream)
    if kind.__qualname__ != "setup_logging.<locals>.StreamWrapper":
        return False
    code = getattr(getattr(kind, "write", None), "__code__", None)
    writes_to = getattr(code, "co_freevars", ())
    return (
        set(writes_to) == {"send_message", "storage"}
        and getattr(stream, "stream_name", None) == "stdout"
    )


_find_vercel_stream()
_original_descriptor = None if sys.__stdout__ is None else _descriptor_of(sys.__stdout__)
