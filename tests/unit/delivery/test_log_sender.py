"""The log instead of the network: lines are signed, or wait until they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doow_serverless import Tracker
from doow_serverless._config import Config
from doow_serverless._delivery.log_sender import LogSender
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.keys import LogKey
from doow_serverless._frames.reader import Part, read_frame
from doow_serverless._process.fetching import RETRY_S
from tests.batches import batch
from tests.clock import Clock

if TYPE_CHECKING:
    import pytest

VARIABLE = "DOOW_TRACK_LOG_KEY_SECRET_ARN"
UNSIGNED = (
    "a dead letter was written unsigned, because the log key has not been fetched yet; a relay "
    "with a log key refuses it. Its events are still delivered by this process if it lives on; "
    "otherwise give these lines alone to doow-serverless replay, without a log key"
)
AT = 1_795_000_000.0


class Secret:
    """A secret that can be read once it is allowed."""

    def __init__(self) -> None:
        self.is_readable = False

    def __call__(self, *_: object) -> str:
        if not self.is_readable:
            raise PermissionError("no")
        return "log key"


def sender(log_key: LogKey) -> LogSender:
    return LogSender(Config(environ={"DOOW_TRACK_DELIVERY": "log"}), log_key, lambda: AT)


def test_lines_are_signed(capfd: pytest.CaptureFixture[str]) -> None:
    """With a key that is given, each of them; without one, none."""
    one = batch(3)
    for key in (None, b"log key"):
        made = sender(LogKey(None if key is None else key.decode()))
        assert made.prepare() is None
        assert isinstance(made.send(one), Settled)
        written = [line for line in capfd.readouterr().out.splitlines() if line]
        assert written == frames_of(one, BY_LOG, AT, key=key)
        assert all(('"hmac":' in line) is (key is not None) for line in written)


def test_nothing_is_written_before_the_key_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    """The attempt fails with the reason, and one that is made half a minute later fetches again."""
    secret, clock = Secret(), Clock()
    made = sender(LogKey(None, (VARIABLE, "arn"), fetch=secret, clock=clock))
    failures = [made.prepare(), made.send(batch())]
    assert capfd.readouterr().out == ""
    assert [(one.reason, one.hold_s) for one in failures if isinstance(one, Failed)] == [
        ("AUTH_FAILURE", 0.0)
    ] * 2
    assert isinstance(failures[0], Failed)
    assert failures[0].message == (
        f"the log key could not be read from Secrets Manager, where {VARIABLE} points "
        "(PermissionError: no), and nothing is written unsigned"
    )
    secret.is_readable = True
    assert isinstance(made.prepare(), Failed)
    clock.now += RETRY_S
    one = batch()
    assert made.prepare() is None
    assert isinstance(made.send(one), Settled)
    written = [line for line in capfd.readouterr().out.splitlines() if line]
    assert written == frames_of(one, BY_LOG, AT, key=b"log key")


def test_a_batch_waits_in_the_backlog_for_the_key(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is written down at once, unsigned and with a warning, and signed when the key comes.

    A relay that accepts unsigned lines gets it twice, in two windows perhaps: so neither line is
    one whose events are gathered, and Doow knows the batch by its id.
    """
    secret = Secret()
    environ = {"DOOW_TRACK_DELIVERY": "log", VARIABLE: "arn", "DOOW_TRACK_LICENSE_ID": "lic_1"}
    clock = Clock()
    tracker = Tracker(environ=environ, warm_up=False, clock=clock)
    log_key = tracker.engine.outbox.log_key
    assert log_key.kept is not None
    log_key.kept._fetch = secret
    tracker.track("tokens", event_id="evt_1")
    first = tracker.flush()
    unsigned = [line for line in capfd.readouterr().out.splitlines() if line]
    secret.is_readable = True
    clock.now += 3_600
    tracker.track("tokens", event_id="evt_2")
    tracker.engine.last_flush(20.0)
    signed = [line for line in capfd.readouterr().out.splitlines() if line]
    assert (first.unsent, first.backlog) == ({"AUTH_FAILURE": 1}, 1)
    assert ['"hmac":' in line for line in unsigned] == [False]
    assert all('"hmac":' in line for line in signed)
    parts = [read_frame(line) for line in (*unsigned, *signed)]
    batches = [(part.batch_id, part.reason) for part in parts if isinstance(part, Part)]
    late = batches[0][0]
    assert batches[:1] == [(late, "AUTH_FAILURE")]
    assert sorted((id_ == late, reason) for id_, reason in batches[1:]) == [
        (False, "LOG"), (True, "AUTH_FAILURE"),
    ]  # fmt: skip
    warnings = [each for each in caplog.messages if "unsigned" in each and "dead letter" in each]
    where = f"the log key could not be read from Secrets Manager, where {VARIABLE} points"
    why = f"{where} (PermissionError: no)"
    assert warnings == [f"{UNSIGNED} ({why})"]
