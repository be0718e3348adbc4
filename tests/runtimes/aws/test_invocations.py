"""An invocation of a Lambda function gets what Lambda gives, and its answer is the handler's."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from doow_serverless.local.lambda_runtime import LambdaRuntime


def test_the_answer_is_the_very_bytes_of_the_handler(start: Callable[..., LambdaRuntime]) -> None:
    """Warm invocations go to one process, and each gets its own answer."""
    with start("echo") as runtime:
        first = runtime.invoke({"a": "ä", "b": [1, None]})
        second = runtime.invoke("two")
    assert (json.loads(first.payload), first.error) == ({"a": "ä", "b": [1, None]}, None)
    assert (second.payload, second.error) == (b'"two"', None)
    assert first.request_id != second.request_id


def test_the_context_is_that_of_the_invocation(start: Callable[..., LambdaRuntime]) -> None:
    """Identity, memory and the remaining time reach the handler."""
    with start("who", function_name="mine", memory_mb=256, timeout_s=9) as runtime:
        invocation = runtime.invoke(None)
        seen = json.loads(invocation.payload)
        within(9.0 - seen.pop("remaining_ms") / 1e3, 0.1)
        assert seen == {
            "pid": runtime.pid,
            "request_id": invocation.request_id,
            "arn": "arn:aws:lambda:us-east-1:123456789012:function:mine",
            "memory": "256",
        }


def test_an_exception_is_reported_and_the_process_goes_on(
    start: Callable[..., LambdaRuntime],
) -> None:
    """A handler that raises yields AWS's error document."""
    with start("raising") as runtime:
        pid = runtime.pid
        invocation = runtime.invoke({})
        assert invocation.error is not None
        assert invocation.error["errorType"] == "ValueError"
        assert invocation.error["errorMessage"] == "no such customer"
        assert invocation.error["requestId"] == invocation.request_id
        assert "raising" in "".join(invocation.error["stackTrace"])
        assert json.loads(invocation.payload) == invocation.error
        assert "[ERROR] ValueError: no such customer" in runtime.stdout
        runtime.invoke({})
        assert runtime.pid == pid


def test_the_duration_is_that_of_the_handler(start: Callable[..., LambdaRuntime]) -> None:
    """The runtime adds next to nothing to what it measures."""
    with start("sleeping") as runtime:
        runtime.invoke(0)
        nothing = min(runtime.invoke(0).duration_s for _ in range(20))
        some = min(runtime.invoke(0.05).duration_s for _ in range(3))
    within(nothing, 0.01)
    assert some >= 0.05
    within(some, 0.07)


def test_the_environment_is_that_of_lambda(
    start: Callable[..., LambdaRuntime], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing of ours reaches the function, its own variables do, and win."""
    for name in ("DOOW_TRACK_API_KEY", "HTTPS_PROXY", "VIRTUAL_ENV", "HOME"):
        monkeypatch.setenv(name, "inherited")
    with start("environment", env={"STAGE": "test", "TZ": "Asia/Tokyo"}) as runtime:
        seen = json.loads(runtime.invoke({}).payload)
    assert "inherited" not in seen.values()
    assert seen["STAGE"] == "test"
    assert seen["TZ"] == "Asia/Tokyo"
    assert seen["LAMBDA_TASK_ROOT"] == str(tmp_path)
    assert seen["_HANDLER"] == "app.environment"
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "doow-local"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert seen["AWS_EXECUTION_ENV"] == f"AWS_Lambda_python{python}"
