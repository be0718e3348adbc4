"""The example of Lambda, and what one delivery of each of its events records."""

from __future__ import annotations

import json
import os
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from doow_serverless.local import Ingest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "lambda"
KEY = "dk_" + "5" * 64
SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:doow-sdk-key-AbCdEf"

#: Of each function: (metric, quantity, license) of what one delivery of its event records.
USAGE: dict[str, dict[tuple[str, Any, str], int]] = {
    "api": {("api_calls", 1, "lic_acme"): 1, ("tokens", 17, "lic_acme"): 1},
    "consumer": {
        ("documents", 1, "lic_acme"): 1,
        ("tokens", 6, "lic_acme"): 1,
        ("documents", 1, "lic_globex"): 1,
        ("tokens", 5, "lic_globex"): 1,
    },
    "scheduled": {
        ("storage_gb_hours", 125, "lic_acme"): 1,
        ("storage_gb_hours", 2, "lic_globex"): 1,
    },
}
COUNT_ONCE = {"scheduled"}
"""Those whose event names the work, so that the same event again is the same usage."""


def event(function: str) -> Any:
    """The event file that the README names."""
    (path,) = (EXAMPLE / function / "events").glob("*.json")
    return json.loads(path.read_text())


def variables(ingest: Ingest, *path: Path, **more: str) -> dict[str, str]:
    """Those of a function whose packages are there."""
    return {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        # A local run may say both: then the key is taken and AWS is not asked.
        "DOOW_TRACK_API_KEY_SECRET_ARN": SECRET_ARN,
        **more,
    }


def usage(ingest: Ingest) -> Counter[tuple[str, Any, str]]:
    """What arrived, as in :data:`USAGE`."""
    return Counter(
        (measurement["metric_name"], Decimal(str(measurement["quantity"])), event["license_id"])
        for event in ingest.events()
        for measurement in event["measurements"]
    )


def usage_of(function: str, deliveries: int) -> dict[tuple[str, Any, str], int]:
    """What so many deliveries of its event amount to."""
    return dict.fromkeys(USAGE[function], 1 if function in COUNT_ONCE else deliveries)
