"""The WSGI middleware under real servers; a client looks when their responses are complete."""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Fault
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import accepted, configure, unmetered
from tests.platforms.wsgi.servers import (
    COMMANDS,
    Gunicorn,
    cheroot,
    in_process,
    werkzeug,
    wsgiref,
)
from tests.platforms.wsgi.shapes import AFTERWARDS, APPS, WRAPPED, site, wrapped

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest

SLOW_S = 0.02
"""Seconds that Doow takes to answer: time enough for a client to notice what was not held."""


# ── the client ─────────────────────────────────────────────────────────────────────────────────


class Answer:
    """A response, and how many events had been accepted when its last byte had come."""

    def __init__(self, raw: bytes, accepted: int) -> None:
        # The time of day is all that two responses may differ in.
        self.raw = re.sub(rb"(?mi)^Date: .*\r$", b"Date: -\r", raw)
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


FEWER: dict[str, dict[str, int]] = {
    # It calls no close() of a list, and may ask for no body for HEAD.
    "granian": {
        "by_write": 0, "by_write_and_chunks": 0, "for HEAD": 0, "stream for HEAD": 1,
        "as_closing_list": 1,
    },
    "hypercorn": {"by_write": 0, "by_write_and_chunks": 0},
    "uwsgi": {"replacing_its_head": 0},
}  # fmt: skip
"""Events of shapes that end early: these servers have no ``write()``, or take one head only."""


def plain(port: int, ingest: Ingest) -> dict[str, bytes]:
    """The responses of the bare applications."""
    return {name: get(port, ingest, method, path).raw for name, method, path in REQUESTS}


def check_every_shape(
    port: int, ingest: Ingest, bare: dict[str, bytes], way: str, server: str = ""
) -> None:
    """Compare the responses, byte for byte, and see that each waited for its events."""
    raw, missing = {}, {}
    for name, method, path in REQUESTS:
        ingest.reset()
        ingest.fault(Fault(delay_s=SLOW_S, times=None))
        answer = get(port, ingest, method, f"/{way}{path}")
        raw[name] = answer.raw
        events = FEWER.get(server, {}).get(name, APPS[name][2])
        due = min(events, APPS[name][2] - AFTERWARDS.get(name, 0))
        missing[name] = max(due - answer.accepted, 0)
        ingest.wait_for(events)
    assert raw == bare
    assert missing == dict.fromkeys(missing, 0)


# ── tests ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("serve", [wsgiref, werkzeug, cheroot])
def test_every_shape_under_a_server_on_threads(serve: Any, doow_ingest: Ingest) -> None:
    """The same bytes in both ways to meter, and the events are there when the last of them is."""
    configure(doow_ingest)
    with unmetered(), serve(site) as port:
        bare = plain(port, doow_ingest)
    with serve(wrapped) as port:
        for way in WRAPPED:
            check_every_shape(port, doow_ingest, bare, way)


@pytest.mark.parametrize("server", COMMANDS)
def test_every_shape_under_a_server_in_a_process(
    server: str, doow_ingest: Ingest, tmp_path: Path
) -> None:
    """The same for those that take over a process, and read a response in ways of their own."""
    with in_process(server, "site", doow_ingest.url, tmp_path / "bare") as port:
        bare = plain(port, doow_ingest)
    assert doow_ingest.posts() == []
    with in_process(server, "wrapped", doow_ingest.url, tmp_path / "metered") as port:
        for way in WRAPPED:
            check_every_shape(port, doow_ingest, bare, way, server)


@pytest.mark.parametrize("options", [("--threads", "4"), ("--worker-class", "sync")], ids=str)
def test_every_shape_under_gunicorn(
    options: tuple[str, ...], doow_ingest: Ingest, tmp_path: Path
) -> None:
    """In its worker process, on threads or without; what the import recorded leaves with it."""
    with Gunicorn("site", doow_ingest.url, tmp_path / "bare", *options) as gunicorn:
        bare = plain(gunicorn.port, doow_ingest)
    doow_ingest.reset()
    with Gunicorn("wrapped", doow_ingest.url, tmp_path / "metered", *options) as gunicorn:
        get(gunicorn.port, doow_ingest, "GET", "/middleware/as_list")
        assert accepted(doow_ingest) == ["tokens", "imported"]
        for way in WRAPPED:
            check_every_shape(gunicorn.port, doow_ingest, bare, way)


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
