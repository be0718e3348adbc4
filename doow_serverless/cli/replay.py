"""The command ``doow-serverless replay``: what it prints, and what it returns to the shell."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from rich.table import Table

from doow_serverless._config import checked_config
from doow_serverless._delivery.patient import PatientSender, Undeliverable, sending
from doow_serverless._redaction import show
from doow_serverless.errors import ConfigurationError

from .console import console, number, progress_bar, safe
from .replay_input import (
    STANDARD_INPUT,
    Unreadable,
    blocks_of,
    files_of,
    halved_in,
    moment,
    twice_readable,
)
from .replaying import Ledger, Replay
from .statuses import ALL_DELIVERED, INCOMPLETE, INTERRUPTED, NOT_DELIVERED, UNUSABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader
    from pathlib import Path

_MOST_REJECTIONS = 50


def run(
    paths: list[Path],
    *,
    dry_run: bool,
    since: str | None,
    resume: Path | None,
    patience_s: float,
    rate: float | None,
) -> int:
    """Replay what ``paths`` hold, or standard input where there are none; the exit status.

    Raises:
        ConfigurationError: The key, the endpoint or ``since`` cannot be used.
        OSError: The file ``resume`` cannot be used.
    """
    config, endpoint = checked_config(needs_key=not dry_run)
    earliest = "" if since is None else _moment(since)
    ledger = Ledger(resume, endpoint)
    screen = _Screen()
    inputs = list(files_of(paths or [STANDARD_INPUT]))
    if dry_run:
        return _run(Replay(None, ledger, earliest), inputs, screen)
    screen.say(f"replaying to {endpoint}")
    if STANDARD_INPUT in inputs and sys.stdin.isatty():
        screen.say("reading standard input")
    with twice_readable(inputs) as files, sending(config, endpoint) as sender:
        halved = halved_in(files)
        patient = PatientSender(sender, screen.say, patience_s=patience_s, halved=halved, rate=rate)
        return _run(Replay(patient, ledger, earliest), files, screen)


def _moment(since: str) -> str:
    try:
        return moment(since, datetime.now(timezone.utc))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            "--since must be a time such as 2026-11-22T11:33:00Z, or how long ago, such as 90m, "
            f"2h or 3d, not {show(since)}"
        ) from None


def _run(replay: Replay, inputs: list[Path], screen: _Screen) -> int:
    unreadable: list[tuple[str, str]] = []
    status = ALL_DELIVERED
    try:
        with screen.progress(replay, inputs):
            for path in inputs:
                _read(replay, path, screen, unreadable)
    except Undeliverable as problem:
        status = UNUSABLE if problem.key_refused else NOT_DELIVERED
    except KeyboardInterrupt:
        status = INTERRUPTED
    screen.summary(replay)
    screen.problems(replay, unreadable)
    if status == INTERRUPTED:
        screen.say("interrupted: the same command again delivers the rest, once")
    elif replay.trouble:
        screen.say(f"not everything was delivered: {replay.trouble}")
        status = status or NOT_DELIVERED
    elif replay.problems() or replay.rejected or unreadable:
        status = INCOMPLETE
    return status


def _read(replay: Replay, path: Path, screen: _Screen, unreadable: list[tuple[str, str]]) -> None:
    """Take in one input; what is wrong with it is noted, so that the next can be read."""
    is_standard = path == STANDARD_INPUT
    if is_standard and sys.stdin.isatty():
        screen.say("reading standard input")
    try:
        opened = nullcontext(sys.stdin.buffer) if is_standard else path.open("rb")
    except OSError as problem:
        unreadable.append((str(path), problem.strerror or str(problem)))
        return
    with opened as stream:
        try:
            replay.read(screen.watched(stream))  # type: ignore[arg-type]  # stdin is buffered
        except Unreadable as problem:
            unreadable.append((str(path), str(problem)))


class _Screen:
    """What the user sees: progress and waits on standard error, the result on standard output."""

    def __init__(self) -> None:
        self._result = console()
        self._aside = console(stderr=True)
        self._bar = progress_bar(self._aside)
        self._task = self._bar.add_task("")
        self._bytes_before = 0
        self._replay: Replay | None = None

    def say(self, line: str) -> None:
        """A line beside the result."""
        self._aside.print(safe(line))

    @contextmanager
    def progress(self, replay: Replay, inputs: Iterable[Path]) -> Iterator[None]:
        """Show how far the reading is, where somebody watches."""
        self._replay = replay
        files = [path for path in inputs if path != STANDARD_INPUT]
        total = None if files != inputs else sum(path.stat().st_size for path in files)
        self._bar.update(self._task, total=total)
        with self._bar:
            yield

    def watched(self, stream: BufferedReader) -> Iterator[str]:
        """The text of ``stream``, which the bar follows."""
        position = 0
        for block in blocks_of(stream):
            yield block
            with suppress(OSError):  # A pipe has no position.
                position = stream.tell()
            self._move(self._bytes_before + position)
        self._bytes_before += position

    def _move(self, done: int) -> None:
        if self._replay is not None:
            found = self._replay.found
            text = f"{number(found.batches, 'batch')}, {number(found.events, 'event')}"
            self._bar.update(self._task, completed=done, description=text)

    def summary(self, replay: Replay) -> None:
        """What became of everything."""
        table = Table("", "batches", "events", box=None, pad_edge=False)
        table.columns[1].justify = table.columns[2].justify = "right"
        rows = {
            "found": replay.found,
            "delivered": replay.accepted,
            "delivered before": replay.earlier,
            "rejected": replay.refused,
            "not delivered": replay.undelivered,
        }
        for name, count in rows.items():
            if count.events or count.batches or name in ("found", "delivered"):
                table.add_row(name, f"{count.batches:,}", f"{count.events:,}")
        damaged = len(replay.problems())
        if damaged:
            table.add_row("damaged or incomplete", f"{damaged:,}", "?")
        said = [number(replay.records, "record")]
        if replay.repeated:
            said.append(f"{replay.repeated:,} of them repeated")
        if replay.too_old:
            said.append(f"{replay.too_old:,} of them too old")
        self._result.print(", ".join(said))
        self._result.print(table)

    def problems(self, replay: Replay, unreadable: list[tuple[str, str]]) -> None:
        """Everything that must be looked at, a line each."""
        for name, why in unreadable:
            self._list(f"unreadable  {name}: {why}")
        for batch_id, why in replay.problems():
            self._list(f"damaged     {batch_id or 'a batch whose id is lost'}: {why}")
        for batch_id, event_id, why in replay.rejected[:_MOST_REJECTIONS]:
            self._list(f"rejected    {event_id} of batch {batch_id}: {why}")
        more = len(replay.rejected) - _MOST_REJECTIONS
        if more > 0:
            self._list(f"rejected    and {number(more, 'event')} more")

    def _list(self, line: str) -> None:
        self._result.print(safe(line))
