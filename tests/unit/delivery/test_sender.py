"""What one attempt says of a batch: whether Doow may have it all the same."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._delivery.sender import Sender
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import Answer, MemoryTransport, TransportFault
from tests.batches import batch
from tests.network import KEY


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
