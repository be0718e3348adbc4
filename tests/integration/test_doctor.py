"""``doow-serverless doctor`` over real HTTP: each line, its remedy, and the exit status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Fault
from tests.network import KEY, Server, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless.local import Ingest
    from tests.network import Peer


def doctor(*arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit status, the checks by their names, and what is printed without --json."""
    command = [sys.executable, "-m", "doow_serverless", "doctor", *arguments]
    env = {**os.environ, "DOOW_TRACK_API_KEY": KEY, "NO_COLOR": "1", **variables}
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0) == all(c["ok"] for c in document["checks"])
    assert all(check["ok"] or check["remedy"] for check in document["checks"])
    return done.returncode, {check["name"]: check for check in document["checks"]}, done.stdout


def test_all_is_well(ingest: Ingest) -> None:
    """The key, the way, the clock, the greeting, and one event."""
    status, checks, _ = doctor("--license-id", "lic_1", DOOW_TRACK_ENDPOINT=ingest.url)
    assert status == 0, checks
    assert list(checks) == ["platform", "key", "endpoint", "clock", "heartbeat", "event"]
    assert "from DOOW_TRACK_API_KEY" in checks["key"]["detail"]
    [event] = ingest.events()
    assert (event["license_id"], event["measurements"][0]["metric_name"]) == ("lic_1", "api_calls")
    assert ingest.heartbeats == 1


def test_the_lines(ingest: Ingest, tmp_path: Path) -> None:
    """A mark, what was found, and below it what to do; no colours where nobody sees them."""
    (tmp_path / "app.py").write_text(
        "import doow_serverless as doow\ndef handler(event, context): doow.track('x')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "doow_serverless", "doctor", "--no-send", "app.py"],
        cwd=tmp_path,
        env={**os.environ, "DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": ingest.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert "✓ heartbeat: the key is known" in lines
    assert any(line.startswith("✗ app.py: line 2: the handler handler") for line in lines)
    assert lines[-1].startswith("  → put @doow.tracked above it")
    assert "\x1b" not in done.stdout
    assert ingest.posts() == []


def test_without_a_key() -> None:
    """It says what to set; what needs a key is not tried."""
    with refused_port() as url:
        status, checks, _ = doctor(DOOW_TRACK_API_KEY="", DOOW_TRACK_ENDPOINT=url)
    assert (status, checks["key"]["ok"]) == (1, False)
    assert "DOOW_TRACK_API_KEY" in checks["key"]["remedy"]
    assert "heartbeat" not in checks


def test_delivery_by_log_needs_neither() -> None:
    """No key is asked for, and no way to Doow is tried."""
    with refused_port() as url:
        status, checks, _ = doctor(
            DOOW_TRACK_API_KEY="", DOOW_TRACK_ENDPOINT=url, DOOW_TRACK_DELIVERY="log"
        )
    assert (status, checks["delivery"]["ok"]) == (0, True)
    assert not {"key", "endpoint", "heartbeat"} & checks.keys()


def test_delivery_by_log_needs_right_variables() -> None:
    """A blank log key would leave its lines unsigned."""
    status, checks, _ = doctor(DOOW_TRACK_DELIVERY="log", DOOW_TRACK_LOG_KEY=" ")
    assert (status, checks["delivery"]["ok"], checks["variable"]["ok"]) == (1, True, False)
    assert "DOOW_TRACK_LOG_KEY must be a text" in checks["variable"]["detail"]


@pytest.mark.parametrize(
    ("variables", "name", "said"),
    [
        ({"DOOW_TRACK_API_KEY": "dk_short"}, "key", "is no SDK key"),
        ({"DOOW_TRACK_ENDPOINT": "http://ingest.test"}, "endpoint", "must be an https URL"),
        ({"DOOW_TRACK_ENDPOINT": "https://no-such-host.invalid"}, "endpoint", "does not resolve"),
        ({"DOOW_TRACK_BUDGET": "soon"}, "variable", "DOOW_TRACK_BUDGET"),
    ],
)
def test_what_the_environment_says_wrong(
    variables: dict[str, str], name: str, said: str, ingest: Ingest
) -> None:
    """Each is named, with the variable."""
    status, checks, _ = doctor("--no-send", **{"DOOW_TRACK_ENDPOINT": ingest.url, **variables})
    assert (status, checks[name]["ok"]) == (1, False)
    assert said in checks[name]["detail"]


@pytest.mark.parametrize("how", ["revoked", "down", "failing"])
def test_what_doow_says(how: str, ingest: Ingest) -> None:
    """A refused key, no server, and one that answers with an error."""
    url = ingest.url
    if how == "revoked":
        ingest.revoke(KEY)
    with refused_port() as nowhere:
        status, checks, _ = doctor(
            "--no-send", DOOW_TRACK_ENDPOINT=nowhere if how == "down" else url
        )
    if how == "failing":
        ingest.fault(Fault(status=500))
        status, checks, _ = doctor("--license-id", "l", DOOW_TRACK_ENDPOINT=url)
    assert status == 1
    name = "event" if how == "failing" else "heartbeat"
    assert (checks[name]["ok"], bool(checks[name]["remedy"])) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "license_id is missing"), (("--license-id", "l", "--metric", "bad"), "rejected on")],
)
def test_an_event_that_is_not_accepted(
    arguments: tuple[str, ...], said: str, ingest: Ingest
) -> None:
    """With the server's reason, or ours."""
    ingest.fault(Fault(reject="bad"))
    status, checks, _ = doctor(*arguments, DOOW_TRACK_ENDPOINT=ingest.url)
    assert (status, checks["event"]["ok"]) == (1, False)
    assert said in checks["event"]["detail"]


@pytest.mark.parametrize("skew_s", [-3_600, 3_600])
def test_a_clock_that_is_wrong(skew_s: int) -> None:
    """Against the date of the answer."""

    def behave(peer: Peer) -> None:
        while peer.request():
            date = formatdate(time.time() + skew_s, usegmt=True)
            peer.send(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    with Server(behave) as server:
        status, checks, _ = doctor("--no-send", DOOW_TRACK_ENDPOINT=server.url)
    assert (status, checks["clock"]["ok"]) == (1, False)
    assert ("behind" if skew_s > 0 else "ahead of") in checks["clock"]["detail"]


def test_a_server_without_tls() -> None:
    """Where https is asked for, what answers must be trusted."""

    def behave(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Server(behave) as server:
        port = server.url.rpartition(":")[2]
        status, checks, _ = doctor(DOOW_TRACK_ENDPOINT=f"https://localhost:{port}")
    assert (status, checks["TLS"]["ok"]) == (1, False)


def test_the_platform_is_named(ingest: Ingest) -> None:
    """By what it sets."""
    found: Callable[..., Any] = lambda **variables: doctor(  # noqa: E731
        "--no-send", DOOW_TRACK_ENDPOINT=ingest.url, **variables
    )[1]["platform"]["detail"]
    assert found(VERCEL="1") == "Vercel"
    assert found(AWS_LAMBDA_FUNCTION_NAME="f") == "AWS Lambda"
    assert "none" in found()
    assert socket.gethostname() not in found()
