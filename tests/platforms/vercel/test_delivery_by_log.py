"""Delivery by log under Vercel's runtime, which sends each write to its request's log."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING

import pytest

from tests.frames import event_ids_in, frames_in
from tests.integration.relay_ways import relayed_ids
from tests.platforms.vercel.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

APPLICATION = """
import contextlib, io, os, sys, threading, time

text = io.StringIO()
with contextlib.redirect_stdout(text if os.environ["REDIRECTED"] == "import" else sys.stdout):
    import doow_serverless as doow
    from doow_serverless.asgi import DoowMiddleware

def chatter():
    while True:
        print("a line of some length, as any program prints it")
        time.sleep(0.0001)

threading.Thread(target=chatter, daemon=True).start()

async def respond(scope, receive, send):
    name = scope["path"].split("/")[1]
    print("working.", end="")
    for part in range(20):
        noise = os.urandom(300).hex()
        doow.track("tokens", event_id=f"{name}-{part}", metadata={"noise": noise})
    answer = text.getvalue().encode()
    length = str(len(answer)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})

metered = DoowMiddleware(respond)

async def app(scope, receive, send):
    if os.environ["REDIRECTED"] == "request":
        with contextlib.redirect_stdout(text):
            await metered(scope, receive, send)
    else:
        await metered(scope, receive, send)
"""
NAMES = ("a", "b", "c")
EXPECTED = [f"{name}-{part}" for name in NAMES for part in range(20)]


@pytest.mark.parametrize("redirected", ["never", "request"])
@pytest.mark.parametrize("mode", ["ipc", "lambda"])
def test_every_frame_is_a_line(
    mode: str, redirected: str, tmp_path: Path, vercel_python: Path
) -> None:
    """Whatever is printed beside it, and wherever the application redirects its output."""
    env = {"DOOW_TRACK_DELIVERY": "log", "REDIRECTED": redirected}
    with Stage(tmp_path, vercel_python, APPLICATION, mode, env=env) as stage:
        for name in NAMES:
            answer = stage.request(name).body
            assert b"doow" not in answer
        output = stage.runtime.stdout
    assert sorted(event_ids_in(output)) == sorted(EXPECTED)
    assert relayed_ids(output, "Vercel, NDJSON") == sorted(EXPECTED)
    assert max(map(len, output.splitlines())) <= 3_800
    assert all(frame.parts == 1 for frame in frames_in(output))


@pytest.mark.parametrize("redirected", ["never", "request"])
def test_a_frame_belongs_to_its_request(
    redirected: str, tmp_path: Path, vercel_python: Path
) -> None:
    """The runtime is given each frame in one message, with the request that recorded it."""
    env = {"DOOW_TRACK_DELIVERY": "log", "REDIRECTED": redirected}
    with Stage(tmp_path, vercel_python, APPLICATION, "ipc", env=env) as stage:
        for name in NAMES:
            response = stage.request(name)
            texts = [
                base64.b64decode(message["payload"]["message"]).decode()
                for message in response.messages
                if message["type"] == "log"
            ]
            ours = [text for text in texts if "doow_dead_letter" in text]
            expected = [f"{name}-{part}" for part in range(20)]
            assert sorted(event_ids_in("".join(ours))) == sorted(expected)
            assert [len(frames_in(text)) for text in ours] == [1] * len(ours)


def test_imported_within_a_redirect(tmp_path: Path, vercel_python: Path) -> None:
    """The stream of the runtime is found as soon as it is standard output again."""
    env = {"DOOW_TRACK_DELIVERY": "log", "REDIRECTED": "import"}
    with Stage(tmp_path, vercel_python, APPLICATION, "ipc", env=env) as stage:
        for name in NAMES:
            assert stage.request(name).body == b""
        assert sorted(event_ids_in(stage.runtime.stdout)) == sorted(EXPECTED)
