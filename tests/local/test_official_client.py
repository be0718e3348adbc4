"""Doow's own clients find the local ingest as they find Doow."""

from __future__ import annotations

import gzip
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
import requests
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


def test_the_wire_of_doows_node_sdk(ingest: Ingest) -> None:
    """That of its sidecar and command line, too: names at the top level, and gzip always.

    As of ``WireEvent`` and ``BatchPayload`` in Doow-Dev/doow-track-sdk, src/types.ts.
    """
    event_id, batch_id = str(uuid.uuid4()), str(uuid.uuid4())
    hint = {"app_name": "a", "license_name": "l", "metric_name": "builds"}
    moment = "2026-11-22T11:33:00.123Z"
    wire_event = {
        "metric": "builds", "quantity": 2.5, "unit": "builds", "license_id": "lic_1",
        "source_system": "sidecar", "timestamp": moment, "metric_tuple_hint": hint, "kind": "USAGE",
        "attribution": {"branch": "main", "ok": True}, "metadata": {"nested": [1]},
        "event_id": event_id, "occurred_at": moment,
        "measurements": [{"metric_name": "builds", "quantity": 2.5, "metric_tuple_hint": hint}],
    }  # fmt: skip
    payload = {"batch_id": batch_id, "sdk_version": "0.1.14", "events": [wire_event]}
    answers = [
        requests.post(
            f"{ingest.url}/telemetry/events",
            data=gzip.compress(json.dumps(payload).encode()),
            headers={
                "Authorization": f"Bearer {KEY}",
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
                "X-Doow-SDK-Version": "0.1.14",
                "User-Agent": "@doow/track/0.1.14",
            },
            timeout=10,
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    [event] = ingest.events()
    assert (event["event_id"], event["source_system"]) == (event_id, "sidecar")
    [shown] = requests.get(f"{ingest.url}/_page/state", timeout=10).json()["events"]
    assert shown["measurements"] == [{"metric_name": "builds", "quantity": "2.5"}]
    assert (shown["attribution"], shown["batch_id"]) == ({"branch": "main", "ok": True}, batch_id)
