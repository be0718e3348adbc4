"""gevent and eventlet, which put threads of their own in the place of the system's."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless.local import Ingest

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    # It says on each import that it is no longer developed.
    "eventlet": "import warnings; warnings.simplefilter('ignore')\n"
    "import eventlet; eventlet.monkey_patch()",
}
IMPORT = "import doow_serverless as doow"
libraries = pytest.mark.parametrize("library", PATCH)
orders = pytest.mark.parametrize("is_first", [True, False], ids=["before us", "after us"])

# Not imported here: eventlet would warn of each fork in this process from then on.
pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not all(map(find_spec, PATCH)),
    reason="needs gevent, eventlet and signals",
)


@pytest.fixture(autouse=True)
def _no_green_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eventlet's own cannot be imported beside the newest dnspython and trio."""
    monkeypatch.setenv("EVENTLET_NO_GREENDNS", "yes")


def program(library: str, is_first: bool, body: str) -> list[str]:
    """A command whose program patches the standard library, and then does what ``body`` says."""
    imports = [PATCH[library], IMPORT] if is_first else [IMPORT, PATCH[library]]
    return [sys.executable, "-c", "\n".join([*imports, body])]


def run(command: list[str]) -> str:
    """What the program prints; it fails the test if it does not end well, or not at all."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def metrics(ingest: Ingest) -> list[str]:
    return [event["measurements"][0]["metric_name"] for event in ingest.events()]


@libraries
@orders
def test_an_invocation_with_a_deadline(library: str, is_first: bool, ingest: Ingest) -> None:
    """It returns, with its events delivered; and before it is killed, if it waits too long."""
    body = f"""
import time
doow.configure({KEY!r}, endpoint={ingest.url!r}, license_id="lic", environ={{}})

class Context:
    aws_request_id = "r"
    def __init__(self, left_s): self.ends_at = time.monotonic() + left_s
    def get_remaining_time_in_millis(self): return 1000 * (self.ends_at - time.monotonic())

@doow.tracked
def handler(event, context):
    doow.track(event["metric"])
    time.sleep(event["seconds"])
    return event["metric"]

print(handler({{"metric": "quick", "seconds": 0}}, Context(3)))
import threading
threading.Thread(
    target=handler, args=({{"metric": "slow", "seconds": 60}}, Context(1.5)), daemon=True
).start()
time.sleep(1.5)
import os
os._exit(0)  # As a platform ends it: nothing is flushed any more.
"""
    assert run(program(library, is_first, body)) == "quick\n"
    assert metrics(ingest) == ["quick", "slow"]


@libraries
@orders
def test_sigterm_reaches_the_application(library: str, is_first: bool, ingest: Ingest) -> None:
    """What waits is delivered, and the application's own handler runs, once."""
    body = f"""
import os, signal, time
def leave(*_):
    print("told", flush=True)
    raise SystemExit(7)
signal.signal(signal.SIGTERM, leave)
doow.configure({KEY!r}, endpoint={ingest.url!r}, license_id="lic", environ={{}})
doow.track("waits")
print("ready", flush=True)
until = time.monotonic() + 2
while time.monotonic() < until:
    time.sleep(0.1)
os._exit(0)
"""
    with subprocess.Popen(
        program(library, is_first, body), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "told\n"
    assert process.returncode == 7
    assert metrics(ingest) == ["waits"]


SITE = """
import time
import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware

@DoowMiddleware
def app(environ, start_response):
    doow.track(environ["PATH_INFO"].strip("/"))
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1.0)
    start_response("200 OK", [("Content-Length", "8")])
    return [b"finished"]
"""


@contextmanager
def gunicorn(
    worker: str, directory: Path, ingest: Ingest
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Gunicorn with one worker of this kind; its port, and its process."""
    (directory / "site_under_test.py").write_text(SITE)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--worker-class", worker]
    command += ["--bind", f"fd://{listener.fileno()}", "site_under_test:app"]
    with subprocess.Popen(
        command,
        cwd=directory,
        env={
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": ingest.url,
            "DOOW_TRACK_LICENSE_ID": "lic",
            "EVENTLET_NO_GREENDNS": "yes",
            "PYTHONPATH": str(directory),
        },
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        listener.close()
        try:
            yield port, process
        finally:
            process.kill()


def get(port: int, path: str) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


def test_a_worker_of_gunicorn_ends_in_order(tmp_path: Path, ingest: Ingest) -> None:
    """At SIGTERM it finishes the request that is under way, whose event arrives, and no fault."""
    answers: list[bytes] = []
    with gunicorn("gevent", tmp_path, ingest) as (port, process):
        assert get(port, "/quick") == b"finished"
        client = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
        client.start()
        time.sleep(0.4)
        process.terminate()
        client.join()
        log = process.communicate(timeout=30)[1]
    assert answers == [b"finished"], log
    assert process.returncode == 0
    assert "Traceback" not in log
    assert metrics(ingest) == ["quick", "slow"]
