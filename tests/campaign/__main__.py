"""``python -m tests.campaign``: the fault campaign in full."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.campaign.run import campaign, table_of


def main() -> int:
    """Run it, and say what came of it; 1 if the ledger is not right."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--invocations", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--lanes", type=int, default=8, help="functions that run side by side")
    chosen = parser.parse_args()
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(f"seed {chosen.seed}, {chosen.invocations:,} invocations, {chosen.lanes} lanes")
    folder = Path(tempfile.mkdtemp(prefix="doow-campaign-"))
    began = time.monotonic()
    ledger = campaign(chosen.invocations, chosen.seed, folder, chosen.lanes)
    screen.print(table_of(ledger))
    screen.print(f"{time.monotonic() - began:.0f} s")
    if ledger.is_right:
        shutil.rmtree(folder)
        return 0
    for name in ("missing", "twice", "undead", "troubles"):
        for line in getattr(ledger, name):
            screen.print(f"{name}: {line}", markup=False)
    screen.print(f"again: python -m tests.campaign --seed {chosen.seed}; logs: {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
