"""The whole way on Lambda: AWS's own runtime client, frozen between invocations, real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local.lambda_runtime import Invocation, LambdaRuntime
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless.local import Ingest

APP = """
import doow_serverless as doow

def handler(event, context):
    for number in range(event["events"]):
        doow.track("tokens", number + 1, attribution={"invocation": event["invocation"]})
    if event.get("fails"):
        return deeper(event)
    return {"text": "größe \\u2028", "number": 1.50, "nested": [None, True], "event": event}

def deeper(event):
    raise LookupError("no such customer: " + event["fails"])
"""


@pytest.fixture
def sandbox(tmp_path: Path, ingest: Ingest) -> Callable[[str], LambdaRuntime]:
    """Makes a sandbox for the handler, tracked or not."""

    def make(kind: str) -> LambdaRuntime:
        directory = tmp_path / kind
        directory.mkdir()
        if kind == "tracked":
            code = APP.replace("def handler", "@doow.tracked\ndef handler")
        else:
            code = APP.replace("doow.track(", "(lambda *_, **__: None)(")
        (directory / "app.py").write_text(code)
        env = {
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": ingest.url,
            "DOOW_TRACK_LICENSE_ID": "lic_test",
            # Ample, so that no batch is sent twice for fear that a busy machine is a dead one.
            "DOOW_TRACK_BUDGET": "20000",
        }
        return LambdaRuntime("app.handler", directory, env=env, timeout_s=30)

    return make


@pytest.mark.parametrize(("events", "posts"), [(1, 1), (100, 1), (5_000, 10)])
def test_all_events_arrive_before_the_freeze(
    sandbox: Callable[[str], LambdaRuntime], ingest: Ingest, events: int, posts: int
) -> None:
    """Each once, in as few POSTs as may be, and all of them when the sandbox is frozen."""
    with sandbox("tracked") as runtime:
        for invocation in (1, 2, 3):
            event = {"events": events, "invocation": invocation}
            assert runtime.invoke(event).error is None, runtime.stdout
            arrived = [
                each["measurements"][0]["quantity"]
                for each in ingest.events()
                if each["attribution"] == {"invocation": invocation}
            ]
            assert sorted(arrived) == list(range(1, events + 1))
            assert len(ingest.posts()) == posts * invocation
    assert len({each["event_id"] for each in ingest.events()}) == 3 * events


def test_the_response_is_the_same_to_the_byte(sandbox: Callable[[str], LambdaRuntime]) -> None:
    """What goes back to the caller does not tell whether the handler is tracked."""
    event = {"events": 3, "invocation": 1}
    answers = []
    for kind in ("tracked", "bare"):
        with sandbox(kind) as runtime:
            answers.append(runtime.invoke(event).payload)
    assert answers[0] == answers[1]


def test_the_error_is_the_same(sandbox: Callable[[str], LambdaRuntime], ingest: Ingest) -> None:
    """Type, message and the user's own frames; only the wrapper's frame may stand above them."""
    event = {"events": 3, "invocation": 1, "fails": "globex"}
    errors = []
    for kind in ("tracked", "bare"):
        with sandbox(kind) as runtime:
            errors.append(_comparable(runtime.invoke(event)))
    assert errors[0] == errors[1]
    assert len(ingest.events()) == 3


def _comparable(invocation: Invocation) -> dict[str, Any]:
    """An error document without what differs between two sandboxes: ids, folders, line numbers."""
    assert invocation.error is not None
    document = {**invocation.error, "requestId": ""}
    frames = [frame.split("\n") for frame in document["stackTrace"]]
    document["stackTrace"] = [
        (head.split(", in ")[1], code.strip())
        for head, code, *_ in frames
        if "doow_serverless" not in head
    ]
    return document
