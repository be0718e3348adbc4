"""Looking at what a local ingest has, waiting for it, forgetting it, and asking for faults."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from doow_serverless.local import Fault, Ingest
from tests.local.posting import batch, event, event_ids, post

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


def test_an_outage_leaves_the_port_to_nobody() -> None:
    """While it is stopped, no other socket can be bound to its port, where it will start again."""
    with Ingest() as ingest, socket.socket() as other:
        ingest.stop()
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", ingest.port))


def test_an_outage_beside_starting_processes() -> None:
    """A process that is being started shares the server's socket: no outage fails for that."""
    is_over = threading.Event()

    def start_processes() -> None:
        while not is_over.is_set():
            subprocess.run([sys.executable, "-V"], check=True, capture_output=True)

    with ThreadPoolExecutor() as pool, Ingest() as ingest:
        started = [pool.submit(start_processes) for _ in range(2)]
        for _ in range(60):
            ingest.stop()
            ingest.start()
        is_over.set()
        assert [each.result() for each in started] == [None, None]
        assert post(ingest, batch()).status_code == 202


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
