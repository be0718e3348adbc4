"""The command ``doow-serverless send``: events from arguments, or from lines of JSON, to Doow."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from doow_serverless._config import checked_config
from doow_serverless._delivery.patient import PatientSender, Undeliverable, sending
from doow_serverless._frames.format import frames_of
from doow_serverless._frames.keys import LogKey
from doow_serverless._sealing import MAX_EVENTS, seal
from doow_serverless.errors import DoowError, ErrorKind, InvalidEvent

from .console import console, number, progress_bar, safe
from .event_lines import MAX_LINE_BYTES, Events
from .replay_input import STANDARD_INPUT
from .statuses import ALL_DELIVERED, INCOMPLETE, INTERRUPTED, NOT_DELIVERED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console

    from doow_serverless._config import Config
    from doow_serverless._delivery.patient import Delivery
    from doow_serverless._delivery.sender import Sender
    from doow_serverless._sealing import Batch

_MOST_TOLD = 50
"""Malformed lines, and rejected events, that are told one by one."""
_KEY_WAIT_S = 30.0
"""Seconds for which the log key is waited for."""
_MAX_AHEAD = 4 * MAX_EVENTS
"""Lines that may have been read and not been looked at."""


def run(
    paths: list[Path], fields: dict[str, Any] | None, *, undelivered: Path, patience_s: float
) -> int:
    """Send the one event of ``fields``, or else those of ``paths``; the exit status.

    Args:
        paths: Files of lines; standard input where there are none.
        fields: As of ``track``; None to read lines.
        undelivered: The file to which records are added of what could not be delivered.
        patience_s: Seconds for which a batch is tried while the server is down.

    Raises:
        ConfigurationError: The key or the endpoint cannot be used.
    """
    config, endpoint = checked_config()
    report = _Report(endpoint)
    with sending(config, endpoint) as sender:
        outbox = _Outbox(sender, report, undelivered, config, patience_s)
        try:
            if fields is not None:
                outbox.add(fields)
            else:
                _send_lines(paths or [STANDARD_INPUT], outbox, report, config.flush_interval_s)
            outbox.finish()
        except KeyboardInterrupt:
            report.is_interrupted = True
            outbox.keep()
    return report.summary()


def _send_lines(paths: list[Path], outbox: _Outbox, report: _Report, interval_s: float) -> None:
    """Send what the lines say, by whole batches, and what waits for so long besides."""
    with report.progress(paths):
        due_at = time.monotonic() + interval_s
        for place, line in _lines(paths, interval_s):
            if line:
                report.read(len(line))
                if line.strip():
                    outbox.add_line(line, place)
            elif place:
                report.malformed(place, "cannot be read")
            if outbox.waiting >= MAX_EVENTS:
                outbox.send()
            elif outbox.waiting and time.monotonic() > due_at:
                outbox.finish()
            if not outbox.waiting:
                due_at = time.monotonic() + interval_s


def _lines(paths: list[Path], interval_s: float) -> Iterator[tuple[str, bytes]]:
    """Where each line stands, and the line; empty ones now and then while none comes.

    They are read on a thread of its own, since a pipe may be silent for hours.
    """
    read: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_MAX_AHEAD)

    def read_all() -> None:
        for path in paths:
            name = "line" if path == STANDARD_INPUT else f"{path}, line"
            try:
                with _opened(path) as stream:
                    for count, line in enumerate(_bounded(stream), 1):
                        read.put((f"{name} {count}", line))
            except OSError as problem:
                read.put((f"{path} ({problem.strerror})", b""))
        read.put(None)

    threading.Thread(target=read_all, daemon=True).start()
    while True:
        try:
            found = read.get(timeout=max(interval_s, 0.1))
        except queue.Empty:
            yield "", b""
            continue
        if found is None:
            return
        yield found


def _opened(path: Path) -> BinaryIO:
    if path != STANDARD_INPUT:
        return path.open("rb")
    # Not sys.stdin, which the interpreter could not close while another thread reads it.
    return os.fdopen(os.dup(0), "rb")


def _bounded(stream: Any) -> Iterator[bytes]:
    """The lines of ``stream``; of one that is too long only as much as tells so."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while rest and not rest.endswith(b"\n") and len(rest) > MAX_LINE_BYTES:
            rest = stream.readline(MAX_LINE_BYTES + 1)
        yield line


class _Outbox:
    """Events on their way: taken, sealed, sent, or written down."""

    def __init__(
        self,
        sender: Sender,
        report: _Report,
        undelivered: Path,
        config: Config,
        patience_s: float,
    ) -> None:
        self._sender = PatientSender(
            sender, report.delivered, self._given_up, report.say, patience_s=patience_s
        )
        self._report = report
        self._undelivered = undelivered
        self._config = config
        self._log_key = LogKey.of(config)
        self._events = Events(config)
        self._under_way: list[Batch] = []
        self._is_over = False
        self._is_unsigned = False

    @property
    def waiting(self) -> int:
        """Events that are to be sent."""
        return self._events.waiting

    def add(self, fields: dict[str, Any]) -> None:
        """Take one event; what is wrong with it is told."""
        try:
            self._events.add(fields)
        except InvalidEvent as problem:
            self._report.malformed("the event", str(problem))
        self._tell_left_out("")

    def add_line(self, line: bytes, place: str) -> None:
        """Take the event of a line; what is wrong with it is told, by its number."""
        try:
            self._events.add_line(line)
        except InvalidEvent as problem:
            self._report.malformed(place, str(problem))
        self._tell_left_out(f"{place}: ")

    def _tell_left_out(self, place: str) -> None:
        while self._events.left_out:
            self._report.tell(f"{place}{self._events.left_out.pop()} was left out")
        for name in sorted(self._events.ignored - self._report.ignored):
            self._report.ignored.add(name)
            self._report.say(f"the field {name!r} means nothing here, and is left out")

    def send(self) -> None:
        """Send all that was taken; what fails waits behind what follows."""
        self._under_way += seal(
            self._events.take(),
            max_bytes=self._config.max_payload_bytes,
            compress=self._config.compress,
        )
        while self._under_way and not self._is_over:
            self._go_on(partial(self._sender.send, self._under_way[0]))
            del self._under_way[:1]
        if self._is_over:
            self._leave()

    def finish(self) -> None:
        """Send all that was taken, and all that waits; what is not delivered is written down."""
        self.send()
        self._go_on(self._sender.finish)

    def keep(self) -> None:
        """Write down all that is not known to be delivered."""
        self._is_over = True
        self.send()

    def _go_on(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Undeliverable as problem:
            self._is_over = problem.ends_all
            self._report.trouble = str(problem)
            self._leave()

    def _leave(self) -> None:
        left = {batch.id: batch for batch in (*self._sender.leave(), *self._under_way)}
        self._under_way.clear()
        for batch in left.values():
            self._write_down(batch)

    def _given_up(self, batch: Batch, why: str) -> None:
        self._report.trouble = why
        self._write_down(batch)

    def _write_down(self, batch: Batch) -> None:
        self._report.undelivered += len(batch)
        lines = frames_of(batch, ErrorKind.NETWORK_ERROR, time.time(), key=self._signing_key())
        records = "".join(f"{line}\n" for line in lines)
        try:
            with self._undelivered.open("a", encoding="ascii") as file:
                file.write(records)
            self._report.written_to = self._undelivered
        except OSError as problem:
            self._report.say(f"cannot write to {self._undelivered}: {problem.strerror}")
            sys.stdout.write(records)  # A log that is kept is as good to `replay`.

    def _signing_key(self) -> bytes | None:
        """Return the log key, if there is one; `replay` with a log key accepts nothing unsigned."""
        if self._log_key.is_missing and not self._is_unsigned:
            try:
                with suppress(ImportError):  # prepare() says so.
                    self._log_key.load()
                self._log_key.prepare(_KEY_WAIT_S)
            except DoowError as problem:
                self._is_unsigned = True
                self._report.say(f"written unsigned, for a replay without a log key: {problem}")
        return self._log_key.signing_key()


class _Report:
    """What the user sees, and the exit status that it amounts to."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._result: Console = console()
        self._aside: Console = console(stderr=True)
        self._bar = progress_bar(self._aside)
        self._task = self._bar.add_task("")
        self._told = 0
        self._accepted = 0
        self._rejected = 0
        self._malformed = 0
        self.undelivered = 0
        self.written_to: Path | None = None
        self.trouble = ""
        self.is_interrupted = False
        self.ignored: set[str] = set()

    def say(self, line: str) -> None:
        """A line beside the result."""
        self._aside.print(safe(line))

    def tell(self, line: str) -> None:
        """A line about one event, if not too many were told already."""
        self._told += 1
        if self._told <= _MOST_TOLD:
            self.say(line)
        elif self._told == _MOST_TOLD + 1:
            self.say("and more, which are counted only")

    @contextmanager
    def progress(self, paths: list[Path]) -> Iterator[None]:
        """Show how far the reading is, where somebody watches."""
        total: int | None = 0
        for path in paths:
            try:
                total = None if total is None else total + path.stat().st_size
            except OSError:
                total = None
        if STANDARD_INPUT in paths and sys.stdin.isatty():
            self.say("reading standard input, a JSON object in each line")
        self._bar.update(self._task, total=total)
        with self._bar:
            yield

    def read(self, size: int) -> None:
        """So many bytes more were read."""
        self._bar.update(self._task, advance=size)

    def malformed(self, place: str, problem: str) -> None:
        """A line, or a file, of which no event could be made."""
        self._malformed += 1
        self.tell(f"{place}: {problem}")

    def delivered(self, delivery: Delivery) -> None:
        """What the server decided on a batch."""
        self._accepted += delivery.accepted
        self._rejected += len(delivery.rejected)
        for event_id, reason in delivery.rejected:
            self.tell(f"rejected: {event_id}: {reason}")
        with suppress(Exception):
            self._bar.update(self._task, description=f"{number(self._accepted, 'event')} sent")

    def summary(self) -> int:
        """Print what became of everything; the exit status."""
        said = [f"{number(self._accepted, 'event')} delivered to {self._endpoint}"]
        if self._rejected:
            said.append(f"{self._rejected:,} rejected")
        if self._malformed:
            said.append(f"{self._malformed:,} malformed")
        if self.undelivered:
            said.append(f"{self.undelivered:,} not delivered")
        self._result.print(safe(", ".join(said)))
        if self.trouble:
            self.say(f"not everything was delivered: {self.trouble}")
        if self.written_to is not None:
            self.say(f"deliver it later with: doow-serverless replay {self.written_to}")
        if self.is_interrupted:
            self.say("interrupted: lines that were not read have not been sent")
            return INTERRUPTED
        if self.undelivered:
            return NOT_DELIVERED
        return INCOMPLETE if self._malformed or self._rejected else ALL_DELIVERED
