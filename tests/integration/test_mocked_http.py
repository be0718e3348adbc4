"""Beside tools that record or mock HTTP in the application's tests, ours is any other request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

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


def test_a_cassette_records_and_plays(
    function: Function, ours: Server, theirs: Server, tmp_path: Path
) -> None:
    """Connections that were there before are not used within it, nor its own ones afterwards."""
    cassette = str(tmp_path / "cassette.yaml")

    def arrived() -> tuple[int, int]:
        return len(ours.requests), len(theirs.requests)

    assert (function.work("evt_1"), arrived()) == (202, (1, 1))
    with vcr.use_cassette(cassette, record_mode="once"):
        assert (function.work("evt_2"), arrived()) == (202, (2, 2))
    assert (function.work("evt_3"), arrived()) == (202, (3, 3))
    with vcr.use_cassette(cassette, record_mode="none") as played:
        assert (function.work("evt_4"), arrived()) == (202, (3, 3))
        assert (played.play_count, played.all_played) == (2, True)
    assert (function.work("evt_5"), arrived()) == (202, (4, 4))
    assert (function.errors, [outcome.ok for outcome in function.outcomes]) == ([], [True] * 5)


def test_an_old_cassette(function: Function, ours: Server, theirs: Server, tmp_path: Path) -> None:
    """One that knows nothing of us plays what it has; our events are reported as undelivered."""
    cassette = str(tmp_path / "cassette.yaml")
    with vcr.use_cassette(cassette):
        requests.post(f"{theirs.url}/mine", timeout=5)
    with vcr.use_cassette(cassette, record_mode="none") as played:
        assert (function.work("evt_1"), played.all_played) == (202, True)
    assert (len(ours.requests), len(theirs.requests)) == (0, 1)
    (error,) = function.errors
    assert str(error) == "1 event not delivered: CannotOverwriteExistingCassetteException"


def test_what_a_cassette_holds_of_us(function: Function, tmp_path: Path) -> None:
    """As of everybody: the key, unless it is filtered; and nothing where our host is ignored."""
    texts = []
    for number, options in enumerate(
        [{}, {"filter_headers": ["authorization"]}, {"ignore_hosts": ["localhost", "127.0.0.1"]}]
    ):
        cassette = tmp_path / f"{number}.yaml"
        with vcr.use_cassette(str(cassette), **options):
            function.invoke(f"evt_{number}")
        texts.append(cassette.read_text() if cassette.exists() else "")
    assert [KEY in text for text in texts] == [True, False, False]
    assert ["/telemetry/events" in text for text in texts] == [True, True, False]
    assert function.errors == []


def test_a_cassette_does_not_open_the_way_to_an_interceptor(
    new_tracker: Callable[..., Tracker], ours: Server, tmp_path: Path
) -> None:
    """The connection that it makes to record verifies the server, too."""
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
