"""``doow-serverless send``: one event, or lines as Doow's own command line takes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Fault
from tests.integration.replaying import replay
from tests.network import KEY, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless.local import Ingest

OTHER = "dk_" + "b2" * 32
LINE = {"metric": "builds", "quantity": 1, "license_id": "lic_1"}


class Done:
    """What a run of the command has come to."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        assert "Traceback" not in stderr
        assert KEY not in stdout + stderr


@pytest.fixture
def send(tmp_path: Path, ingest: Ingest) -> Callable[..., Done]:
    def send(*arguments: object, stdin: str | bytes = b"", **variables: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "doow_serverless", "send", *map(str, arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env=environ(ingest.url, **variables),
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return send


def environ(endpoint: str, **variables: str) -> dict[str, str]:
    variables = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": endpoint, **variables}
    return {**os.environ, **variables}


def lines(*events: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in events)


def test_one_event_of_arguments(send: Callable[..., Done], ingest: Ingest) -> None:
    """As the README says it; the number exact."""
    done = send(
        "--metric", "tokens", "--quantity", "812.10", "--license-id", "lic_acme", "--unit",
        "tokens", "--attribution", "model=gpt-4o", "--attribution", "query=a=b",
        "--timestamp", "2026-11-22T11:33:00Z",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert done.stdout == f"1 event delivered to {ingest.url}\n"
    [event] = ingest.events()
    [measurement] = event["measurements"]
    assert (measurement["metric_name"], measurement["quantity"]) == ("tokens", Decimal("812.10"))
    assert event["attribution"] == {"model": "gpt-4o", "query": "a=b"}
    assert (event["license_id"], event["unit"]) == ("lic_acme", "tokens")
    assert event["occurred_at"] == "2026-11-22T11:33:00Z"


def test_lines_of_doows_own_command(
    send: Callable[..., Done], ingest: Ingest, tmp_path: Path
) -> None:
    """All of its fields, nulls and unknown ones, a BOM, CRLF, blank lines, an open end."""
    whole = {
        **LINE,
        "unit": "builds",
        "attribution": {"branch": "main", "ok": True, "minutes": 2.5},
        "metadata": {"nested": [1, None]},
        "timestamp": "2026-11-22T12:33:00+01:00",
        "kind": "ADJUSTMENT",
        "source_system": "ci",
        "metric_tuple_hint": {"app_name": "a", "license_name": "b", "metric_name": "c"},
    }
    text = b"\xef\xbb\xbf" + lines(whole, {**LINE, "unit": None, "colour": "red"}).encode()
    text = text.replace(b"\n", b"\r\n") + b"\n\n" + json.dumps(LINE).encode()
    done = send(stdin=text)
    assert done.status == 0, done.stderr
    assert "3 events delivered" in done.stdout
    assert done.stderr.count("'colour'") == 1
    first, second, _ = ingest.events()
    assert first["measurements"][0]["metric_tuple_hint"] == whole["metric_tuple_hint"]
    assert (first["kind"], first["source_system"]) == ("ADJUSTMENT", "ci")
    assert (first["attribution"], first["metadata"]) == (whole["attribution"], whole["metadata"])
    assert second["license_id"] == "lic_1"
    assert len(ingest.posts()) == 1


def test_a_thousand_lines_of_files_travel_by_batches(
    send: Callable[..., Done], ingest: Ingest, tmp_path: Path
) -> None:
    """In order, and each once; what is left out of one is told with its line."""
    for name in ("a.jsonl", "b.jsonl"):
        events = [{**LINE, "attribution": {"n": number}} for number in range(600)]
        (tmp_path / name).write_text(lines(*events))
    (tmp_path / "c.jsonl").write_text(lines({**LINE, "attribution": {"api_key": OTHER, "n": 1}}))
    done = send("a.jsonl", "b.jsonl", "c.jsonl")
    assert done.status == 0, done.stderr
    assert [event["attribution"]["n"] for event in ingest.events()] == [*range(600)] * 2 + [1]
    assert len(ingest.posts()) == 3
    assert "c.jsonl, line 1" in done.stderr
    assert "api_key" in done.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff{}", "not UTF-8"),
        (b'{"quantity": 1, "license_id": "l"}', "metric is missing"),
        (b'{"metric": "m", "quantity": NaN, "license_id": "l"}', "NaN is no number"),
        (b'{"metric": "m", "quantity": -1, "license_id": "l"}', "quantity"),
        (b'{"metric": "m", "quantity": "7", "license_id": "l"}', "quantity"),
        (b'{"metric": "m", "quantity": 1}', "license_id is missing"),
        (b'{"metric": 5, "license_id": "l"}', "metric"),
        (b'{"metric": "m", "license_id": "l", "timestamp": "noon"}', "timestamp"),
        (b'{"metric": "' + b"x" * 2_000_000 + b'"}', "longer than"),
        (b"[" * 100_000, "not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_line_is_told_by_its_number_and_skipped(
    line: bytes, reason: str, send: Callable[..., Done], ingest: Ingest
) -> None:
    """The others are delivered, and the status says that something is to be looked at."""
    done = send(stdin=lines(LINE).encode() + line + b"\n" + lines(LINE).encode())
    assert done.status == 1
    assert "2 events delivered" in done.stdout
    assert "1 malformed" in done.stdout
    [told] = [each for each in done.stderr.splitlines() if each.startswith("line 2: ")]
    assert reason in told
    assert len(ingest.events()) == 2


def test_a_rejected_event_is_named(send: Callable[..., Done], ingest: Ingest) -> None:
    """With the server's reason."""
    ingest.fault(Fault(reject="bad"))
    done = send(stdin=lines(LINE, {**LINE, "metric": "bad", "event_id": "evt_bad"}))
    assert done.status == 1
    assert "1 event delivered" in done.stdout
    assert "1 rejected" in done.stdout
    assert "rejected: evt_bad: " in done.stderr


@pytest.mark.parametrize("how", ["down", "key refused"])
def test_what_is_not_delivered_stands_in_a_file_for_replay(
    how: str, send: Callable[..., Done], ingest: Ingest, tmp_path: Path
) -> None:
    """All of it, under the ids under which it was tried."""
    text = lines(*({**LINE, "event_id": f"evt_{number}"} for number in range(1_100)))
    with refused_port() as nowhere:
        endpoint = nowhere if how == "down" else ingest.url
        if how == "key refused":
            ingest.revoke(KEY)
        done = send("--patience", 0.5, "--undelivered", "kept.jsonl", stdin=text,
                    DOOW_TRACK_ENDPOINT=endpoint)  # fmt: skip
    assert done.status == 3
    assert "1,100 not delivered" in done.stdout
    assert "doow-serverless replay kept.jsonl" in done.stderr
    ingest.add_key(KEY)
    for _ in range(2):
        status, _, stderr = replay(ingest.url, tmp_path / "kept.jsonl")
        assert status == 0, stderr
    assert [event["event_id"] for event in ingest.events()] == [f"evt_{n}" for n in range(1_100)]


@pytest.mark.parametrize(
    ("variables", "is_signed", "said"),
    [
        ({"DOOW_TRACK_LOG_KEY": "log key"}, True, ""),
        ({"DOOW_TRACK_LOG_KEY_SECRET_ARN": "arn:none"}, False, "written unsigned, for a replay"),
        ({}, False, ""),
    ],
)
def test_what_is_not_delivered_is_signed(
    variables: dict[str, str],
    is_signed: bool,
    said: str,
    send: Callable[..., Done],
    tmp_path: Path,
) -> None:
    """With the log key of the environment; where that cannot be read, it is kept all the same."""
    with refused_port() as nowhere:
        variables = {"DOOW_TRACK_ENDPOINT": nowhere, "AWS_EC2_METADATA_DISABLED": "1", **variables}
        done = send(
            "--patience", 0.1, "--undelivered", "kept.jsonl", stdin=lines(LINE), **variables
        )
    text = (tmp_path / "kept.jsonl").read_text()
    assert (done.status, '"hmac":' in text) == (3, is_signed)
    assert ("unsigned" in done.stderr, said in done.stderr) == (bool(said), True)


def test_lines_that_trickle_in_leave_meanwhile(ingest: Ingest, tmp_path: Path) -> None:
    """A pipe may stay open for hours; Ctrl-C ends it, and says what was sent."""
    process = subprocess.Popen(
        [sys.executable, "-m", "doow_serverless", "send"],
        env=environ(ingest.url, DOOW_TRACK_FLUSH_INTERVAL="200"),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    with process:
        process.stdin.write(lines(LINE))
        process.stdin.flush()
        while not ingest.posts() or ingest.posts()[0].status != 202:
            time.sleep(0.01)
        time.sleep(1.0)  # Until the answer has been read.
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 event delivered" in stdout
    assert "interrupted" in stderr
    assert "Traceback" not in stderr


def test_an_interruption_keeps_what_was_under_way(ingest: Ingest, tmp_path: Path) -> None:
    """Whether it was delivered nobody knows: a replay of it counts once."""
    ingest.fault(Fault(hang=True, record_first=True))
    process = subprocess.Popen(
        [sys.executable, "-m", "doow_serverless", "send", "--metric", "m", "--license-id", "l"],
        env=environ(ingest.url),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while not ingest.posts():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 not delivered" in stdout
    assert replay(ingest.url, tmp_path / "doow-undelivered.jsonl")[0] == 0
    assert len(ingest.events()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--quantity", "5"], "add --metric"),
        (["--metric", "m", "--quantity", "many"], "is no number"),
        (["--metric", "m", "--attribution", "model"], "name=value"),
        (["--metric", "m", "pyproject.toml"], "does not exist"),
    ],
)
def test_wrong_arguments_are_said_in_a_line(
    arguments: list[str], reason: str, send: Callable[..., Done], ingest: Ingest
) -> None:
    """And nothing is sent."""
    done = send(*arguments)
    assert done.status == 2
    assert reason in done.stderr
    assert ingest.posts() == []


def test_without_a_key_it_says_what_to_set(send: Callable[..., Done]) -> None:
    """Before anything is read."""
    done = send("--metric", "m", "--license-id", "l", DOOW_TRACK_API_KEY="")
    assert done.status == 2
    assert "set DOOW_TRACK_API_KEY" in done.stderr
