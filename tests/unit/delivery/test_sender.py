"""What one attempt says of a batch: whether Doow may have it all the same."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._delivery.sender import Sender
from doow_serverless._delivery.transport import HttpTransport
from doow_serverless.errors import DoowError, ErrorKind
from doow_serverless.testing import Answer, MemoryTransport, TransportFault
from tests.batches import batch
from tests.network import KEY, Server, refused_port, resetting


@pytest.mark.parametrize(
    ("answer", "may_be_there"),
    [
        (TransportFault(ErrorKind.NETWORK_ERROR, "reset"), True),
        (TransportFault(ErrorKind.NETWORK_ERROR, "refused", is_unsent=True), False),
        (502, True),
        (504, True),
        (Answer(504, {"retry-after": "2"}, b""), True),
        (524, True),
        (500, False),
        (503, False),
        (408, False),
        (429, False),
        (401, False),
        (301, False),
    ],
)
def test_whether_doow_may_have_what_it_did_not_confirm(
    answer: int | Answer | TransportFault, may_be_there: bool
) -> None:
    """Where its own answer did not arrive: a gateway in between speaks for itself alone."""
    transport = MemoryTransport([answer])
    result = Sender(lambda: transport, Credentials(KEY)).send(batch())
    assert isinstance(result, Failed)
    assert result.is_ambiguous is may_be_there


class Raising:
    """A transport of the user's that raises this."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    def post(self, *_: object, **__: object) -> Answer:
        raise self.problem


UNREADY = DoowError("not imported yet", ErrorKind.NOT_READY)


def unready() -> MemoryTransport:
    raise UNREADY


def without_key() -> Credentials:
    def fetch(*_: object) -> str | None:
        raise OSError

    return Credentials(None, ("DOOW_TRACK_API_KEY_SSM_PARAMETER", "/doow/key"), fetch)


def failure(sender: Sender) -> tuple[ErrorKind, bool, bool]:
    """Return the kind of a failure, whether nothing was sent, and whether Doow may have it."""
    result = sender.send(batch())
    assert isinstance(result, Failed)
    return result.reason, result.is_unsent, result.is_ambiguous


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (Sender(unready, Credentials(KEY)), (ErrorKind.NOT_READY, True, False)),
        (Sender(MemoryTransport, Credentials(None)), (ErrorKind.AUTH_FAILURE, True, False)),
        (Sender(MemoryTransport, without_key()), (ErrorKind.AUTH_FAILURE, True, False)),
        (
            Sender(lambda: Raising(OSError()), Credentials(KEY)),  # type: ignore[arg-type,return-value]
            (ErrorKind.TRANSPORT_ERROR, False, True),
        ),
        (
            Sender(lambda: Raising(UNREADY), Credentials(KEY)),  # type: ignore[arg-type,return-value]
            (ErrorKind.NOT_READY, False, True),
        ),
    ],
    ids=["no transport", "no key", "the key's place fails", "the transport fails", "so it says"],
)
def test_an_attempt_that_ends_before_the_transport_has_sent_nothing(
    sender: Sender, expected: tuple[ErrorKind, bool, bool]
) -> None:
    """Of an error of the transport itself, nobody knows what it had sent by then."""
    assert failure(sender) == expected
    prepared = sender.prepare()
    assert prepared is None or (prepared.reason, prepared.is_unsent) == (expected[0], True)
    assert (prepared is None) is (expected[2])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (500, (ErrorKind.TRANSPORT_ERROR, False, False)),
        (503, (ErrorKind.TRANSPORT_ERROR, False, False)),
        (429, (ErrorKind.RATE_LIMITED, False, False)),
        (401, (ErrorKind.AUTH_FAILURE, False, False)),
        (301, (ErrorKind.TRANSPORT_ERROR, False, False)),
        (502, (ErrorKind.TRANSPORT_ERROR, False, True)),
        (
            TransportFault(ErrorKind.NETWORK_ERROR, "reset"),
            (ErrorKind.NETWORK_ERROR, False, True),
        ),
        (
            TransportFault(ErrorKind.NETWORK_ERROR, "refused", is_unsent=True),
            (ErrorKind.NETWORK_ERROR, True, False),
        ),
    ],
)
def test_which_failures_are_known_to_have_sent_nothing(
    answer: int | TransportFault, expected: tuple[ErrorKind, bool, bool]
) -> None:
    """The transport knows; an answer, be it a gateway's, shows that something was sent."""
    transport = MemoryTransport([answer])
    assert failure(Sender(lambda: transport, Credentials(KEY))) == expected


def test_a_refused_connection_has_sent_nothing() -> None:
    """And a server that breaks off may have it: both over real sockets."""
    found = []
    with refused_port() as refused, Server(resetting) as server:
        for url in (refused, server.url):
            transport = HttpTransport(url, timeout_s=30)
            found.append(failure(Sender(lambda transport=transport: transport, Credentials(KEY))))  # type: ignore[misc]
    assert found == [
        (ErrorKind.NETWORK_ERROR, True, False),
        (ErrorKind.NETWORK_ERROR, False, True),
    ]


@pytest.mark.parametrize(
    ("status", "remaining", "hold_s"), [(202, 0, 9.0), (207, 0, 9.0), (202, 5, 0.0), (400, 0, 0.0)]
)
def test_the_limit_is_heeded_before_it_is_reached(
    status: int, remaining: int, hold_s: float
) -> None:
    headers = {"x-ratelimit-remaining": str(remaining), "x-ratelimit-reset": "9"}
    transport = MemoryTransport([Answer(status, headers, b'{"accepted": 1, "rejected": 0}')])
    result = Sender(lambda: transport, Credentials(KEY)).send(batch())
    assert isinstance(result, Settled)
    assert result.hold_s == hold_s
