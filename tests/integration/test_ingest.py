"""The local ingest over real connections: the protocol, the ledger, the faults, the command."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests
from doow_track import Tracker, TrackerOptions, TrackEvent

from doow_serverless.local import Fault, Ingest

if TYPE_CHECKING:
    from pathlib import Path


KEY = "dk_" + "a1" * 32
OTHER_KEY = "dk_" + "b2" * 32


@pytest.fixture(autouse=True)
def _no_doow_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DOOW_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def ingest(doow_ingest: Ingest) -> Ingest:
    """The fixture that users get."""
    return doow_ingest


def event(event_id: Any = "evt_1", **fields: Any) -> dict[str, Any]:
    """A valid event; a field set to ``...`` is left out."""
    whole = {
        "event_id": event_id,
        "license_id": "lic_1",
        "occurred_at": "2026-11-22T11:33:00.123Z",
        "measurements": [{"metric_name": "tokens", "quantity": 3}],
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def batch(*events: object, batch_id: str = "batch_1", **fields: Any) -> dict[str, Any]:
    """A batch of events, one unless told."""
    return {"batch_id": batch_id, "events": list(events) or [event()], **fields}


def post(
    ingest: Ingest,
    content: object,
    *,
    key: str | None = KEY,
    gzipped: bool = False,
    path: str = "/telemetry/events",
    **headers: Any,
) -> requests.Response:
    """Send JSON, or the bytes given, on a connection of its own."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"Content-Type": "application/json"}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    if gzipped:
        body, sent["Content-Encoding"] = gzip.compress(body), "gzip"
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(ingest.url + path, data=body, headers=sent, timeout=5)


def answered(response: requests.Response) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    return response.status_code, response.json()


def connect(ingest: Ingest, body: bytes | None = None, length: int | None = None) -> socket.socket:
    """A raw connection on which a batch was sent, or a body that claims some length."""
    body = json.dumps(batch()).encode() if body is None else body
    head = (
        "POST /telemetry/events HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    )
    raw = socket.create_connection(("127.0.0.1", ingest.port), timeout=5)
    raw.sendall(head.encode() + body)
    return raw


def statuses(ingest: Ingest) -> list[int | None]:
    return [each.status for each in ingest.posts()]


def event_ids(ingest: Ingest) -> list[str]:
    return [each["event_id"] for each in ingest.events()]


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


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "key", [None, "", "dk_123", "sk_" + "a1" * 32, KEY + "0", "dk_" + "g" * 64]
)
def test_malformed_keys(ingest: Ingest, key: str | None) -> None:
    """Without a well-formed key nothing is recorded."""
    response = post(ingest, batch(), key=key)

    assert response.status_code == 401
    assert response.json().keys() == {"message", "errorClass"}
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
    assert response.json().keys() == {"message", "errorClass"}
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
    assert time.perf_counter() - begin < 0.5


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
    assert response.json().keys() == {"message", "errorClass"}
    assert ingest.posts() == []


# ── recorded once ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fields", [{}, {"license_id": ""}])
def test_a_batch_is_recorded_once(ingest: Ingest, fields: dict[str, Any]) -> None:
    """The same batch again gets the same answer, and adds nothing; compression is no difference."""
    content = batch(event("evt_1"), event("evt_2", **fields))
    first = post(ingest, content)
    recorded = ingest.events()
    again = post(ingest, content, gzipped=True)

    assert answered(again) == answered(first)
    assert ingest.events() == recorded
    assert [each.duplicate for each in ingest.posts()] == [False, True]
    assert ingest.conflicts == []


def test_a_batch_that_changed_is_noticed(ingest: Ingest) -> None:
    """One batch id with two contents is answered as a duplicate, and told to the test."""
    post(ingest, batch(event("evt_1")))
    response = post(ingest, batch(event("evt_2")))

    assert answered(response) == (202, {"accepted": 1, "rejected": 0, "batch_id": "batch_1"})
    assert event_ids(ingest) == ["evt_1"]
    assert ingest.conflicts == ["batch_1"]


def test_an_event_of_two_batches_counts_twice(ingest: Ingest) -> None:
    """Like the real server this one knows batches only, so that counting twice can be seen."""
    post(ingest, batch(batch_id="a"))
    post(ingest, batch(batch_id="b"))
    assert [(each["batch_id"], each["event_id"]) for each in ingest.events()] == [
        ("a", "evt_1"),
        ("b", "evt_1"),
    ]


def test_many_connections_at_once(ingest: Ingest) -> None:
    """Concurrent batches are each recorded once, whole."""
    batches = [batch(*(event(f"{n}-{m}") for m in range(20)), batch_id=str(n)) for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda each: post(ingest, each).status_code, batches * 2))

    assert found == [202] * 32
    assert sorted(event_ids(ingest)) == sorted(f"{n}-{m}" for n in range(16) for m in range(20))
    assert sum(each.duplicate for each in ingest.posts()) == 16


def test_an_answered_event_survives_a_kill(tmp_path: Path) -> None:
    """What was answered is in the file after a SIGKILL, and the batch is still known."""
    database = tmp_path / "ledger.sqlite"
    with command("--port", "0", "--database", str(database)) as process:
        url = endpoint(process)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        requests.post(f"{url}/telemetry/events", json=batch(), headers=headers, timeout=5)
        process.kill()
        process.wait(5)

    with Ingest(database) as ingest:
        again = post(ingest, batch())
        assert again.status_code == 202
        assert [each.duplicate for each in ingest.posts()] == [True]
        assert event_ids(ingest) == ["evt_1"]


# ── looking, waiting, forgetting ────────────────────────────────────────────────────────────────


def test_wait_for(ingest: Ingest) -> None:
    """Waiting ends when the events are there, with the events."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ingest.wait_for, 2, timeout=3)
        post(ingest, batch(event("evt_1"), batch_id="a"))
        post(ingest, batch(event("evt_2"), batch_id="b"))
        assert [each["event_id"] for each in waiting.result(1)] == ["evt_1", "evt_2"]


def test_wait_for_tells_what_came(ingest: Ingest) -> None:
    """A wait in vain tells what arrived instead."""
    ingest.fault(Fault(status=503))
    post(ingest, batch(event(), event("evt_2")))
    post(ingest, batch())
    with pytest.raises(TimeoutError) as caught:
        ingest.wait_for(2, timeout=0.01)
    assert str(caught.value) == (
        "1 of 2 events within 0.01 s; POSTs as (status, events): [(503, 2), (202, 1)]"
    )


def test_reset(ingest: Ingest) -> None:
    """After a reset nothing is known, not even batch ids, and nothing waits to go wrong."""
    post(ingest, batch())
    post(ingest, batch(event("other")))
    post(ingest, {}, path="/telemetry/heartbeat")
    ingest.fault(Fault(status=500, times=None))
    ingest.reset()

    assert (ingest.events(), ingest.posts(), ingest.conflicts, ingest.heartbeats) == ([], [], [], 0)
    assert post(ingest, batch()).status_code == 202
    assert [each.duplicate for each in ingest.posts()] == [False]


def test_an_outage() -> None:
    """Stopped and started again it has the same port and ledger; closed, it can still be read."""
    with Ingest() as ingest:
        post(ingest, batch())
        ingest.stop()
        with pytest.raises(requests.ConnectionError):
            post(ingest, batch())
        ingest.start()
        post(ingest, batch())
    assert event_ids(ingest) == ["evt_1"]
    assert [each.duplicate for each in ingest.posts()] == [False, True]


def test_control_over_http(ingest: Ingest) -> None:
    """Other processes order faults, look and forget over HTTP."""
    local = f"{ingest.url}/_local"
    quarter = event(measurements=[{"metric_name": "cost", "quantity": 0.25}])
    ordered = requests.post(f"{local}/faults", json=[{"status": 503}, {"reject": ["x"]}], timeout=5)
    found = [post(ingest, batch(quarter, event("x"))).status_code for _ in range(2)]

    events = requests.get(f"{local}/events", timeout=5).json()
    posts = requests.get(f"{local}/posts", timeout=5).json()
    assert ordered.json() == {"ok": True}
    assert found == [503, 207]
    assert [each["measurements"][0]["quantity"] for each in events] == ["0.25"]
    assert [(each["status"], each["event_ids"]) for each in posts] == [
        (503, ["evt_1", "x"]),
        (207, ["evt_1", "x"]),
    ]

    requests.post(f"{local}/faults", json=[{"status": 503}], timeout=5)
    requests.delete(f"{local}/faults", timeout=5)
    assert post(ingest, batch()).status_code == 207
    requests.post(f"{local}/reset", timeout=5)
    assert requests.get(f"{local}/posts", timeout=5).json() == []


@pytest.mark.parametrize("content", [[{"stauts": 503}], [{"reset": "sometimes"}], {"status": 1}, 7])
def test_faults_that_are_none(ingest: Ingest, content: object) -> None:
    """An order that cannot be understood is refused whole."""
    response = requests.post(f"{ingest.url}/_local/faults", json=content, timeout=5)
    assert response.status_code == 400
    assert post(ingest, batch()).status_code == 202


@pytest.mark.parametrize(
    "fields",
    [
        {"times": 0},
        {"status": 99},
        {"reset": "late"},
        {"delay_s": -1},
        {"rate_limit_s": float("nan")},
    ],
)
def test_values_that_a_fault_refuses(fields: dict[str, Any]) -> None:
    """A fault names the field that is wrong."""
    with pytest.raises(ValueError, match=next(iter(fields))):
        Fault(**fields)


# ── faults ──────────────────────────────────────────────────────────────────────────────────────


def test_faults_come_in_order(ingest: Ingest) -> None:
    """Each POST takes the next fault, as often as that says; then all is well."""
    ingest.fault(Fault(status=503, times=2), Fault(status=408))
    ingest.fault(Fault(status=404))
    assert [post(ingest, batch()).status_code for _ in range(5)] == [503, 503, 408, 404, 202]
    assert [each.duplicate for each in ingest.posts()] == [False] * 5


def test_a_fault_for_ever(ingest: Ingest) -> None:
    """``times=None`` lasts until the faults are cleared."""
    ingest.fault(Fault(status=502, times=None))
    found = [post(ingest, batch()).status_code for _ in range(3)]
    ingest.clear_faults()
    found.append(post(ingest, batch()).status_code)
    assert found == [502, 502, 502, 202]


def test_an_answer_lost_after_recording(ingest: Ingest) -> None:
    """With ``record_first`` the batch is in the ledger though the client is told otherwise."""
    ingest.fault(Fault(status=503, record_first=True, headers={"Retry-After": "7"}, body="oops"))
    response = post(ingest, batch())
    again = post(ingest, batch())

    assert (response.status_code, response.text) == (503, "oops")
    assert response.headers["retry-after"] == "7"
    assert again.status_code == 202
    assert event_ids(ingest) == ["evt_1"]
    assert [each.duplicate for each in ingest.posts()] == [False, True]


def test_another_body_of_an_answer(ingest: Ingest) -> None:
    """A body alone replaces that of the usual answer; the batch is recorded as ever."""
    ingest.fault(Fault(body={}), Fault(body=b"\xff", headers={"Content-Type": "text/plain"}))
    first, second = post(ingest, batch()), post(ingest, batch())

    assert answered(first) == (202, {})
    assert (second.status_code, second.content) == (202, b"\xff")
    assert second.headers["content-type"] == "text/plain"
    assert event_ids(ingest) == ["evt_1"]


def test_rate_limit(ingest: Ingest) -> None:
    """A rate limit is told in both headers."""
    ingest.fault(Fault(rate_limit_s=1.5))
    response = post(ingest, batch())

    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"
    assert json.loads(response.headers["x-doow-rate-limits"]) == {
        "event_rate": {"limit": 1000, "current": 1050, "retry_after": 1.5}
    }
    assert ingest.events() == []


@pytest.mark.parametrize(
    ("reject", "reason"),
    [
        ("bad_metric", "rejected on request"),
        (["bad"], "rejected on request"),
        (iter(["bad"]), "rejected on request"),
        (lambda each: each["event_id"] == "bad", "rejected on request"),
        (lambda each: "no such license" if each["event_id"] == "bad" else False, "no such license"),
    ],
)
def test_rejections_on_request(ingest: Ingest, reject: Any, reason: str) -> None:
    """Events are rejected by metric, by id, or by a function."""
    ingest.fault(Fault(reject=reject, times=2))
    bad = event("bad", measurements=[{"metric_name": "bad_metric", "quantity": 1}])
    found = [post(ingest, batch(event("good"), bad, batch_id=name)) for name in "ab"]

    assert [(each.status_code, each.json()["rejections"]) for each in found] == [
        (207, [{"event_id": "bad", "reason": reason}])
    ] * 2
    assert event_ids(ingest) == ["good", "good"]


def test_delay(ingest: Ingest) -> None:
    """A delayed batch is recorded as late as it is answered."""
    ingest.fault(Fault(delay_s=0.1))
    begin = time.perf_counter()
    response = post(ingest, batch())
    assert response.status_code == 202
    assert 0.1 <= time.perf_counter() - begin < 1


def test_a_delayed_batch_of_a_client_that_left(ingest: Ingest) -> None:
    """A server does not notice that a client gave up: the batch is recorded, unanswered."""
    ingest.fault(Fault(delay_s=0.1))
    connect(ingest).close()

    assert [each["event_id"] for each in ingest.wait_for(1)] == ["evt_1"]
    assert until(lambda: statuses(ingest) == [None])


def test_a_client_that_leaves_within_its_request(ingest: Ingest) -> None:
    """Half a request is a record without a status."""
    connect(ingest, b"1234", length=9).close()
    assert until(lambda: [each.body for each in ingest.posts()] == [b"1234"])
    assert statuses(ingest) == [None]


@pytest.mark.parametrize("record_first", [False, True])
def test_hang(ingest: Ingest, record_first: bool) -> None:
    """A hanging request stays open without a byte; others go on meanwhile."""
    ingest.fault(Fault(hang=True, record_first=record_first))
    with closing(connect(ingest)) as raw:
        assert until(lambda: [each.event_ids for each in ingest.posts()] == [("evt_1",)])
        assert post(ingest, batch(event("other"), batch_id="other")).status_code == 202
        raw.settimeout(0.05)
        with pytest.raises(TimeoutError):
            raw.recv(1)
    assert event_ids(ingest) == (["evt_1", "other"] if record_first else ["other"])
    assert statuses(ingest) == [None, 202]


def test_stop_does_not_wait_for_what_hangs(capfd: pytest.CaptureFixture[str]) -> None:
    """Stopping is quick and quiet, whatever is held open, and cuts every connection."""
    ingest = Ingest().start()
    ingest.fault(Fault(hang=True), Fault(delay_s=60), Fault(drip_headers_s=60))
    held = [connect(ingest), connect(ingest), connect(ingest)]
    idle = socket.create_connection(("127.0.0.1", ingest.port), timeout=5)
    assert until(lambda: len(ingest.posts()) == 3)
    begin = time.perf_counter()
    ingest.close()
    assert time.perf_counter() - begin < 0.5

    for raw in [*held, idle]:
        with closing(raw):
            assert raw.recv(1) == b""
    assert statuses(ingest) == [None, None, None]
    assert capfd.readouterr().err == ""


def test_drip_of_the_head(ingest: Ingest) -> None:
    """The head comes byte by byte, and makes a whole answer in the end."""
    ingest.fault(Fault(drip_headers_s=0.001))
    begin = time.perf_counter()
    with closing(connect(ingest)) as raw:
        pieces = list(iter(lambda: raw.recv(65536), b""))
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert json.loads(body) == {"accepted": 1, "rejected": 0, "batch_id": "batch_1"}
    assert len(pieces) > 1
    assert time.perf_counter() - begin > 0.001 * len(head)
    assert statuses(ingest) == [202]


def test_drip_of_the_body(ingest: Ingest) -> None:
    """The head comes at once, the body byte by byte, and ordinary clients can read it."""
    ingest.fault(Fault(drip_body_s=0.001, times=2))
    begin = time.perf_counter()
    with closing(connect(ingest)) as raw:
        first, *rest = iter(lambda: raw.recv(65536), b"")
    elapsed_s = time.perf_counter() - begin
    response = post(ingest, batch())

    assert first.endswith(b"\r\n\r\n")
    assert elapsed_s > 0.001 * len(b"".join(rest))
    assert answered(response) == (202, {"accepted": 1, "rejected": 0, "batch_id": "batch_1"})


def test_a_client_that_leaves_a_drip(ingest: Ingest) -> None:
    """An answer that was not taken whole is none."""
    ingest.fault(Fault(drip_headers_s=0.001))
    with closing(connect(ingest)) as raw:
        assert raw.recv(1) == b"H"
    assert until(lambda: statuses(ingest) == [None])
    assert event_ids(ingest) == ["evt_1"]


@pytest.mark.parametrize("record_first", [False, True])
@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("before_answer", r""),
        ("mid_answer", r"HTTP/1.1 (202 Accepted|503 Service Unavailable)\r\n[^{]*"),
        ("mid_body", r"HTTP/1.1 (202|503) [^{]*\r\n\r\n\{[^}]*"),
    ],
)
def test_reset_of_the_connection(ingest: Ingest, where: str, seen: str, record_first: bool) -> None:
    """The connection is reset where the fault says."""
    ingest.fault(Fault(reset=where, record_first=record_first))
    received: list[bytes] = []
    with closing(connect(ingest)) as raw, pytest.raises(ConnectionResetError):
        received.extend(iter(lambda: raw.recv(65536), b""))

    assert re.fullmatch(seen, b"".join(received).decode(), re.DOTALL)
    assert event_ids(ingest) == (["evt_1"] if record_first else [])
    assert statuses(ingest) == [None]


def test_a_reset_connection_is_an_error_of_requests(ingest: Ingest) -> None:
    """Ordinary clients see what they see of real servers."""
    ingest.fault(Fault(reset="before_answer"), Fault(reset="mid_body"), Fault(reset="close"))
    errors = []
    for _ in range(3):
        with pytest.raises(requests.RequestException) as caught:
            post(ingest, batch())
        errors.append(caught.type)
    assert errors[0] is errors[2] is requests.ConnectionError
    assert issubclass(
        errors[1], (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
    )


def test_close_without_an_answer(ingest: Ingest) -> None:
    """``close`` is an orderly end, not a reset."""
    ingest.fault(Fault(reset="close"))
    with closing(connect(ingest)) as raw:
        assert raw.recv(65536) == b""
    assert statuses(ingest) == [None]


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


# ── the command line ────────────────────────────────────────────────────────────────────────────


def command(*arguments: str) -> subprocess.Popen[str]:
    """``python -m doow_serverless ingest``, with its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "doow_serverless", "ingest", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def endpoint(process: subprocess.Popen[str]) -> str:
    """The address that the command says to export."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith("export DOOW_TRACK_ENDPOINT="):
            return line.strip().partition("=")[2]
    raise AssertionError(process.communicate())


def test_the_command(tmp_path: Path) -> None:
    """It tells what to export, shows each POST in a line, and ends well on Ctrl-C."""
    hostile = [event(f"evt_\x1b[2J{n}", license_id="") for n in range(5)]
    with command("--port", "0", "--database", str(tmp_path / "ledger")) as process:
        url = endpoint(process)
        assert process.stdout
        exported = process.stdout.readline().strip()
        headers = {
            "Authorization": f"Bearer {exported.partition('=')[2]}",
            "Content-Type": "application/json",
        }
        several = batch(
            event(measurements=[{"metric_name": "tokens", "quantity": 1200}]),
            event("evt_2", measurements=[{"metric_name": "cost", "quantity": 0.5}]),
        )
        contents: tuple[object, ...] = (several, several, batch(*hostile, batch_id="batch_2"), [])
        for content in contents:
            requests.post(f"{url}/telemetry/events", json=content, headers=headers, timeout=5)
        lines = [process.stdout.readline().strip()[9:] for _ in range(4)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)

    assert exported == "export DOOW_TRACK_API_KEY=dk_" + "0" * 64
    assert lines == [
        "202  2 events  tokens=1,200  cost=0.5",
        "202  2 events  duplicate",
        "207  5 events  "
        + "".join(f"evt_\ufffd[2J{n}: license_id is required, a string  " for n in range(3))
        + "and 2 more",
        "400  0 events  the body must be an object",
    ]
    assert (process.returncode, errors) == (0, "")


def test_a_port_that_is_taken(ingest: Ingest) -> None:
    """A taken port is one clear line."""
    with command("--port", str(ingest.port)) as process:
        _, errors = process.communicate(timeout=5)
    assert errors == (
        f"Error: cannot listen on port {ingest.port}: Address already in use; "
        "choose another with --port\n"
    )
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "sk_secret"], "Error: --key: a key is dk_ and 64 hex digits\n"),
        (
            ["--database", "/nowhere/x"],
            "Error: cannot use /nowhere/x as a database: unable to open database file\n",
        ),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    """An option that cannot work is one clear line."""
    with command("--port", "0", *arguments) as process:
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (2, message)


@pytest.mark.parametrize("missing", ["click", "rich", "starlette", "uvicorn"])
def test_without_the_extra(missing: str) -> None:
    """Without the extra the command says what to install."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['ingest', '--port', '0'];"
        "from doow_serverless.cli.main import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=10
    )
    assert (found.returncode, found.stdout, found.stderr) == (
        2,
        "",
        "doow-serverless needs more for its command line: install doow-serverless[local]\n",
    )


def until(condition: Any) -> bool:
    """Whether the condition holds within seconds; for what no event tells."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
