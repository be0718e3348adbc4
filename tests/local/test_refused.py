"""What the local ingest refuses, with the status and the words of the protocol."""

from __future__ import annotations

import gzip
import json
import time
from contextlib import closing
from typing import Any

import pytest
import requests

from doow_serverless.local import Ingest
from tests.local.posting import (
    OTHER_KEY,
    answered,
    batch,
    connect,
    event,
    event_ids,
    post,
    statuses,
)
from tests.network import KEY
from tests.timing import within

# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "key", [None, "", "dk_123", "sk_" + "a1" * 32, KEY + "0", "dk_" + "g" * 64]
)
def test_malformed_keys(ingest: Ingest, key: str | None) -> None:
    """Without a well-formed key nothing is recorded."""
    response = post(ingest, batch(), key=key)

    assert response.status_code == 401
    assert response.json().keys() >= {"message", "errorClass"}
    assert ingest.events() == []
    assert statuses(ingest) == [401]


def test_keys_given() -> None:
    """With keys given only those send, until they are revoked."""
    with Ingest(keys=[KEY]) as ingest:
        found = [post(ingest, batch(), key=key).status_code for key in (KEY, OTHER_KEY)]
        ingest.add_key(OTHER_KEY)
        ingest.revoke(KEY)
        found += [post(ingest, batch(), key=key).status_code for key in (KEY, OTHER_KEY)]

        assert found == [202, 401, 401, 202]
        assert ingest.keys == frozenset({OTHER_KEY})


def test_any_key_but_the_revoked(ingest: Ingest) -> None:
    """Without keys given each well-formed one sends, and can be revoked and accepted again."""
    found = [post(ingest, batch()).status_code]
    ingest.revoke(KEY)
    found.append(post(ingest, batch()).status_code)
    ingest.add_key(KEY)
    found.append(post(ingest, batch()).status_code)

    assert found == [202, 401, 202]
    assert ingest.keys is None


def test_a_malformed_key_is_not_repeated() -> None:
    """A key given in the wrong form is an error that does not show it."""
    with pytest.raises(ValueError, match="64 hex digits") as caught:
        Ingest(keys=["sk_secret"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "content", "headers"),
    [
        (400, b"", {}),
        (400, b"{", {}),
        (400, b"\xff\xfe", {}),
        (400, b"[" * 100_000, {}),
        (400, batch(event(metadata=float("nan"))), {}),
        (400, json.dumps(batch()).replace("3}", "1e9999999999999999999}").encode(), {}),
        (400, [], {}),
        (400, {"events": [event()]}, {}),
        (400, batch(batch_id=""), {}),
        (400, {"batch_id": 7, "events": [event()]}, {}),
        (400, {"batch_id": "\ud800", "events": [event()]}, {}),
        (400, {"batch_id": "b"}, {}),
        (400, {"batch_id": "b", "events": []}, {}),
        (400, {"batch_id": "b", "events": {"0": event()}}, {}),
        (400, batch("no event"), {}),
        (400, batch(event(event_id=...)), {}),
        (400, batch(event(7)), {}),
        (400, batch(sdk_version=1), {}),
        (400, batch(sdk_version="1"), {"X_Doow_SDK_Version": "2"}),
        (400, b"no gzip", {"Content_Encoding": "gzip"}),
        (400, gzip.compress(json.dumps(batch()).encode())[:-4], {"Content_Encoding": "gzip"}),
        (400, gzip.compress(json.dumps(batch()).encode()) + b"more", {"Content_Encoding": "gzip"}),
        (415, batch(), {"Content_Encoding": "br"}),
        (415, batch(), {"Content_Encoding": "gzip, gzip"}),
        (415, batch(), {"Content_Type": "text/plain"}),
        (413, batch(*(event(str(n)) for n in range(501))), {}),
    ],
)
def test_refused_bodies(
    ingest: Ingest, status: int, content: object, headers: dict[str, Any]
) -> None:
    """A body that is no batch is refused as a whole, with a message."""
    response = post(ingest, content, **headers)

    assert response.status_code == status
    assert response.json().keys() >= {"message", "errorClass"}
    assert ingest.events() == []


def test_500_events_are_a_batch(ingest: Ingest) -> None:
    """The largest number of events that is allowed is accepted."""
    assert post(ingest, batch(*(event(str(n)) for n in range(500)))).status_code == 202
    assert event_ids(ingest) == [str(n) for n in range(500)]


@pytest.mark.parametrize("gzipped", [False, True])
def test_size(gzipped: bool) -> None:
    """The limit is of the JSON before compression, to the byte."""
    content = json.dumps(batch()).encode()
    with Ingest(max_json_bytes=len(content)) as ingest:
        found = [
            post(ingest, text, gzipped=gzipped).status_code for text in (content, content + b" ")
        ]
    assert found == [202, 413]


def test_default_size(ingest: Ingest) -> None:
    """450 KiB unless told."""
    content = json.dumps(batch()).encode()
    found = [post(ingest, content.ljust(460_800 + more)).status_code for more in (0, 1)]
    assert found == [202, 413]


def test_a_bomb_is_not_unpacked(ingest: Ingest) -> None:
    """A body of 256 MiB in a small gzip is refused on its first half megabyte."""
    bomb = gzip.compress(b" " * 2**28, compresslevel=1)
    begin = time.perf_counter()
    assert post(ingest, bomb, Content_Encoding="gzip").status_code == 413
    within(time.perf_counter() - begin, 0.5)


def test_a_body_without_end(ingest: Ingest) -> None:
    """A client that sends more than any batch has is answered before it is done."""
    with closing(connect(ingest, b" " * (10 * 2**20 + 1), length=10**9)) as raw:
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


REASONS: dict[str, list[dict[str, Any]]] = {
    "license_id is required, a string": [
        {"license_id": ...},
        {"license_id": ""},
        {"license_id": 7},
        {"license_id": "\udfff"},
    ],
    "occurred_at is required": [{"occurred_at": ...}],
    "occurred_at must be ISO 8601 with Z or an offset": [
        {"occurred_at": moment}
        for moment in (
            "2026-11-22T11:33:00",
            "2026-11-22 11:33:00Z",
            "2026-13-22T11:33:00Z",
            "2026-11-22T11:33:00+99:00",
            "2026-11-22T11:33:00+00:00Z",
            "2026-11-22T11:33:00Z\n",
            "\u0662026-11-22T11:33:00Z",
            1795347180,
        )
    ],
    "kind must be USAGE or ADJUSTMENT": [{"kind": "usage"}, {"kind": ["USAGE"]}],
    "unit must be a string": [{"unit": 1}],
    "source_system must be a string": [{"source_system": {}}],
    "attribution must be an object": [{"attribution": ["a"]}],
    "attribution.team must be a string, a number or a boolean": [
        {"attribution": {"team": None}},
        {"attribution": {"team": ["x"]}},
    ],
    "measurements is required, a list that is not empty": [
        {"measurements": ...},
        {"measurements": []},
        {"measurements": {"metric_name": "m", "quantity": 1}},
    ],
    "metric_name is required, a string": [
        {"measurements": ["m"]},
        {"measurements": [{"quantity": 1}]},
    ],
    "quantity must be a number": [
        {"measurements": [{"metric_name": "m", "quantity": quantity}]}
        for quantity in ("1", True, None, 10**400)
    ],
    "quantity of usage must be greater than zero": [
        {"measurements": [{"metric_name": "m", "quantity": 0}]},
        {"measurements": [{"metric_name": "m", "quantity": -0.5}]},
        {
            "measurements": [
                {"metric_name": "a", "quantity": 1},
                {"metric_name": "m", "quantity": -1},
            ]
        },
    ],
    "metric_tuple_hint must be an object": [
        {"measurements": [{"metric_name": "m", "quantity": 1, "metric_tuple_hint": "x"}]}
    ],
}


@pytest.mark.parametrize(
    ("reason", "fields"),
    [(reason, fields) for reason, group in REASONS.items() for fields in group],
)
def test_rejected_events(ingest: Ingest, reason: str, fields: dict[str, Any]) -> None:
    """An event that is wrong is rejected alone, with its reason, and the others are recorded."""
    response = post(ingest, batch(event("good"), event("bad", **fields), event("fine")))

    assert answered(response) == (
        207,
        {
            "accepted": 2,
            "rejected": 1,
            "batch_id": "batch_1",
            "rejections": [{"event_id": "bad", "reason": reason}],
        },
    )
    assert event_ids(ingest) == ["good", "fine"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/telemetry/events", 405), ("POST", "/telemetry", 404)]
)
def test_other_requests(ingest: Ingest, method: str, path: str, status: int) -> None:
    """What the protocol does not have is answered in its form of errors."""
    response = requests.request(method, ingest.url + path, timeout=5)
    assert response.status_code == status
    assert response.json().keys() >= {"message", "errorClass"}
    assert ingest.posts() == []
