"""ASGI servers answer a metered application byte for byte as the bare one."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import Fault
from tests.metering import accepted
from tests.platforms.asgi.shapes import ALL, FAULTS, PATHS, SHAPES, WRAPPED
from tests.platforms.processes import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless.local import Ingest

SLOW_S = 0.02
"""Seconds that Doow takes to answer: time enough for a client to notice what was not held."""

COMMANDS = {
    "daphne": "-m daphne --verbosity 0 --port {port} served:app",
    "granian": "-m granian --interface asgi --port {port} served:app",
    "hypercorn": "-m hypercorn --bind 127.0.0.1:{port} asgi:served:app",
    "uvicorn with h11": "-m uvicorn --http h11 --port {port} --log-level critical served:app",
    "uvicorn with httptools": "-m uvicorn --http httptools --port {port} --log-level critical"
    " served:app",
}

HANGING = {
    "daphne": [name for name in FAULTS if name not in ("length overrun", "more after the end")]
}
"""Shapes that a server neither answers nor hangs up on."""


@contextmanager
def served(server: str, app: str, endpoint: str, directory: Path) -> Iterator[int]:
    """One of the servers, in a process of its own, with an application in ``shapes.py``."""
    source = f"from tests.platforms.asgi.shapes import {app} as app\n"
    metered = app != "site"
    with serving(COMMANDS[server], source, endpoint, directory, is_metered=metered) as port:
        yield port


def get(port: int, ingest: Ingest, method: str, path: str) -> tuple[bytes, bool]:
    """A response, and whether its event had been accepted when its last byte had come."""
    raw, is_delivered = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        while received := connection.recv(65_536):
            raw += received
            is_delivered = path.rpartition("/")[2] in accepted(ingest)
    # The time of day is all that two responses may differ in.
    return re.sub(rb"(?mi)^date: .*\r$", b"date: -\r", raw), is_delivered


@pytest.mark.parametrize("server", COMMANDS)
def test_every_shape(server: str, ingest: Ingest, tmp_path: Path) -> None:
    """The same bytes in both ways to meter, and the event is there when the last of them is."""
    shapes = {name: shape for name, shape in ALL.items() if name not in HANGING.get(server, [])}
    with served(server, "site", ingest.url, tmp_path / "bare") as port:
        bare = {
            name: get(port, ingest, method, PATHS[name])[0] for name, (method, _) in shapes.items()
        }
    assert ingest.posts() == []
    ingest.fault(Fault(delay_s=SLOW_S, times=None))
    with served(server, "wrapped", ingest.url, tmp_path / "metered") as port:
        for way in WRAPPED:
            answers = {
                name: get(port, ingest, method, f"/{way}{PATHS[name]}")
                for name, (method, _) in shapes.items()
            }
            assert {name: raw for name, (raw, _) in answers.items()} == bare
            late = [name for name in SHAPES if not answers[name][1]]
            assert late == []
            ingest.wait_for(len(shapes))
            ingest.reset()
            ingest.fault(Fault(delay_s=SLOW_S, times=None))
