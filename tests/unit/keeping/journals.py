"""Journals that crash, and what is told of the batches that they give."""

from __future__ import annotations

import json
import logging
import os
from itertools import chain
from typing import TYPE_CHECKING, Any

from doow_serverless._recording.event import Defaults
from doow_serverless._sealing import seal, split

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from doow_serverless._keeping.journal import Journal
    from doow_serverless._recording.event import Event
    from doow_serverless._sealing import Batch


DEFAULTS = Defaults("lic_1", {"team": "search"}, [])
TOKENS = DEFAULTS.template("tokens", (None, None, None, "USAGE", None, None))
QUOTES = DEFAULTS.template('a "ß"\n', (None, "ü", {"x\n": 1.5}, "ADJUSTMENT", None, None))


def events(count: int, first: int = 0) -> list[Event]:
    return [
        (f"evt-{n}", 1_800_000_000.123 + n, TOKENS, n + 1, None)
        for n in range(first, first + count)
    ]


def crash(journal: Journal) -> None:
    """Let go of all files as a process does that is killed."""
    for file in journal._files():
        os.close(file.fd)
    journal._reset()


def sent(batches: Iterable[Batch]) -> list[Any]:
    """The events of batches, as the server reads them."""
    return list(chain.from_iterable(json.loads(batch.json())["events"] for batch in batches))


def told(batches: Iterable[Batch]) -> list[tuple[object, ...]]:
    """Batches as values that compare."""
    return [(b.id, b.event_ids, b.body, b.gzipped, b.sdk_version) for b in batches]


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def use(journal: Journal) -> None:
    """Everything that a tracker does with a journal, twice."""
    for number in (0, 10):
        journal.recover()
        journal.record_many([events(1, number)[0]])
        journal.record_many(events(3, number + 1))
        batch, other = (*seal(events(2, number)), *seal(events(2, number + 2)))
        journal.note_sealed(batch)
        journal.note_sealed(other)
        journal.note_split(other, split(other))
        journal.note_settled(batch.id)
        for half in split(other):
            journal.note_settled(half.id)
        journal.forget(["evt-0"])
