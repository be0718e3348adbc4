"""Whatever else an application prints, each frame stands whole on a line of its own."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.frames import event_ids_in, frames_in
from tests.integration.relay_ways import relayed_ids

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such pipes on Windows")

EVENTS = 200

PROGRAM = dedent(
    """
    import base64, contextlib, io, os, sys, threading
    import doow_serverless as doow

    {setting}

    @doow.tracked
    def handler(number):
        {action}
        doow.track("tokens", event_id=str(number))

    for number in range({events}):
        handler(number)
    """
)
CONFIGURE = 'doow.configure(delivery="log", license_id="lic_1", budget=20.0)'
"""The budget is ample: how long a slow pipe takes is not what these tests are about."""

NOISE = """
def chatter():
    while True:
        print("a line of some length, as any program prints it")

for _ in range(2):
    threading.Thread(target=chatter, daemon=True).start()
"""
UNBUFFERED = """
class Unbuffered:  # As under AWS's runtime client.
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        self.stream.write(text)
        self.stream.flush()
    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stdout = Unbuffered(sys.stdout)
"""
APPLICATIONS = {
    "silent": ("", "pass"),
    "unfinished line": ("", 'print("working.", end="")'),
    "unfinished line, flushed": ("", 'print("working.", end="", flush=True)'),
    "progress": ("", r'print("50%", end="\r", flush=True)'),
    "progress on standard error": ("", 'print("50%|###  ", end="", file=sys.stderr, flush=True)'),
    "unfinished JSON": ("", """sys.stdout.write('{"debug": true}'); sys.stdout.flush()"""),
    "threads": (NOISE, "pass"),
    "threads, unbuffered": (UNBUFFERED + NOISE, "pass"),
    "non-blocking": ("os.set_blocking(1, False)", "pass"),
}


@contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose standard output and standard error are one pipe, as on most platforms."""
    process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[bytes], bytes_per_s: float = float("inf")) -> str:
    """All that a process writes, which is taken at this pace."""
    assert process.stdout is not None
    chunks = []
    while chunk := os.read(process.stdout.fileno(), 16_384):
        chunks.append(chunk)
        time.sleep(len(chunk) / bytes_per_s)
    return b"".join(chunks).decode()


def output_of(setting: str, action: str, *, bytes_per_s: float = float("inf")) -> str:
    program = PROGRAM.format(setting=f"{CONFIGURE}\n{setting}", action=action, events=EVENTS)
    with running([sys.executable, "-c", program]) as process:
        text = read(process, bytes_per_s)
        assert process.wait(30) == 0, text
    return text


@pytest.mark.parametrize("application", APPLICATIONS)
def test_beside_what_is_printed(application: str) -> None:
    """Lines that are not ended, or that several threads print all the time."""
    text = output_of(*APPLICATIONS[application])
    assert sorted(map(int, event_ids_in(text))) == list(range(EVENTS))
    assert sorted(map(int, relayed_ids(text, "Kinesis, CloudWatch"))) == list(range(EVENTS))


@pytest.mark.parametrize("created", ["within", "before"])
def test_within_a_redirect(created: str) -> None:
    """The application captures what a handler prints; there is nothing of ours in it."""
    program = PROGRAM.format(
        setting=f"{CONFIGURE if created == 'before' else ''}\ntext = io.StringIO()",
        action="pass",
        events=0,
    ) + dedent(
        """
        with contextlib.redirect_stdout(text):
            for number in range(3):
                print("an answer")
                handler(number)
        assert text.getvalue() == "an answer\\n" * 3, text.getvalue()
        """
    )
    env = {**os.environ, "DOOW_TRACK_DELIVERY": "log", "DOOW_TRACK_LICENSE_ID": "lic_1"}
    with running([sys.executable, "-c", program], env=env) as process:
        text = read(process)
    assert sorted(event_ids_in(text)) == ["0", "1", "2"]
    assert process.returncode == 0, text


def test_a_slow_reader_of_a_pipe_that_does_not_block() -> None:
    """Frames wait until there is room, and none is left out, torn or written elsewhere."""
    action = """
        for part in range(20):
            noise = base64.b64encode(os.urandom(400)).decode()
            doow.track("calls", event_id=f"{number}-{part}", metadata={"noise": noise})
    """
    text = output_of("os.set_blocking(1, False)", action.strip(), bytes_per_s=4_000_000)
    parts = [f"{number}-{part}" for number in range(EVENTS) for part in range(20)]
    assert sorted(event_ids_in(text)) == sorted([*parts, *map(str, range(EVENTS))])
    assert all(frame.parts == 1 for frame in frames_in(text))


WORKERS = dedent(
    f"""
    import base64, os, sys
    import doow_serverless as doow

    workers = []
    for name in "abcd":
        workers.append(os.fork())
        if not workers[-1]:
            break
    else:
        sys.exit(max(os.waitpid(worker, 0)[1] for worker in workers))

    {CONFIGURE}

    @doow.tracked
    def handler(number):
        print("worker", name, end=": ", flush=True)
        for part in range(60):
            noise = base64.b64encode(os.urandom(400)).decode()
            event_id = f"{{name}}-{{number}}-{{part}}"
            doow.track("tokens", event_id=event_id, metadata={{"noise": noise}})

    for number in range(20):
        handler(number)
    """
)


def test_forked_workers_on_one_slow_pipe() -> None:
    """Four processes write more than the pipe takes, all the time."""
    with running([sys.executable, "-c", WORKERS]) as process:
        text = read(process, 4_000_000)
        assert process.wait(30) == 0, text[-1_000:]
    expected = [f"{name}-{n}-{part}" for name in "abcd" for n in range(20) for part in range(60)]
    assert sorted(event_ids_in(text)) == sorted(expected)


SITE = dedent(
    """
    import base64, os
    import doow_serverless as doow
    from doow_serverless.wsgi import DoowMiddleware

    doow.configure(delivery="log", license_id="lic_1", budget=20.0)

    @DoowMiddleware
    def app(environ, start_response):
        name = environ["PATH_INFO"].strip("/")
        print("request", name, end=" ", flush=True)
        for part in range(40):
            noise = base64.b64encode(os.urandom(400)).decode()
            doow.track("tokens", event_id=f"{name}-{part}", metadata={"noise": noise})
        body = str(os.getpid()).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    """
)


def test_gunicorn_with_four_workers_on_a_slow_pipe(tmp_path: Path) -> None:
    """Each event of each worker stands in the log, beside the access log and unfinished lines."""
    (tmp_path / "site_under_test.py").write_text(SITE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "gunicorn", "--workers", "4", "--no-control-socket"]
        command += ["--access-logfile", "-", "--bind", f"fd://{listener.fileno()}"]
        python_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        with running(
            [*command, "site_under_test:app"],
            env={**os.environ, "PYTHONPATH": python_path},
            pass_fds=[listener.fileno()],
        ) as process:
            texts: list[str] = []
            reader = threading.Thread(target=lambda: texts.append(read(process, 2_000_000)))
            reader.start()
            workers: set[bytes] = set()
            clients = [
                threading.Thread(target=_browse, args=(port, name, workers)) for name in "abcdefgh"
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join(60)
            process.terminate()
            reader.join(30)
    assert len(workers) > 1
    expected = [f"{name}{n}-{part}" for name in "abcdefgh" for n in range(15) for part in range(40)]
    assert sorted(event_ids_in(texts[0])) == sorted(expected)
    assert relayed_ids(texts[0], "Kinesis, FireLens") == sorted(expected)


def _browse(port: int, name: str, workers: set[bytes]) -> None:
    for number in range(15):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", f"/{name}{number}")
            workers.add(connection.getresponse().read())
