"""An application that streams answers through the HTTP server of its worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost, AzureHostError
from tests.runtimes.azure.sample_apps import STREAMING_APP, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def streaming(newest_python: Path, tmp_path: Path) -> Iterator[AzureHost]:
    app = write(tmp_path, function_app=STREAMING_APP)
    with AzureHost(app, python=newest_python, model="v2") as host:
        yield host


def test_streamed_response(streaming: AzureHost) -> None:
    """A body streams over the worker's own server, while the invocation has already ended."""
    exchange = streaming.http(
        "stream", "POST", "/api/stream/x", body=b"body", route_params={"who": "x"}
    )

    assert exchange.invocation.ok
    assert exchange.complete
    assert (exchange.status, exchange.headers["x-answer"]) == (202, "42")
    assert f"{exchange.invocation.id} x body".encode() == exchange.body
    assert exchange.invocation.responded_at < exchange.chunks[-1][0]


def test_stream_that_breaks(streaming: AzureHost) -> None:
    """A body that raises is incomplete, though its invocation has succeeded."""
    exchange = streaming.http("broken", path="/api/broken")

    assert exchange.invocation.ok
    assert (exchange.complete, exchange.body) == (False, b"first")


def test_streaming_app_answers_at_once_too(streaming: AzureHost) -> None:
    """Other responses, exceptions and other triggers work beside a stream."""
    plain = streaming.http("plain", path="/api/plain?a=1")
    failed = streaming.http("fail", path="/api/fail")

    assert (plain.status, json.loads(plain.body)) == (200, {"query": {"a": "1"}})
    assert failed.status == 500
    assert failed.invocation.error is not None
    assert failed.invocation.error.type == "ValueError"
    assert streaming.invoke("tick", {"timer": triggers.timer()}).ok


def test_worker_is_killed_by_the_end_of_a_stream(streaming: AzureHost) -> None:
    """A worker can be killed as soon as all is answered, and is replaced."""
    first = streaming.pid
    exchange = streaming.http("plain", path="/api/plain", kill=True)

    assert exchange.invocation.ok
    assert streaming.http("plain", path="/api/plain").invocation.ok
    assert first != streaming.pid


def test_application_that_does_not_stream(v2: AzureHost) -> None:
    """An application without the extension has no server of its own."""
    with pytest.raises(AzureHostError, match="does not stream"):
        v2.http("greet")
