"""The internal extension on Lambda: when it takes a job, when it does it, and what ends it."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless._platforms.aws_extension import (
    Extension,
    ExtensionClient,
    Invocations,
    Refused,
)
from tests.network import Server
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.network import Peer

WAIT_S = 10


def answer(status: str, body: object, *headers: str) -> bytes:
    text = json.dumps(body)
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(text)}", *headers]
    return "\r\n".join([*lines, "", text]).encode()


def invoke(request_id: str, left_s: float = 10.0) -> bytes:
    deadline_ms = int((time.time() + left_s) * 1000)
    event = {"eventType": "INVOKE", "deadlineMs": deadline_ms, "requestId": request_id}
    return answer("200 OK", event)


REGISTERED = answer("200 OK", {}, "Lambda-Extension-Identifier: ours")
UNKNOWN = answer("403 Forbidden", {"errorType": "Extension.UnknownExtensionIdentifier"})


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


# ── what it says to Lambda ──────────────────────────────────────────────────────────────────────


def test_it_registers_for_invocations_alone() -> None:
    """Lambda refuses to tell an internal extension of its shutdown."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(REGISTERED)
        peer.request()
        peer.send(invoke("1"))

    with Server(behave) as server:
        client = ExtensionClient(address(server))
        client.register()
        # Registering and asking are on connections of their own.
        first = server.requests[0]
    assert first.head.startswith("POST /2020-01-01/extension/register ")
    assert first.header("Lambda-Extension-Name") == "doow-serverless"
    assert json.loads(first.body) == {"events": ["INVOKE"]}


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (
            lambda peer: peer.request() and peer.send(answer("403 Forbidden", "too many")),
            'HTTP 403: "too many"',
        ),
        (lambda peer: peer.reset(), "could not be reached"),
    ],
)
def test_a_registration_that_fails_says_why(behave: Callable[[Peer], None], reason: str) -> None:
    """What Lambda answers, or that it does not."""
    with Server(behave) as server, pytest.raises(Refused, match=reason):
        ExtensionClient(address(server)).register()


def test_a_connection_that_breaks_is_made_anew() -> None:
    """Else Lambda would wait for an extension that never asks, until the function times out."""

    def behave(peer: Peer) -> None:
        if peer.request() is None:
            return
        if peer.number == 0:
            peer.send(REGISTERED)
        elif peer.number < 4:
            peer.reset()
        else:
            peer.send(invoke("7", left_s=5.0))

    with Server(behave) as server:
        client = ExtensionClient(address(server))
        client.register()
        request_id, ends_at = client.next_event()
        client.close()
        asked = server.requests[1:]
    assert request_id == "7"
    within(ends_at - time.monotonic(), 5.1, at_least_s=4.0)
    assert {request.header("Lambda-Extension-Identifier") for request in asked} == {"ours"}


# ── what it does with jobs ──────────────────────────────────────────────────────────────────────


class Lambda:
    """Gives one invocation after the other, and an end."""

    def __init__(self, *request_ids: str) -> None:
        self.given = list(request_ids)
        self.asked = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)

    def behave(self, peer: Peer) -> None:
        while peer.request() is not None:
            self.asked.release()
            assert self.may_go_on.acquire(timeout=WAIT_S)
            peer.send(invoke(self.given.pop(0)) if self.given else UNKNOWN)

    def wait_until_asked(self) -> None:
        assert self.asked.acquire(timeout=WAIT_S)

    def give(self) -> None:
        self.may_go_on.release()


@pytest.mark.contains
def test_jobs_are_done_after_the_response_and_before_it_asks_again() -> None:
    """Also those after one that raises; each is told the deadline."""
    invocations, stage = Invocations(), Lambda("1")
    done: list[float] = []
    with Server(stage.behave) as server:
        extension = Extension(ExtensionClient(address(server)), invocations)
        thread = threading.Thread(target=extension.run)
        thread.start()
        stage.wait_until_asked()
        assert not extension.take(done.append)  # Nothing runs yet.
        invocations.begin("1")
        assert extension.take(lambda _: 1 / 0)  # type: ignore[arg-type]
        assert extension.take(done.append)
        stage.give()
        time.sleep(0.05)
        assert done == []
        invocations.end()
        stage.wait_until_asked()
        assert [0.0 < ends_at - time.monotonic() <= 10.1 for ends_at in done] == [True]
        assert not extension.take(done.append)
        stage.give()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def test_an_event_that_comes_late_is_not_waited_for() -> None:
    """A quick handler may be done before the extension has heard of its invocation."""
    invocations, stage = Invocations(), Lambda("1")
    done: list[float] = []
    with Server(stage.behave) as server:
        extension = Extension(ExtensionClient(address(server)), invocations)
        invocations.begin("1")
        assert extension.take(done.append)
        invocations.end()
        thread = threading.Thread(target=extension.run)
        thread.start()
        for _ in range(2):
            stage.wait_until_asked()
            stage.give()
        thread.join(WAIT_S)
    assert len(done) == 1


def test_once_lambda_has_refused_it_nothing_is_taken_and_nothing_lost() -> None:
    """What was handed over meanwhile is done at once, with no time to wait."""
    invocations, stage = Invocations(), Lambda()
    done: list[float] = []
    with Server(stage.behave) as server:
        extension = Extension(ExtensionClient(address(server)), invocations)
        invocations.begin("1")
        assert extension.take(done.append)
        thread = threading.Thread(target=extension.run)
        thread.start()
        stage.wait_until_asked()
        stage.give()
        thread.join(WAIT_S)
    assert done == [0.0]
    assert not extension.take(done.append)
