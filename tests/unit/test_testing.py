"""What users test with: the transport in memory, and its fixture."""

from __future__ import annotations

import subprocess
import sys
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless import _tracker
from doow_serverless.errors import ConfigurationError, ErrorKind, InvalidEvent
from doow_serverless.testing import (
    Answer,
    MemoryTransport,
    TransportFault,
    captured_events,
    rejecting,
)
from tests.network import KEY

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch


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
    assert repr(transport) == (
        "MemoryTransport(2 events in 1 batch; tokens=1 lic_1; tokens=2 lic_1)"
    )


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


@doow.tracked
def application(event: Any, context: Any) -> None:
    doow.track("tokens")


def carried(transport: MemoryTransport) -> list[tuple[str, dict[str, Any]]]:
    """License and attribution of the events that arrived."""
    return [(event["license_id"], event.get("attribution", {})) for event in transport.events]


APPLICATION: dict[str, Any] = {
    "license_id": "lic_app",
    "attribution": {"team": "search"},
    "endpoint": "https://ingest.test",
    "warm_up": "connect",
    "journal": True,
}


def test_the_fixture_sees_an_application_that_configures(doow_events: MemoryTransport) -> None:
    """Its options count; what it delivers arrives in memory, without a key and the network."""
    assert application({}, None) is None
    tracker = doow.configure(**APPLICATION)
    assert application({}, None) is None
    assert carried(doow_events) == [("lic_test", {}), ("lic_app", {"team": "search"})]
    assert tracker.engine.warm_up is None
    with pytest.raises(InvalidEvent, match="quantity must be greater than zero"):
        doow.track("tokens", 0)


def test_the_fixture_sees_an_application_that_configured_before() -> None:
    """As when its module is imported by that of the tests: once, and for all of them."""
    doow.configure(**{**APPLICATION, "warm_up": False}, transport=Unreachable())
    for _ in range(2):
        with captured_events() as transport:
            application({}, None)
            assert carried(transport) == [("lic_app", {"team": "search"})]


class Unreachable(MemoryTransport):
    """What no test may send to."""

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        raise AssertionError("a test has sent something")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "2"}, "budget must be a number of seconds"),
        ({"endpoint": "http://ingest.test"}, "endpoint must be an https URL"),
        ({"warm_up": "later"}, "warm_up must be True, False"),
        ({"license_id": ""}, "license_id must be a non-empty string"),
        ({"lisense_id": "lic_1"}, "did you mean 'license_id'"),
    ],
)
def test_the_fixture_checks_what_the_application_says(
    options: dict[str, Any], message: str, doow_events: MemoryTransport
) -> None:
    """What would fail in production fails in a test, and then nothing has changed."""
    with pytest.raises(ConfigurationError, match=message):
        doow.configure(**options)
    application({}, None)
    assert carried(doow_events) == [("lic_test", {})]


def test_an_application_has_the_last_word(doow_events: MemoryTransport) -> None:
    """On whether it is strict, which license counts, whether it meters, and a transport."""
    errors: list[Any] = []
    doow.configure(strict=False, license_id=None, on_error=errors.append)
    doow.track("tokens", 0)
    application({}, None)
    assert (len(errors), carried(doow_events)) == (1, [("lic_test", {})])
    doow.configure(enabled=False)
    application({}, None)
    other = MemoryTransport()
    doow.configure(transport=other)
    application({}, None)
    assert (len(doow_events.events), len(other.events)) == (1, 1)


def test_a_tracker_of_its_own(doow_events: MemoryTransport) -> None:
    """It goes its own way: a test gives it the transport."""
    own = doow.Tracker(KEY, transport=doow_events, license_id="lic_own", environ={})
    own.tracked(lambda: own.track("tokens"))()
    assert carried(doow_events) == [("lic_own", {})]


@pytest.mark.parametrize("configures", [False, True])
def test_the_fixture_leaves_no_trace(configures: bool) -> None:
    """The default tracker of before is back afterwards, and is what is configured again."""
    before = doow.configure(KEY, transport=MemoryTransport(), warm_up=False)
    with captured_events() as transport:
        assert _tracker.default() is not before
        if configures:
            doow.configure(**APPLICATION)
    assert _tracker.default() is before
    after = MemoryTransport()
    doow.configure(KEY, transport=after, license_id="lic_1", warm_up=False, environ={})
    application({}, None)
    assert (transport.events, len(after.events)) == ([], 1)


def test_it_needs_no_pytest() -> None:
    """Where pytest is not installed, the transport is there all the same."""
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from doow_serverless.testing import MemoryTransport; print(MemoryTransport())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("MemoryTransport(0 events in 0 batches)\n", "")
