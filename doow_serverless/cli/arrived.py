"""A table of what arrived at a local ingest: the sums by metric, license and attribution."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .console import safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def arrived(events: Iterable[Mapping[str, Any]], *, by: str | None = None) -> Table:
    """The sums of what Doow has.

    Args:
        events: As ``Ingest.events()`` gives them.
        by: An attribute that gets a column of its own, the first.
    """
    sums: defaultdict[tuple[str, ...], Any] = defaultdict(int)
    for event in events:
        attribution = dict(event["attribution"])
        first = str(attribution.pop(by, "")) if by else ""
        rest = " ".join(f"{name}={value}" for name, value in sorted(attribution.items()))
        for measurement in event["measurements"]:
            row = first, measurement["metric_name"], event["license_id"], rest
            sums[row] += measurement["quantity"]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (*((by,) if by else ()), "metric", "license"):
        table.add_column(name, no_wrap=True)
    table.add_column("quantity", justify="right")
    table.add_column("attribution", style="dim")
    for (first, metric, license_id, rest), quantity in sorted(sums.items()):
        cells = [metric, license_id, f"{quantity:,}", rest]
        table.add_row(*map(safe, ([first, *cells] if by else cells)))
    return table
