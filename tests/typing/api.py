"""The types of the API, as users meet them: checked by mypy, never run."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import azure.functions as func
from fastapi import FastAPI
from flask import Flask
from typing_extensions import assert_type

import doow_serverless as doow
from doow_serverless import asgi, wsgi
from doow_serverless.azure import track_app
from doow_serverless.errors import ConfigurationError, DoowError, ErrorKind, InvalidEvent
from doow_serverless.testing import Answer, MemoryTransport, TransportFault, rejecting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# ── tracked keeps what it decorates ──


@doow.tracked
def bare(event: dict[str, Any], context: object) -> str:
    return ""


@doow.tracked()
def called(event: dict[str, Any], context: object) -> str:
    return ""


@doow.tracked(
    budget=0.5,
    license_id="lic_1",
    attribution={"team": "ai", "n": 1, "x": 0.5, "b": True},
    on_exception="discard",
    metric="api_calls",
    tracker=doow.Tracker(),
)
def with_options(event: dict[str, Any], context: object, *, flag: bool = False) -> str:
    return ""


@doow.tracked
async def bare_async(event: bytes) -> int:
    return 0


@doow.tracked(budget=1)
async def async_with_options(event: bytes) -> int:
    return 0


assert_type(bare({}, None), str)
assert_type(called({}, None), str)
assert_type(with_options({}, None, flag=True), str)
as_function: Callable[[dict[str, Any], object], str] = bare
as_coroutine_function: Callable[[bytes], Awaitable[int]] = bare_async
bare({})  # type: ignore[call-arg]  # the context is missing
bare_async("text")  # type: ignore[arg-type, unused-coroutine]  # takes bytes
doow.tracked(on_exception="drop")  # type: ignore[call-overload]  # neither flush nor discard
doow.tracked(bugdet=1)  # type: ignore[call-overload]  # misspelt
doow.configure(bugdet=1)  # type: ignore[call-arg]  # misspelt
doow.configure(flush_at="many")  # type: ignore[arg-type]  # a number
doow.Tracker(nonsense=True)  # type: ignore[call-arg]  # no option
doow.Tracker(budget="0.5")  # type: ignore[arg-type]  # a number
doow.tracked(bare, budget=1)  # type: ignore[call-overload]  # options are not for a bare decorator


class Handlers:
    @doow.tracked
    def method(self, event: str) -> str:
        return event

    @staticmethod
    @doow.tracked
    def static(event: str) -> str:
        return event

    @doow.tracked(budget=1.0)
    async def async_method(self, event: str) -> str:
        return event


assert_type(Handlers().method(""), str)
assert_type(Handlers.static(""), str)


async def awaits() -> None:
    assert_type(await bare_async(b""), int)
    assert_type(await async_with_options(b""), int)
    assert_type(await Handlers().async_method(""), str)
    assert_type(await doow.aflush(), doow.Outcome)
    assert_type(await doow.aflush(0.5), doow.Outcome)
    with doow.transaction():
        doow.track("tokens")
    assert_type(await in_transaction_async(1), int)


# ── recording ──

doow.track("tokens", 3)
doow.track("tokens", 0.5)
doow.track("tokens", Decimal("0.10"))
doow.track("tokens", "3")  # type: ignore[arg-type]  # a quantity is a number
doow.track("tokens", 1, "lic_1")  # type: ignore[call-arg]  # all else goes by name
doow.track(
    "tokens",
    1,
    license_id="lic_1",
    unit="tokens",
    attribution={"model": "x"},
    metadata={"any": ["thing", None]},
    timestamp=datetime.now().astimezone(),
    kind="ADJUSTMENT",
    source_system="billing",
    metric_tuple_hint={"app_name": "a", "license_name": "l", "metric_name": "m"},
    event_id="evt_1",
)
doow.track("tokens", timestamp="2026-11-22T11:33:00Z")
doow.track_all({"input_tokens": 1, "output_tokens": 2}, license_id="lic_1")
doow.track_all({"cost": Decimal("0.10")})


@doow.transaction()
def in_transaction(number: int) -> str:
    return str(number)


@doow.transaction()
async def in_transaction_async(number: int) -> int:
    return number


assert_type(in_transaction(1), str)

# ── flushing ──

outcome = doow.flush()
assert_type(outcome, doow.Outcome)
assert_type(doow.flush(1), doow.Outcome)
assert_type(outcome.accepted, int)
assert_type(outcome.rejected, list[tuple[str, str]])
assert_type(outcome.unsent, dict[str, int])
assert_type(outcome.requests, int)
assert_type(outcome.elapsed_s, float)
assert_type(outcome.ok, bool)

# ── configuring ──


def on_error(error: DoowError) -> None:
    assert_type(error.kind, ErrorKind)
    assert_type(error.event_ids, tuple[str, ...])
    assert_type(error.retry_after_s, float | None)
    as_text: list[str] = [error.kind]
    as_text.sort()


tracker = doow.configure("dk_…", license_id="lic_1", on_error=on_error, on_flush=print)
assert_type(tracker, doow.Tracker)
assert_type(tracker.flush(), doow.Outcome)
assert_type(tracker.tracked(bare)({}, None), str)
assert_type(doow.__version__, str)
caught: tuple[type[ValueError], ...] = (ConfigurationError, InvalidEvent)
kinds: list[DoowError] = [ConfigurationError(""), InvalidEvent("")]

# ── testing ──

transport = MemoryTransport()
doow.configure(transport=transport)
doow.Tracker(
    transport=MemoryTransport([202, Answer(503, {}, b""), TransportFault(ErrorKind.TIMEOUT, "")])
)
MemoryTransport(lambda batch: 413 if len(batch) > 10 else 202)
MemoryTransport([rejecting({"evt_1": "unknown metric"})])
assert_type(transport.events, list[dict[str, Any]])

# ── platforms ──


@doow.tracked(flush_mode="after_response", idempotent=True, fold={"tokens"})
class Api(BaseHTTPRequestHandler):
    pass


assert_type(Api.server_version, str)
doow.tracked(flush_mode="later")  # type: ignore[call-overload]  # neither before nor after

fast_api = FastAPI()
fast_api.add_middleware(asgi.DoowMiddleware, budget=0.5, metric="api_calls")
asgi.DoowMiddleware(fast_api, attribution={"team": "ai"})
asgi.DoowMiddleware(fast_api, buget=1)  # type: ignore[call-arg]  # misspelt
flask_app = Flask("")
flask_app.wsgi_app = wsgi.DoowMiddleware(flask_app.wsgi_app)  # type: ignore[method-assign]  # so Flask wants it
wsgi.DoowMiddleware(flask_app, on_exception="drop")  # type: ignore[arg-type]  # neither flush nor discard

function_app = func.FunctionApp()
assert_type(track_app(function_app, license_id="lic_1"), func.FunctionApp)
