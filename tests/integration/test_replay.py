"""``doow-serverless replay`` as a user runs it, from logs in every envelope to the local ingest."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._delivery.attempt import Failed, Settled
from doow_serverless._keeping.dead_letter_format import LIMIT, records_of
from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless.cli.replay_input import blocks_of, moment
from doow_serverless.cli.replay_sender import PatientSender, Undeliverable
from doow_serverless.cli.replaying import Ledger, Replay
from doow_serverless.errors import ErrorKind
from doow_serverless.local import Fault, Ingest
from tests.batches import batch
from tests.network import KEY, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from doow_serverless._sealing import Batch


WHY = ErrorKind.NETWORK_ERROR
AT = 1_795_347_180.123
"""2026-11-22T11:33:00.123Z"""


def lines_of(*batches: Batch, at: float = AT, limit: int = LIMIT) -> list[str]:
    return [line for one in batches for line in records_of(one, WHY, at, limit=limit)]


def text_of(*batches: Batch) -> str:
    return "".join(f"{line}\n" for line in lines_of(*batches))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "doow_serverless", "replay", *map(str, arguments)]


def environ(endpoint: str, **variables: str) -> dict[str, str]:
    variables = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": endpoint, **variables}
    return {**os.environ, **variables}


def replay(
    endpoint: str, *arguments: object, stdin: str | bytes = b"", **variables: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    done = subprocess.run(
        command(*arguments),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env=environ(endpoint, **variables),
        capture_output=True,
        timeout=30,
        check=False,
    )
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    assert KEY not in stderr + done.stdout.decode()
    return done.returncode, done.stdout.decode(), stderr


def summary(stdout: str) -> dict[str, tuple[str, str]]:
    """The rows of the table: what, how many batches, how many events."""
    rows = re.findall(r"^([a-z ]+?) {2,}([\d,?]+) +([\d,?]+) *$", stdout, re.MULTILINE)
    return {name: (batches, events) for name, batches, events in rows}


# ── envelopes ───────────────────────────────────────────────────────────────────────────────────


def filter_log_events(lines: Sequence[str]) -> str:
    """``aws logs filter-log-events``."""
    events = [
        {"logStreamName": "2026/11/22/[$LATEST]0a", "timestamp": 1, "message": f"{line}\n"}
        for line in lines
    ]
    return json.dumps({"events": events, "searchedLogStreams": []}, indent=4)


def tail(lines: Sequence[str]) -> str:
    """``aws logs tail``."""
    return "".join(
        f"2026-11-22T11:33:00.123000+00:00 2026/11/22/[$LATEST]0a {line}\n" for line in lines
    )


def tail_json(lines: Sequence[str]) -> str:
    """``aws logs tail --format json``, which prints JSON prettily."""
    return "".join(
        f"2026-11-22T11:33:00.123000+00:00 {json.dumps(json.loads(line), indent=4)}\n"
        for line in lines
    )


def lambda_json(lines: Sequence[str]) -> str:
    """Lambda's JSON log format."""
    return "".join(
        json.dumps({"timestamp": "2026-11-22T11:33:00Z", "level": "INFO", "message": line}) + "\n"
        for line in lines
    )


def telemetry(lines: Sequence[str]) -> str:
    """Lambda's telemetry, which takes JSON for an object and sorts its keys."""
    return json.dumps(
        [{"type": "function", "record": json.loads(n)} for n in lines], sort_keys=True
    )


def vercel(lines: Sequence[str]) -> str:
    """``vercel logs --json``."""
    return "".join(json.dumps({"id": "1", "message": f"{n}\n", "type": "stdout"}) for n in lines)


def insights_lines(lines: Sequence[str]) -> str:
    """Application Insights, continuous export."""
    return "\n".join(
        json.dumps({"message": n, "customDimensions": {"Category": "Function"}}) for n in lines
    )


def insights_query(lines: Sequence[str]) -> str:
    """Application Insights, answer of the query API as a .NET program writes it."""
    rows = [["2026-11-22T11:33:00.123Z", line, {"a": "b"}] for line in lines]
    answer = json.dumps({"tables": [{"name": "PrimaryResult", "rows": rows}]})
    return answer.replace('\\"', "\\u0022").replace("+", "\\u002B")


def insights_csv(lines: Sequence[str]) -> str:
    """Application Insights, CSV of the portal."""
    file = io.StringIO()
    csv.writer(file).writerows([["timestamp", "message"], *(["2026-11-22", n] for n in lines)])
    return file.getvalue()


@pytest.mark.parametrize(
    "envelope",
    [
        "\n".join, filter_log_events, tail, tail_json, lambda_json, telemetry, vercel,
        insights_lines, insights_query, insights_csv,
    ],
)  # fmt: skip
def test_every_envelope(envelope: Callable[[Sequence[str]], str], tmp_path: Path) -> None:
    """However a log was exported, all is found, also in gzip and in UTF-16."""
    batches = [batch(2, batch_id="a"), batch(80, noise=900, batch_id="b")]
    noise = ["START RequestId: 1", '{"level":"INFO","message":"{}"}']
    text = "\n".join([*noise, envelope(lines_of(*batches)), *noise])

    for content in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16")):
        path = tmp_path / "log"
        path.write_bytes(content)
        taken = Replay(None, Ledger(None, ""))
        with path.open("rb") as stream:
            taken.read(blocks_of(stream))
        assert (taken.found.batches, taken.found.events, taken.problems()) == (2, 82, [])


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
    assert "1 of them too old" in stdout


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
        "damaged     cut: a record is cut off or altered",
        f"damaged     torn: part 1 of {len(torn)} missing",
    ]
    dry, _, _ = replay(ingest.url, "--dry-run", stdin=text)
    assert dry == 1


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


# ── time ────────────────────────────────────────────────────────────────────────────────────────


def test_a_rate_limit_is_waited_out(ingest: Ingest) -> None:
    """As long as the server says, whatever the patience; 503 with Retry-After alike."""
    ingest.fault(
        Fault(rate_limit_s=1), Fault(status=503, headers={"Retry-After": "1"}), Fault(status=429)
    )
    began = time.monotonic()

    status, _, stderr = replay(ingest.url, "--patience", "0", stdin=text_of(batch(2)))

    assert (status, len(ingest.events()), len(ingest.posts())) == (0, 2, 4)
    assert 2.0 < time.monotonic() - began < 10
    assert stderr.count("as the server asks") == 3


def test_a_fault_that_passes(ingest: Ingest) -> None:
    """Resets and 500s are tried again."""
    ingest.fault(Fault(reset="mid_answer", record_first=True), Fault(status=500))

    status, _, _ = replay(ingest.url, stdin=text_of(batch(2)))

    assert (status, len(ingest.events())) == (0, 2)


def test_a_server_that_is_down() -> None:
    """The first batch gets the patience, the second one attempt, and that was it."""
    with refused_port() as url:
        status, stdout, stderr = replay(
            url, "--patience", "0.2", stdin=text_of(batch(), batch(), batch())
        )

    assert status == 3
    assert summary(stdout)["not delivered"] == ("2", "2")
    assert "trying again for 0.2 s" in stderr
    assert "not everything was delivered: ConnectionRefusedError" in stderr


def test_one_batch_that_the_server_cannot_take(ingest: Ingest) -> None:
    """Those behind it are delivered, and the status says that one was not."""
    ingest.fault(Fault(status=500, times=2))

    status, _, _ = replay(
        ingest.url, "--patience", "0.4", stdin=text_of(batch(1), batch(2), batch(3))
    )

    assert (status, len(ingest.events())) == (3, 5)


def test_interrupted_and_resumed(ingest: Ingest, tmp_path: Path) -> None:
    """Ctrl-C ends it in a line; with --resume the same command goes on where it was."""
    log, state = tmp_path / "log", tmp_path / "state"
    batches = [batch(1) for _ in range(6)]
    log.write_text(text_of(*batches))
    ingest.fault(*[Fault(delay_s=0.0)] * 3, Fault(rate_limit_s=60))
    process = subprocess.Popen(
        command(log, "--resume", state),
        env=environ(ingest.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        while "waiting" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=10)

    assert process.returncode == 130
    assert stderr.endswith("interrupted: the same command again delivers the rest, once\n")
    assert summary(stdout)["delivered"] == ("3", "3")

    with state.open("a") as file:
        file.write("half a li")
    status, stdout, _ = replay(ingest.url, log, "--resume", state)
    assert (status, len(ingest.events())) == (0, 6)
    assert summary(stdout)["delivered before"] == ("3", "3")
    assert [post.batch_id for post in ingest.posts()[4:]] == [one.id for one in batches[3:]]

    posts = len(ingest.posts())
    assert replay(ingest.url, log, "--resume", state)[0] == 0
    assert len(ingest.posts()) == posts

    with Ingest() as other:
        assert replay(other.url, log, "--resume", state)[0] == 0
        assert len(other.events()) == 6, "what went elsewhere does not count"


class Script:
    """A sender whose attempts end as written."""

    def __init__(self, *results: Failed | Settled) -> None:
        self._results = iter(results)

    def send(self, _batch: Batch, **_: Any) -> Failed | Settled:
        return next(self._results)


def test_pauses_grow_and_patience_is_anew_after_a_hold() -> None:
    """Faults are retried more and more slowly; what the server asks for is no failure."""
    now = 0.0
    slept = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    one = batch()
    down = [Failed(ErrorKind.NETWORK_ERROR, "refused")] * 30
    hold = Failed(ErrorKind.RATE_LIMITED, "HTTP 429", 3_600.0)
    sender: Any = Script(*down[:2], hold, *down)
    patient = PatientSender(sender, lambda _: None, patience_s=20, sleep=sleep, clock=lambda: now)

    with pytest.raises(Undeliverable) as caught:
        patient.deliver(one)

    assert not caught.value.ends_all
    assert slept == [0.5, 1, 3_600, 4, 8, 8]
    with pytest.raises(Undeliverable) as caught:
        patient.deliver(one)
    assert caught.value.ends_all
    assert len(slept) == 6


def test_patience_is_anew_after_a_success() -> None:
    """One attempt is all that a batch gets behind one that was given up, until one succeeds."""
    down = Failed(ErrorKind.TIMEOUT, "silent")
    one = batch()
    done = Settled(one, WHY, "", [])
    slept: list[float] = []
    sender: Any = Script(down, done, down, done)
    patient = PatientSender(sender, lambda _: None, patience_s=0, sleep=slept.append)

    with pytest.raises(Undeliverable):
        patient.deliver(one)
    assert patient.deliver(one).accepted == 1
    with pytest.raises(Undeliverable) as caught:
        patient.deliver(one)

    assert not caught.value.ends_all
    assert slept == []
