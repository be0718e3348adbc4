"""Forks that run none of Python's hooks, as servers written in C make them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from doow_serverless.local import Fault
from tests.integration.test_fork import batches, run
from tests.network import KEY
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local import Ingest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FORK = """
        import ctypes
        def fork_in_c(child):
            pid = ctypes.CDLL(None).fork()
            if pid == 0:
                child()
                os._exit(0)
            return wait(pid)
"""


def test_a_child_delivers_what_it_records(ingest: Ingest, tmp_path: Path) -> None:
    """Its own events alone, on a connection of its own; so does the parent, before and after."""
    script = """
        doow.configure(on_error=lambda error: None)
        record("before")
        doow.track("tokens", event_id="stray")
        print(fork_in_c(lambda: record("child", "again")))
        record("parent")
    """
    assert run(FORK + script, ingest.url, tmp_path) == ["done"]
    assert batches(ingest) == {("before",): 1, ("child", "again"): 1, ("parent", "stray"): 1}
    connections = {post.event_ids[0]: post.connection for post in ingest.posts()}
    assert connections["before"] == connections["parent"] != connections["child"]


def test_a_child_of_a_busy_parent(ingest: Ingest, tmp_path: Path) -> None:
    """While threads of the parent wait for answers, and hold whatever they hold."""
    script = """
        doow.configure(on_error=lambda error: None)
        record("warm")
        busy = [threading.Thread(target=record, args=(f"busy_{each}",)) for each in range(3)]
        for thread in busy:
            thread.start()
        time.sleep(0.2)
        print(fork_in_c(lambda: record("child")))
        for thread in busy:
            thread.join()
    """
    ingest.fault(Fault(), *[Fault(delay_s=0.5)] * 3)
    assert run(FORK + script, ingest.url, tmp_path) == ["done"]
    # One of those that wait may be sent twice, since it reuses a connection; it counts once.
    recorded = sorted(event["event_id"] for event in ingest.events())
    assert recorded == ["busy_0", "busy_1", "busy_2", "child", "warm"]


def test_a_child_that_records_outside_of_invocations(ingest: Ingest, tmp_path: Path) -> None:
    """A flush of its own delivers what it has recorded, and nothing of the parent's."""
    script = """
        doow.configure(on_error=lambda error: None)
        doow.track("tokens", event_id="of_the_parent")
        def child():
            doow.track("tokens", event_id="of_the_child")
            doow.flush()
        print(fork_in_c(child))
        doow.flush()
    """
    assert run(FORK + script, ingest.url, tmp_path) == ["done"]
    assert batches(ingest) == {("of_the_child",): 1, ("of_the_parent",): 1}


APPLICATION = """
import os, time
import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware

doow.configure(license_id="lic_1")

def respond(environ, start_response):
    time.sleep(0.05)  # So that another worker takes the next request.
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

application = DoowMiddleware(respond, metric="api_calls")
"""

UWSGI = [
    str(Path(sys.executable).with_name("uwsgi")), "--home", sys.prefix, "--master",
    "--processes", "2", "--need-app", "--die-on-term", "--wsgi", "app:application", "--http-socket",
]  # fmt: skip
SERVERS = {
    "uWSGI": UWSGI,
    "uWSGI with threads": [UWSGI[0], "--enable-threads", *UWSGI[1:]],
    "gunicorn": [
        sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--no-control-socket",
        "app:application", "--bind",
    ],
}  # fmt: skip


@contextmanager
def serving(
    server: str, ingest: Ingest, folder: Path
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of two processes that were forked after the application was imported."""
    (folder / "app.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*SERVERS[server], address],
            cwd=folder,
            env={
                **os.environ,
                "DOOW_TRACK_API_KEY": KEY,
                "DOOW_TRACK_ENDPOINT": ingest.url,
                "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}/", process
    finally:
        process.kill()
        process.wait()


def answer(url: str) -> str:
    """The body of a response, as soon as the server is up."""
    for _ in range(200):
        try:
            return requests.get(url, timeout=10).text
        except requests.ConnectionError:
            time.sleep(0.05)
    raise RuntimeError("the server did not start")


@pytest.mark.parametrize("server", SERVERS)
def test_workers_of_a_server(server: str, ingest: Ingest, tmp_path: Path) -> None:
    """Both deliver before they answer, none waits for a budget, and all end when they are told."""
    workers: set[str] = set()
    with serving(server, ingest, tmp_path) as (url, process), ThreadPoolExecutor(2) as pool:
        answer(url)
        for round_ in range(1, 21):
            began = time.monotonic()
            workers.update(pool.map(answer, [url, url]))
            within(time.monotonic() - began, 1.5)  # The budget is two seconds.
            assert len(ingest.events()) == 1 + 2 * round_
            if len(workers) == 2 and round_ >= 3:
                break
        process.terminate()
        assert (process.wait(timeout=15), len(workers)) == (0, 2)
