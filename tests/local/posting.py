"""Events, batches and POSTs as tests send them to a local ingest by hand."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import requests

from tests.network import KEY

if TYPE_CHECKING:
    from doow_serverless.local import Ingest

OTHER_KEY = "dk_" + "b2" * 32


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


def until(condition: Any) -> bool:
    """Whether the condition holds within seconds; for what no event tells."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
