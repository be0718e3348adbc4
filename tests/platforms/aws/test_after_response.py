"""``flush_mode="after_response"`` on Lambda: an internal extension delivers before the freeze."""

from __future__ import annotations

import os
import signal
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._handlers import platform
from doow_serverless._platforms import aws_extension
from doow_serverless.local import Fault
from doow_serverless.local.lambda_runtime import LambdaRuntime
from doow_serverless.testing import MemoryTransport
from tests.lambda_context import LambdaContext
from tests.metering import metrics
from tests.network import KEY, Metronome
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless.local import Ingest
    from doow_serverless.local.lambda_runtime import Invocation

SLOW_S = 0.3
NOT_TO_BE_HAD = "flush_mode='after_response' is not to be had"

APP = """
import json, os, sys, time
import doow_serverless as doow

@doow.tracked(flush_mode="after_response")
def work(event, context):
    for number in range(event.get("events", 1)):
        doow.track("tokens", number + 1)
    time.sleep(event.get("sleeps", 0))
    if event.get("fails"):
        raise LookupError("no such customer")
    return os.getpid()

def handler(event, context):
    if event.get("untracked"):
        return os.getpid()
    for _ in range(event.get("times", 1)):
        result = work(event, context)
    return result
"""


@pytest.fixture
def start(tmp_path: Path, ingest: Ingest) -> Callable[..., LambdaRuntime]:
    """A sandbox with this application, or the one above."""

    def start(
        source: str = APP, timeout_s: float = 10.0, snap_start: bool = False, **env: str
    ) -> LambdaRuntime:
        (tmp_path / "app.py").write_text(dedent(source))
        env = {
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": ingest.url,
            "DOOW_TRACK_LICENSE_ID": "lic_test",
            **env,
        }
        return LambdaRuntime(
            "app.handler", tmp_path, env=env, timeout_s=timeout_s, snap_start=snap_start
        )

    return start


class Timed:
    """An invocation, and how long the sandbox stayed awake for it."""

    def __init__(self, runtime: LambdaRuntime, **event: Any) -> None:
        began = time.monotonic()
        with Metronome() as noise:
            self.invocation: Invocation = runtime.invoke(event)
        self.awake_s = time.monotonic() - began
        self.response_s = self.invocation.duration_s
        self.noise_s = noise.worst_s
        assert self.invocation.error is None, (self.invocation.error, runtime.stdout)


# ── it comes after the response, and before the freeze ──────────────────────────────────────────


@pytest.mark.parametrize(
    "where",
    ["tracked", "configure", "variable", "asgi", "asgi, made at the first request"],
)
def test_the_response_does_not_wait_but_the_freeze_does(
    where: str, start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """However it is asked for; events are there when the sandbox stands still, in one POST each."""
    source, env = APP, {}
    if where != "tracked":
        source = APP.replace('(flush_mode="after_response")', "")
    if where == "configure":
        source = source.replace("doow\n", 'doow\ndoow.configure(flush_mode="after_response")\n', 1)
    if where == "variable":
        env = {"DOOW_TRACK_FLUSH_MODE": "after_response"}
    if where == "asgi":
        source = ASGI
    if where == "asgi, made at the first request":
        # As Starlette does with what add_middleware() is given. Importing the module is enough.
        made = 'app = DoowMiddleware(app, flush_mode="after_response")'
        source = ASGI.replace(made, "bare, app = app, None").replace(
            "    await app(",
            "    global app\n    app = app or DoowMiddleware(bare)\n    await app(",
        )
        env = {"DOOW_TRACK_FLUSH_MODE": "after_response"}
    with start(source, **env) as runtime:
        Timed(runtime)
        for events in (1, 100, 3):
            ingest.reset()
            ingest.fault(Fault(delay_s=SLOW_S))
            call = Timed(runtime, events=events)
            assert len(ingest.events()) == events, runtime.stdout
            assert len(ingest.posts()) == 1
            within(call.response_s, SLOW_S / 2 + call.noise_s)
            assert call.awake_s >= SLOW_S
        assert NOT_TO_BE_HAD not in runtime.stdout


ASGI = """
import asyncio
import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware

async def app(scope, receive, send):
    for number in range(scope["events"]):
        doow.track("tokens", number + 1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})

app = DoowMiddleware(app, flush_mode="after_response")

async def serve(event, sent):
    scope = {"type": "http", "asgi": {}, "path": "/", "headers": [], "method": "GET"}
    async def send(message):
        sent.append(message["type"])
    async def receive():
        return {"type": "http.request"}
    await app({**scope, "events": event.get("events", 1)}, receive, send)

def handler(event, context):
    sent = []
    asyncio.run(serve(event, sent))
    return sent
"""


def test_an_invocation_that_calls_no_tracked_handler_ends_at_once(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """The extension waits for the response, not for us: what we never hear of holds nothing up."""
    with start() as runtime:
        for _ in range(3):
            call = Timed(runtime, untracked=True)
            within(call.awake_s, 0.5 + call.noise_s)
        Timed(runtime)
        assert len(ingest.events()) == 1


def test_all_that_one_invocation_hands_over_is_delivered(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """A tracked function that is called five times within one: five flushes after the response."""
    with start() as runtime:
        Timed(runtime)
        ingest.reset()
        ingest.fault(Fault(delay_s=SLOW_S / 5, times=None))
        call = Timed(runtime, events=2, times=5)
        assert len(ingest.events()) == 10
        within(call.response_s, SLOW_S / 2 + call.noise_s)
        assert call.awake_s >= SLOW_S


def test_a_thread_belongs_to_the_call_that_runs(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """One that sees no invocation, and not to the one before, which is yet to be delivered."""
    source = """
    import threading
    import doow_serverless as doow

    @doow.tracked(flush_mode="after_response")
    def work(license_id):
        doow.track("tokens", license_id=license_id)

    @doow.tracked(flush_mode="after_response", license_id="lic_second")
    def more():
        thread = threading.Thread(target=lambda: doow.track("requests"))
        thread.start()
        thread.join()

    def handler(event, context):
        work("lic_first")
        more()
    """
    with start(source) as runtime:
        Timed(runtime)
        assert {each["license_id"] for each in ingest.events()} == {"lic_first", "lic_second"}


def test_an_exception_passes_and_its_events_count(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """As before the response: the error goes back at once, and what was recorded is delivered."""
    with start() as runtime:
        Timed(runtime)
        ingest.reset()
        ingest.fault(Fault(delay_s=SLOW_S, times=None))
        with Metronome() as noise:
            invocation = runtime.invoke({"fails": True})
        assert invocation.error is not None
        assert invocation.error["errorType"] == "LookupError"
        within(invocation.duration_s, SLOW_S / 2 + noise.worst_s)
        assert len(ingest.events()) == 1


def test_discarded_events_are_never_handed_over(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """Whether an attempt succeeded is known when the handler returns, not when it is delivered."""
    source = APP.replace(
        'flush_mode="after_response"', 'flush_mode="after_response", idempotent=True'
    )
    with start(source) as runtime:
        assert runtime.invoke({"fails": True}).error is not None
        assert ingest.posts() == []
        Timed(runtime)
        assert len(ingest.events()) == 1


def test_a_forked_child_delivers_for_itself(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """It has no extension, and does not wait for its parent's."""
    source = """
    import os
    import doow_serverless as doow

    @doow.tracked(flush_mode="after_response")
    def work():
        doow.track("tokens")

    @doow.tracked(flush_mode="after_response")
    def handler(event, context):
        doow.track("requests")
        child = os.fork()
        if not child:
            work()
            os._exit(0)
        os.waitpid(child, 0)
    """
    with start(source) as runtime:
        Timed(runtime)
        assert sorted(metrics(ingest.events())) == ["requests", "tokens"]


def test_a_sandbox_that_is_restored_has_it_as_well(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """Under SnapStart the extension registers before the snapshot, and asks on from there."""
    with start(snap_start=True) as runtime:
        Timed(runtime)
        ingest.reset()
        ingest.fault(Fault(delay_s=SLOW_S))
        call = Timed(runtime)
        assert len(ingest.events()) == 1
        within(call.response_s, SLOW_S / 2 + call.noise_s)


# ── its failures end where all others do ────────────────────────────────────────────────────────


def test_the_budget_holds_after_the_response(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """A silent ingest keeps the sandbox awake for the budget; the events are in the log then."""
    with start(DOOW_TRACK_BUDGET="500") as runtime:
        Timed(runtime)
        ingest.reset()
        ingest.fault(Fault(hang=True, times=None))
        call = Timed(runtime)
        within(call.response_s, 0.25 + call.noise_s)
        within(call.awake_s - call.response_s, 0.8 + call.noise_s, at_least_s=0.4)
        assert "doow_dead_letter" in runtime.stdout


def test_less_than_the_reserve_means_the_log_and_no_reset(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """Lambda resets a sandbox whose extension outlasts the function: ours gives up in time."""
    with start(timeout_s=1.0) as runtime:
        pid = Timed(runtime).invocation.payload
        ingest.reset()
        ingest.fault(Fault(hang=True, times=None))
        call = Timed(runtime, sleeps=0.6)
        within(call.awake_s, 1.0)
        assert "doow_dead_letter" in runtime.stdout
        ingest.clear_faults()
        call = Timed(runtime)
        assert call.invocation.payload == pid


def test_what_an_outage_has_kept_is_delivered_by_later_invocations(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """The backlog, each event once."""
    with start(DOOW_TRACK_BUDGET="300") as runtime:
        Timed(runtime)
        ingest.fault(Fault(status=500, times=None))
        Timed(runtime, events=2)
        ingest.clear_faults()
        later, ends_at = 0, time.monotonic() + 20
        while len(ingest.events()) < 3 + later and time.monotonic() < ends_at:
            time.sleep(0.5)
            Timed(runtime)
            later += 1
        assert later
        assert len(ingest.events()) == 3 + later
        assert len({event["event_id"] for event in ingest.events()}) == 3 + later


def test_a_kill_after_the_freeze_loses_nothing(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """Recycled after each invocation."""
    with start() as runtime:
        for number in range(1, 4):
            Timed(runtime)
            runtime.kill()
            assert len(ingest.events()) == number


def test_a_kill_amid_the_delivery_loses_nothing_that_a_journal_has(
    start: Callable[..., LambdaRuntime], ingest: Ingest, tmp_path: Path
) -> None:
    """Out of memory right after the response, say: the next sandbox recovers it, once."""
    source = APP.replace("doow\n", f"doow\ndoow.configure(journal={str(tmp_path / 'j')!r})\n", 1)
    with start(source) as runtime:
        Timed(runtime)
        ingest.fault(Fault(hang=True, times=None))
        killer = threading.Timer(0.7, lambda: os.kill(runtime.pid, signal.SIGKILL))
        killer.start()
        assert runtime.invoke({"events": 2}).error is None
        killer.join()
        ingest.clear_faults()
        ends_at = time.monotonic() + 20
        while len(ingest.events()) < 3 and time.monotonic() < ends_at:
            Timed(runtime, events=0)
            time.sleep(0.2)
        assert len(ingest.events()) == 3


def test_a_handler_that_times_out_is_rescued(
    start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """Before its response nothing has been handed over: the guard delivers, as ever."""
    with start(timeout_s=1.5) as runtime:
        Timed(runtime)
        ingest.reset()
        invocation = runtime.invoke({"sleeps": 5})
        assert invocation.error is not None
        assert "timed out" in invocation.error["errorMessage"]
        assert len(ingest.events()) == 1
        Timed(runtime)


# ── where Lambda does not take an extension ─────────────────────────────────────────────────────


TEN_OTHERS = """
import http.client, json, os, threading

def other(number):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    path = "/2020-01-01/extension"
    headers = {"Lambda-Extension-Name": f"other-{number}"}
    connection.request("POST", f"{path}/register", json.dumps({"events": ["INVOKE"]}), headers)
    answer = connection.getresponse()
    answer.read()
    headers = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
    while True:
        connection.request("GET", f"{path}/event/next", headers=headers)
        connection.getresponse().read()

for number in range(10):
    threading.Thread(target=other, args=(number,), daemon=True).start()
import time
time.sleep(1)
"""
IN_THE_HANDLER = """
import os
import doow_serverless as doow

@doow.tracked
def work(event):
    doow.track("tokens")

is_configured = False

def handler(event, context):
    global is_configured
    work({})
    if not is_configured:
        doow.configure(flush_mode="after_response")
        is_configured = True
    return os.getpid()
"""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (TEN_OTHERS + APP, "Extension limit reached"),
        (IN_THE_HANDLER, "set DOOW_TRACK_FLUSH_MODE=after_response, or call doow.configure"),
    ],
    ids=["ten others", "after init"],
)
def test_where_it_is_refused_the_flush_comes_first_and_one_line_says_why(
    source: str, reason: str, start: Callable[..., LambdaRuntime], ingest: Ingest
) -> None:
    """Nothing is lost, and it is not told at each invocation."""
    with start(source) as runtime:
        Timed(runtime)
        Timed(runtime)
        ingest.fault(Fault(delay_s=SLOW_S, times=None))
        call = Timed(runtime)
        assert len(ingest.events()) == 3
        assert call.response_s >= SLOW_S
        assert runtime.stdout.count(NOT_TO_BE_HAD) == 1
        assert reason in runtime.stdout


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "no platform here goes on"),
        ({"AWS_LAMBDA_MAX_CONCURRENCY": "8"}, "on Managed Instances"),
        ({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}, "the runtime is not AWS's own client"),
    ],
    ids=["no Lambda", "Managed Instances", "another runtime"],
)
def test_elsewhere_as_well(
    variables: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two invocations, one warning, and both delivered when they return."""
    monkeypatch.setattr(platform, "_warned", set())
    monkeypatch.setattr(aws_extension, "_obstacle", "")
    monkeypatch.setattr("doow_serverless._process.init_phase._is_over", False)
    if variables:
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    transport = MemoryTransport()
    doow.configure(KEY, transport=transport, license_id="lic_1", warm_up=False)

    @doow.tracked(flush_mode="after_response")
    def handler(event: object, context: object) -> None:
        doow.track("tokens")

    for number in (1, 2):
        handler({}, LambdaContext())
        assert len(transport.events) == number
    told = [record.getMessage() for record in caplog.records]
    assert [reason in line for line in told] == [True], told
