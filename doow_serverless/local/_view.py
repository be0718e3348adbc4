"""What the live page looks at: events by pages, totals, batches, rejections, of the ledger."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from doow_serverless.local._protocol import Batch

MOST_ROWS = 200
CHART_MINUTES = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrivals (
    batch_id TEXT PRIMARY KEY, received_at REAL NOT NULL, bytes INTEGER NOT NULL,
    events INTEGER NOT NULL, took_s REAL, duplicates INTEGER NOT NULL DEFAULT 0, sdk_version TEXT
);
CREATE TABLE IF NOT EXISTS rejections (
    number INTEGER PRIMARY KEY, batch_id TEXT NOT NULL, event_id TEXT NOT NULL,
    reason TEXT NOT NULL, received_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS usage_totals (
    metric_name TEXT NOT NULL, license_id TEXT NOT NULL, quantity TEXT NOT NULL,
    events INTEGER NOT NULL, PRIMARY KEY (metric_name, license_id)
);
CREATE TABLE IF NOT EXISTS usage_minutes (
    minute INTEGER NOT NULL, metric_name TEXT NOT NULL, quantity REAL NOT NULL,
    PRIMARY KEY (minute, metric_name)
);
CREATE INDEX IF NOT EXISTS events_of_license ON events (license_id, number);
CREATE INDEX IF NOT EXISTS measurements_named ON measurements (metric_name, event);
"""
_TABLES = ("arrivals", "rejections", "usage_totals", "usage_minutes")
_COLUMNS = ("number", "event_id", "batch_id", "license_id", "occurred_at", "kind", "unit",
            "source_system", "attribution", "metadata", "received_at")  # fmt: skip

_FOUND_BY = (
    "(event_id || ' ' || batch_id || ' ' || license_id || ' ' || coalesce(unit, '') || ' ' || "
    "source_system || ' ' || attribution LIKE ? ESCAPE '\\' OR number IN "
    "(SELECT event FROM measurements WHERE metric_name LIKE ? ESCAPE '\\'))"
)
"""What a text is looked for in."""


class View:
    """Not safe for threads by itself: the application holds its lock around every call.

    What is summed up is kept beside the ledger, so that a hundred thousand events cost no more to
    look at than a hundred.

    Args:
        database: That of the ledger.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        database.executescript(_SCHEMA)
        self._catch_up()

    def _catch_up(self) -> None:
        """Sum up a ledger of an earlier version."""
        if self._db.execute("SELECT 1 FROM usage_totals LIMIT 1").fetchone() is not None:
            return
        query = (
            "SELECT metric_name, license_id, quantity FROM measurements JOIN events "
            "ON events.number = measurements.event"
        )
        totals: dict[tuple[str, str], tuple[Decimal, int]] = {}
        for metric, license_id, quantity in self._db.execute(query):
            before, count = totals.get((metric, license_id), (Decimal(0), 0))
            totals[metric, license_id] = before + Decimal(quantity), count + 1
        self._add_totals(totals)

    # ── what arrives ───────────────────────────────────────────────────────────────────────────

    def note(self, batch: Batch, rejected: Mapping[int, str], size: int) -> None:
        """A batch was recorded, but for its events at these positions."""
        now = time.time()
        totals: dict[tuple[str, str], tuple[Decimal, int]] = {}
        for position, event in enumerate(batch.events):
            for each in () if position in rejected else event["measurements"]:
                key = each["metric_name"], event["license_id"]
                before, count = totals.get(key, (Decimal(0), 0))
                totals[key] = before + Decimal(str(each["quantity"])), count + 1
        with self._db:
            row = (batch.batch_id, now, size, len(batch.events), batch.sdk_version)
            self._db.execute("INSERT OR REPLACE INTO arrivals VALUES (?, ?, ?, ?, NULL, 0, ?)", row)
            self._db.executemany(
                "INSERT INTO rejections VALUES (NULL, ?, ?, ?, ?)",
                [
                    (batch.batch_id, batch.events[position]["event_id"], reason, now)
                    for position, reason in rejected.items()
                ],
            )
            for (metric, _), (quantity, _) in totals.items():
                self._db.execute(
                    "INSERT INTO usage_minutes VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET quantity = quantity + excluded.quantity",
                    (int(now // 60), metric, float(quantity)),
                )
        self._add_totals(totals)

    def _add_totals(self, totals: Mapping[tuple[str, str], tuple[Decimal, int]]) -> None:
        with self._db:
            for (metric, license_id), (quantity, count) in totals.items():
                # Exact, which SQLite's own numbers are not.
                known = self._db.execute(
                    "SELECT quantity, events FROM usage_totals "
                    "WHERE metric_name = ? AND license_id = ?",
                    (metric, license_id),
                ).fetchone()
                before, earlier = (Decimal(known[0]), known[1]) if known else (Decimal(0), 0)
                self._db.execute(
                    "INSERT OR REPLACE INTO usage_totals VALUES (?, ?, ?, ?)",
                    (metric, license_id, str(before + quantity), earlier + count),
                )

    def answered(self, batch_id: str, took_s: float, *, is_duplicate: bool) -> None:
        """A POST of a batch was answered; how long that took counts for the first."""
        with self._db:
            self._db.execute(
                "UPDATE arrivals SET took_s = coalesce(took_s, ?), duplicates = duplicates + ? "
                "WHERE batch_id = ?",
                (took_s, is_duplicate, batch_id),
            )

    def clear(self) -> None:
        """Forget everything."""
        with self._db:
            for table in _TABLES:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - no input

    # ── what is looked at ──────────────────────────────────────────────────────────────────────

    def events(
        self, *, before: int | None, after: int, metric: str, license_id: str, text: str, most: int
    ) -> list[dict[str, Any]]:
        """Events, newest first.

        Args:
            before: Only those with a lower number, where it is given.
            after: Only those with a higher number.
            metric: Only those of this metric, or "" for all.
            license_id: Only those of this license, or "" for all.
            text: Only those that have it in an id, a metric, the unit, the source, the attribution.
            most: So many at most.
        """
        where, values = ["number > ?"], [after]
        found: list[Any] = [*values]
        if before is not None:
            where.append("number < ?")
            found.append(before)
        if license_id:
            where.append("license_id = ?")
            found.append(license_id)
        if metric:
            where.append("number IN (SELECT event FROM measurements WHERE metric_name = ?)")
            found.append(metric)
        if text:
            where.append(_FOUND_BY)
            found += [_pattern(text)] * 2
        columns = ", ".join(_COLUMNS[:-1])
        query = (
            f"SELECT {columns}, (SELECT received_at FROM arrivals "  # noqa: S608 - values are bound
            "WHERE arrivals.batch_id = events.batch_id) FROM events "
            f"WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        )
        rows = self._db.execute(query, [*found, min(most, MOST_ROWS)]).fetchall()
        return [self._event(row) for row in rows]

    def _event(self, row: tuple[Any, ...]) -> dict[str, Any]:
        event = dict(zip(_COLUMNS, row, strict=True))
        event["attribution"] = json.loads(event["attribution"])
        event["metadata"] = json.loads(event["metadata"])
        query = "SELECT metric_name, quantity FROM measurements WHERE event = ? ORDER BY number"
        event["measurements"] = [
            {"metric_name": name, "quantity": quantity}
            for name, quantity in self._db.execute(query, (event["number"],))
        ]
        return event

    def totals(self) -> list[dict[str, Any]]:
        """By metric and license: the exact quantity as text, and how many events."""
        query = (
            "SELECT metric_name, license_id, quantity, events FROM usage_totals "
            "ORDER BY events DESC, metric_name, license_id LIMIT ?"
        )
        return list(self._rows(query, (MOST_ROWS,)))

    def minutes(self) -> list[dict[str, Any]]:
        """By minute of the last half hour and metric: how much."""
        since = int(time.time() // 60) - CHART_MINUTES + 1
        query = "SELECT minute, metric_name, quantity FROM usage_minutes WHERE minute >= ?"
        return list(self._rows(query, (since,)))

    def batches(self) -> list[dict[str, Any]]:
        """The newest batches: status, size, how long the answer took, and how often they came."""
        query = (
            "SELECT arrivals.batch_id, status, received_at, bytes, events, took_s, duplicates, "
            "sdk_version FROM arrivals JOIN batches ON batches.batch_id = arrivals.batch_id "
            "ORDER BY received_at DESC LIMIT 50"
        )
        return list(self._rows(query, ()))

    def rejections(self) -> list[dict[str, Any]]:
        """The newest rejected events, with the reason."""
        query = (
            "SELECT event_id, batch_id, reason, received_at FROM rejections "
            "ORDER BY number DESC LIMIT 50"
        )
        return list(self._rows(query, ()))

    def count(self) -> dict[str, int]:
        """How many events, batches and rejections there are."""
        tables = {"events": "events", "batches": "batches", "rejections": "rejections"}
        return {
            name: int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
            for name, table in tables.items()
        }

    def _rows(self, query: str, values: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        cursor = self._db.execute(query, values)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))


def _pattern(text: str) -> str:
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"
