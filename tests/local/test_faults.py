"""Faults that the local ingest injects: each is what the network or a server would do."""

from __future__ import annotations

import gc
import json
import re
import socket
import time
from contextlib import closing
from typing import Any

import pytest
import requests

from doow_serverless.local import Fault, Ingest
from tests.local.posting import answered, batch, connect, event, event_ids, post, statuses, until
from tests.timing import within

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


def test_a_batch_that_the_server_cannot_digest(ingest: Ingest) -> None:
    """It fails whatever else waits, and leaves the queue to the others."""
    ingest.fault(Fault(status=408), Fault(status=500, only=["evt_2"], times=None))
    poison = batch(event("evt_1"), event("evt_2"), batch_id="poison")

    found = [post(ingest, each).status_code for each in (batch(), poison, batch(), poison)]

    assert found == [408, 500, 202, 500]
    assert event_ids(ingest) == ["evt_1"]


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
    within(time.perf_counter() - begin, 1, at_least_s=0.1)


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
    ingest.fault(Fault(hang=True), Fault(drip_headers_s=60), Fault(delay_s=60))
    held = [connect(ingest), connect(ingest), connect(ingest)]
    idle = socket.create_connection(("127.0.0.1", ingest.port), timeout=5)
    assert until(lambda: len(ingest.posts()) == 3)
    begin = time.perf_counter()
    ingest.close()
    within(time.perf_counter() - begin, 0.5)

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

    assert b"\r\n\r\n" in first
    assert len(rest) > 10
    assert elapsed_s > 0.001 * len(rest)
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


def test_an_ingest_that_stops_at_once_leaves_no_connection_open() -> None:
    """One that it has just accepted neither; whatever is left open fails the test."""
    for number in range(60):
        ingest = Ingest().start()
        with socket.create_connection(("127.0.0.1", ingest.port)) as raw:
            raw.send(b"POST /telemetry/events HTTP/1.1\r\nHost: x\r\n")
            time.sleep(0.0005 * (number % 7))
            ingest.close()
    gc.collect()
