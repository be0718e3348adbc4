"""``doow-serverless replay --fold``: fewer events of what was to go by the log, and none twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._recording.ids import derived_id
from doow_serverless.local import Fault
from tests.batches import batch
from tests.integration.replaying import AT, replay, summary
from tests.unit.relay.test_window import plain_batch

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._sealing import Batch
    from doow_serverless.local import Ingest


def text_of(*batches: Batch, reason: str = BY_LOG) -> str:
    lines = (line for one in batches for line in frames_of(one, reason, AT))
    return "".join(f"{line}\n" for line in lines)


def quantities(ingest: Ingest) -> Counter[int]:
    assert ingest.conflicts == []
    return Counter(int(event["measurements"][0]["quantity"]) for event in ingest.events())


def test_equal_events_become_one(ingest: Ingest) -> None:
    batches = [plain_batch(3) for _ in range(10)]
    for _ in range(2):
        status, stdout, _ = replay(ingest.url, "--fold", "tokens", stdin=text_of(*batches))
        assert status == 0
    assert quantities(ingest) == {30: 1}
    said = summary(stdout)
    assert said["found"] == ("10", "30")
    assert said["delivered"] == ("1", "1")
    assert "folded into others" in stdout
    assert [post.duplicate for post in ingest.posts()] == [False, True]


def test_other_metrics_do_not(ingest: Ingest) -> None:
    replay(ingest.url, "--fold", "calls", stdin=text_of(plain_batch(2), plain_batch(2)))
    assert quantities(ingest) == {1: 4}


def test_what_doow_must_know_again_keeps_its_id(ingest: Ingest) -> None:
    """Dead letters, which their function may deliver yet, and work that may be done again."""
    letter, work, usual = plain_batch(2), batch(2, batch_id=derived_id("work")), plain_batch(2)
    text = text_of(letter, reason="TIMEOUT") + text_of(work, usual)
    replay(ingest.url, "--fold", "true", stdin=text)
    posted = {post.batch_id for post in ingest.posts()}
    assert {letter.id, work.id} < posted
    assert usual.id not in posted
    assert quantities(ingest) == {1: 4, 2: 1}


def test_a_log_that_has_grown(ingest: Ingest, tmp_path: Path) -> None:
    """A list of what is delivered keeps what was folded before out of what is folded now."""
    first, then = [plain_batch(2) for _ in range(3)], plain_batch(2)
    arguments = ("--fold", "true", "--resume", tmp_path / "done")
    replay(ingest.url, *arguments, stdin=text_of(*first))
    status, stdout, _ = replay(ingest.url, *arguments, stdin=text_of(*first, then))
    assert status == 0
    assert summary(stdout)["delivered before"] == ("3", "6")
    assert quantities(ingest) == {6: 1, 2: 1}


def test_what_is_not_delivered_is_not_done(ingest: Ingest, tmp_path: Path) -> None:
    lot = text_of(*(plain_batch(2) for _ in range(3)))
    arguments = ("--fold", "true", "--resume", tmp_path / "done", "--patience", "0.5")
    ingest.fault(Fault(status=500, times=None))
    assert replay(ingest.url, *arguments, stdin=lot)[0] == 3
    ingest.clear_faults()
    assert replay(ingest.url, *arguments, stdin=lot)[0] == 0
    assert quantities(ingest) == {6: 1}


def test_until(ingest: Ingest) -> None:
    """What is later is left out, and what is of the same moment is not."""
    early, late = batch(1), batch(2)
    text = "".join(
        f"{line}\n"
        for one, at in ((early, AT), (late, AT + 0.01))
        for line in frames_of(one, "TIMEOUT", at)
    )
    status, stdout, _ = replay(ingest.url, "--until", "2026-11-22T11:33:00.123Z", stdin=text)
    assert (status, len(ingest.events())) == (0, 1)
    assert "1 of them of another time" in stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--until", "soon"), "--until must be a time such as"),
        (("--since", "soon"), "--since must be a time such as"),
        (("--fold", ","), "--fold must be true, false or metrics such as tokens,api_calls"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], said: str, ingest: Ingest) -> None:
    status, _, stderr = replay(ingest.url, *arguments, stdin="")
    assert status == 2
    assert said in stderr
