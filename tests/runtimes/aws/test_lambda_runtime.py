"""The freezing Lambda runtime, with plain handlers: what the other Lambda tests stand on."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import venv
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import lambda_runtime
from doow_serverless.local.lambda_runtime import LambdaRuntime, LambdaRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("awslambdaric")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

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


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., LambdaRuntime]:
    """A runtime of one of the handlers above."""
    (tmp_path / "app.py").write_text(HANDLERS)

    def start(name: str, **options: object) -> LambdaRuntime:
        return LambdaRuntime(f"app.{name}", tmp_path, **options)  # type: ignore[arg-type]

    return start


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
        assert 8_900 < seen.pop("remaining_ms") <= 9_000
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
    assert 0.3 <= late.duration_s < 0.6
    assert before != after


def test_the_duration_is_that_of_the_handler(start: Callable[..., LambdaRuntime]) -> None:
    """The runtime adds next to nothing to what it measures."""
    with start("sleeping") as runtime:
        runtime.invoke(0)
        nothing = min(runtime.invoke(0).duration_s for _ in range(20))
        some = min(runtime.invoke(0.05).duration_s for _ in range(3))
    assert nothing < 0.01
    assert 0.05 <= some < 0.07


def test_background_threads_freeze_between_invocations(
    start: Callable[..., LambdaRuntime],
) -> None:
    """A thread that counts all the time has not counted while nobody was served."""
    with start("ticking") as runtime:
        before = json.loads(runtime.invoke({}).payload)
        time.sleep(0.5)  # about a hundred ticks, if it ran
        after = json.loads(runtime.invoke({}).payload)
    assert 0 < after - before < 40


def test_without_freezing_background_threads_go_on(start: Callable[..., LambdaRuntime]) -> None:
    """The counterpart: the same thread counts on when the freeze is switched off."""
    with start("ticking", freeze=False) as runtime:
        before = json.loads(runtime.invoke({}).payload)
        time.sleep(0.5)
        after = json.loads(runtime.invoke({}).payload)
    assert after - before > 40


def test_freezing_by_hand_stalls_an_invocation(start: Callable[..., LambdaRuntime]) -> None:
    """A pause of the whole sandbox in the middle of an invocation prolongs it."""
    with start("sleeping") as runtime:
        runtime.invoke(0)
        pauses = [threading.Timer(0.05, runtime.freeze), threading.Timer(0.4, runtime.thaw)]
        for pause in pauses:
            pause.start()
        invocation = runtime.invoke(0.1)
        for pause in pauses:
            pause.join()
    assert invocation.error is None
    assert invocation.duration_s >= 0.35


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


def test_a_recycled_sandbox_is_replaced(start: Callable[..., LambdaRuntime]) -> None:
    """After kill() of the frozen process the next invocation starts one, and stdout has both."""
    with start("loud") as runtime:
        runtime.invoke({})
        pid = runtime.pid
        runtime.kill()
        assert not exists(pid)
        assert runtime.invoke({}).error is None
        assert runtime.pid != pid
        assert runtime.stdout.count("x" * 300_000) == 2
        assert runtime.stdout.count("to standard error") == 2


def test_nothing_is_left_behind(start: Callable[..., LambdaRuntime]) -> None:
    """Leaving the block kills the frozen process and what it started."""
    with start("forking") as runtime:
        child = json.loads(runtime.invoke({}).payload)
        assert exists(child)
    assert not exists(runtime.pid)
    give_up = time.monotonic() + 5  # its new parent has yet to collect it
    while exists(child) and _state(child) != "Z" and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not exists(child) or _state(child) == "Z"


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


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
