"""Requests that Vercel makes again: known by x-vercel-id and path, and counted once."""

from __future__ import annotations

import sys
from email.message import Message
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._platforms import vercel
from tests.platforms.vercel.sources import SHAPES
from tests.platforms.vercel.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")


@pytest.mark.parametrize("mode", ["ipc", "lambda"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_that_comes_again_is_counted_once(
    shape: str, mode: str, tmp_path: Path, vercel_python: Path
) -> None:
    """By the same id and path; another of either is work of its own."""
    with Stage(tmp_path, vercel_python, shape, mode, options={"idempotent": True}) as stage:
        counted = []
        for request_id, call in [
            ("iad1::one", "a"),
            ("iad1::one", "a"),
            ("iad1::two", "a"),
            ("iad1::one", "b"),
            ("iad1::two", "a"),
        ]:
            stage.request("plain", call, headers={"X-Vercel-Id": request_id})
            counted.append(len(stage.ingest.events()))
        assert counted == [2, 2, 4, 6, 6]
        assert [post.duplicate for post in stage.ingest.posts()] == [
            False, True, False, False, True
        ]  # fmt: skip


def test_without_the_option_each_request_is_counted(tmp_path: Path, vercel_python: Path) -> None:
    """The same id twice is twice the work, unless somebody says otherwise."""
    with Stage(tmp_path, vercel_python, "handler", "ipc") as stage:
        for _ in range(2):
            stage.request("plain", "a", headers={"X-Vercel-Id": "iad1::one"})
        assert len(stage.ingest.events()) == 4


def handler(**headers: str) -> Any:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return SimpleNamespace(path="/usage?page=2", headers=message)


ENVIRON = {"wsgi.version": (1, 0), "PATH_INFO": "/usage", "HTTP_X_VERCEL_ID": "iad1::one"}
SCOPE = {
    "type": "http",
    "path": "/usage",
    "headers": [(b"host", b"x"), (b"x-vercel-id", b"iad1::one")],
}


@pytest.mark.parametrize(
    ("args", "identity"),
    [
        ((handler(X_Vercel_Id="iad1::one"),), ("/usage?page=2", "request:iad1::one")),
        ((ENVIRON,), ("/usage", "request:iad1::one")),
        ((SCOPE,), ("/usage", "request:iad1::one")),
        ((None, SCOPE, "context"), ("/usage", "request:iad1::one")),
        ((handler(),), None),
        (({**ENVIRON, "HTTP_X_VERCEL_ID": ""},), None),
        (({**SCOPE, "headers": []},), None),
        (({"type": "http"},), None),
        (({}, None, "text"), None),
        ((), None),
    ],
)
def test_the_identity_of_a_request(
    args: tuple[Any, ...], identity: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path and id, in whichever form the request comes."""
    monkeypatch.setenv("VERCEL", "1")
    assert vercel.find_identity(args, {}) == identity


@pytest.mark.parametrize("request_", [handler(X_Vercel_Id="iad1::one"), ENVIRON, SCOPE])
def test_off_vercel_the_header_is_anybodys(request_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client could have all its requests counted as one."""
    monkeypatch.delenv("VERCEL", raising=False)
    monkeypatch.delitem(sys.modules, "vercel_runtime", raising=False)
    assert vercel.find_identity((request_,), {}) is None
    monkeypatch.setitem(sys.modules, "vercel_runtime", sys)
    assert vercel.find_identity((request_,), {}) is not None
