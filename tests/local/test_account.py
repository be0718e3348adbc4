"""What an organization's account adds: events a minute, and licenses and metrics by name."""

from __future__ import annotations

import json

import pytest
import requests

from doow_serverless.local import Ingest
from doow_serverless.local._account import Account
from tests.clock import Clock
from tests.local.posting import batch, event
from tests.network import KEY


def post(ingest: Ingest, content: object) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return requests.post(
        f"{ingest.url}/telemetry/events", json=content, headers=headers, timeout=10
    )


def events(count: int, batch_id: str) -> object:
    return batch(*(event(f"{batch_id}_{n}") for n in range(count)), batch_id=batch_id)


def test_a_minute_takes_so_many_events() -> None:
    """Over all that come; the next minute takes as many again."""
    clock = Clock(600.0)
    account = Account(1_000, clock=clock)
    assert [account.admit(500), account.admit(499)] == [None, None]
    clock.now += 20.0
    refused = account.admit(2)
    assert refused is not None
    assert (refused.status, refused.headers["Retry-After"]) == (429, "40")
    limits = json.loads(refused.headers["X-Doow-Rate-Limits"])
    assert limits == {"event_rate": {"limit": 1000, "current": 1001, "retry_after": 40}}
    assert refused.headers["X-RateLimit-Remaining"] == "1"
    assert refused.headers["X-RateLimit-Reset"] == "660"
    assert account.admit(1) is None
    clock.now += 40.0
    assert account.admit(1_000) is None


def test_the_minutes_are_those_of_its_clock() -> None:
    """So a simulation has minutes of its own."""
    clock = Clock(600.0)
    with Ingest(events_per_minute=10, clock=clock) as ingest:
        taken = [post(ingest, events(10, "one")), post(ingest, events(10, "two"))]
        clock.now += 60.0
        taken.append(post(ingest, events(10, "two")))
    assert [answer.status_code for answer in taken] == [202, 429, 202]
    assert taken[1].headers["Retry-After"] == "60"


def test_without_a_limit_nothing_is_said() -> None:
    """Off by default."""
    with Ingest() as ingest:
        answer = post(ingest, events(500, "one"))
    assert answer.status_code == 202
    assert not [name for name in answer.headers if name.lower().startswith("x-ratelimit")]


def test_over_the_wire() -> None:
    """What is left is said each time; a refused batch is not recorded, and one again is free."""
    with Ingest(events_per_minute=10) as ingest:
        first = post(ingest, events(8, "one"))
        again = post(ingest, events(8, "one"))
        refused = post(ingest, events(8, "two"))
        last = post(ingest, events(2, "three"))
    assert [each.status_code for each in (first, again, refused, last)] == [202, 202, 429, 202]
    left = [each.headers["X-RateLimit-Remaining"] for each in (first, again, refused, last)]
    assert left == ["2", "2", "2", "0"]
    assert len(ingest.events()) == 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"license_id": "lic_2"}, "license_not_found"),
        ({"measurements": [{"metric_name": "seats", "quantity": 1}]}, "unknown_metric"),
    ],
)
def test_what_the_account_does_not_know_is_rejected(
    fields: dict[str, object], reason: str | None
) -> None:
    """The event alone, by Doow's own reasons."""
    with Ingest(licenses=["lic_1"], metrics=["tokens"]) as ingest:
        answer = post(ingest, batch(event("good"), event("other", **fields)))
        found = {each["event_id"] for each in ingest.events()}
    if reason is None:
        assert (answer.status_code, found) == (202, {"good", "other"})
    else:
        assert (answer.status_code, found) == (207, {"good"})
        assert answer.json()["rejections"] == [{"event_id": "other", "reason": reason}]


def test_what_is_too_large_is_said_by_name() -> None:
    """As Doow says it."""
    with Ingest(max_json_bytes=20_000) as ingest:
        many = post(ingest, {"batch_id": "b", "events": [{"event_id": "e"}] * 501})
        large = post(ingest, batch(event(metadata={"x": "y" * 30_000})))
    assert [each.status_code for each in (many, large)] == [413, 413]
    assert [each.json()["error"] for each in (many, large)] == [
        "batch_too_large",
        "payload_too_large",
    ]


def test_a_wrong_limit_is_said_at_once() -> None:
    """Before anything is served."""
    with pytest.raises(ValueError, match="events_per_minute"):
        Ingest(events_per_minute=0)
