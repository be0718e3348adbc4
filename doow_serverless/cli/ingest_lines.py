"""What ``ingest`` prints: a line for each POST, with whose usage it was."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from doow_serverless.local import Post
    from doow_serverless.local._posts import Share

_SHOWN_REJECTIONS = 3
_SHOWN_SHARES = 5


def line(post: Post) -> Text:
    """One POST in a line: when, what was answered, how much of what."""
    status = "none" if post.status is None else str(post.status)
    colour = "green" if post.status == 202 else "yellow" if post.status == 207 else "red"
    count = len(post.event_ids)
    parts = [f"{count} event{'' if count == 1 else 's'}"]
    shares = [_share(share) for share in post.shares]
    parts += _at_most(shares, _SHOWN_SHARES)
    if post.duplicate:
        parts.append("duplicate")
    parts += _complaints(post)
    text = Text(time.strftime("%H:%M:%S "))
    text.append(f"{status:4} ", colour)
    return text.append("  ".join(parts))


def _complaints(post: Post) -> list[str]:
    """What the answer objects to."""
    try:
        answer = json.loads(post.answer or b"{}")
    except ValueError:
        return []
    if not isinstance(answer, dict):
        return []
    rejections = answer.get("rejections") or []
    if not isinstance(rejections, list):
        rejections = []
    complaints = [
        f"{r.get('event_id')}: {r.get('reason')}" for r in rejections if isinstance(r, dict)
    ]
    complaints = _at_most(complaints, _SHOWN_REJECTIONS)
    if "message" in answer:
        complaints.append(answer["message"])
    return [_shown(each) for each in complaints]


def _shown(text: object) -> str:
    """Text of a sender, without what would steer the terminal, and not without end."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[:200])


def _share(share: Share) -> str:
    """``lic_acme model=gpt-4o tokens=812``."""
    said = [share.license_id]
    said += [f"{name}={value}" for name, value in share.attribution.items()]
    said += [f"{name}={quantity:,}" for name, quantity in share.totals.items()]
    return " ".join(map(_shown, said))


def _at_most(lines: list[str], count: int) -> list[str]:
    more = len(lines) - count
    return lines if more <= 0 else [*lines[:count], f"and {more} more"]
