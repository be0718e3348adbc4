"""Delivery by log under Azure's worker libraries."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost
from tests.frames import event_ids_in, frames_in
from tests.integration.relay_ways import relayed_ids
from tests.platforms.azure.apps import both_ends, settings, write_v2

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = dedent(
    """
    import contextlib, io, logging, os, sys, threading, time

    import azure.functions as func
    import doow_serverless as doow

    app = func.FunctionApp()
    text = io.StringIO()

    def chatter():
        while True:
            print("a line of some length, as any program prints it")
            time.sleep(0.0001)

    def record(message):
        name = message.get_body().decode()
        if threading.active_count() < 10:
            threading.Thread(target=chatter, daemon=True).start()
        print("working.", end="", flush=True)
        print("50%", end="\\r", file=sys.stderr, flush=True)
        logging.getLogger().warning("a line of the log")
        for part in range(20):
            noise = os.urandom(300).hex()
            doow.track("tokens", event_id=f"{name}-{part}", metadata={"noise": noise})

    @app.queue_trigger(arg_name="message", queue_name="one", connection="QUEUE")
    @doow.tracked
    def plain(message: func.QueueMessage) -> None:
        record(message)

    @app.queue_trigger(arg_name="message", queue_name="two", connection="QUEUE")
    @doow.tracked
    async def redirected(message: func.QueueMessage) -> None:
        with contextlib.redirect_stdout(text):
            record(message)
            doow.flush()
        if "doow" in text.getvalue():
            raise AssertionError(text.getvalue())
    """
)


@both_ends
@pytest.mark.parametrize("name", ["plain", "redirected"])
def test_every_frame_is_a_line(name: str, python: Path, tmp_path: Path) -> None:
    """Whatever is printed beside it, and wherever the application redirects its output."""
    write_v2(tmp_path, APPLICATION)
    env = settings("http://127.0.0.1:9", DOOW_TRACK_DELIVERY="log")
    with AzureHost(tmp_path, python=python, model="v2", env=env) as host:
        assert host.index_error is None
        for message in "abc":
            done = host.invoke(name, {"message": triggers.queue_message(message, id=message)})
            assert done.error is None
        output = host.stdout
    expected = [f"{message}-{part}" for message in "abc" for part in range(20)]
    assert sorted(event_ids_in(output)) == sorted(expected)
    for way in ("Event Hub, traces", "Event Hub, app logs of Linux"):
        assert relayed_ids(output, way) == sorted(expected)
    assert all(frame.parts == 1 for frame in frames_in(output))
