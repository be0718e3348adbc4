"""``doow-serverless replay`` as a user runs it, from logs in every envelope to the local ingest."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
import zipfile
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._frames.format import BY_LOG, SPLIT, frames_of
from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless._recording.ids import new_id
from doow_serverless._sealing import Batch, split
from doow_serverless.cli.replay import run
from doow_serverless.cli.replay_input import moment
from doow_serverless.local import Fault, Ingest
from tests.batches import batch
from tests.integration.exporting import kinesis
from tests.integration.replaying import AT, WHY, lines_of, replay, summary, text_of
from tests.network import KEY
from tests.unit.relay.test_window import plain_batch

if TYPE_CHECKING:
    from pathlib import Path


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def test_the_same_bytes_arrive_once(ingest: Ingest, tmp_path: Path) -> None:
    """From files, gzip and standard input, parts in any order; a second time adds nothing."""
    batches = [batch(3), batch(80, noise=900), batch(1, compress=False)]
    lines = lines_of(*batches)[::-1]
    (tmp_path / "a.log").write_text("\n".join(lines[::2]))
    (tmp_path / "b.gz").write_bytes(gzip.compress("\n".join(lines[1::2]).encode()))
    arguments = (tmp_path / "a.log", "-", tmp_path / "b.gz")

    first = replay(ingest.url, *arguments, stdin=text_of(batches[0]))
    again = replay(ingest.url, *arguments, stdin=text_of(batches[0]))

    assert (first[0], again[0]) == (0, 0)
    assert summary(first[1]) == {"found": ("3", "84"), "delivered": ("3", "84")}
    assert len(ingest.events()) == 84
    assert ingest.conflicts == []
    posted = {post.batch_id: (post.body, post.sdk_version) for post in ingest.posts()}
    assert posted == {one.id: (one.body, one.sdk_version) for one in batches}
    assert [post.duplicate for post in ingest.posts()] == [False] * 3 + [True] * 3


def test_standard_input_without_arguments(ingest: Ingest) -> None:
    """As a pipe is used, gzip included."""
    status, _, _ = replay(ingest.url, stdin=gzip.compress(text_of(batch(2)).encode()))

    assert (status, len(ingest.events())) == (0, 2)


def test_a_directory_of_dead_letters(ingest: Ingest, tmp_path: Path) -> None:
    """What was written to a directory is replayed from there, but no file that is half written."""
    letters = DeadLetters(str(tmp_path / "dead" / "1"))
    for events in (1, 2):
        letters.write(batch(events), WHY)
    letters.wait(10)
    (tmp_path / "dead" / "half.tmp").write_text(text_of(batch(5))[:300])

    status, _, _ = replay(ingest.url, tmp_path / "dead")

    assert (status, len(ingest.events())) == (0, 3)


def test_dry_run(ingest: Ingest) -> None:
    """Nothing is posted, and neither key nor license is needed."""
    status, stdout, _ = replay(
        ingest.url, "--dry-run", stdin=text_of(batch(2), batch(3)), DOOW_TRACK_API_KEY=""
    )

    assert (status, ingest.posts()) == (0, [])
    assert summary(stdout)["found"] == ("2", "5")


def test_nothing_to_do(ingest: Ingest) -> None:
    """A log without dead letters is delivered whole."""
    status, stdout, _ = replay(ingest.url, stdin="START\nEND\n")

    assert (status, summary(stdout)["found"]) == (0, ("0", "0"))


def test_since(ingest: Ingest) -> None:
    """By the time at which each batch was given up."""
    now = time.time()
    lines = lines_of(batch(1), at=now - 7_200) + lines_of(batch(2), at=now - 60)

    status, stdout, _ = replay(ingest.url, "--since", "90m", stdin="\n".join(lines))

    assert (status, len(ingest.events())) == (0, 2)
    assert "1 of them of another time" in stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", "2026-11-22T09:00:00.000Z"),
        ("3d", "2026-11-19T11:00:00.000Z"),
        ("2026-11-22", "2026-11-22T00:00:00.000Z"),
        ("2026-11-22T10:00", "2026-11-22T10:00:00.000Z"),
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000Z"),
        ("2026-11-22T10:00:00.5+02:00", "2026-11-22T08:00:00.500Z"),
    ],
)
def test_times(text: str, expected: str) -> None:
    """What --since understands."""
    if text.endswith("5+02:00") and sys.version_info < (3, 11):
        text = text.replace(".5", ".500")  # Python 3.10 wants three digits.
    assert moment(text, datetime(2026, 11, 22, 11, tzinfo=timezone.utc)) == expected


# ── what is wrong ───────────────────────────────────────────────────────────────────────────────


def test_damaged_and_incomplete_are_listed(ingest: Ingest, tmp_path: Path) -> None:
    """What can be delivered is; the rest is named, with the reason; the status tells scripts."""
    whole, cut = batch(1), batch(3, batch_id="cut")
    torn = lines_of(batch(80, noise=900, batch_id="torn"))
    (tmp_path / "broken.gz").write_bytes(gzip.compress(text_of(batch(2)).encode())[:-20])
    text = "\n".join([*torn[1:], *lines_of(whole), lines_of(cut)[0][:-50]])

    status, stdout, _ = replay(ingest.url, "-", tmp_path / "broken.gz", stdin=text)

    assert (status, len(ingest.events())) == (1, 1)
    assert summary(stdout)["damaged or incomplete"] == ("2", "?")
    listed = stdout[stdout.index("unreadable") :].splitlines()
    assert listed[0].startswith(f"unreadable  {tmp_path / 'broken.gz'}: ")
    assert listed[1:] == [
        "damaged     cut: a frame is cut off or altered",
        f"damaged     torn: part 1 of {len(torn)} missing",
    ]
    dry, _, _ = replay(ingest.url, "--dry-run", stdin=text)
    assert dry == 1


def test_markers_that_are_no_frames_are_listed(ingest: Ingest, tmp_path: Path) -> None:
    """Nothing is taken out of other people's text; the report says where to look."""
    own, forged = batch(2), lines_of(batch(3))[0]
    log, more = tmp_path / "a.log", tmp_path / "b.log"
    log.write_text(f"START\nGET / UA={forged}\n{text_of(own)}" + f"{forged} x\nGET {forged}\n" * 12)
    more.write_text(json.dumps({"level": "INFO", "message": forged}))

    status, stdout, _ = replay(ingest.url, log, more)

    assert (status, len(ingest.events())) == (1, 2)
    assert "\nmarkers that were no whole records: 14\n" in stdout
    listed = [line for line in stdout.splitlines() if line.startswith("no record")]
    assert listed == [
        f"no record   {log}, line 2",
        *(f"no record   {log}, line {number}" for number in range(5, 23, 2)),
        "no record   and 4 more",
    ]


def test_a_zip_archive_is_refused(ingest: Ingest, tmp_path: Path) -> None:
    """The report says what to do with it."""
    path = tmp_path / "logs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.log", text_of(batch(2)))

    status, stdout, _ = replay(ingest.url, path)

    assert (status, ingest.events()) == (1, [])
    assert f"unreadable  {path}: it is a zip archive: unpack it first\n" in stdout


def test_records_that_cannot_be_unwrapped_are_listed(ingest: Ingest) -> None:
    """They may hold usage, so that not everything was delivered."""
    status, stdout, _ = replay(ingest.url, stdin=kinesis(b"").replace('"Data": ""', '"Data": "?"'))

    assert (status, ingest.events()) == (1, [])
    assert "\ninputs that could not be unwrapped: 1\n" in stdout
    assert stdout.splitlines()[-1] == (
        "unreadable  standard input, line 1, Records[0]: Kinesis record 1: holds no valid base64"
    )


# ── signatures ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dry_run", [True, False])
def test_only_signed_frames_are_delivered(
    dry_run: bool,
    ingest: Ingest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With log keys, of which there are two while they rotate; others' frames split no batch."""
    monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
    monkeypatch.setenv("DOOW_TRACK_API_KEY", KEY)
    old, new, foreign, plain = (batch(n, batch_id=f"b-{n}") for n in (1, 2, 3, 4))
    log = tmp_path / "log"
    signed = [
        *frames_of(old, WHY, AT, key=b"old"),
        *frames_of(new, WHY, AT, key=b"new"),
        *frames_of(foreign, WHY, AT, key=b"foreign"),
        *frames_of(plain, WHY, AT),
        *frames_of(old, SPLIT, AT),
    ]
    log.write_text("\n".join(signed))
    options: dict[str, Any] = {
        "since": None, "until": None, "resume": None, "patience_s": 5, "rate": None, "fold": None,
    }  # fmt: skip

    monkeypatch.setenv("DOOW_TRACK_LOG_KEY", "new")
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY_PREVIOUS", "old")
    status = run([log], dry_run=dry_run, **options)

    stdout = capsys.readouterr().out
    assert (status, summary(stdout)["found"]) == (1, ("2", "3"))
    posted = [] if dry_run else ["b-1", "b-2"]
    assert [post.batch_id for post in ingest.posts()] == posted
    assert "\nframes refused for their signature: 3\n" in stdout
    assert [line for line in stdout.splitlines() if line.startswith("refused")] == [
        f"refused     {log}, batch b-3: signed by another key",
        f"refused     {log}, batch b-4: not signed",
        f"refused     {log}, batch b-1: not signed",
    ]

    monkeypatch.delenv("DOOW_TRACK_LOG_KEY")
    monkeypatch.delenv("DOOW_TRACK_LOG_KEY_PREVIOUS")
    assert run([log], dry_run=True, **options) == 0, "without a key all are believed"


def test_an_unreadable_file_is_told(ingest: Ingest, tmp_path: Path) -> None:
    """What it holds up to where it is cut off is delivered; scripts learn that there was more."""
    text = text_of(batch(2)) + os.urandom(200_000).hex()
    (tmp_path / "broken.gz").write_bytes(gzip.compress(text.encode())[:-20])

    status, stdout, _ = replay(ingest.url, tmp_path / "broken.gz")

    assert (status, len(ingest.events())) == (1, 2)
    assert stdout.splitlines()[-1].startswith(f"unreadable  {tmp_path / 'broken.gz'}: ")


def test_rejected_events_are_listed(ingest: Ingest) -> None:
    """A 207 and a 400 are decisions: reported, and not sent again."""
    ingest.fault(Fault(reject=["p-1"]), Fault(status=400))

    status, stdout, _ = replay(
        ingest.url, stdin=text_of(batch(3, batch_id="p"), batch(2, batch_id="q"), batch(1))
    )

    assert (status, len(ingest.posts())) == (1, 3)
    assert summary(stdout) == {
        "found": ("3", "6"), "delivered": ("2", "3"), "rejected": ("1", "3"),
    }  # fmt: skip
    reason = "HTTP 400 (InjectedFault: Bad Request, on request)"
    assert stdout.splitlines()[-3:] == [
        "rejected    p-1 of batch p: rejected on request",
        f"rejected    q-0 of batch q: {reason}",
        f"rejected    q-1 of batch q: {reason}",
    ]


def test_too_large_is_halved_alike(ingest: Ingest) -> None:
    """A batch that the server finds too large splits as it would have in the function."""
    text = text_of(batch(3))
    for _ in range(2):
        ingest.fault(Fault(status=413))
        assert replay(ingest.url, stdin=text)[0] == 0

    assert len(ingest.events()) == 3
    assert [post.duplicate for post in ingest.posts()] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_it(status: int, ingest: Ingest) -> None:
    """At the first batch, with the reason; nothing counts as decided."""
    ingest.fault(Fault(status=status, times=None))

    code, stdout, stderr = replay(ingest.url, stdin=text_of(batch(1), batch(2)))

    assert (code, len(ingest.posts())) == (2, 1)
    assert summary(stdout)["not delivered"] == ("1", "1")
    assert f"not everything was delivered: HTTP {status}" in stderr


@pytest.mark.parametrize(
    ("variables", "arguments", "complaint"),
    [
        ({"DOOW_TRACK_API_KEY": ""}, [], "Error: there is no API key: set DOOW_TRACK_API_KEY"),
        ({"DOOW_TRACK_API_KEY": "dk_1"}, [], "Error: DOOW_TRACK_API_KEY is no SDK key"),
        ({"DOOW_TRACK_ENDPOINT": "http://x.y"}, [], "Error: DOOW_TRACK_ENDPOINT must be an https"),
        (
            {"DOOW_TRACK_ENDPOINT": "localhost:8787"},
            ["--dry-run"],
            "Error: DOOW_TRACK_ENDPOINT must",
        ),
        ({}, ["--since", "soon"], "Error: --since must be a time"),
        ({}, ["no-such-file"], "Error: Invalid value for '[FILES]...'"),
        ({}, ["--resume", "no/such/file", "-"], "Error: [Errno 2] No such file or directory"),
    ],
)
def test_wrong_usage(
    variables: dict[str, str], arguments: list[str], complaint: str, ingest: Ingest
) -> None:
    """One line that says what to do; a bad endpoint must not lead elsewhere."""
    status, _, stderr = replay(ingest.url, *arguments, stdin=text_of(batch()), **variables)

    assert (status, ingest.events()) == (2, [])
    assert complaint in stderr


@pytest.mark.parametrize("by", ["standard input", "a file"])
def test_what_was_sent_by_halves_is_replayed_by_halves(
    by: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Though the server would take the whole by now: the halves are there, under ids of their own.

    That it was halved may stand at the end of the log, after the batch itself.
    """
    whole = batch(4)
    for half in split(whole):
        assert replay(ingest.url, stdin=text_of(half))[0] == 0
    text = text_of(whole, batch(1)) + "\n".join(frames_of(whole, SPLIT, AT))
    log = tmp_path / "log"
    log.write_text(text)
    arguments, stdin = ([log], "") if by == "a file" else ([], text)

    code, stdout, _ = replay(ingest.url, *arguments, stdin=stdin)

    assert (code, summary(stdout)["delivered"]) == (0, ("2", "5"))
    assert len(ingest.events()) == 5
    assert [post.duplicate for post in ingest.posts()] == [False, False, True, True, False]


# ── hostile batches ───────────────────────────────────────────────────────────────────────────────


def hostile(text: str, count: int = 1) -> Batch:
    """A batch with events that this library never seals."""
    batch_id = new_id()
    event_ids = tuple(f"{batch_id}-{number}" for number in range(count))
    events = ",".join(f'{{"event_id":"{one}","a":{text}}}' for one in event_ids)
    body = f'{{"batch_id":"{batch_id}","sdk_version":"1","events": [{events}]}}'
    return Batch(batch_id, event_ids, body.encode(), False, "1")


def logged(one: Batch, reason: str = BY_LOG) -> str:
    return "".join(f"\n{line}\n" for line in frames_of(one, reason, AT))


@pytest.mark.parametrize("number", ["1E1000000000000000000", "1e-1000000000000000000", "9" * 5_000])
@pytest.mark.parametrize("fold", [[], ["--fold", "true"]])
def test_a_number_that_cannot_be_read_ends_no_replay(
    number: str, fold: list[str], ingest: Ingest
) -> None:
    """Its batch is left to Doow or reported, and the others are delivered."""
    text = logged(plain_batch(3)) + logged(hostile(number)) + logged(plain_batch(3))

    status, stdout, _ = replay(ingest.url, *fold, stdin=text)

    assert sum(int(one["measurements"][0]["quantity"]) for one in ingest.events()) == 6
    assert status == 1
    assert "rejected    " in stdout or "damaged     " in stdout


@pytest.mark.parametrize("events", ["1", "[" * 5_000 + "]" * 5_000])
def test_a_batch_that_cannot_be_split_ends_no_replay(events: str, ingest: Ingest) -> None:
    """Anybody's frames may say that it was split; the others are delivered."""
    one = hostile(events, 2)
    text = logged(one, SPLIT) + logged(one) + logged(batch(2))

    status, stdout, _ = replay(ingest.url, stdin=text)

    assert (status, len(ingest.events())) == (1, 2)
    assert summary(stdout)["delivered"] == ("1", "2")
    assert one.id in stdout
