"""What surrounds an invocation: headers, deadline, log, messages and environment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.runtimes.vercel.sample_functions import MODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.local.vercel.runtime import VercelRuntime


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", ["wsgi", "asgi"])
def test_the_request_carries_id_and_deadline(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """Each request has its own x-vercel-id, unless one is given, and its own deadline."""
    with start(shape, mode, max_duration_s=60.0) as runtime:
        first, second = (runtime.request("GET", "/id").body for _ in range(2))
        given = runtime.request("GET", "/id", {"X-Vercel-Id": "mine"}).body
        deadlines = []
        for _ in range(2):
            time.sleep(0.002)  # A deadline is told in milliseconds.
            deadlines.append(runtime.request("GET", "/deadline").body.decode())
    assert first.startswith(b"iad1::iad1::")
    assert first != second
    assert given == b"mine"
    assert deadlines[0] < deadlines[1]
    assert all(deadline.endswith("+00:00") for deadline in deadlines)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_request_logs_is_its_own(start: Callable[..., VercelRuntime], mode: str) -> None:
    """The lines of one request are not those of the next."""
    with start("handler", mode) as runtime:
        said = runtime.request("GET", "/say")
        other = runtime.request("GET", "/path")
        assert [line for line in said.log if line.startswith("said")] == ["said by /say"]
        assert [line for line in other.log if line.startswith("said")] == []
        assert runtime.stdout.count("said by /say\n") == 1


def test_the_messages_of_an_invocation(start: Callable[..., VercelRuntime]) -> None:
    """The process reports the start, the output and the end of each invocation, in this order."""
    with start("flask") as runtime:
        response = runtime.request("GET", "/say")
    kinds = [message["type"] for message in response.messages]
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == ("handler-started", {"log"}, "end")


@pytest.mark.parametrize("mode", MODES)
def test_the_environment_is_that_of_vercel(
    start: Callable[..., VercelRuntime], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours reaches the function, and its own variables win."""
    for name in ("DOOW_TRACK_API_KEY", "HTTPS_PROXY", "VIRTUAL_ENV", "HOME"):
        monkeypatch.setenv(name, "inherited")
    with start("wsgi", mode, env={"STAGE": "test", "VERCEL_ENV": "preview"}) as runtime:
        seen: dict[str, str] = eval(runtime.request("GET", "/environment").body)
    assert "inherited" not in seen.values()
    assert seen["STAGE"] == "test"
    assert seen["VERCEL_ENV"] == "preview"
    assert seen["VERCEL"] == "1"
    assert ("VERCEL_IPC_PATH" in seen) is (mode == "ipc")
