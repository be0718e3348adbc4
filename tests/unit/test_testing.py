"""What users test with: the transport in memory, and its fixture."""

from __future__ import annotations

import subprocess
import sys
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless import _tracker, testing
from doow_serverless.errors import ErrorKind, InvalidEvent
from doow_serverless.testing import Answer, MemoryTransport, TransportFault, rejecting
from tests.network import KEY

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch

doow_events = testing.doow_events


def flushed(transport: MemoryTransport, events: int = 2, **options: Any) -> doow.Outcome:
    """The outcome of a flush into ``transport``."""
    tracker = doow.Tracker(
        KEY, transport=transport, license_id="lic_1", warm_up=False, environ={}, **options
    )
    for number in range(events):
        tracker.track("tokens", number + 1, event_id=f"evt_{number}")
    return tracker.flush()


def ids(transport: MemoryTransport) -> list[str]:
    return [event["event_id"] for event in transport.events]


def test_it_accepts_everything() -> None:
    """Unless told otherwise, and shows what it has in its repr."""
    transport = MemoryTransport()
    outcome = flushed(transport)
    assert (outcome.accepted, outcome.ok, ids(transport)) == (2, True, ["evt_0", "evt_1"])
    assert transport.events[0]["measurements"] == [{"metric_name": "tokens", "quantity": 1}]
    assert repr(transport) == "MemoryTransport(1 batches, 2 events)"


@pytest.mark.parametrize(
    ("answers", "posts", "accepted", "rejected"),
    [
        ([500, 502, 202], 3, 2, []),
        ([TransportFault(ErrorKind.TIMEOUT, "silent")], 2, 2, []),
        ([Answer(500, {}, b"")], 2, 2, []),
        ([rejecting({"evt_1": "unknown metric"})], 1, 1, [("evt_1", "unknown metric")]),
        ([400], 1, 0, [("evt_0", "HTTP 400"), ("evt_1", "HTTP 400")]),
        (lambda batch: 413 if len(batch) > 1 else 202, 3, 2, []),
        (repeat(204), 1, 2, []),
    ],
)
def test_scripts(answers: Any, posts: int, accepted: int, rejected: list[Any]) -> None:
    """It answers POST by POST, or as a function says, and 202 when the script is over."""
    transport = MemoryTransport(answers)
    outcome = flushed(transport)
    assert (len(transport.batches), outcome.accepted, outcome.rejected) == (
        posts,
        accepted,
        rejected,
    )
    assert len(transport.events) == accepted


def test_a_batch_counts_once() -> None:
    """As at the server, the id of a batch tells that it is there already."""

    class Losing(MemoryTransport):
        """Loses its first answer on the way back."""

        def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
            answer = super().post(batch, api_key, fresh=fresh)
            if len(self.batches) == 1:
                raise TransportFault(ErrorKind.NETWORK_ERROR, "reset")
            return answer

    transport = Losing()
    assert flushed(transport).accepted == 2
    assert (len(transport.batches), ids(transport)) == (2, ["evt_0", "evt_1"])


def test_the_fixture(doow_events: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of the package deliver into it, under a license of the tests."""
    monkeypatch.setenv("DOOW_TRACK_DISABLED", "true")

    @doow.tracked
    def handler(event: Any, context: Any) -> None:
        doow.track("tokens", 812)

    handler({}, None)
    (event,) = doow_events.events
    assert (event["license_id"], event["measurements"]) == (
        "lic_test",
        [{"metric_name": "tokens", "quantity": 812}],
    )


def test_the_fixture_is_strict(doow_events: MemoryTransport) -> None:
    """A bad event raises where it is recorded."""
    with pytest.raises(InvalidEvent, match="quantity must be greater than zero"):
        doow.track("tokens", 0)
    assert doow_events.batches == []


def test_the_fixture_leaves_no_trace() -> None:
    """The default tracker of before is back afterwards."""
    before = doow.configure(KEY, transport=MemoryTransport(), warm_up=False)
    generator = doow_events_generator()
    next(generator)
    assert _tracker.default() is not before
    next(generator, None)
    assert _tracker.default() is before


def doow_events_generator() -> Any:
    return vars(testing)["doow_events"].__wrapped__()


def test_it_needs_no_pytest() -> None:
    """Where pytest is not installed, the transport is there all the same."""
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from doow_serverless.testing import MemoryTransport; print(MemoryTransport())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("MemoryTransport(0 batches, 0 events)\n", "")
