"""A tracker that may fold, and what of it has arrived."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from doow_serverless import Tracker
from tests.network import KEY

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport

HOUR = 1_795_240_800.0  # 2026-11-21T06:00:00Z


def made(transport: MemoryTransport, **options: Any) -> Tracker:
    options = {"license_id": "lic_1", "warm_up": False, "environ": {}, **options}
    return Tracker(KEY, transport=transport, **options)


def events_of(transport: MemoryTransport) -> list[dict[str, Any]]:
    """What has arrived, numbers as they are written."""
    return [
        event
        for batch in transport.batches
        for event in json.loads(batch.json(), parse_float=Decimal)["events"]
    ]


def quantities(transport: MemoryTransport) -> list[Any]:
    return [each["quantity"] for event in events_of(transport) for each in event["measurements"]]
