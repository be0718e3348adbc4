"""Connections that come about late, or never."""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from doow_serverless._config import Config
from doow_serverless._delivery import connection as connection_module
from doow_serverless._delivery.connection import CONNECT_LIMIT_S, Connection
from doow_serverless._delivery.transport import HttpTransport
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import TransportFault
from tests.batches import batch
from tests.network import ACCEPTED, KEY, Peer, Server, accepting
from tests.timing import within
from tests.tls import Authority, speak_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEAD = "127.0.0.2"


@contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Leave attempts to connect to this port of :data:`DEAD` unanswered, as a lost route does."""
    with socket.socket() as listener:
        listener.bind((DEAD, port))
        listener.listen(0)
        # Linux ignores a SYN while the queue of connections that nobody has accepted is full.
        queue = [socket.socket() for _ in range(6)]
        for each in queue:
            each.setblocking(False)
            each.connect_ex((DEAD, port))
        yield
        for each in queue:
            each.close()


def resolve_to(addresses: list[str], patch: pytest.MonkeyPatch) -> None:
    """Resolve every name to these addresses, in their order."""

    def resolve(_host: object, port: int, *_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    patch.setattr(socket, "getaddrinfo", resolve)


# ── black holes ─────────────────────────────────────────────────────────────────────────────────


def test_a_dead_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is for the answer; the budget must have room for a lost SYN and two addresses."""
    with Server(accepting) as server:
        port = int(server.url.rpartition(":")[2])
        with black_hole(port):
            resolve_to([DEAD, "127.0.0.1"], monkeypatch)
            transport = HttpTransport(f"http://localhost:{port}", timeout_s=60)
            began = time.perf_counter()
            assert transport.post(batch(), KEY).status == 202
            within(time.perf_counter() - began, 30.0, at_least_s=CONNECT_LIMIT_S)
        assert len(server.requests) == 1
        transport.close_idle()
    assert 1.0 < CONNECT_LIMIT_S < Config(environ={}).budget_s - 0.5


@pytest.mark.parametrize(("limit_s", "timeout_s"), [(0.1, 60.0), (60.0, 0.1)])
def test_nothing_is_sent_if_all_addresses_are_dead(
    limit_s: float, timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of connecting holds for each address, and is never more than the timeout."""
    with Server(accepting) as server:
        port = int(server.url.rpartition(":")[2])
        with black_hole(port):
            resolve_to([DEAD, DEAD], monkeypatch)
            monkeypatch.setattr(connection_module, "CONNECT_LIMIT_S", limit_s)
            transport = HttpTransport(f"http://localhost:{port}", timeout_s=timeout_s)
            began = time.perf_counter()
            with pytest.raises(TransportFault) as caught:
                transport.post(batch(), KEY)
            within(time.perf_counter() - began, 30.0)
        assert server.requests == []
    assert (caught.value.kind, caught.value.is_unsent) == (ErrorKind.TIMEOUT, True)


# ── slow but well ───────────────────────────────────────────────────────────────────────────────


def test_a_slow_handshake_has_the_whole_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server takes connections at once, and greets when it comes to it."""
    authority = Authority(tmp_path)
    context = authority.server_context("localhost")

    def behave(peer: Peer) -> None:
        time.sleep(0.4)
        with speak_tls(peer, context):
            accepting(peer)

    monkeypatch.setattr(connection_module, "CONNECT_LIMIT_S", 0.1)
    with Server(behave) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        transport = HttpTransport(url, timeout_s=30, ca_bundle=str(authority.bundle))
        assert transport.post(batch(), KEY).status == 202
        transport.close_idle()


def test_a_slow_upload_has_the_whole_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that no buffer of the system holds, on a new connection and on a kept one."""

    def behave(peer: Peer) -> None:
        for _ in range(2):
            time.sleep(0.4)
            peer.request()
            peer.send(ACCEPTED)

    monkeypatch.setattr(connection_module, "CONNECT_LIMIT_S", 0.1)
    with Server(behave) as server:
        connection = Connection(None, {})
        answers = [connection.post(server.url, b" " * 20_000_000, {}, 30.0) for _ in range(2)]
        connection.close()
        assert {request.connection for request in server.requests} == {0}
    assert [answer.status for answer in answers] == [202, 202]


def test_nothing_is_sent_without_a_file_descriptor() -> None:
    """The system's limit (EMFILE) is our trouble, and says nothing of the server or the batch."""
    with Server(accepting) as server:
        transport = HttpTransport(server.url, timeout_s=30)
        transport.post(batch(), KEY)
        transport.close_idle()
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, usual[1]))
        try:
            with pytest.raises(TransportFault) as caught:
                transport.post(batch(), KEY)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        assert len(server.requests) == 1
    fault = caught.value
    assert (fault.kind, fault.is_unsent) == (ErrorKind.NETWORK_ERROR, True)
    assert str(fault) == "OSError: Too many open files"
