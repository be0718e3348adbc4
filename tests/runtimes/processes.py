"""Whether processes that a stand-in has started are still there."""

from __future__ import annotations

import os
import time
from pathlib import Path


def exists(pid: int) -> bool:
    """Whether the process runs, or is stopped; one that has ended may still be to be collected."""
    try:
        os.kill(pid, 0)
        return state(pid) != "Z"
    except ProcessLookupError:
        return False


def ends(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process is gone in time; of an orphan only asking again can tell."""
    give_up = time.monotonic() + within_s
    while exists(pid) and time.monotonic() < give_up:
        time.sleep(0.01)
    return not exists(pid)


def state(pid: int) -> str:
    """One letter, as Linux has them: T is stopped, Z has ended; elsewhere there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return stat.rpartition(")")[2].split()[0]
