"""The WSGI middleware under real servers; a client looks when their responses are complete."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer
from werkzeug.serving import WSGIRequestHandler as WerkzeugRequestHandler

from doow_serverless.local import Fault
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import accepted, configure, unmetered
from tests.network import KEY
from tests.platforms.wsgi.apps import APPS, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from doow_serverless.local import Ingest

ROOT = Path(__file__).parents[3]
SLOW_S = 0.1
"""Seconds that Doow takes to answer: time enough for a client to notice what was not held."""

# What these record after the bytes that complete their responses: for HEAD these are the head,
# which goes with the first chunk.
AFTERWARDS = {"as_generator": 1, "by_write_and_chunks": 1, "as_iterable": 1, "for HEAD": 2}


# ── servers ────────────────────────────────────────────────────────────────────────────────────


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class QuietWerkzeugHandler(WerkzeugRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        pass


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def _served(server: WSGIServer | BaseWSGIServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def wsgiref(app: Any) -> Iterator[int]:
    """The reference implementation, a thread for each request."""
    server = ThreadingServer(("127.0.0.1", 0), QuietHandler)
    server.set_app(app)
    with _served(server) as port:
        yield port


@contextmanager
def werkzeug(app: Any) -> Iterator[int]:
    """What Flask is developed with."""
    with _served(ThreadedWSGIServer("127.0.0.1", 0, app, QuietWerkzeugHandler)) as port:
        yield port


class Gunicorn:
    """Gunicorn in a process of its own, serving the applications of this folder.

    Args:
        app: Source of an expression for what is served, such as ``"DoowMiddleware(site)"``.
        endpoint: Where it sends events.
        directory: An empty folder.
        options: Of the command line.
        workers: How many processes serve.
    """

    def __init__(
        self, app: str, endpoint: str, directory: Path, *options: str, workers: int = 1
    ) -> None:
        directory.mkdir(exist_ok=True)
        ready, tell_ready = os.pipe()
        (directory / "gunicorn.conf.py").write_text(
            f"import os\ndef post_worker_init(worker):\n    os.write({tell_ready}, b'.')\n"
        )
        (directory / "served.py").write_text(
            "import sys\n"
            f"sys.path.append({str(ROOT)!r})\n"
            "import doow_serverless as doow\n"
            "from doow_serverless.wsgi import DoowMiddleware\n"
            "from tests.platforms.wsgi.apps import site\n"
            "doow.track('imported')\n"
            f"app = {app}\n"
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        number = self._listener.fileno()
        environment = {
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": endpoint,
            "DOOW_TRACK_LICENSE_ID": "lic_1",
            "DOOW_TRACK_BUDGET": "20000",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"fd://{number}", "--no-control-socket",
             "--worker-tmp-dir", str(directory), "--workers", str(workers), *options, "served:app"],
            cwd=directory,
            env={**os.environ, **environment},
            pass_fds=[number, tell_ready],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(tell_ready)
        # A worker that is told to end before it listens to signals would not hear of it.
        with open(ready, "rb") as pipe:
            started = len(pipe.read(workers))
        if started < workers:
            raise RuntimeError(f"gunicorn did not start: {self.stop()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert "Traceback" not in self.stop()

    def stop(self) -> str:
        """End it in an orderly way; what it has said."""
        assert self._process.stderr is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            _, said = self._process.communicate(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stderr.close()
            self._listener.close()
        return said.decode()


# ── the client ─────────────────────────────────────────────────────────────────────────────────


class Answer:
    """A response, and how many events had been accepted when its last byte had come."""

    def __init__(self, raw: bytes, accepted: int) -> None:
        # The time of day is all that two responses may differ in.
        self.raw = re.sub(rb"(?m)^Date: .*\r$", b"Date: -\r", raw)
        self.accepted = accepted


def get(port: int, ingest: Ingest, method: str, path: str) -> Answer:
    """Ask for one response, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        raw, accepted = b"", -1
        while received := connection.recv(65_536):
            raw += received
            if accepted < 0 and _is_complete(method, raw):
                accepted = len(ingest.events())
    return Answer(raw, len(ingest.events()) if accepted < 0 else accepted)


def _is_complete(method: str, raw: bytes) -> bool:
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return False
    if method == "HEAD" or head.split()[1] in (b"204", b"304"):
        return True
    length = re.search(rb"(?mi)^content-length: *(\d+)\r?$", head)
    if length:
        return len(body) >= int(length[1])
    return b"chunked" in head and body.endswith(b"0\r\n\r\n")


Request = tuple[str, str, str]

REQUESTS: list[Request] = [
    (name, method, f"/{app.__name__}") for name, (app, method, _) in APPS.items()
]


def plain(port: int, ingest: Ingest) -> dict[str, bytes]:
    """The responses of the bare applications."""
    return {name: get(port, ingest, method, path).raw for name, method, path in REQUESTS}


def check_every_shape(port: int, ingest: Ingest, bare: dict[str, bytes]) -> None:
    """Compare the responses, byte for byte, and see that each waited for its events."""
    raw, at_end, arrived = {}, {}, {}
    for name, method, path in REQUESTS:
        ingest.reset()
        ingest.fault(Fault(delay_s=SLOW_S, times=None))
        answer = get(port, ingest, method, path)
        raw[name], at_end[name] = answer.raw, answer.accepted
        arrived[name] = len(ingest.wait_for(APPS[name][2]))
    assert raw == bare
    assert arrived == {name: events for name, (_, _, events) in APPS.items()}
    due = {name: events - AFTERWARDS.get(name, 0) for name, events in arrived.items()}
    assert {name: min(number, due[name]) for name, number in at_end.items()} == due


# ── tests ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("serve", [wsgiref, werkzeug])
def test_every_shape_under_a_server_on_threads(serve: Any, doow_ingest: Ingest) -> None:
    """The same bytes, and the events are there when the last of them is."""
    configure(doow_ingest)
    with unmetered(), serve(site) as port:
        bare = plain(port, doow_ingest)
    with serve(DoowMiddleware(site)) as port:
        check_every_shape(port, doow_ingest, bare)


@pytest.mark.parametrize("options", [("--threads", "4"), ("--worker-class", "sync")], ids=str)
def test_every_shape_under_gunicorn(
    options: tuple[str, ...], doow_ingest: Ingest, tmp_path: Path
) -> None:
    """In its worker process, on threads or without; what the import recorded leaves with it."""
    with Gunicorn("site", doow_ingest.url, tmp_path / "bare", *options) as gunicorn:
        bare = plain(gunicorn.port, doow_ingest)
    doow_ingest.reset()
    served = "DoowMiddleware(site)"
    with Gunicorn(served, doow_ingest.url, tmp_path / "metered", *options) as gunicorn:
        get(gunicorn.port, doow_ingest, "GET", "/as_list")
        assert accepted(doow_ingest) == ["tokens", "imported"]
        check_every_shape(gunicorn.port, doow_ingest, bare)


def test_gunicorn_that_forks_after_the_import(doow_ingest: Ingest, tmp_path: Path) -> None:
    """Each worker delivers its requests; what the import recorded is the parent's, and comes once.

    When the parent ends, since it serves no requests that would take it along.
    """
    options = ("--preload", "--threads", "2")
    app = "DoowMiddleware(site)"
    with Gunicorn(app, doow_ingest.url, tmp_path, *options, workers=2) as gunicorn:
        for _ in range(8):
            answer = get(gunicorn.port, doow_ingest, "GET", "/as_list")
            assert b"some " in answer.raw
        assert accepted(doow_ingest) == ["tokens"] * 8
    assert sorted(accepted(doow_ingest)) == ["imported", *["tokens"] * 8]


def test_fifty_requests_at_once(doow_ingest: Ingest) -> None:
    """On real connections and threads: none lost, no POST of two requests."""
    configure(doow_ingest)
    answers: list[bytes] = []
    with wsgiref(DoowMiddleware(site)) as port:
        threads = [
            threading.Thread(
                target=lambda: answers.append(get(port, doow_ingest, "GET", "/as_generator").raw)
            )
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(answers) == 50
    assert len(set(answers)) == 1
    assert sorted(accepted(doow_ingest)) == ["late"] * 50 + ["tokens"] * 50
