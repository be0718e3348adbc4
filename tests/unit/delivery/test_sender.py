"""What one attempt says of a batch: whether Doow may have it all the same."""

from __future__ import annotations

import pytest

from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.results import Failed
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
