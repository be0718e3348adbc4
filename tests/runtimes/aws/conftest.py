"""The handlers with which the Lambda runtime is tried, and a runtime of each."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.lambda_runtime import LambdaRuntime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


HANDLERS = dedent(
    """
    import os, subprocess, sys, threading, time

    def echo(event, context):
        return event

    def who(event, context):
        return {"pid": os.getpid(), "request_id": context.aws_request_id,
                "arn": context.invoked_function_arn, "memory": context.memory_limit_in_mb,
                "remaining_ms": context.get_remaining_time_in_millis()}

    def raising(event, context):
        raise ValueError("no such customer")

    def leaving(event, context):
        if event == "leave":
            sys.exit(3)
        return os.getpid()

    def sleeping(event, context):
        time.sleep(event)
        return os.getpid()

    def environment(event, context):
        return dict(os.environ)

    def loud(event, context):
        print("x" * 300_000)
        print("to standard error", file=sys.stderr)

    ticks = 0

    def tick():
        global ticks
        while True:
            ticks += 1
            time.sleep(0.005)

    def ticking(event, context):
        if ticks == 0:
            threading.Thread(target=tick, daemon=True).start()
        time.sleep(0.05)
        return ticks

    def forking(event, context):
        return subprocess.Popen(["sleep", "60"]).pid
    """
)


@pytest.fixture(scope="session", autouse=True)
def _runtime_client() -> None:
    pytest.importorskip("awslambdaric")


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., LambdaRuntime]:
    """A runtime of one of the handlers above."""
    (tmp_path / "app.py").write_text(HANDLERS)

    def start(name: str, **options: object) -> LambdaRuntime:
        return LambdaRuntime(f"app.{name}", tmp_path, **options)  # type: ignore[arg-type]

    return start
