"""A whole campaign: several lanes side by side, and their ledgers added up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rich.table import Table

from tests.campaign.lane import Lane
from tests.campaign.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path


def campaign(invocations: int, seed: int, folder: Path, lanes: int) -> Ledger:
    """The ledger of so many invocations, half of them by functions with a journal."""
    shares = [invocations // lanes + (lane < invocations % lanes) for lane in range(lanes)]
    made = [
        Lane(
            str(lane),
            seed,
            share,
            folder / str(lane),
            has_journal=lane % 2 == 1,
            is_small=lane % 4 >= 2,
            is_slow=lane % 4 == 1,
        )
        for lane, share in enumerate(shares)
        if share
    ]
    total = Ledger()
    with ThreadPoolExecutor(lanes) as threads:
        for ledger in threads.map(Lane.run, made):
            total.add(ledger)
    return total


def table_of(ledger: Ledger) -> Table:
    """The final ledger, for people."""
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    table.columns[1].justify = "right"
    for end, count in sorted(ledger.invocations.items()):
        table.add_row(f"invocations that {_was(end)}{end}", f"{count:,}")
    table.add_row("sandboxes killed in between", f"{ledger.recycled:,}")
    for status, count in sorted(ledger.posts.items()):
        table.add_row(f"POSTs answered {status}" if status else "POSTs not answered", f"{count:,}")
    table.add_section()
    table.add_row("events recorded", f"{ledger.recorded:,}")
    table.add_row("- discarded on purpose", f"{ledger.discarded:,}")
    arrived = f"{ledger.open:,} ({ledger.open_arrived:,} arrived)"
    table.add_row("- owed nothing, killed too early", arrived)
    table.add_row("= due exactly once", f"{ledger.due:,}")
    table.add_row("accepted", f"{ledger.accepted:,}")
    table.add_row("+ recovered from the log", f"{ledger.recovered:,}")
    table.add_row("+ rejected with a reason", f"{ledger.rejected:,}")
    table.add_row("+ missing", f"{len(ledger.missing):,}")
    table.add_row("twice", f"{len(ledger.twice):,}")
    table.add_row("discarded, and arrived", f"{len(ledger.undead):,}")
    table.add_row("accepted, after a refusal", f"{ledger.contradicted:,}")
    table.add_row("records cut off by a kill", f"{ledger.damaged:,}")
    return table


def _was(end: str) -> str:
    return "" if end in ("returned", "raised") else "were "
