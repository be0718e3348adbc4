"""Doow's own Python client finds the local ingest as it finds Doow."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from doow_track import Tracker, TrackerOptions, TrackEvent

from doow_serverless.local import Fault, Ingest
from tests.network import KEY

# ── Doow's own client ───────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")
def test_doows_python_client(ingest: Ingest) -> None:
    """Doow's own client delivers unchanged, small batches and compressed ones."""
    options = TrackerOptions(endpoint=ingest.url, flush_at=100, flush_interval=60)
    ingest.fault(Fault(), Fault(status=503, record_first=True), Fault())
    with Tracker(KEY, options) as tracker:
        tracker.track(used("tokens", 0.1, attribution={"team": "platform"}))
        tracker.flush()
        for _ in range(20):
            tracker.track(used("calls", 1))
        tracker.flush()

    recorded = ingest.events()
    small, lost, resent = ingest.posts()
    assert [(each.status, each.encoding) for each in (small, lost, resent)] == [
        (202, "identity"),
        (503, "gzip"),
        (202, "gzip"),
    ]
    assert (small.sdk_version, resent.duplicate) == ("0.1.2", True)
    assert recorded[0]["attribution"] == {"team": "platform"}
    assert [each["measurements"][0]["quantity"] for each in recorded] == [Decimal("0.1")] + [1] * 20


@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")
def test_errors_of_doows_python_client(ingest: Ingest) -> None:
    """Doow's own client understands the rejections and refusals."""
    errors: list[str] = []
    options = TrackerOptions(
        endpoint=ingest.url, flush_interval=60, on_error=lambda error: errors.append(str(error))
    )
    ingest.fault(Fault(reject="tokens"))
    with Tracker(KEY, options) as tracker:
        tracker.track(used("tokens", 1))
        tracker.flush()
        ingest.revoke(KEY)
        tracker.track(used("tokens", 1))
        tracker.flush()

    assert len(errors) == 2
    assert "rejected on request" in errors[0]
    assert "the key is unknown or revoked" in errors[1]


def used(metric: str, quantity: float, **fields: Any) -> TrackEvent:
    """An event of Doow's own client."""
    return TrackEvent(metric=metric, quantity=quantity, license_id="lic_1", **fields)
