"""A store of keys that cannot be reached, as in a VPC without a route, is an outage like others."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._config import checked_config
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.patient import sending
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless.errors import DoowError
from tests.batches import batch
from tests.lambda_context import LambdaContext
from tests.network import KEY

pytest.importorskip("aws_lambda_powertools")
pytest.importorskip("boto3")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local import Ingest

CREDENTIALS = "doow_serverless._delivery.credentials"
BUDGET_S = 20.0
SECRET = "DOOW_TRACK_API_KEY_SECRET_ARN"
PARAMETER = "DOOW_TRACK_API_KEY_SSM_PARAMETER"


class Store:
    """Takes connections and is silent until it is released; then it answers with its key.

    Attributes:
        key: The key that it holds.
        connections: How many were made while it was silent.
    """

    def __init__(self) -> None:
        self.key = KEY
        self.connections = 0
        self._is_released = threading.Event()
        self._silent: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self) -> int:
        """Wait for the first connection, which a busy machine makes late; the number of all."""
        ends_at = time.monotonic() + 20
        while not self.connections and time.monotonic() < ends_at:
            time.sleep(0.01)
        return self.connections

    def release(self) -> None:
        """Answer from now on; what was silent is cut off, and the client connects again."""
        self._is_released.set()
        for connection in self._silent:
            connection.close()

    def close(self) -> None:
        self.release()
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, address = self._listener.accept()
                if self._is_released.is_set():
                    self._serve(connection, address)
                else:
                    self._silent.append(connection)
                    self.connections += 1

    def _serve(self, connection: socket.socket, address: object) -> None:
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                found: dict[str, Any] = {"SecretString": store.key, "Name": "doow"}
                found["Parameter"] = {"Value": store.key, "Name": "/doow", "Type": "SecureString"}
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Be silent."""

        with connection, suppress(OSError):
            Handler(connection, address, None)  # type: ignore[arg-type]  # It needs no server.


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A silent store in the place of Secrets Manager and Parameter Store."""
    made = Store()
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": made.url,
        "AWS_ENDPOINT_URL_SSM": made.url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("doow_serverless._platforms.aws._providers", {})
    yield made
    made.close()


@doow.tracked
def handler(event: object, context: object) -> None:
    doow.track("tokens")


@pytest.mark.parametrize(
    ("variable", "service"), [(SECRET, "Secrets Manager"), (PARAMETER, "Parameter Store")]
)
def test_a_silent_store_costs_its_first_seconds_once(
    variable: str, service: str, store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then invocations fail at once; when it answers, its one client gets the key, all arrives."""
    monkeypatch.setenv(variable, "/doow/key")
    monkeypatch.setattr(f"{CREDENTIALS}.WAIT_S", 0.5)
    errors: list[doow.errors.DoowError] = []
    tracker = doow.configure(
        endpoint=ingest.url, license_id="lic_1", budget=BUDGET_S, on_error=errors.append
    )
    began = time.monotonic()
    for _ in range(4):
        handler({}, LambdaContext())
    elapsed_s = time.monotonic() - began
    where = f"the API key could not be read from {service}, where {variable} points"
    why = f"{where} (no answer yet: see that this network has a route to it)"
    assert (errors[0].kind, str(errors[0])) == ("AUTH_FAILURE", f"1 event not delivered: {why}")
    assert (elapsed_s < BUDGET_S, store.wait(), ingest.events()) == (True, 1, [])

    store.release()
    invocations, ends_at = 4, time.monotonic() + 60
    while len(ingest.events()) < invocations and time.monotonic() < ends_at:
        handler({}, LambdaContext())
        invocations += 1
        time.sleep(0.2)
    assert len({event["event_id"] for event in ingest.events()}) == invocations
    assert (store.connections, tracker.engine.outbox.kept_events) == (1, 0)


@pytest.mark.parametrize(
    ("variable", "service"), [(SECRET, "Secrets Manager"), (PARAMETER, "Parameter Store")]
)
def test_the_client_gives_up_by_itself(
    variable: str, service: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three attempts, before another thread would fetch; the reason names the host."""
    monkeypatch.setattr("doow_serverless._platforms.aws._LIMIT_S", 0.05)
    credentials = Credentials(None, (variable, "/doow/key"))
    credentials.load()
    with pytest.raises(DoowError) as caught:
        credentials.current(BUDGET_S)
    where = f"the API key could not be read from {service}, where {variable} points"
    why = f'GetParameterError: Read timeout on endpoint URL: "{store.url}/"'
    assert (str(caught.value), store.connections) == (f"{where} ({why})", 3)


def test_what_no_response_waits_for_gives_up_in_time(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay, `replay` and `send` wait longer, but not for as long as a client of AWS would."""
    monkeypatch.setenv(SECRET, "doow")
    monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
    monkeypatch.setattr("doow_serverless._delivery.patient.PATIENCE_S", 0.5)
    with sending(*checked_config()) as sender:
        results = [sender.send(batch()) for _ in range(2)]
    where = f"the API key could not be read from Secrets Manager, where {SECRET} points"
    why = f"{where} (no answer yet: see that this network has a route to it)"
    found = [(each.reason, each.message) for each in results if isinstance(each, Failed)]
    assert (found, store.wait()) == ([("AUTH_FAILURE", why)] * 2, 1)


def test_what_no_response_waits_for_waits_longer(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an invocation would have given up, a store that answers late still brings the key."""
    monkeypatch.setenv(SECRET, "doow")
    monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
    monkeypatch.setattr(f"{CREDENTIALS}.WAIT_S", 0.0)

    def release() -> None:
        while not store.connections:
            time.sleep(0.01)
        store.release()

    threading.Thread(target=release, daemon=True).start()
    with sending(*checked_config()) as sender:
        result = sender.send(batch())
    assert isinstance(result, Settled)
    assert (result.accepted, store.connections) == (1, 1)


def test_a_key_that_is_revoked_before_its_secret_is_updated(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox finds the other key soon after it was put there, and nothing is lost."""
    store.release()
    monkeypatch.setenv(SECRET, "doow")
    monkeypatch.setattr(f"{CREDENTIALS}.FIRST_REFUSED_HOLD_S", 0.2)
    monkeypatch.setattr(f"{CREDENTIALS}.REFRESH_S", 0.0)
    for name in ("WAIT_S", "REFRESH_WAIT_S"):
        monkeypatch.setattr(f"{CREDENTIALS}.{name}", BUDGET_S)
    errors: list[doow.errors.DoowError] = []
    doow.configure(endpoint=ingest.url, license_id="lic_1", budget=BUDGET_S, on_error=errors.append)
    ingest.revoke(KEY)
    handler({}, LambdaContext())
    assert ([error.kind for error in errors], ingest.events()) == (["AUTH_FAILURE"], [])

    store.key = "dk_" + "b2" * 32
    ingest.add_key(store.key)
    invocations, ends_at = 1, time.monotonic() + 30
    while len(ingest.events()) < invocations and time.monotonic() < ends_at:
        handler({}, LambdaContext())
        invocations += 1
        time.sleep(0.2)
    assert len({event["event_id"] for event in ingest.events()}) == invocations
