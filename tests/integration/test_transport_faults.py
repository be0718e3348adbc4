"""What the transport says of a POST that failed: whether any of it can have arrived."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.transport import HttpTransport
from doow_serverless.testing import TransportFault
from tests.batches import batch
from tests.network import ACCEPTED, KEY, Peer, Server, accepting, refused_port, resetting, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Endpoint = str


def refusing(peer: Peer) -> None:
    """A proxy that lets nobody through."""
    peer.request()
    peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def hanging_up(peer: Peer) -> None:
    """Read the request, and close the connection in order."""
    peer.request()


@contextmanager
def unknown_name() -> Iterator[Endpoint]:
    yield "https://no-such-host.invalid"


@contextmanager
def without_tls() -> Iterator[Endpoint]:
    """A server that takes a greeting of TLS for a bad request."""
    with Server(lambda peer: peer.send(ACCEPTED)) as server:
        yield server.url.replace("http:", "https:")


@contextmanager
def silent_before_tls() -> Iterator[Endpoint]:
    """A server that takes the connection, and does not greet."""
    with Server(Peer.wait_for_end) as server:
        yield server.url.replace("http:", "https:")


@contextmanager
def behind_a_proxy_that_refuses() -> Iterator[Endpoint]:
    with Server(refusing) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", proxy.url)
        yield "https://ingest.invalid"


@pytest.mark.parametrize(
    "endpoint",
    [refused_port, unknown_name, without_tls, silent_before_tls, behind_a_proxy_that_refuses],
)
def test_without_a_connection_nothing_is_sent(
    endpoint: Callable[[], Iterator[Endpoint]],
) -> None:
    """Such an outage leaves no doubt about a batch."""
    with endpoint() as url:  # type: ignore[attr-defined]  # each is a context manager
        transport = HttpTransport(url, timeout_s=0.5)
        with pytest.raises(TransportFault) as caught:
            transport.post(batch(), KEY)
    assert caught.value.is_unsent


@pytest.mark.parametrize("behave", [silent, hanging_up, resetting])
def test_on_a_connection_something_may_have_arrived(behave: Callable[[Peer], None]) -> None:
    """Whatever breaks it off afterwards."""
    with Server(behave) as server:
        transport = HttpTransport(server.url, timeout_s=0.5)
        with pytest.raises(TransportFault) as caught:
            transport.post(batch(), KEY)
    assert not caught.value.is_unsent


def test_a_kept_connection_was_one() -> None:
    """What goes out on it may arrive, though the server has gone since; what finds none may not."""
    with Server(accepting) as server:
        transport = HttpTransport(server.url, timeout_s=0.5)
        transport.post(batch(), KEY)
    faults = []
    for _ in range(2):
        with pytest.raises(TransportFault) as caught:
            transport.post(batch(), KEY)
        faults.append((caught.value.is_stale, caught.value.is_unsent))
    # urllib3 sees that the server has closed it, and finds nobody where it was.
    assert faults == [(True, True), (False, True)]


def test_a_kept_connection_that_breaks() -> None:
    """The second request is read, and the connection reset."""

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(ACCEPTED)
        peer.request()
        peer.reset()

    with Server(once) as server:
        transport = HttpTransport(server.url, timeout_s=0.5)
        transport.post(batch(), KEY)
        with pytest.raises(TransportFault) as caught:
            transport.post(batch(), KEY)
    assert (caught.value.is_stale, caught.value.is_unsent) == (True, False)
