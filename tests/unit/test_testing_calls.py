"""The test kit as users meet it: what is found, what a failure shows, calls of the platforms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unittest
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.testing import (
    MemoryTransport,
    api_gateway_event,
    azure_http_request,
    azure_queue_message,
    call_asgi,
    call_handler,
    call_wsgi,
    captured_events,
    lambda_context,
    sqs_event,
)

if TYPE_CHECKING:
    from pathlib import Path


def record() -> None:
    doow.track("tokens", 812, license_id="lic_1", attribution={"model": "a", "team": "x"})
    doow.track("tokens", Decimal("0.1"), license_id="lic_1", attribution={"model": "b"})
    doow.track("tokens", Decimal("0.2"), license_id="lic_2", kind="ADJUSTMENT")
    doow.track_all({"tokens": 5, "calls": 1}, license_id="lic_2", unit="x", metadata={"n": 1})
    doow.flush()


# ── what a test asks ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("metric", "fields", "total"),
    [
        ("tokens", {}, Decimal("817.3")),
        ("tokens", {"license_id": "lic_1"}, Decimal("812.1")),
        ("tokens", {"license_id": "lic_2", "kind": "USAGE"}, 5),
        ("tokens", {"attribution": {"model": "a"}}, 812),
        ("tokens", {"attribution": {"model": "a", "team": "y"}}, 0),
        ("tokens", {"unit": "x", "metadata": {"n": 1}}, 5),
        ("calls", {}, 1),
        (None, {"license_id": "lic_2", "unit": "x"}, 6),
        ("seats", {}, 0),
    ],
)
def test_totals(
    metric: str | None, fields: dict[str, Any], total: Any, doow_events: MemoryTransport
) -> None:
    """Exact, by any field; of a mapping, what is in it."""
    record()
    assert doow_events.total(metric, **fields) == total


def test_an_exact_sum_is_no_float(doow_events: MemoryTransport) -> None:
    """0.1 and 0.2 are 0.3, and whole numbers are ints."""
    record()
    assert doow_events.total("tokens", unit="x") is not None
    assert type(doow_events.total("calls")) is int
    assert doow_events.total("tokens", license_id="lic_1") == Decimal("812.1")


def test_find(doow_events: MemoryTransport) -> None:
    """The events themselves, in their order."""
    record()
    assert [len(event["measurements"]) for event in doow_events.find(license_id="lic_2")] == [1, 2]
    assert doow_events.find("tokens", license_id="nobody") == []


def test_a_failure_shows_what_was_recorded_instead(tmp_path: Path) -> None:
    """In a project that has nothing of ours but the import: the fixture is there by itself."""
    (tmp_path / "test_it.py").write_text(
        "import doow_serverless as doow\n"
        "def test_it(doow_events):\n"
        "    doow.track('tokens', 7, license_id='lic_2', attribution={'model': 'b'})\n"
        "    doow.flush()\n"
        "    assert doow_events.total('tokens', license_id='lic_1') == 1024\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "1 event in 1 batch; tokens=7 lic_2 model=b" in done.stdout


def test_the_plugin_costs_little(tmp_path: Path) -> None:
    """Who asks for no fixture has no client of HTTP, no server and no ingest imported."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert 'doow_serverless._pytest_plugin' in sys.modules\n"
        "    for name in ('requests', 'starlette', 'doow_serverless.testing'):\n"
        "        assert name not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "doow_serverless._pytest_plugin",
         "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # Others import much.
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


class TestWithUnittest(unittest.TestCase):
    """The same without pytest."""

    def test_it(self) -> None:
        with captured_events() as events:
            record()
        assert events.total("calls") == 1


# ── calls as the platforms make them ────────────────────────────────────────────────────────────


def test_a_context_of_lambda() -> None:
    """Its time passes, and does not go below zero."""
    context = lambda_context(5_000, request_id="r-1", function_name="metered")
    assert 4_000 < context.get_remaining_time_in_millis() <= 5_000
    assert (context.aws_request_id, context.function_name) == ("r-1", "metered")
    assert context.invoked_function_arn.endswith(":metered")
    assert lambda_context(0).get_remaining_time_in_millis() == 0


def test_powertools_takes_the_events() -> None:
    """As if API Gateway and SQS had sent them."""
    classes = pytest.importorskip("aws_lambda_powertools.utilities.data_classes")
    event = classes.APIGatewayProxyEventV2(
        api_gateway_event("POST", "/jobs/7", body={"n": 1}, query={"a": "b"})
    )
    assert (event.http_method, event.path, event.json_body) == ("POST", "/jobs/7", {"n": 1})
    assert event.query_string_parameters == {"a": "b"}
    records = list(classes.SQSEvent(sqs_event("text", {"n": 1})).records)
    assert [record.body for record in records] == ["text", '{"n": 1}']
    assert len({record.message_id for record in records}) == 2


def test_the_work_is_known_again(doow_events: MemoryTransport) -> None:
    """The same message twice counts once where the handler is idempotent."""

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> None:
        for _ in event["Records"]:
            doow.track("documents")

    event = sqs_event("one", "two")
    for _ in range(2):
        handler(event, lambda_context())
    assert doow_events.total("documents") == 2


@doow.tracked
class Handler(BaseHTTPRequestHandler):
    """As on Vercel."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        doow.track("api_calls")
        answer = json.dumps({"path": self.path, "body": body.decode()}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    body = environ["wsgi.input"].read().decode()
    doow.track("api_calls")
    start_response("201 Created", [("X-Kind", environ["HTTP_X_KIND"])])
    return [json.dumps({"path": environ["PATH_INFO"], "body": body}).encode()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"].decode()
    doow.track("api_calls")
    headers = [(b"x-kind", dict(scope["headers"])[b"x-kind"])]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    answer = json.dumps({"path": scope["path"], "body": body}).encode()
    await send({"type": "http.response.body", "body": answer})


@pytest.mark.parametrize(
    ("call", "served"),
    [(call_handler, Handler), (call_wsgi, doow.tracked(wsgi)), (call_asgi, doow.tracked(asgi))],
)
def test_a_request(call: Any, served: Any, doow_events: MemoryTransport) -> None:
    """Of whatever kind the application is: answered whole, and metered."""
    response = call(served, "POST", "/jobs", body={"n": 1}, headers={"X-Kind": "test"})
    assert response.status == 201
    assert json.loads(response.body) == {"path": "/jobs", "body": '{"n": 1}'}
    assert call is call_handler or response.headers["x-kind"] == "test"
    assert doow_events.total("api_calls") == 1


def test_triggers_of_azure(doow_events: MemoryTransport) -> None:
    """The library's own objects."""
    pytest.importorskip("azure.functions")
    request = azure_http_request("POST", body={"n": 1}, route_params={"customer": "acme"})
    assert (request.get_json(), request.route_params) == ({"n": 1}, {"customer": "acme"})
    message = azure_queue_message({"n": 1}, id="m-1")
    assert (message.get_json(), message.id) == ({"n": 1}, "m-1")
