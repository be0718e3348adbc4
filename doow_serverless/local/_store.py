"""The ledger in SQLite: batches by their id, and what they recorded."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from doow_serverless.local._protocol import Answer
from doow_serverless.local._view import View

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from doow_serverless.local._protocol import Batch

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    batch_id TEXT PRIMARY KEY, digest TEXT NOT NULL, status INTEGER NOT NULL, answer BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, event_id TEXT NOT NULL, batch_id TEXT NOT NULL,
    license_id TEXT NOT NULL, occurred_at TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT,
    source_system TEXT NOT NULL, attribution TEXT NOT NULL, metadata TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS measurements (
    number INTEGER PRIMARY KEY, event INTEGER NOT NULL REFERENCES events, metric_name TEXT NOT NULL,
    quantity TEXT NOT NULL, metric_tuple_hint TEXT
);
CREATE INDEX IF NOT EXISTS measurements_of ON measurements (event);
"""


@dataclass(frozen=True)
class Known:
    """A batch id that was recorded before, with the answer it got."""

    digest: str
    answer: Answer


class Store:
    """Not safe for threads by itself: the application holds its lock around every call."""

    def __init__(self, database: str | os.PathLike[str]) -> None:
        self._db = sqlite3.connect(database, check_same_thread=False)
        self._left: list[dict[str, Any]] | None = None
        try:
            # With a write-ahead log a commit survives the death of this process without an fsync
            # for each POST; only a crash of the machine could take the last ones.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise

    def view(self) -> View:
        """What the live page looks at."""
        return View(self._db)

    def known(self, batch_id: str) -> Known | None:
        """What is recorded under this batch id."""
        query = "SELECT digest, status, answer FROM batches WHERE batch_id = ?"
        row = self._db.execute(query, (batch_id,)).fetchone()
        return None if row is None else Known(row[0], Answer(row[1], row[2]))

    def record(self, batch: Batch, rejected: Mapping[int, str], answer: Answer) -> None:
        """Write the batch, its answer and the events not rejected (by position), or nothing."""
        with self._db:
            row = (batch.batch_id, batch.digest, answer.status, answer.body)
            self._db.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", row)
            for position, event in enumerate(batch.events):
                if position not in rejected:
                    self._insert(batch.batch_id, event)

    def events(self) -> list[dict[str, Any]]:
        """Every event in order of arrival; after :meth:`close` those that were there then."""
        if self._left is not None:
            return [dict(event) for event in self._left]
        measurements: dict[int, list[dict[str, Any]]] = {}
        columns = "event, metric_name, quantity, metric_tuple_hint"
        query = f"SELECT {columns} FROM measurements ORDER BY number"  # noqa: S608 - no input
        for event, name, quantity, hint in self._db.execute(query):
            measurements.setdefault(event, []).append(
                {
                    "metric_name": name,
                    "quantity": _number(quantity),
                    "metric_tuple_hint": None if hint is None else json.loads(hint),
                }
            )
        cursor = self._db.execute("SELECT * FROM events ORDER BY number")
        names = [column[0] for column in cursor.description]
        events = [dict(zip(names, row, strict=True)) for row in cursor]
        for event in events:
            event["attribution"] = json.loads(event["attribution"])
            event["metadata"] = json.loads(event["metadata"])
            event["measurements"] = measurements[event.pop("number")]
        return events

    def count(self) -> int:
        """How many events there are."""
        if self._left is not None:
            return len(self._left)
        return int(self._db.execute("SELECT count(*) FROM events").fetchone()[0])

    def clear(self) -> None:
        """Forget everything."""
        with self._db:
            for statement in (
                "DELETE FROM measurements",
                "DELETE FROM events",
                "DELETE FROM batches",
            ):
                self._db.execute(statement)

    def close(self) -> None:
        """Close the database, and keep what it held: tests look when the server is gone."""
        if self._left is None:
            self._left = self.events()
            self._db.close()

    def _insert(self, batch_id: str, event: Mapping[str, Any]) -> None:
        number = self._db.execute(
            "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event["event_id"],
                batch_id,
                event["license_id"],
                event["occurred_at"],
                event.get("kind") or "USAGE",
                event.get("unit"),
                event.get("source_system") or "sdk",
                _json(event.get("attribution") or {}),
                _json({} if event.get("metadata") is None else event["metadata"]),
            ),
        ).lastrowid
        self._db.executemany(
            "INSERT INTO measurements VALUES (NULL, ?, ?, ?, ?)",
            [
                (
                    number,
                    measurement["metric_name"],
                    str(measurement["quantity"]),
                    _json(hint)
                    if (hint := measurement.get("metric_tuple_hint")) is not None
                    else None,
                )
                for measurement in event["measurements"]
            ],
        )


def _json(value: object) -> str:
    # Only quantities are money: the other numbers are read back as any JSON reader has them.
    return json.dumps(value, default=float)


def _number(text: str) -> int | Decimal:
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)
