"""An invocation carries its request and its context, and all that became of it comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import (
    AzureHost,
    AzureHostError,
    HttpResponse,
    Log,
    http_request,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_http_request_and_response(v2: AzureHost) -> None:
    """The whole request reaches a sync function, and all of its answer and its log comes back."""
    request = http_request(
        "POST", "http://localhost/api/greet?name=Ada", headers={"X-Test": "t"}, body=b"body"
    )

    answer = v2.invoke("greet", {"req": request})

    assert answer.ok
    assert isinstance(answer.return_value, HttpResponse)
    assert (answer.return_value.status, answer.return_value.body) == (201, b"POST body t")
    assert answer.return_value.headers["x-answer"] == "42"
    assert [cookie["name"] for cookie in answer.return_value.cookies] == ["a"]
    assert [Log("Warning", "shop", "greeting Ada")] == answer.logs
    assert "printed\n" in v2.stdout


def test_async_function_sees_its_context(v2: AzureHost) -> None:
    """The context holds the invocation's id, the retry count and the trace."""
    answer = v2.invoke("agreet", {"req": http_request(route_params={"who": "x"})}, retry=(2, 5))

    assert f"x|agreet|{answer.id}|2|5|00" == answer.return_value
    assert [Log("Information", "shop", "async")] == answer.logs


def test_exception_is_reported(v2: AzureHost) -> None:
    """An exception comes back with its type, its message and its stack."""
    error = v2.invoke("fail", {"req": http_request()}).error

    assert error is not None
    assert (error.type, error.message) == ("ValueError", "no such thing")
    assert "in fail" in error.stack


@pytest.mark.parametrize("name", ["meet", "ameet"])
def test_invocations_run_at_the_same_time(v2: AzureHost, name: str) -> None:
    """Two invocations that wait for each other both end, in threads and on the loop."""
    started = [
        v2.start(name, {"req": http_request(url=f"http://localhost/?n={n}")}) for n in (1, 2)
    ]

    assert [future.result(20).return_value for future in started] == ["1", "2"]


def test_unknown_function_is_named(v2: AzureHost) -> None:
    """A wrong name is an error that lists the right ones."""
    with pytest.raises(AzureHostError, match=r"no function named 'nope' was loaded, but: .*greet"):
        v2.invoke("nope", {})


def test_no_answer_in_time(v2_app: Path, newest_python: Path) -> None:
    """An invocation that does not end is given up after its time."""
    with (
        AzureHost(v2_app, python=newest_python, model="v2") as host,
        pytest.raises(AzureHostError, match=r"'stuck' did not answer within 0.2 s"),
    ):
        host.invoke("stuck", {"req": http_request()}, timeout_s=0.2)


def test_moments_are_on_the_monotonic_clock(v2: AzureHost) -> None:
    """The moment of the answer lies within the call."""
    before = time.monotonic()
    answer = v2.invoke("tick", {"timer": triggers.timer()})

    assert before <= answer.responded_at - answer.duration_s
    assert answer.responded_at <= time.monotonic()
    assert answer.duration_s > 0
