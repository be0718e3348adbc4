"""Of what a platform brings, frames are accepted; all else that may be usage is reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from doow_serverless._frames.envelopes import Line, Unread
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.reader import Part
from doow_serverless.relay import _intake
from doow_serverless.relay._intake import MOST_TOLD, Intake
from tests.batches import batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

KEY, OLD = b"a key", b"the key before"
ONE, TWO = batch(2), batch(3)
LINE, OTHER = (frames_of(each, BY_LOG, 1.0)[0] for each in (ONE, TWO))
STREAM = "log stream s of log group g"


def ids_of(intake: Intake, *texts: str) -> list[str | None]:
    lines = [Line(text, f"event {number} of {STREAM}") for number, text in enumerate(texts)]
    return [one.batch_id for one in intake.read(lines)]


def test_frames_are_accepted() -> None:
    """Each in its order; other people's lines are passed over."""
    intake = Intake(())
    assert ids_of(intake, "START", LINE, f"{OTHER}\n", '{"level":"INFO"}') == [ONE.id, TWO.id]
    assert intake.left == 0


def test_text_with_a_marker_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Once for each log stream, with how many there were; nothing in it counts."""
    intake = Intake(())
    forged = (f"x {LINE}", json.dumps({"message": LINE}), f"said:\n{LINE}")
    assert ids_of(intake, *forged) == []
    assert list(intake.read([Unread("queue message 5", "is cut")])) == []
    assert intake.left == 4
    intake.report()
    intake.report()
    assert caplog.messages == [
        f"usage not understood: {_intake._NO_FRAME} (3 times): {STREAM}",
        "usage not understood: is cut: queue message 5",
    ]


def test_damaged_frames_are_left_to_who_joins_them() -> None:
    """They have a batch id, by which they may be found whole elsewhere."""
    intake = Intake((KEY,))
    assert ids_of(intake, LINE[:-9]) == [ONE.id]
    assert intake.left == 0
    assert ids_of(intake, LINE[:30]) == [None]
    assert intake.left == 1


def signed(key: bytes) -> str:
    return frames_of(ONE, BY_LOG, 1.0, key=key)[0]


def test_signatures(caplog: pytest.LogCaptureFixture) -> None:
    """With a key nothing unsigned is accepted, and the report says why, and from where."""
    intake = Intake((KEY, OLD))
    texts = (signed(KEY), signed(OLD), signed(b"guessed"), LINE, LINE)
    assert ids_of(intake, *texts) == [ONE.id, ONE.id]
    intake.report()
    assert caplog.messages == [
        f"usage refused: signed with a key that this relay does not have, or altered: {STREAM}",
        f"usage refused: not signed with the log key (2 times): {STREAM}",
    ]


def test_keys_that_were_rotated() -> None:
    """They are fetched again, once, before a signature is refused."""
    asked: list[int] = []

    def fetch() -> Sequence[bytes]:
        asked.append(1)
        return (b"new", KEY)

    intake = Intake((KEY,), fetch)
    assert (
        ids_of(intake, signed(KEY), signed(b"new"), signed(b"guessed"), signed(b"x"))
        == [ONE.id] * 2
    )
    assert asked == [1]


def test_without_a_key_signed_frames_are_accepted() -> None:
    """A fleet is given the key before its relay is."""
    (part,) = Intake(()).read([Line(signed(KEY), STREAM)])
    assert isinstance(part, Part)


def test_reports_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Who can log can choose what is reported, but not how much."""
    intake = Intake(())
    assert list(intake.read(Unread(f"stream {n}", "is cut") for n in range(1_000))) == []
    intake.report()
    assert len(caplog.messages) == MOST_TOLD + 1
    assert caplog.messages[-1].endswith(f"and {1_000 - MOST_TOLD} more log streams or reasons")


def test_reports_of_refusals_are_not_crowded_out(caplog: pytest.LogCaptureFixture) -> None:
    """By text that anybody can have logged: the alarms on either differ."""
    intake = Intake((KEY,))
    assert list(intake.read(Unread(f"stream {n}", "is cut") for n in range(1_000))) == []
    assert ids_of(intake, LINE) == []
    intake.report()
    assert caplog.messages[0].startswith("usage refused: not signed")
