"""A Vercel function that cannot start, dies, or never ends is an error that says why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.vercel import sandbox
from doow_serverless.local.vercel.runtime import VercelRuntime, VercelRuntimeError
from tests.runtimes.processes import exists
from tests.runtimes.vercel.sample_functions import MODES

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("mode", MODES)
def test_a_process_that_dies_is_an_error(start: Callable[..., VercelRuntime], mode: str) -> None:
    """At once for the request under way, and for every one after it."""
    with start("handler", mode) as runtime:
        for _ in range(2):
            with pytest.raises(VercelRuntimeError, match="exit status 3"):
                runtime.request("GET", "/leave")


@pytest.mark.parametrize("mode", MODES)
def test_an_invocation_without_end_is_an_error(
    start: Callable[..., VercelRuntime], mode: str
) -> None:
    """The process is killed, and the error says so."""
    with start("handler", mode) as runtime:
        with pytest.raises(VercelRuntimeError, match="signal: SIGKILL"):
            runtime.request("GET", "/hang", timeout_s=0.5)
        assert not exists(runtime.pid)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print('no licence file')\nraise SystemExit(7)\napp = None", "status 7.*no licence file"),
        ("import nowhere\napp = None", "(?s)could not import.*No module named 'nowhere'"),
        ("app = 3", "Could not determine the application interface"),
        ("from http.server import BaseHTTPRequestHandler as B\napp = B", "application interface"),
    ],
)
def test_a_function_that_cannot_start_is_an_error(
    start: Callable[..., VercelRuntime], source: str, reason: str, mode: str
) -> None:
    """The error carries what the process wrote, wherever it wrote it."""
    with pytest.raises(VercelRuntimeError, match=f"(?s){reason}"), start(source, mode):
        pass


@pytest.mark.parametrize("mode", MODES)
def test_a_module_that_hangs_is_an_error(
    start: Callable[..., VercelRuntime], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start has a limit, and no process stays behind."""
    monkeypatch.setattr(sandbox, "INIT_LIMIT_S", 0.5)
    runtime = start("import time\ntime.sleep(60)\napp = None", mode)
    with pytest.raises(VercelRuntimeError, match="never"), runtime:
        pass
    assert not exists(runtime.pid)


def test_an_interpreter_without_the_runtime_is_an_error(
    start: Callable[..., VercelRuntime],
) -> None:
    """The interpreter of the tests has no vercel_runtime, and the error says so."""
    with (
        pytest.raises(VercelRuntimeError, match="No module named 'vercel_runtime'"),
        start("handler", python=sys.executable),
    ):
        pass


def test_a_module_without_entry_point_is_an_error(start: Callable[..., VercelRuntime]) -> None:
    """As the build, this starts nothing, unless the project names the variable."""
    function = (
        "def serve(environ, start_response):\n    start_response('200 OK', [])\n    return []"
    )
    with pytest.raises(VercelRuntimeError, match=r"no entry point in api/index\.py"):
        start(function)
    with start(function, variable="serve") as runtime:
        assert runtime.request("GET", "/").status == 200


def test_an_unstarted_runtime_says_so(start: Callable[..., VercelRuntime]) -> None:
    """Without the with block there is no process, and nothing to clean up."""
    with pytest.raises(VercelRuntimeError, match="context manager"):
        start("handler").freeze()
