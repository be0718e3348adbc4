"""The command ``doow-serverless replay``: what it prints, and what it returns to the shell."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from rich.table import Table

from doow_serverless._config import checked_config
from doow_serverless._delivery.patient import PatientSender, Undeliverable, sending
from doow_serverless._frames.keys import LogKey
from doow_serverless._redaction import show
from doow_serverless._values import fold_text
from doow_serverless.errors import ConfigurationError

from .console import console, number, progress_bar, safe
from .export_bytes import Unreadable
from .replay_input import STANDARD_INPUT, Survey, files_of, moment, twice_readable
from .replaying import Ledger, Replay, Signatures, Span
from .statuses import ALL_DELIVERED, INCOMPLETE, INTERRUPTED, NOT_DELIVERED, UNUSABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .replaying import Oddities

_MOST_REJECTIONS = 50


def run(
    paths: list[Path],
    *,
    dry_run: bool,
    since: str | None,
    until: str | None,
    resume: Path | None,
    patience_s: float,
    rate: float | None,
    fold: str | None,
) -> int:
    """Replay what ``paths`` hold, or standard input if there are none; return the exit status.

    With a log key, frames that it has not signed are refused.

    Raises:
        ConfigurationError: A key, the endpoint, a time or ``fold`` cannot be used.
        OSError: The file ``resume`` cannot be used.
    """
    config, endpoint = checked_config(needs_key=not dry_run)
    keys = LogKey.of(config).verifying_keys()
    span = Span(
        "" if since is None else _moment("--since", since),
        "~" if until is None else _moment("--until", until),
    )
    folds = False if fold is None else fold_text("--fold", fold)
    ledger = Ledger(resume, endpoint)
    screen = _Screen()
    inputs = list(files_of(paths or [STANDARD_INPUT]))
    names = ["standard input" if path == STANDARD_INPUT else str(path) for path in inputs]
    if dry_run:
        return _run(Replay(None, ledger, span, keys=keys), zip(inputs, names, strict=True), screen)
    screen.say(f"replaying to {endpoint}")
    if STANDARD_INPUT in inputs and sys.stdin.isatty():
        screen.say("reading standard input")
    with twice_readable(inputs) as files, sending(config, endpoint) as sender:
        signatures = Signatures(keys)
        survey = Survey(files, signatures.accept, span.holds, signatures.prove)
        make_sender = partial(
            PatientSender,
            sender,
            say=screen.say,
            halved=survey.halved,
            patience_s=patience_s,
            rate=rate,
        )
        replay = Replay(make_sender, ledger, span, keys=keys, fold=folds, tell=screen.move)
        return _run(replay, zip(files, names, strict=True), screen, survey.events)


def _moment(option: str, text: str) -> str:
    try:
        return moment(text, datetime.now(timezone.utc))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option} must be a time such as 2026-11-22T11:33:00Z, or how long ago, such as 90m, "
            f"2h or 3d, not {show(text)}"
        ) from None


def _run(
    replay: Replay,
    inputs: Iterable[tuple[Path, str]],
    screen: _Screen,
    events: int | None = None,
) -> int:
    unreadable: list[tuple[str, str]] = []
    status = ALL_DELIVERED
    try:
        with screen.progress(replay, events):
            for path, name in inputs:
                _read(replay, path, name, screen, unreadable)
            replay.finish()
    except Undeliverable as problem:
        status = UNUSABLE if problem.key_refused else NOT_DELIVERED
        replay.trouble = str(problem)
    except KeyboardInterrupt:
        status = INTERRUPTED
    replay.leave()
    screen.summary(replay)
    screen.problems(replay, unreadable)
    if status == INTERRUPTED:
        screen.say("interrupted: the same command again delivers the rest, once")
    elif replay.trouble:
        screen.say(f"not everything was delivered: {replay.trouble}")
        status = status or NOT_DELIVERED
    elif replay.problems() or replay.rejected or unreadable or replay.oddities:
        status = INCOMPLETE
    return status


def _read(
    replay: Replay, path: Path, name: str, screen: _Screen, unreadable: list[tuple[str, str]]
) -> None:
    """Take in one input; what is wrong with it is noted, so that the next can be read."""
    is_standard = path == STANDARD_INPUT
    if is_standard and sys.stdin.isatty():
        screen.say("reading standard input")
    try:
        opened = nullcontext(sys.stdin.buffer) if is_standard else path.open("rb")
    except OSError as problem:
        unreadable.append((name, problem.strerror or str(problem)))
        return
    with opened as stream:
        try:
            replay.read(stream, name)  # type: ignore[arg-type]  # stdin is buffered
        except Unreadable as problem:
            unreadable.append((name, str(problem)))


class _Screen:
    """What the user sees: progress and waits on standard error, the result on standard output."""

    def __init__(self) -> None:
        self._result = console()
        self._aside = console(stderr=True)
        self._bar = progress_bar(self._aside)
        self._task = self._bar.add_task("")
        self._replay: Replay | None = None

    def say(self, line: str) -> None:
        """A line beside the result."""
        self._aside.print(safe(line))

    @contextmanager
    def progress(self, replay: Replay, events: int | None) -> Iterator[None]:
        """Show what is done of so many events, at which rate, and the time left; to who watches."""
        self._replay = replay
        self._bar.update(self._task, total=events)
        with self._bar:
            yield

    def move(self) -> None:
        """A batch is done."""
        if self._replay is not None:
            done = self._replay.done
            rate = 60 * (self._bar.tasks[0].speed or 0.0)
            said = f"{done:,} events, {rate:,.0f} a minute" if rate else f"{done:,} events"
            self._bar.update(self._task, completed=done, description=said)

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
        if replay.folded:
            table.add_row("folded into others", "", f"{replay.folded:,}")
        damaged = len(replay.problems())
        if damaged:
            table.add_row("damaged or incomplete", f"{damaged:,}", "?")
        said = [number(replay.records, "record")]
        if replay.repeated:
            said.append(f"{replay.repeated:,} of them repeated")
        if replay.left_out:
            said.append(f"{replay.left_out:,} of them of another time")
        self._result.print(", ".join(said))
        self._result.print(table)
        for text, oddities in (
            ("markers that were no whole records", replay.strays),
            ("frames refused for their signature", replay.distrusted),
            ("inputs that could not be unwrapped", replay.unread),
        ):
            if oddities.total:
                self._result.print(f"{text}: {oddities.total:,}")

    def problems(self, replay: Replay, unreadable: list[tuple[str, str]]) -> None:
        """Everything that must be looked at, a line each."""
        for name, why in unreadable:
            self._list(f"unreadable  {name}: {why}")
        self._oddities("no record", replay.strays)
        self._oddities("refused", replay.distrusted)
        self._oddities("unreadable", replay.unread)
        for batch_id, why in replay.problems():
            self._list(f"damaged     {batch_id or 'a batch whose id is lost'}: {why}")
        for batch_id, event_id, why in replay.rejected[:_MOST_REJECTIONS]:
            self._list(f"rejected    {event_id} of batch {batch_id}: {why}")
        more = len(replay.rejected) - _MOST_REJECTIONS
        if more > 0:
            self._list(f"rejected    and {number(more, 'event')} more")

    def _oddities(self, word: str, oddities: Oddities) -> None:
        for why, place, _ in oddities.examples:
            self._list(f"{word:<11} {place}{why and ': '}{why}")
        more = oddities.total - sum(count for _, _, count in oddities.examples)
        if more > 0:
            self._list(f"{word:<11} and {more:,} more")

    def _list(self, line: str) -> None:
        self._result.print(safe(line))
