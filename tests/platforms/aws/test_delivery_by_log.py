"""Delivery by log, under AWS's runtime client: no network, no key, and every event in the log."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless._frames.format import FOR_A_RELAY, MARKER
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.frames import event_ids_in, events_in, frames_in
from tests.integration.relay_ways import relayed_ids
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("awslambdaric")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

HANDLERS = dedent(
    """
    import contextlib, io, logging, os, sys, threading, time
    import doow_serverless as doow

    outcomes = []
    doow.configure(on_flush=outcomes.append, warm_up=os.environ.get("WARM_UP") != "no")

    @doow.tracked
    def handler(event, context):
        for name in event["names"]:
            doow.track("tokens", event_id=name)
        if event.get("fails"):
            raise ValueError("on purpose")
        return [name for name in ("requests", "urllib3", "ssl") if name in sys.modules]

    def last(event, context):
        return {"accepted": outcomes[-1].accepted}

    def any_handler(event, context):
        return last(event, context) if event == "last" else handler(event, context)

    @doow.tracked
    def noisy(event, context):
        for number in range(event):
            doow.track("tokens", event_id=str(number), metadata={"noise": os.urandom(500).hex()})

    @doow.tracked
    def many(event, context):
        for number in range(event):
            doow.track("tokens", event_id=str(number))

    @doow.tracked(idempotent=True)
    def work(event, context):
        for number in range(3):
            doow.track("tokens", number + 1)

    @doow.tracked(fold=True)
    def folded(event, context):
        for number in range(1000):
            doow.track("tokens", 2)
        try:
            with doow.transaction():
                doow.track("tokens", 5)
                raise ValueError
        except ValueError:
            pass

    def chatter():
        while True:
            print("a line of some length, as any program prints it")
            time.sleep(0)

    @doow.tracked
    def talking(event, context):
        if event["how"] == "threads" and threading.active_count() < 6:
            threading.Thread(target=chatter, daemon=True).start()
        elif event["how"] == "an unfinished line":
            print("working.", end="")
        elif event["how"] == "progress":
            print("50%", end="\\r", file=sys.stderr)
        elif event["how"] == "a logger":
            logging.getLogger().warning("a line of the log")
        doow.track("tokens", event_id=event["name"])

    def redirected(event, context):
        with contextlib.redirect_stdout(io.StringIO()):
            talking(event, context)

    @doow.tracked
    def endless(event, context):
        doow.track("tokens", event_id="before")
        time.sleep(30)
    """
)


def runtime_of(
    folder: Path, name: str, env: dict[str, str] | None = None, timeout_s: float = 10.0
) -> LambdaRuntime:
    (folder / "app.py").write_text(HANDLERS)
    variables = {"DOOW_TRACK_DELIVERY": "log", "DOOW_TRACK_LICENSE_ID": "lic_1", **(env or {})}
    return LambdaRuntime(f"app.{name}", folder, env=variables, timeout_s=timeout_s)


def test_all_is_in_the_log_when_the_function_is_killed(tmp_path: Path) -> None:
    """Right after the response, which has waited for nothing but the writing."""
    with runtime_of(tmp_path, "handler") as runtime:
        expected = []
        for number in range(5):
            names = [f"{number}-{n}" for n in range((0, 1, 100, 7, 1_200)[number])]
            expected += names
            assert json.loads(runtime.invoke({"names": names}).payload) == []
        runtime.kill()
        assert sorted(event_ids_in(runtime.stdout)) == sorted(expected)
        assert "no API key" not in runtime.stdout


@pytest.mark.parametrize("warm_up", ["yes", "no"])
def test_nothing_of_the_network_is_imported(tmp_path: Path, warm_up: str) -> None:
    with runtime_of(tmp_path, "any_handler", {"WARM_UP": warm_up}) as runtime:
        for number in range(3):
            assert json.loads(runtime.invoke({"names": [str(number)]}).payload) == []


def test_the_log_has_accepted_them(tmp_path: Path) -> None:
    """The outcome of the flush says so; whatever the handler did besides."""
    with runtime_of(tmp_path, "any_handler") as runtime:
        runtime.invoke({"names": ["1", "2"], "fails": True})
        assert json.loads(runtime.invoke("last").payload)["accepted"] == 2


def test_a_line_for_each_batch(tmp_path: Path) -> None:
    """None needs several, however little can be compressed: half a batch can never be missing."""
    with runtime_of(tmp_path, "noisy") as runtime:
        runtime.invoke(400)
        frames = frames_in(runtime.stdout)
        assert len(frames) > 60
        assert all(frame.parts == 1 for frame in frames)
        assert max(map(len, runtime.stdout.splitlines())) <= 4_094
        assert Counter(event_ids_in(runtime.stdout)) == Counter(map(str, range(400)))


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize("name", ["talking", "redirected"])
@pytest.mark.parametrize("how", ["an unfinished line", "progress", "threads", "a logger"])
def test_beside_what_is_printed(tmp_path: Path, how: str, name: str, log_format: str) -> None:
    """Each line is a frame from its beginning to its end, or it is none of ours."""
    names = [str(number) for number in range(30)]
    with runtime_of(tmp_path, name, {"AWS_LAMBDA_LOG_FORMAT": log_format}) as runtime:
        for event_id in names:
            runtime.invoke({"how": how, "name": event_id})
        assert event_ids_in(runtime.stdout) == names
        assert relayed_ids(runtime.stdout, "Kinesis, CloudWatch") == sorted(names)


@pytest.mark.parametrize(
    ("env", "level"),
    [
        ({}, "INFO"),
        ({"AWS_LAMBDA_LOG_FORMAT": "JSON"}, "INFO"),
        ({"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "DEBUG"}, "INFO"),
        ({"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"}, "WARN"),
        ({"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "FATAL"}, "FATAL"),
        ({"AWS_LAMBDA_LOG_FORMAT": "Text", "AWS_LAMBDA_LOG_LEVEL": "FATAL"}, "INFO"),
    ],
)
def test_lambda_lets_the_line_through(tmp_path: Path, env: dict[str, str], level: str) -> None:
    """It drops lines of JSON that are below the level that the function is set to."""
    with runtime_of(tmp_path, "handler", env) as runtime:
        runtime.invoke({"names": ["1"]})
        line = next(line for line in runtime.stdout.splitlines() if MARKER in line)
        assert FOR_A_RELAY in line
        assert json.loads(line)["level"] == level


def test_a_timeout(tmp_path: Path) -> None:
    """What was recorded stands in the log when the platform kills the function."""
    with runtime_of(tmp_path, "endless", timeout_s=2.0) as runtime:
        runtime.invoke(None)
        assert set(event_ids_in(runtime.stdout)) == {"before"}


def test_the_same_work_done_again(tmp_path: Path) -> None:
    """It stands in the log twice, under one id, by which it counts once."""
    with runtime_of(tmp_path, "work") as runtime:
        for _ in range(2):
            runtime.invoke({"Records": [{"eventSource": "aws:sqs", "messageId": "m-1"}]})
        assert len(frames_in(runtime.stdout)) == 2
        assert len(events_in(runtime.stdout)) == 3


def test_folded_and_without_what_failed(tmp_path: Path) -> None:
    with runtime_of(tmp_path, "folded") as runtime:
        runtime.invoke(None)
        events = events_in(runtime.stdout)
        assert [one["measurements"][0]["quantity"] for one in events] in ([2000], [1000, 1000])


def test_nobody_reads_the_log(tmp_path: Path) -> None:
    """A pipe that is full is waited for as a silent server is: no longer than the budget."""
    program = dedent(
        """
        import sys, time
        import doow_serverless as doow

        doow.configure(delivery="log", license_id="lic_1", budget=0.3, on_error=lambda _: None)

        @doow.tracked
        def handler():
            for number in range(2_000):
                doow.track("tokens", event_id=str(number), metadata={"noise": str(number) * 100})
            return time.monotonic()

        while True:
            done_at = handler()
            print(time.monotonic() - done_at, file=sys.stderr, flush=True)
            if sys.stdin.readline() != "again\\n":
                break
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        held_s = 0.0
        for _ in range(4):
            held_s = float(process.stderr.readline())
            if held_s >= 0.3:
                break
            process.stdin.write("again\n")
            process.stdin.flush()
        within(held_s, 5.0, at_least_s=0.3)
        read: list[str] = []
        thread = threading.Thread(target=lambda out=process.stdout: read.append(out.read()))
        thread.start()
        time.sleep(0.5)
        process.stdin.close()
        thread.join(20)
        events = event_ids_in(read[0])
        assert not Counter(map(str, range(2_000))) - Counter(events)


def test_standard_output_is_closed(tmp_path: Path) -> None:
    """Then the lines go wherever the process can still be heard, or into the directory."""
    program = dedent(
        """
        import os, sys
        import doow_serverless as doow

        doow.configure(delivery="log", license_id="lic_1", dead_letter=sys.argv[1])
        sys.stdout.close()
        if sys.argv[2] == "all":
            sys.stderr.close()
            os.close(2)

        @doow.tracked
        def handler():
            doow.track("tokens", event_id="1")

        handler()
        """
    )
    for closed, where in (("one", "stderr"), ("all", "directory")):
        directory = tmp_path / closed
        done = subprocess.run(
            [sys.executable, "-c", program, str(directory), closed],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        text = done.stderr
        if where == "directory":
            text = "".join(file.read_text() for file in directory.iterdir())
        assert event_ids_in(text) == ["1"], (closed, done)
