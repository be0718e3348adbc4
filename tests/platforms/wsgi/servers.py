"""Real WSGI servers, on threads of this process or in one of their own."""

from __future__ import annotations

import os
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

from cheroot.wsgi import Server as CherootServer
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer
from werkzeug.serving import WSGIRequestHandler as WerkzeugRequestHandler

from tests.network import KEY
from tests.platforms.processes import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

ROOT = Path(__file__).parents[3]


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


@contextmanager
def cheroot(app: Any) -> Iterator[int]:
    """CherryPy's."""
    server = CherootServer(("127.0.0.1", 0), app)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.bind_addr[1]
    finally:
        server.stop()
        thread.join()


COMMANDS = {
    "gevent": "-c 'import served, gevent.pywsgi;"
    ' gevent.pywsgi.WSGIServer(("127.0.0.1", {port}), served.app, log=None).serve_forever()\'',
    "granian": "-m granian --interface wsgi --port {port} served:app",
    "hypercorn": "-m hypercorn --bind 127.0.0.1:{port} wsgi:served:app",
    "uvicorn with a2wsgi": "-m uvicorn --port {port} --log-level error served:asgi",
    "uwsgi": "-c 'import pyuwsgi; pyuwsgi.run()' --http-socket 127.0.0.1:{port} --module served:app"
    " --enable-threads --master --lazy-apps --need-app",
    "waitress": "-m waitress --listen 127.0.0.1:{port} served:app",
}
"""How to run a server with Python, in a folder that :func:`in_process` fills."""


@contextmanager
def in_process(server: str, app: str, endpoint: str, directory: Path) -> Iterator[int]:
    """Run one of :data:`COMMANDS` in a process of its own.

    Args:
        server: Its name.
        app: The application in ``shapes.py``: ``"site"`` runs without metering.
        endpoint: Where it sends events.
        directory: An empty folder.
    """
    source = f"from tests.platforms.wsgi.shapes import {app} as app\n"
    if "a2wsgi" in server:
        source += "import a2wsgi\nasgi = a2wsgi.WSGIMiddleware(app)\n"
    metered = app != "site"
    with serving(COMMANDS[server], source, endpoint, directory, is_metered=metered) as port:
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
            "from tests.platforms.wsgi.shapes import site, wrapped\n"
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
