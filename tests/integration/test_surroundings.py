"""What surrounds a flush: netrc, proxies, and the bounds of what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doow_serverless import Outcome
from doow_serverless.errors import ErrorKind
from tests.integration.services import Service, ids
from tests.network import KEY, Server, accepting, refused_port, silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless import Tracker
    from doow_serverless.local import Ingest


# ── the surroundings ───────────────────────────────────────────────────────────────────────────


def test_netrc_is_not_consulted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """A .netrc that knows the host does not replace the key."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with Server(accepting) as server:
        Service(new_tracker, server.url).invoke("evt_1")
        assert [request.header("Authorization") for request in server.requests] == [f"Bearer {KEY}"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxy_is_not_used_for_loopback(
    name: str, monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """A proxy has no business between this machine and itself."""
    with Server(accepting) as proxy, Server(accepting) as server:
        monkeypatch.setenv(name, proxy.url)
        Service(new_tracker, server.url).invoke("evt_1")
        assert (len(proxy.requests), len(server.requests)) == (0, 1)


def test_proxy_is_used_for_https(
    monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """To the outside the proxy of the environment is used, and does not see the key."""
    with Server(silent) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        Service(new_tracker, "https://ingest.invalid", budget=0.2).invoke("evt_1")
        request = proxy.wait_for(1)[0]
    assert request.head.startswith("CONNECT ingest.invalid:443 HTTP/1.")
    assert KEY not in request.head


# ── bounds ─────────────────────────────────────────────────────────────────────────────────────


def test_full_backlog(new_tracker: Callable[..., Tracker]) -> None:
    """What the backlog has no room for is reported as dropped, with its events.

    In which order, the unit tests of the backlog say: what has failed once more goes behind.
    """
    with refused_port() as endpoint:
        service = Service(new_tracker, endpoint, budget=0.05, max_queue_size=5)
        for number in range(4):
            service.invoke(f"evt_{number}a", f"evt_{number}b")
    dropped = [error for error in service.errors if error.kind == ErrorKind.DROPPED_EVENTS]
    assert [str(error) for error in dropped] == [
        "the backlog is full: 2 events dropped, the oldest"
    ] * 2
    kept = [entry.batch.event_ids for entry in service.tracker.engine.outbox.state.kept]
    assert sorted([*kept, *(error.event_ids for error in dropped)]) == [
        (f"evt_{number}a", f"evt_{number}b") for number in range(4)
    ]


def test_full_queue(
    ingest: Ingest, new_tracker: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond max_queue_size the newest events are refused, counted, and warned of once."""
    service = Service(new_tracker, ingest.url, max_queue_size=5, on_error=None)
    service.invoke(*(f"evt_{number}" for number in range(8)))
    assert service.outcomes == [Outcome(5, unsent={ErrorKind.DROPPED_EVENTS: 3}, requests=1)]
    assert ids(ingest) == [f"evt_{number}" for number in range(5)]
    (record,) = caplog.records
    why = "max_queue_size events or max_queue_bytes were waiting already"
    assert record.getMessage() == f"DROPPED_EVENTS: 3 events dropped: {why}"
    service.invoke("evt_8")
    assert service.outcomes[1:] == [Outcome(1, requests=1)]
