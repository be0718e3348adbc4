"""Documents of Azure's export tools: diagnostic settings, and answers of the query API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doow_serverless._frames.envelopes import from_diagnostics

from .export_messages import line_of, objects
from .export_shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .export_messages import Found

# ── diagnostic settings ─────────────────────────────────────────────────────────────────────────

_RECORDS = Shape({"records": list})


def is_diagnostics(value: dict[str, Any]) -> bool:
    """Return whether it is an event of an Event Hub with records of diagnostic settings."""
    return _RECORDS.fits(value) and all(map(_is_record, value["records"]))


def diagnostics(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the texts in records of diagnostic settings."""
    for record, place in objects(value, "records", origin):
        yield from from_diagnostics(record, place)


def is_diagnostic(value: Any) -> bool:
    """Return whether it is one such record, as a storage account gets it.

    Each service adds fields of its own to those that all have.
    https://learn.microsoft.com/azure/azure-monitor/platform/resource-logs-schema
    """
    return _is_record(value) and {"time", "resourceId"} <= value.keys()


def _is_record(value: Any) -> bool:
    names = ("category", "Type")
    return isinstance(value, dict) and any(isinstance(value.get(name), str) for name in names)


def diagnostic(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the text of one such record."""
    yield from from_diagnostics(value, origin)


# ── the query API ───────────────────────────────────────────────────────────────────────────────

# https://learn.microsoft.com/azure/azure-monitor/logs/api/response-format
_ANSWER = Shape({"tables": list}, "statistics render")
_TABLE = Shape({"name": str, "columns": list, "rows": list})
_COLUMN = Shape({"name": str, "type": str})
_BARE_TABLE = Shape({"name": str, "rows": list})
_PRIMARY = "PrimaryResult"
"""The name of the table that holds the result of a query."""


def is_tables(value: dict[str, Any]) -> bool:
    """Return whether it is an answer of Application Insights or Log Analytics."""
    return _ANSWER.fits(value) and all(map(_is_table, value["tables"]))


def _is_table(value: Any) -> bool:
    if _TABLE.fits(value):
        return _COLUMN.fits_all(value["columns"])
    return _BARE_TABLE.fits(value) and value["name"] == _PRIMARY


def tables(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the texts of the column ``message``, or of all if the columns have been left out."""
    for table, place in objects(value, "tables", origin):
        columns = _message_columns(table.get("columns"))
        for at, row in enumerate(table["rows"]):
            for number, cell in enumerate(row if isinstance(row, list) else ()):
                if columns is None or number in columns:
                    yield from line_of(cell, f"{place}, rows[{at}]")


def _message_columns(columns: list[dict[str, Any]] | None) -> set[int] | None:
    if columns is None:
        return None
    return {at for at, one in enumerate(columns) if one["name"].lower() == "message"}
