"""What one look of ``doctor`` has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found.

    Attributes:
        name: What was looked at.
        ok: Whether all is well.
        detail: What was found.
        remedy: What to do, where it is not.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
