"""How long replay waits for a server, and that it can be interrupted and resumed."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import Fault, Ingest
from tests.batches import batch
from tests.integration.replaying import command, environ, replay, summary, text_of
from tests.network import refused_port
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path


# ── time ────────────────────────────────────────────────────────────────────────────────────────


def test_a_rate_limit_is_waited_out(ingest: Ingest) -> None:
    """As long as the server says, whatever the patience; 503 with Retry-After alike."""
    ingest.fault(
        Fault(rate_limit_s=1), Fault(status=503, headers={"Retry-After": "1"}), Fault(status=429)
    )
    began = time.monotonic()

    status, _, stderr = replay(ingest.url, "--patience", "0", stdin=text_of(batch(2)))

    assert (status, len(ingest.events()), len(ingest.posts())) == (0, 2, 4)
    within(time.monotonic() - began, 10, at_least_s=2.0)
    assert stderr.count("as the server asks") == 3


@pytest.mark.parametrize("rate", ["0", "-5", "fast"])
def test_a_rate_that_is_none(rate: str, ingest: Ingest) -> None:
    """It is refused, and nothing is sent."""
    status, _, stderr = replay(ingest.url, "--rate", rate, stdin=text_of(batch()))
    assert (status, ingest.posts()) == (2, [])
    assert "--rate" in stderr


def test_a_rate(ingest: Ingest) -> None:
    """Two batches of five events at 600 a minute: half a second in between."""
    status, _, _ = replay(ingest.url, "--rate", "600", stdin=text_of(batch(5), batch(5)))
    first, second = (post.received_at for post in ingest.posts())
    assert (status, second - first >= 0.5) == (0, True)


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
    bad = batch(1)
    ingest.fault(Fault(status=500, only=bad.event_ids, times=None))

    status, stdout, stderr = replay(
        ingest.url, "--patience", "0.4", stdin=text_of(bad, batch(2), batch(3))
    )

    assert (status, len(ingest.events())) == (3, 5)
    assert summary(stdout)["not delivered"] == ("1", "1")
    assert "not everything was delivered: HTTP 500" in stderr


def test_one_of_three_instances_is_bad(ingest: Ingest) -> None:
    """A batch that fails goes behind the next one: all are delivered."""
    ingest.fault(*[Fault(status=500), Fault(delay_s=0.0), Fault(delay_s=0.0)] * 10)

    status, stdout, _ = replay(ingest.url, stdin=text_of(*(batch() for _ in range(20))))

    assert (status, len(ingest.events())) == (0, 20)
    assert summary(stdout)["delivered"] == ("20", "20")


def test_the_place_of_the_key_cannot_be_reached(ingest: Ingest, tmp_path: Path) -> None:
    """An outage like any other: it is waited out for its patience, and named."""
    variable, where = "DOOW_TRACK_API_KEY_SECRET_ARN", "arn:aws:secretsmanager:us-east-1:1:secret:x"
    with refused_port() as store:
        variables = environ(
            ingest.url,
            **{
                variable: where,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL_SECRETS_MANAGER": store,
                "AWS_MAX_ATTEMPTS": "1",
            },
        )
        variables.pop("DOOW_TRACK_API_KEY")
        log = tmp_path / "log"
        log.write_text(text_of(batch(), batch(), batch()))
        done = subprocess.run(
            command(log, "--patience", "0.2"), env=variables, capture_output=True, text=True
        )

    assert (done.returncode, ingest.posts()) == (3, [])
    assert summary(done.stdout)["not delivered"] == ("2", "2")
    why = f"the API key could not be read from Secrets Manager, where {variable} points"
    assert f"{why}" in done.stderr
    assert "trying again for 0.2 s" in done.stderr


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
