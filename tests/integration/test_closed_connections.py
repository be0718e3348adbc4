"""Connections that are not kept are closed at once, not by the garbage collector."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.transport import MAX_IDLE_CONNECTIONS, HttpTransport
from doow_serverless.testing import TransportFault
from tests.batches import batch
from tests.network import ACCEPTED, KEY, Peer, Server, refused_port, resetting
from tests.tls import Authority, TlsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        except OSError:  # It was that of the listing itself.
            continue
    return found


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Switch off the garbage collector, as some services do."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_connections_beyond_the_kept_ones_are_closed() -> None:
    """The garbage collector closes them late, or never if it is off."""
    before = sockets()
    at_once = threading.Barrier(20)

    def behave(peer: Peer) -> None:
        while peer.request():
            at_once.wait(30)
            peer.send(ACCEPTED)

    with Server(behave) as server, ThreadPoolExecutor(20) as pool:
        transport = HttpTransport(server.url, timeout_s=30)
        for _ in range(3):
            answers = list(pool.map(lambda _: transport.post(batch(), KEY).status, range(20)))
            assert answers == [202] * 20
    # The server's ends are closed; ours is left.
    assert sockets() - before == MAX_IDLE_CONNECTIONS
    transport.close_idle()
    assert sockets() == before


@contextmanager
def breaking() -> Iterator[str]:
    with Server(resetting) as server:
        yield server.url


@contextmanager
def ending_within_a_head() -> Iterator[str]:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(ACCEPTED[:20])

    with Server(behave) as server:
        yield server.url


@contextmanager
def too_long() -> Iterator[str]:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 3000000\r\n\r\n" + b" " * 3_000_000)

    with Server(behave) as server:
        yield server.url


@contextmanager
def unverified() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        context = Authority(Path(folder)).server_context("localhost")
        with TlsServer(context) as server:
            yield server.url


@contextmanager
def behind_a_proxy_that_refuses() -> Iterator[str]:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with Server(behave) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", proxy.url)
        yield "https://ingest.invalid"


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "endpoint",
    [
        refused_port,
        breaking,
        ending_within_a_head,
        too_long,
        unverified,
        behind_a_proxy_that_refuses,
    ],
)
def test_a_failed_connection_is_closed(endpoint: Callable[[], Iterator[str]]) -> None:
    """Wherever it failed, and without the garbage collector."""
    before = sockets()
    with endpoint() as url:  # type: ignore[attr-defined]  # each is a context manager
        transport = HttpTransport(url, timeout_s=30)
        for _ in range(3):
            try:
                transport.post(batch(), KEY)
            except TransportFault:
                continue
    assert sockets() == before
