"""A Lambda function that cannot start, leaves, or is too slow ends as on Lambda."""

from __future__ import annotations

import json
import venv
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import lambda_runtime
from doow_serverless.local.lambda_runtime import LambdaRuntime, LambdaRuntimeError
from tests.runtimes.processes import exists
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_exiting_ends_the_process_and_the_next_one_serves(
    start: Callable[..., LambdaRuntime],
) -> None:
    """SystemExit is no answer: Lambda reports it, and starts anew."""
    with start("leaving") as runtime:
        before = json.loads(runtime.invoke("stay").payload)
        gone = runtime.invoke("leave")
        after = json.loads(runtime.invoke("stay").payload)
    assert gone.error == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {gone.request_id}"
        " Error: Runtime exited with error: exit status 3",
    }
    assert before != after


def test_the_deadline_kills(start: Callable[..., LambdaRuntime]) -> None:
    """A handler past its timeout is killed on time, and the next invocation gets a new process."""
    with start("sleeping", timeout_s=0.3) as runtime:
        before = json.loads(runtime.invoke(0).payload)
        late = runtime.invoke(30)
        assert not exists(before)
        after = json.loads(runtime.invoke(0.4, timeout_s=2).payload)
    assert late.error is not None
    assert late.error["errorType"] == "Sandbox.Timedout"
    assert late.error["errorMessage"].endswith("Task timed out after 0.30 seconds")
    within(late.duration_s, 0.6, at_least_s=0.3)
    assert before != after


def test_a_module_that_cannot_be_imported_is_an_init_error(tmp_path: Path) -> None:
    """The error document of the init answers every invocation."""
    with LambdaRuntime("missing.handler", tmp_path) as runtime:
        assert runtime.init_error is not None
        assert runtime.init_error["errorType"] == "Runtime.ImportModuleError"
        assert runtime.invoke({}).error == runtime.init_error


def test_a_module_that_exits_is_an_error_with_its_output(tmp_path: Path) -> None:
    """A process that dies in its init says what it wrote."""
    (tmp_path / "app.py").write_text("print('no licence file'); raise SystemExit(7)")
    with (
        pytest.raises(LambdaRuntimeError, match=r"(?s)exit status 7.*no licence file"),
        LambdaRuntime("app.handler", tmp_path),
    ):
        pass


def test_a_module_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The init has its own limit, and no process stays behind."""
    monkeypatch.setattr(lambda_runtime, "INIT_LIMIT_S", 0.5)
    (tmp_path / "app.py").write_text("import time; time.sleep(60)")
    with (
        pytest.raises(LambdaRuntimeError, match="never asked for an event"),
        LambdaRuntime("app.handler", tmp_path),
    ):
        pass


def test_an_interpreter_without_the_client_is_named(tmp_path: Path) -> None:
    """The error says which interpreter lacks awslambdaric, and how to install it."""
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    with (
        pytest.raises(LambdaRuntimeError, match="pip install awslambdaric"),
        LambdaRuntime("app.handler", tmp_path, python=python),
    ):
        pass


def test_an_unstarted_runtime_says_so(tmp_path: Path) -> None:
    """Without the with block there is no process."""
    with pytest.raises(LambdaRuntimeError, match="context manager"):
        LambdaRuntime("app.handler", tmp_path).freeze()
