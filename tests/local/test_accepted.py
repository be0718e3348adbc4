"""What the local ingest accepts, and what it records of that."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.local.posting import answered, batch, event, post
from tests.network import KEY

if TYPE_CHECKING:
    from doow_serverless.local import Ingest


# ── what is accepted ────────────────────────────────────────────────────────────────────────────


def test_an_event_is_recorded_whole(ingest: Ingest) -> None:
    """Everything on the wire page arrives in the ledger, exactly."""
    hint = {"app_name": "a", "license_name": "l", "metric_name": "tokens"}
    sent = event(
        source_system="worker",
        kind="ADJUSTMENT",
        unit="tokens",
        attribution={"model": "gpt-4o", "ratio": 0.5, "n": 3, "on": True},
        metadata={"deep": [{"x": 1.5}, None]},
        measurements=[
            {"metric_name": "tokens", "quantity": 10**20, "metric_tuple_hint": hint},
            {"metric_name": "cost", "quantity": -0.1},
        ],
        surplus="ignored",
    )

    response = post(ingest, batch(sent, sdk_version="0.1.0"), X_Doow_SDK_Version="0.1.0")

    assert answered(response) == (202, {"accepted": 1, "rejected": 0, "batch_id": "batch_1"})
    assert ingest.events() == [
        {
            "event_id": "evt_1",
            "batch_id": "batch_1",
            "license_id": "lic_1",
            "occurred_at": "2026-11-22T11:33:00.123Z",
            "kind": "ADJUSTMENT",
            "unit": "tokens",
            "source_system": "worker",
            "attribution": {"model": "gpt-4o", "ratio": 0.5, "n": 3, "on": True},
            "metadata": {"deep": [{"x": 1.5}, None]},
            "measurements": [
                {"metric_name": "tokens", "quantity": 10**20, "metric_tuple_hint": hint},
                {"metric_name": "cost", "quantity": Decimal("-0.1"), "metric_tuple_hint": None},
            ],
        }
    ]


def test_defaults_of_an_event(ingest: Ingest) -> None:
    """What an event leaves out, or has as null, gets the server's defaults."""
    null = dict.fromkeys(("kind", "unit", "source_system", "attribution", "metadata"))
    post(ingest, batch(event(), event("evt_2", **null)))

    defaults: dict[str, Any] = {
        "kind": "USAGE",
        "unit": None,
        "source_system": "sdk",
        "attribution": {},
        "metadata": {},
    }
    assert [{name: each[name] for name in defaults} for each in ingest.events()] == [defaults] * 2


@pytest.mark.parametrize("literal", ["0.1", "1024.50", "1e2", "0.12345678901234567890123", "7"])
def test_quantities_stay_exact(ingest: Ingest, literal: str) -> None:
    """A quantity comes back with every digit that was sent: an int as int, else a Decimal."""
    post(ingest, json.dumps(batch()).replace('"quantity": 3', f'"quantity": {literal}').encode())

    [recorded] = ingest.events()
    quantity = recorded["measurements"][0]["quantity"]
    assert (type(quantity), quantity) == (
        (int, 7) if literal == "7" else (Decimal, Decimal(literal))
    )


@pytest.mark.parametrize(
    "moment",
    ["2026-11-22T11:33:00Z", "2026-11-22T11:33:00.123456789+05:30", "2024-02-29T00:00:00.5-01:00"],
)
def test_forms_of_time(ingest: Ingest, moment: str) -> None:
    """ISO 8601 with Z or an offset is a time, whatever its fraction."""
    assert post(ingest, batch(event(occurred_at=moment))).status_code == 202


def test_gzip(ingest: Ingest) -> None:
    """A compressed body is read as the plain one is, and the record tells both sizes."""
    content = batch(event(metadata={"pad": "x" * 5000}), sdk_version="1.2")
    response = post(ingest, content, gzipped=True)

    [record] = ingest.posts()
    size = len(json.dumps(content))
    assert response.status_code == 202
    assert (record.encoding, record.json_bytes, record.body_bytes) == (
        "gzip",
        size,
        len(record.body),
    )
    assert record.body_bytes < size
    assert record.json() == content
    assert record.sdk_version == "1.2"


def test_the_record_of_a_post(ingest: Ingest) -> None:
    """A post tells all about its request but the key."""
    begin = time.monotonic()
    content = json.dumps(batch(event(), event("evt_2"))).encode()
    with requests.Session() as session:
        headers = {
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "X-Doow-SDK-Version": "9",
        }
        for _ in range(2):
            session.post(f"{ingest.url}/telemetry/events", data=content, headers=headers, timeout=5)
    post(ingest, content)

    first, second, third = ingest.posts()
    assert (first.batch_id, first.event_ids, first.status) == ("batch_1", ("evt_1", "evt_2"), 202)
    assert (first.body, first.body_bytes, first.json_bytes) == (content, len(content), len(content))
    assert (first.encoding, first.sdk_version, first.duplicate) == ("identity", "9", False)
    assert (first.totals, second.totals) == ({"tokens": 6}, {})
    assert first.headers["authorization"] == "***"
    assert first.headers["x-doow-sdk-version"] == "9"
    assert first.connection == second.connection != third.connection
    assert begin < first.received_at < second.received_at < time.monotonic()
    assert KEY not in repr(ingest.posts())


def test_heartbeat(ingest: Ingest) -> None:
    """A heartbeat counts, with a key that is accepted."""
    accepted = post(ingest, {}, path="/telemetry/heartbeat")
    refused = post(ingest, {}, path="/telemetry/heartbeat", key=None)

    assert answered(accepted) == (200, {"ok": True})
    assert refused.status_code == 401
    assert ingest.heartbeats == 1
    assert ingest.posts() == []
