"""Whole lines of the log, which is the process's real standard output."""

from __future__ import annotations

import sys
import threading

from doow_serverless._process.signals import is_from_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO


class LogLines:
    """Writes lines to what ``sys.stdout`` is now, or else wherever the process can be heard.

    Later that may be the application's own, as under ``contextlib.redirect_stdout``: then the text
    is not ours to write into.

    Args:
        stream: Written to instead.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        # Not the descriptor: the runtimes of Vercel and Lambda have put objects of their own there;
        # the former's tells by the context to which request a line belongs.
        self._stream = sys.stdout if stream is None else stream
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LogLines({self._stream!r})"

    def streams(self) -> list[TextIO]:
        """Where a line can go now, the best first."""
        streams = (self._stream, sys.__stdout__, sys.stdout, sys.__stderr__)
        return [stream for stream in streams if stream is not None]

    def write(self, lines: Sequence[str], streams: Iterable[TextIO]) -> BaseException | None:
        """Write ``lines`` to the first of ``streams`` that takes them all; why none does, if so."""
        trouble: BaseException | None = OSError("there is no standard output")
        for stream in streams:
            try:
                with self._lock:
                    for line in lines:
                        # In one call, so that what others print does not come in between.
                        stream.write(f"{line}\n")
                    stream.flush()
            except BaseException as problem:  # Closed, or whatever a stream of the user's raises.
                if not isinstance(problem, Exception) and is_from_signal(problem):
                    raise
                trouble = problem
            else:
                return None
        return trouble
