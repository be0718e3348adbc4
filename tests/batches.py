"""Sealed batches to test with, as a tracker would have made them."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.reader import read_frame
from doow_serverless._sealing import Batch, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._frames.reader import Damage, Part

_TIME = "2026-11-22T11:33:00.000Z"


def batch(
    events: int = 1, *, batch_id: str = "", noise: int = 0, compress: bool = True, **fields: Any
) -> Batch:
    """A batch that the server accepts.

    Args:
        events: How many events.
        batch_id: Its id; one that no other test uses unless given.
        noise: Characters in each event that do not compress.
        compress: Whether it is gzipped where it is large enough.
        **fields: Of every event.
    """
    batch_id = batch_id or f"{random.getrandbits(128):032x}"
    ids = [f"{batch_id}-{number}" for number in range(events)]
    texts = [
        json.dumps(
            {
                "event_id": event_id,
                "license_id": "lic_1",
                "occurred_at": _TIME,
                "metadata": {"noise": "".join(random.choices("abcdefghijklmnop", k=noise))},
                "measurements": [{"metric_name": "tokens", "quantity": 1}],
                **fields,
            }
        )
        for event_id in ids
    ]
    return pack(batch_id, ids, texts, "0.1.0", compress)


def contents(one: Batch) -> tuple[Any, ...]:
    """A batch as a value to compare."""
    return one.id, one.event_ids, one.body, one.gzipped, one.sdk_version


def find_records(text: str) -> Iterator[Part | Damage]:
    """Every line of ``text`` that is a frame, or was one."""
    yield from filter(None, map(read_frame, text.split("\n")))


def read_back(text: str) -> list[tuple[Any, ...]]:
    """The batches in what was written; nothing must be wrong with any."""
    assembly = Assembly()
    letters = [letter for one in find_records(text) if (letter := assembly.add(one))]
    assert assembly.problems() == []
    return [contents(letter.batch) for letter in letters]
