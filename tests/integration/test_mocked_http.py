"""Beside tools that record or mock HTTP in the application's tests, ours is any other request."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import requests
from urllib3 import connectionpool as pool

from tests.integration.services import Service
from tests.network import KEY, Server, accepting
from tests.tls import Authority, TlsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from doow_serverless import Tracker

vcr: Any = pytest.importorskip("vcr")
ENDPOINTS = ["http", "https"]


class Function(Service):
    """A function that asks a server of its own, besides what it meters."""

    def __init__(self, new_tracker: Callable[..., Tracker], endpoint: str, other: str) -> None:
        super().__init__(new_tracker, endpoint)
        self._other = other

    def work(self, event_id: str) -> int:
        """Meter one event, and return what the other server answers."""
        self.invoke(event_id)
        return requests.post(f"{self._other}/mine", timeout=5).status_code


@pytest.fixture(params=ENDPOINTS)
def ours(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """Where the events go."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    context = authority.server_context("localhost")
    with Server(accepting) if request.param == "http" else TlsServer(context) as server:
        yield server


@pytest.fixture
def theirs() -> Iterator[Server]:
    """What the application asks."""
    with Server(accepting) as server:
        yield server


@pytest.fixture
def function(
    ours: Server, theirs: Server, new_tracker: Callable[..., Tracker]
) -> Iterator[Function]:
    function = Function(new_tracker, ours.url, theirs.url)
    yield function
    function.tracker.engine.outbox.close_idle()
    function.tracker.engine.outbox.begin_anew()  # The next test's mocks are not for its retries.


def test_a_cassette_leaves_us_out(
    function: Function, ours: Server, theirs: Server, tmp_path: Path
) -> None:
    """It records and plays what the application asks; our events arrive as without it."""
    cassette = tmp_path / "cassette.yaml"

    def arrived() -> tuple[int, int]:
        return len(ours.requests), len(theirs.requests)

    assert (function.work("evt_1"), arrived()) == (202, (1, 1))
    with vcr.use_cassette(str(cassette), record_mode="once"):
        assert (function.work("evt_2"), arrived()) == (202, (2, 2))
    assert (function.work("evt_3"), arrived()) == (202, (3, 3))
    with vcr.use_cassette(str(cassette), record_mode="none") as played:
        assert (function.work("evt_4"), arrived()) == (202, (4, 3))
        assert (played.play_count, played.all_played) == (1, True)
    assert (function.work("evt_5"), arrived()) == (202, (5, 4))
    assert (function.errors, [outcome.ok for outcome in function.outcomes]) == ([], [True] * 5)
    text = cassette.read_text()
    assert ("/mine" in text, "/telemetry" in text, KEY in text) == (True, False, False)


def test_a_cassette_ends_while_we_connect(function: Function, tmp_path: Path) -> None:
    """Nothing of its patches is left behind, though threads of ours are at work."""
    before = pool.HTTPConnectionPool.ConnectionCls, pool.HTTPSConnectionPool.ConnectionCls
    function.tracker.engine.outbox.close_idle()
    workers = [Thread(target=function.invoke, args=(f"evt_{number}",)) for number in range(8)]
    for number, worker in enumerate(workers):
        with vcr.use_cassette(str(tmp_path / f"{number}.yaml")):
            worker.start()
    for worker in workers:
        worker.join()
    after = pool.HTTPConnectionPool.ConnectionCls, pool.HTTPSConnectionPool.ConnectionCls
    assert (after, function.errors) == (before, [])


def test_a_cassette_does_not_open_the_way_to_an_interceptor(
    new_tracker: Callable[..., Tracker], ours: Server, tmp_path: Path
) -> None:
    """Within it, too, the server is verified."""
    context = Authority(tmp_path).server_context("localhost")
    with TlsServer(context) as interceptor, vcr.use_cassette(str(tmp_path / "cassette.yaml")):
        service = Service(new_tracker, interceptor.url)
        service.invoke("evt_1")
        assert interceptor.requests == []
    service.tracker.engine.outbox.begin_anew()
    assert ["SSLCertVerificationError" in str(error) for error in service.errors] == [True]


def test_responses(function: Function, ours: Server, theirs: Server) -> None:
    """Registered, our endpoint answers; what the application has registered does so anyway."""
    responses: Any = pytest.importorskip("responses")
    with responses.RequestsMock() as mock:
        mock.post(f"{theirs.url}/mine", status=201)
        mock.post(f"{ours.url}/telemetry/events", json={}, status=202)
        assert function.work("evt_1") == 201
        assert [call.request.url for call in mock.calls] == [
            f"{ours.url}/telemetry/events",
            f"{theirs.url}/mine",
        ]
    assert (ours.requests, theirs.requests, function.errors) == ([], [], [])
    assert (function.work("evt_2"), len(ours.requests), len(theirs.requests)) == (202, 1, 1)
