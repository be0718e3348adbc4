"""The key goes to the server whose certificate was verified, and to nobody in between."""

from __future__ import annotations

import http.client
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from doow_serverless._delivery.connection import OLDEST_REQUESTS
from doow_serverless._delivery.transport import HttpTransport
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import TransportFault
from tests.batches import batch
from tests.integration.services import Service
from tests.network import KEY, Server, accepting
from tests.tls import Authority, TlsServer, socks, tunnel, tunnel_within_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless import Tracker

WAYS = ["direct", "http proxy", "https proxy", "socks proxy"]


@pytest.fixture
def corporate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority that the environment names."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    return authority


@pytest.fixture
def foreign(tmp_path: Path) -> Authority:
    """The authority of somebody who intercepts."""
    return Authority(tmp_path)


@pytest.fixture
def go(corporate: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Have connections from now on go this way."""
    with ExitStack() as stack:

        def go(way: str) -> None:
            if way == "direct":
                return
            if way == "socks proxy":
                pytest.importorskip("socks")
            context = corporate.server_context("localhost")
            behave = {"http proxy": tunnel, "socks proxy": socks}.get(way)
            proxy = stack.enter_context(Server(behave or tunnel_within_tls(context)))
            scheme = {"https proxy": "https", "socks proxy": "socks5h"}.get(way, "http")
            address = proxy.url.replace("http://127.0.0.1", f"{scheme}://localhost")
            monkeypatch.setenv("HTTPS_PROXY", address)

        yield go


@pytest.mark.parametrize("way", WAYS)
def test_a_corporate_authority(
    way: str,
    corporate: Authority,
    go: Callable[[str], None],
    new_tracker: Callable[..., Tracker],
) -> None:
    """A server, and a proxy, are trusted by the certificates that REQUESTS_CA_BUNDLE names."""
    go(way)
    with TlsServer(corporate.server_context("localhost")) as server:
        service = Service(new_tracker, server.url)
        service.invoke("evt_1")
        service.invoke("evt_2")
        assert [request.event_ids for request in server.requests] == [["evt_1"], ["evt_2"]]
        assert {request.connection for request in server.requests} == {0}
        service.tracker.engine.outbox.close_idle()
    assert service.errors == []


@pytest.mark.parametrize("way", WAYS)
def test_an_interceptor_receives_nothing(
    way: str, foreign: Authority, go: Callable[[str], None]
) -> None:
    """A server whose certificate somebody else has signed."""
    go(way)
    with TlsServer(foreign.server_context("localhost")) as interceptor:
        fault = refused(HttpTransport(interceptor.url, timeout_s=2))
        assert interceptor.requests == []
    reason = "SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]"
    assert (fault.kind, fault.is_unsent) == (ErrorKind.NETWORK_ERROR, True)
    assert str(fault).startswith(reason)


@pytest.mark.parametrize("way", WAYS)
def test_another_server_of_the_same_authority_receives_nothing(
    way: str, corporate: Authority, go: Callable[[str], None]
) -> None:
    """Its certificate is good for another name."""
    go(way)
    with TlsServer(corporate.server_context("elsewhere.example")) as other:
        assert refused(HttpTransport(other.url, timeout_s=2)).is_unsent
        assert other.requests == []


def ignores_our_context(monkeypatch: pytest.MonkeyPatch, _: HttpTransport) -> None:
    """As requests 2.32.2 did, here by a context that verifies nobody."""
    lenient = ssl.create_default_context()
    lenient.check_hostname, lenient.verify_mode = False, ssl.CERT_NONE
    for name in ("wrap_socket", "wrap_bio"):
        wrap: Any = getattr(ssl.SSLContext, name)
        monkeypatch.setattr(
            ssl.SSLContext,
            name,
            lambda self, *args, wrap=wrap, **kwargs: wrap(
                lenient if self.verify_mode is ssl.CERT_REQUIRED else self, *args, **kwargs
            ),
        )


def verifies_nobody(monkeypatch: pytest.MonkeyPatch, transport: HttpTransport) -> None:
    """As a recipe against errors of certificates does."""
    assert transport._tls is not None
    monkeypatch.setattr("urllib3.connection.resolve_cert_reqs", lambda _: ssl.CERT_NONE)
    transport._tls.check_hostname = False


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weaken", [ignores_our_context, verifies_nobody])
def test_nothing_is_sent_without_verification(
    way: str,
    weaken: Callable[[pytest.MonkeyPatch, HttpTransport], None],
    corporate: Authority,
    foreign: Authority,
    go: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever has changed how this process speaks TLS; the reason names the versions."""
    go(way)
    with TlsServer(foreign.server_context("localhost")) as interceptor:
        transport = HttpTransport(interceptor.url, timeout_s=2, ca_bundle=str(corporate.bundle))
        with monkeypatch.context() as patch:
            weaken(patch, transport)
            fault = refused(transport)
        assert interceptor.requests == []
    assert (fault.kind, fault.is_unsent) == (ErrorKind.TRANSPORT_ERROR, True)
    assert str(fault).startswith("nothing was sent, since the server's certificate was not")
    assert f"(requests {requests.__version__} and urllib3 " in str(fault)
    assert f"requests {OLDEST_REQUESTS} and urllib3 1.26 or newer are needed" in str(fault)


def test_nothing_is_sent_without_a_look_at_the_name(
    corporate: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of a good authority is not enough."""
    monkeypatch.setattr("urllib3.connection._match_hostname", lambda *_: None)
    with TlsServer(corporate.server_context("elsewhere.example")) as other:
        transport = HttpTransport(other.url, timeout_s=2, ca_bundle=str(corporate.bundle))
        transport._tls.check_hostname = False  # type: ignore[union-attr]  # it is https
        assert refused(transport).is_unsent
        assert other.requests == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "received"), [("localhost", 1), ("elsewhere.example", 0)])
def test_pyopenssl_is_injected(
    name: str, received: int, way: str, corporate: Authority, go: Callable[[str], None]
) -> None:
    """Then urllib3 switches off the look at the name; the key goes to the right server alone."""
    pyopenssl: Any = pytest.importorskip("urllib3.contrib.pyopenssl")
    go(way)
    pyopenssl.inject_into_urllib3()
    try:
        with TlsServer(corporate.server_context(name)) as server:
            transport = HttpTransport(server.url, timeout_s=2, ca_bundle=str(corporate.bundle))
            if received:
                assert transport.post(batch(), KEY).status == 202
            else:
                assert refused(transport).is_unsent
            assert len(server.requests) == received
    finally:
        pyopenssl.extract_from_urllib3()


def test_events_are_kept_while_nobody_is_verified(
    corporate: Authority, monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """They stay in the backlog, and the reason is reported."""
    with TlsServer(corporate.server_context("localhost")) as server:
        service = Service(new_tracker, server.url)
        with monkeypatch.context() as patch:
            ignores_our_context(patch, HttpTransport(server.url, timeout_s=2))
            service.invoke("evt_1")
        assert [error.kind for error in service.errors] == [ErrorKind.TRANSPORT_ERROR]
        kept = [entry.batch.event_ids for entry in service.tracker.engine.outbox.state.kept]
        assert (kept, server.requests) == ([("evt_1",)], [])
        service.tracker.engine.outbox.begin_anew()


@pytest.mark.parametrize("way", ["loopback", *WAYS])
def test_nothing_is_printed(
    way: str,
    corporate: Authority,
    go: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where an application has http.client print all headers, and logs at DEBUG, ours stay away."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    caplog.set_level("DEBUG")
    go("direct" if way == "loopback" else way)
    context = corporate.server_context("localhost")
    with Server(accepting) if way == "loopback" else TlsServer(context) as server:
        transport = HttpTransport(server.url, timeout_s=2, ca_bundle=str(corporate.bundle))
        assert transport.post(batch(), KEY).status == 202
        with requests.Session() as session:
            session.post(f"{server.url}/mine", json={})
    printed = capfd.readouterr().out
    assert ("/telemetry" in printed, "POST /mine" in printed, KEY in printed) == (
        False,
        True,
        False,
    )
    assert KEY not in caplog.text


def refused(transport: HttpTransport) -> TransportFault:
    with pytest.raises(TransportFault) as caught:
        transport.post(batch(), KEY)
    return caught.value


def test_the_oldest_requests_is_the_one_that_is_demanded() -> None:
    """What the reason names is what pip installs by."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"requests>={OLDEST_REQUESTS},<3"' in project
