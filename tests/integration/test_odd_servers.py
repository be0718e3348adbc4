"""Servers that are well but odd: slow, in flight, of an older HTTP, or choking on one batch."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.services import Service
from tests.network import ACCEPTED, KEY, Peer, Server
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless import Tracker


def answer(status: int, body: bytes = b"{}", version: str = "1.1", **headers: object) -> bytes:
    heads = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/{version} {status} Odd\r\n{heads}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )


def serving(reply: Callable[[Peer, dict[str, Any]], bytes]) -> Callable[[Peer], None]:
    def behave(peer: Peer) -> None:
        while request := peer.request():
            peer.send(reply(peer, request.batch))

    return behave


# ── one batch that it cannot digest ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["500", "408", "301", "reset"])
def test_one_event_that_the_server_cannot_digest(
    how: str, new_tracker: Callable[..., Tracker]
) -> None:
    """All others arrive, those of its own batch included; it is reported and left alone.

    Where the connection breaks its batch stays whole, since Doow may have it.
    """

    def behave(peer: Peer) -> None:
        while request := peer.request():
            if "poison" not in request.event_ids:
                peer.send(ACCEPTED)
            elif how == "reset":
                peer.reset()
                return
            else:
                peer.send(answer(int(how)))

    passed_s = 0.0
    with Server(behave) as server:
        service = Service(
            # Ample for a busy machine: what counts here is that nothing is waited for in vain.
            new_tracker,
            server.url,
            budget=1.0,
            clock=lambda: time.monotonic() + passed_s,
        )
        service.invoke("evt_a", "poison", "evt_b", "evt_c")
        for number in range(60):
            service.invoke(f"evt_{number}")
            passed_s += 30.0
            time.sleep(0.002)
        sent = [event for request in server.requests for event in request.event_ids]
    lost = [error for error in service.errors if "it cannot be delivered" in str(error)]
    whole = ("evt_a", "poison", "evt_b", "evt_c")
    assert [error.event_ids for error in lost] == [whole if how == "reset" else ("poison",)]
    assert service.tracker.engine.outbox.kept_events == 0
    assert {"evt_a", "evt_b", "evt_c", *(f"evt_{number}" for number in range(60))} <= set(sent)
    # Of 63. A try of the one that fails may come in between, and have an invocation not wait.
    assert sum(outcome.accepted for outcome in service.outcomes) >= 50


# ── slow, and at work on it ─────────────────────────────────────────────────────────────────────


def test_a_slow_server_is_asked_once(new_tracker: Callable[..., Tracker]) -> None:
    """150 ms are neither silence nor a reason to ask again, with a budget of half a second."""
    seen: set[str] = set()

    def reply(_: Peer, batch: dict[str, Any]) -> bytes:
        if batch["batch_id"] in seen:
            return answer(503, Retry_After=1)
        seen.add(batch["batch_id"])
        time.sleep(0.15)
        return ACCEPTED

    with Server(serving(reply)) as server:
        service = Service(new_tracker, server.url, budget=0.5)
        for number in range(6):
            service.invoke(f"evt_{number}")
        assert len(server.requests) == 6
    assert [outcome.accepted for outcome in service.outcomes] == [1] * 6


@pytest.mark.parametrize("kind", ["HTTP/1.0", "Connection: close"])
def test_a_connection_that_is_not_kept_is_not_doubted(
    kind: str, new_tracker: Callable[..., Tracker]
) -> None:
    """Each POST has one of its own, which has just proved that it lives."""

    def behave(peer: Peer) -> None:
        if peer.request():
            time.sleep(0.3)
            if kind == "HTTP/1.0":
                peer.send(answer(202, version="1.0"))
            else:
                peer.send(answer(202, Connection="close"))

    with Server(behave) as server:
        service = Service(new_tracker, server.url, budget=0.6)
        for number in range(4):
            service.invoke(f"evt_{number}")
        assert [request.connection for request in server.requests] == [0, 1, 2, 3]
    assert [(each.accepted, each.requests) for each in service.outcomes] == [(1, 1)] * 4


def test_a_reset_and_then_in_flight(new_tracker: Callable[..., Tracker]) -> None:
    """The budget is there to be used: asked again a second later, the server has it."""
    posts: list[str] = []

    def behave(peer: Peer) -> None:
        while request := peer.request():
            posts.append(request.batch["batch_id"])
            if len(posts) == 1:
                peer.reset()
                return
            peer.send(answer(503, Retry_After=1) if len(posts) == 2 else ACCEPTED)

    with Server(behave) as server:
        service = Service(new_tracker, server.url, budget=3.0)
        took_s = service.invoke("evt_1")
    assert (service.outcomes[0].accepted, len(set(posts))) == (1, 1)
    within(took_s, 2.0, at_least_s=1.0)


# ── answers that are odd ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("interim", [100, 102, 103])
def test_interim_answers_are_passed_over(interim: int, new_tracker: Callable[..., Tracker]) -> None:
    """The answer is what follows; the next POST is not taken for answered before it was sent."""

    def reply(_: Peer, batch: dict[str, Any]) -> bytes:
        head = f"HTTP/1.1 {interim} Interim\r\nLink: </style.css>\r\n\r\n".encode()
        is_odd = batch["events"][0]["event_id"] in ("evt_1", "evt_3")
        return head + (answer(400) if is_odd else ACCEPTED)

    with Server(serving(reply)) as server:
        service = Service(new_tracker, server.url)
        for number in range(4):
            service.invoke(f"evt_{number}")
    assert [outcome.accepted for outcome in service.outcomes] == [1, 0, 1, 0]


@pytest.mark.parametrize("events", [3, 500])
def test_a_long_207_is_read_to_its_end(events: int, new_tracker: Callable[..., Tracker]) -> None:
    """500 rejections, each with a reason of 540 letters: none of them counts as accepted."""

    def reply(_: Peer, batch: dict[str, Any]) -> bytes:
        listed = [
            {"event_id": event["event_id"], "reason": "license_not_found: " + "y" * 540}
            for event in batch["events"]
        ]
        said = {"accepted": 0, "rejected": len(listed), "rejections": listed}
        return answer(207, json.dumps(said).encode())

    with Server(serving(reply)) as server:
        service = Service(new_tracker, server.url)
        service.invoke(*(f"evt_{number}" for number in range(events)))
    (outcome,) = service.outcomes
    assert (outcome.accepted, len(outcome.rejected), outcome.ok) == (0, events, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{" + b" " * 2_000_000 + b"}"])
def test_a_207_that_cannot_be_read_accepts_nothing(
    body: bytes, new_tracker: Callable[..., Tracker]
) -> None:
    """Empty, no JSON, or too long: each event is reported, and none is sent again."""
    with Server(serving(lambda *_: answer(207, body))) as server:
        service = Service(new_tracker, server.url)
        service.invoke("evt_1", "evt_2")
        service.invoke()
        assert len(server.requests) == 1
    (outcome,) = service.outcomes
    assert outcome.accepted == 0
    assert [event for event, _ in outcome.rejected] == ["evt_1", "evt_2"]
    assert all("cannot be read" in why for _, why in outcome.rejected)


def test_a_body_that_unpacks_without_end(new_tracker: Callable[..., Tracker]) -> None:
    """Gzip was not asked for, and 300 MB of it are not unpacked."""
    bomb = gzip.compress(b" " * 300_000_000, 9)

    with Server(serving(lambda *_: answer(202, bomb, Content_Encoding="gzip"))) as server:
        service = Service(new_tracker, server.url)
        service.invoke("warm")
        import tracemalloc

        tracemalloc.start()
        service.invoke("evt_1")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000
    assert [outcome.accepted for outcome in service.outcomes] == [1, 1]


# ── frozen between quick invocations ────────────────────────────────────────────────────────────

FREEZER = Path("/sys/fs/cgroup/freezer")
FUNCTION = """
import sys, time
import doow_serverless as doow
doow.configure(
    endpoint=sys.argv[1], license_id="lic_1", timeout=1.0, on_error=lambda error: None
)

@doow.tracked
def handler(name):
    doow.track("tokens", event_id=name)

for line in sys.stdin:
    handler(line.strip())
    print("done", flush=True)
"""


class Frozen:
    """A function that is frozen whenever it does not work, as a sandbox is."""

    def __init__(self, url: str) -> None:
        self._cgroup = FREEZER / f"doow-test-{os.getpid()}"
        self._cgroup.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-c", FUNCTION, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DOOW_TRACK_API_KEY": KEY},
        )
        (self._cgroup / "cgroup.procs").write_text(str(self._process.pid))

    def invoke(self, name: str) -> None:
        self._set("THAWED")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        while "done" not in self._process.stdout.readline():
            pass
        self._set("FROZEN")

    def _set(self, state: str) -> None:
        path = self._cgroup / "freezer.state"
        path.write_text(state)
        while path.read_text().strip() != state:
            time.sleep(0.001)

    def close(self) -> None:
        self._set("THAWED")
        self._process.kill()
        self._process.communicate()
        time.sleep(0.05)
        self._cgroup.rmdir()


@pytest.fixture
def frozen() -> Iterator[Callable[[str], Frozen]]:
    made: list[Frozen] = []

    def make(url: str) -> Frozen:
        made.append(Frozen(url))
        return made[0]

    yield make
    for each in made:
        each.close()


@pytest.mark.skipif(
    not os.access(FREEZER, os.W_OK) or not (FREEZER / "cgroup.procs").exists(),
    reason="there is no cgroup to freeze processes in",
)
def test_a_quick_function_is_back_within_two_invocations(
    frozen: Callable[[str], Frozen],
) -> None:
    """Frozen for seconds between invocations of 2 ms, after a failure, with a server 40 ms away."""
    is_well = [False]

    def behave(peer: Peer) -> None:
        while peer.request():
            if not is_well[0]:
                peer.reset()
                return
            time.sleep(0.12)
            peer.send(ACCEPTED)

    with Server(behave) as server:
        function = frozen(server.url)
        function.invoke("first")
        is_well[0] = True
        before = len(server.requests)
        for number in range(4):
            time.sleep(1.6)
            function.invoke(f"evt_{number}")
        arrived = [event for request in server.requests[before:] for event in request.event_ids]
    assert {"first", "evt_0", "evt_1", "evt_2"} <= set(arrived)
