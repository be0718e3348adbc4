"""A scheduled function that meters what each customer has stored, hour by hour."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source

import doow_serverless as doow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aws_lambda_powertools.utilities.typing import LambdaContext

LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}  # yours is a table
BYTES = {"acme": 134_217_728_000, "globex": 2_147_483_648}
GB = 1024**3

logger = Logger()


def stored() -> Iterator[tuple[str, int]]:
    """Stands for your inventory, which knows the bytes of each customer."""
    yield from BYTES.items()


# An event of the schedule that Lambda tries again counts once.
@doow.tracked(idempotent=True, attribution={"team": "platform", "feature": "storage"})
@logger.inject_lambda_context
@event_source(data_class=EventBridgeEvent)
def handler(event: EventBridgeEvent, _: LambdaContext) -> dict[str, Any]:
    hour = datetime.fromisoformat(event.time.replace("Z", "+00:00")).astimezone(timezone.utc)
    hour = hour.replace(minute=0, second=0)
    for customer, size in stored():
        # A Decimal reaches Doow digit by digit.
        gigabytes = (Decimal(size) / GB).quantize(Decimal("0.001"))
        doow.track(
            "storage_gb_hours",
            gigabytes,
            license_id=LICENSES[customer],
            unit="GB",
            timestamp=hour,
        )
    logger.info("Measured", extra={"customers": len(BYTES)})
    return {"customers": len(BYTES)}
