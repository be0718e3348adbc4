"""Threads of the library import nothing of others, in processes that have imported nothing before.

In the test process nearly everything is imported already, so that the watch of all tests sees
little: here, each way to deliver and to fail has a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from textwrap import dedent
from threading import Thread
from time import time
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Fault
from tests.network import KEY, Server, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local import Ingest

ROOT = Path(__file__).parents[2]
EXTENSIVE = pytest.mark.extensive

COMMON = """
import atexit, sys
sys.path.append(sys.argv[1])
from tests.importing import watch_imports

watch = watch_imports()
atexit.register(lambda: print("seen", *watch.seen))  # The first is the last to be called.
import doow_serverless as doow

@doow.tracked
def handler(*_):
    doow.track("tokens", license_id="lic_1", event_id="evt one")
    return "done"
"""
ASYNC = """
    import asyncio
    @doow.tracked
    async def later():
        doow.track("tokens", license_id="lic_1")
        await asyncio.sleep(0.01)
        await doow.aflush()
    asyncio.run(later())
"""
SCRIPTS: dict[str, str] = {
    "a flush": "handler()",
    "debug": "doow.configure(debug=True); handler()",
    "a stray event at exit": "doow.track('tokens', license_id='lic_1')",
    "a connection": "doow.configure(warm_up='connect').engine.warm_up.join(); handler()",
    "no key": "handler()",
    "by log": "handler()",
    "a directory": "doow.configure(dead_letter=sys.argv[2]); handler()",
    "folding": "doow.configure(fold=True); handler(); handler()",
    "an event loop": ASYNC,
    "hooks": "doow.configure(on_flush=lambda _: None, on_error=lambda _: None); handler()",
    "a full batch": """
        doow.configure(flush_at=2)
        @doow.tracked
        def many():
            for number in range(9):
                doow.track("tokens", license_id="lic_1")
        many()
    """,
    "work that is done again": """
        from types import SimpleNamespace
        context = SimpleNamespace(aws_request_id="1", function_name="f")
        doow.tracked(idempotent=True)(handler)({}, context)
    """,
    "a deadline": """
        import time
        class Context:
            def get_remaining_time_in_millis(self):
                return 400
        @doow.tracked
        def slow(event, context):
            doow.track("tokens", license_id="lic_1")
            time.sleep(0.5)
        doow.configure(warm_up=False)
        slow({}, Context())
    """,
    "exit before any flush": """
        doow.configure(warm_up=False)
        doow.track("tokens", license_id="lic_1")
    """,
    "a journal": """
        import os
        if os.fork() == 0:
            doow.configure(journal=sys.argv[2])
            doow.track("tokens", license_id="lic_1")
            os._exit(0)
        os.wait()
        doow.configure(journal=sys.argv[2]).engine.warm_up.join()
        handler()
    """,
    "a dropped tracker": """
        import time
        doow.Tracker(license_id="lic_1").track("tokens")
        time.sleep(0.3)
    """,
    "SIGTERM": """
        import os, signal, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        doow.configure()
        doow.track("tokens", license_id="lic_1")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    """,
    "a given transport": """
        class Busy:
            def post(self, batch, key, fresh=False):
                from doow_serverless._delivery.answers import Answer
                return Answer(429, {"retry-after": "Mon, 30 Nov 2099 10:00:00 GMT"}, b"{}")
            has_idle = staticmethod(bool)
            def abort(self, batch_id): pass
        doow.configure(transport=Busy(), on_error=lambda _: None); handler()
    """,
}  # fmt: skip
VARIABLES = {
    "no key": {"DOOW_TRACK_API_KEY": ""},
    "by log": {"DOOW_TRACK_API_KEY": "", "DOOW_TRACK_DELIVERY": "log"},
}


def seen(script: str, endpoint: str, folder: Path, **variables: str) -> list[str]:
    """What threads of ours were about to import in a process of its own, and whether it ended."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + dedent(script), str(ROOT), str(folder)],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": endpoint,
            "DOOW_TRACK_BUDGET": "400",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("seen")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_all_is_well(name: str, ingest: Ingest, tmp_path: Path) -> None:
    """The server accepts."""
    assert seen(SCRIPTS[name], ingest.url, tmp_path, **VARIABLES.get(name, {})) == ["seen"]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "trouble",
    ["busy", *(pytest.param(each, marks=EXTENSIVE) for each in ("refused", "rejected", "cut off"))],
)
def test_trouble(name: str, trouble: str, ingest: Ingest, tmp_path: Path) -> None:
    """The server asks to wait until a date, knows no such key, takes nothing, or hangs up."""
    date = formatdate(time() + 60, usegmt=True)
    fault = {
        "busy": Fault(status=503, headers={"Retry-After": date}, times=None),
        "refused": Fault(status=401, times=None),
        "rejected": Fault(status=400, times=None),
        "cut off": Fault(reset="before_answer", times=None),
    }[trouble]
    ingest.fault(fault)
    assert seen(SCRIPTS[name], ingest.url, tmp_path, **VARIABLES.get(name, {})) == ["seen"]


@pytest.mark.parametrize("name", ["a flush", "a stray event at exit", "a connection", "a deadline"])
def test_silence(name: str, tmp_path: Path) -> None:
    """The server never answers."""
    script = SCRIPTS[name].replace(".engine.warm_up.join()", "")
    with Server(silent) as server:
        assert seen(script, server.url, tmp_path) == ["seen"]


@pytest.fixture
def secrets() -> Iterator[str]:
    """The URL of a Secrets Manager that keeps a key."""

    class Keeper(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = f'{{"SecretString": "{KEY}", "Name": "key", "ARN": "arn"}}'.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Keeper)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("script", ["handler()", "doow.configure(warm_up=False); handler()"])
def test_a_key_that_is_kept_elsewhere(
    script: str, secrets: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Powertools, boto3 and botocore are imported before it is fetched, on another thread."""
    pytest.importorskip("aws_lambda_powertools")
    variables = {
        "DOOW_TRACK_API_KEY": "",
        "DOOW_TRACK_API_KEY_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:1:secret:key",
        "DOOW_TRACK_BUDGET": "10000",
        "AWS_ENDPOINT_URL": secrets,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    assert seen(script, ingest.url, tmp_path, **variables) == ["seen"]
    assert [event["event_id"] for event in ingest.events()] == ["evt one"]
