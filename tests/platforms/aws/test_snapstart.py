"""SnapStart: a snapshot holds no events, and no sandbox restored from it goes on counting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.local import Fault, Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("awslambdaric")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FUNCTION = dedent(
    """
    import os, threading
    import doow_serverless as doow

    doow.configure(budget=20.0)
    doow.track("module_level", event_id="module")
    doow.track("series")

    @doow.tracked
    def handler(event, context):
        stray = threading.Thread(target=doow.track, args=("stray",))
        stray.start()
        stray.join()
        doow.track("tracked")
    """
)
SANDBOXES = dedent(
    """
    import ctypes, sys
    from awslambdaric import lambda_runtime_hooks_runner as hooks
    import app
    from doow_serverless._process import workers

    hooks.run_before_snapshot()
    sys.stdout.flush()
    for sandbox in range(3):
        # The fork of C, of which Python hears nothing: a copy, as one that is restored.
        pid = ctypes.CDLL(None).fork()
        if pid == 0:
            workers._idle.forget()  # In a copy that is restored, these threads live.
            hooks.run_after_restore()
            app.handler({}, None)
            sys.stdout.flush()
            app.os._exit(0)
        assert app.os.waitpid(pid, 0)[1] == 0
    app.os._exit(0)  # What the snapshot was taken of is never heard of again.
    """
)


PACKAGE = str(Path(doow.__file__).parents[1])


def environment(ingest: Ingest, **more: str) -> dict[str, str]:
    return {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
        "PYTHONPATH": PACKAGE,  # The tree, where that is what is tested.
        **more,
    }


@pytest.fixture
def restore_three(tmp_path: Path, ingest: Ingest) -> Callable[..., str]:
    """What three sandboxes print that are restored from the snapshot of one."""

    def run(function: str = FUNCTION, **more: str) -> str:
        (tmp_path / "app.py").write_text(function)
        initialised = {
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
            "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9",
        }
        done = subprocess.run(
            [sys.executable, "-c", SANDBOXES],
            cwd=tmp_path,
            env={**os.environ, **initialised, **environment(ingest, **more)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def dead_letters(text: str) -> list[dict[str, Any]]:
    """The records among what was printed."""
    return [json.loads(line) for line in text.splitlines() if '"doow_dead_letter"' in line]


def recorded(ingest: Ingest) -> Counter[str]:
    """How often each metric has arrived; all events under ids of their own."""
    events = ingest.events()
    assert len({event["event_id"] for event in events}) == len(events)
    assert {(post.status, post.duplicate) for post in ingest.posts()} <= {(202, False)}
    return Counter(event["measurements"][0]["metric_name"] for event in events)


def test_each_sandbox_sends_its_own(restore_three: Callable[..., str], ingest: Ingest) -> None:
    """Under ids of its own, over a connection of its own; what was there before is sent once."""
    assert dead_letters(restore_three()) == []
    assert recorded(ingest) == {"module_level": 1, "series": 1, "stray": 3, "tracked": 3}
    assert len({post.connection for post in ingest.posts()}) == 4


def test_what_cannot_be_delivered_before_is_written_down_once(
    restore_three: Callable[..., str], ingest: Ingest
) -> None:
    """No sandbox has it in its backlog, nor in its journal; nor a hold-off that others earned."""
    ingest.fault(Fault(rate_limit_s=3_600, only="module_level", times=None))
    records = dead_letters(restore_three(DOOW_TRACK_JOURNAL="1"))
    assert sum(record["events"] for record in records) == 2
    events = [event["measurements"][0]["metric_name"] for event in ingest.events()]
    assert Counter(events) == {"stray": 3, "tracked": 3}


def test_what_is_recorded_too_late_is_written_down_under_the_same_ids(
    restore_three: Callable[..., str], ingest: Ingest
) -> None:
    """By a hook that runs after ours: each sandbox has it, and a replay sends it once."""
    late = """
    from snapshot_restore_py import register_before_snapshot
    register_before_snapshot(lambda: doow.track("late"))
    """
    function = FUNCTION.replace("doow.configure", f"{dedent(late)}\ndoow.configure", 1)
    records = dead_letters(restore_three(function))
    assert [record["reason"] for record in records] == ["NOT_READY"] * 3
    assert len({record["batch_id"] for record in records}) == 1
    assert recorded(ingest) == {"module_level": 1, "series": 1, "stray": 3, "tracked": 3}


def test_by_awss_own_client(tmp_path: Path, ingest: Ingest) -> None:
    """Its hooks are called; a hold-off of before is over, and a dead connection is not used."""
    (tmp_path / "app.py").write_text(FUNCTION)
    ingest.fault(Fault(rate_limit_s=3_600, only="module_level", times=None))
    at_snapshot: list[int] = []

    def hours_pass() -> None:
        at_snapshot.append(len(ingest.posts()))

    with LambdaRuntime(
        "app.handler",
        tmp_path,
        env=environment(ingest),
        snap_start=hours_pass,
        timeout_s=30,
    ) as runtime:
        assert len(at_snapshot) == 1
        assert at_snapshot[0] > 0
        assert runtime.invoke({}).error is None
        assert [record["events"] for record in dead_letters(runtime.stdout)] == [2]
    events = [event["measurements"][0]["metric_name"] for event in ingest.events()]
    assert sorted(events) == ["stray", "tracked"]


def test_without_the_hooks(tmp_path: Path, ingest: Ingest) -> None:
    """Another runtime client brings none: nothing happens."""
    script = """
    import sys
    sys.modules["snapshot_restore_py"] = None
    import doow_serverless as doow
    doow.configure()
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        cwd=tmp_path,
        env={**os.environ, **environment(ingest), "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
