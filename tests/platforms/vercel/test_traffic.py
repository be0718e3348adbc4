"""Vercel under traffic: many requests at once, connections that are kept, streams that flow."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.network import Metronome
from tests.platforms.vercel.sources import RECORDED, SHAPES
from tests.platforms.vercel.stage import DELAY_S, Stage, comparable
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

SLOW_S = 0.3
"""Far more than a busy machine delays a byte by."""


@pytest.mark.parametrize("shape", SHAPES)
def test_fifty_requests_at_once_do_not_mix(shape: str, tmp_path: Path, vercel_python: Path) -> None:
    """Each has its own POST with its own events, answered before its own end."""
    with Stage(tmp_path, vercel_python, shape, "ipc") as stage, ThreadPoolExecutor(50) as pool:
        stage.request("plain")
        stage.ingest.reset()
        stage.delay()
        calls = [stage.next_call() for _ in range(50)]
        responses = list(pool.map(lambda call: stage.request("slow", call), calls))
        assert stage.runtime.stopped
        assert [response.body for response in responses] == [
            f"the answer to {call}".encode() for call in calls
        ]
        assert [stage.recorded(call) for call in calls] == [RECORDED["slow"]] * 50
        # On a busy machine one may be sent again, since its kept connection seems dead.
        assert len({post.batch_id for post in stage.ingest.posts()}) == 50
        for call, response in zip(calls, responses, strict=True):
            post = stage.posts(call)[0]
            assert len(post.event_ids) == len(RECORDED["slow"])
            assert post.received_at + DELAY_S <= response.sent_at + response.ended_s


@pytest.mark.parametrize("shape", ["handler", "asgi", "fastapi"])
def test_requests_on_one_connection_do_not_mix(
    shape: str, tmp_path: Path, vercel_python: Path
) -> None:
    """Kept over the freeze, and the events of each have arrived at its own end."""
    with (
        Stage(tmp_path, vercel_python, shape, "ipc", bare=True, http11=True) as stage,
        stage.runtime.connect() as connection,
        stage.bare.connect() as beside,
    ):
        stage.delay()
        kinds = ["plain", "head", "none", "late", "plain"]
        if shape == "handler":
            kinds.insert(1, "chunked")
        calls = [stage.next_call() for _ in kinds]
        for kind, call in zip(kinds, calls, strict=True):
            response = stage.request(kind, call, on_connection=connection)
            assert stage.recorded(call) == RECORDED[kind]
            bare = stage.request(kind, call, runtime=stage.bare, on_connection=beside)
            assert comparable(response) == comparable(bare)
        posts = [[len(post.event_ids) for post in stage.posts(call)] for call in calls]
        assert posts == [[2, 1] if kind == "late" else [len(RECORDED[kind])] for kind in kinds]


@pytest.mark.parametrize("shape", SHAPES)
def test_streams_are_not_delayed(shape: str, tmp_path: Path, vercel_python: Path) -> None:
    """The first byte comes as soon as that of the bare application, however slow Doow is."""
    # Not frozen in between, since to be continued takes longer than what is measured.
    with Stage(tmp_path, vercel_python, shape, "ipc", bare=True, freeze=False) as stage:
        for runtime in (stage.runtime, stage.bare):
            stage.request("stream", runtime=runtime)
        stage.delay(SLOW_S)
        metered: list[float] = []
        bare: list[float] = []
        with Metronome() as noise:
            for _ in range(7):
                for runtime, times in ((stage.runtime, metered), (stage.bare, bare)):
                    first_byte_s = stage.request("stream", runtime=runtime).first_byte_s
                    assert first_byte_s is not None
                    times.append(first_byte_s)
    figures = [round(1000 * median(times), 2) for times in (metered, bare)]
    sys.stdout.write(f"{shape}: first byte after {figures[0]} ms, bare {figures[1]} ms\n")
    within(max(0.0, median(metered) - median(bare)), 0.005 + noise.worst_s)
    within(max(metered), SLOW_S / 2 + max(bare) + noise.worst_s)


def test_a_connection_is_given_back_as_it_was(tmp_path: Path, vercel_python: Path) -> None:
    """Between two requests the handler has its own file again, not ever more around it."""
    source = """
from http.server import BaseHTTPRequestHandler
import doow_serverless as doow

@doow.tracked
class handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def parse_request(self):
        self.file = type(self.wfile).__name__.encode()
        return super().parse_request()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.file)))
        self.end_headers()
        self.wfile.write(self.file)
"""
    with (
        Stage(tmp_path, vercel_python, source, "ipc") as stage,
        stage.runtime.connect() as connection,
    ):
        files = [stage.runtime.request(on_connection=connection).body for _ in range(3)]
    assert files == [b"_SocketWriter"] * 3
