"""How long replay waits for a server, and that it can be interrupted and resumed."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._delivery.patient import PatientSender, Undeliverable
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless.errors import ErrorKind
from doow_serverless.local import Fault, Ingest
from tests.batches import batch
from tests.integration.replaying import WHY, command, environ, replay, summary, text_of
from tests.network import refused_port
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._sealing import Batch


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


def test_no_more_events_a_minute_than_told() -> None:
    """Each batch waits until those before it have had their time, and failures cost none."""
    now = 0.0
    sent: list[tuple[float, int]] = []
    answers = iter(["", "fails", "", ""])

    class Taking:
        def send(self, one: Batch) -> Settled | Failed:
            if next(answers):
                return Failed(ErrorKind.NETWORK_ERROR, "down")
            sent.append((now, len(one)))
            return Settled(one, ErrorKind.TRANSPORT_ERROR, "", [])

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    patient = PatientSender(
        Taking(),  # type: ignore[arg-type]  # all that is asked of it
        lambda line: None,
        rate=600.0,
        sleep=sleep,
        clock=lambda: now,
    )
    for events in (500, 10, 1):
        patient.deliver(batch(events))
    assert sent == [(0.0, 500), (50.5, 10), (51.5, 1)]


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


def test_nothing_is_begun_when_the_time_is_over() -> None:
    """Also where what may go has been allowed to for long."""
    now = [100.0]
    sender = PatientSender(Accepting(now), lambda _: None, ends_at=110.0, clock=lambda: now[0])  # type: ignore[arg-type]
    sender.deliver(batch())
    now[0] += 20.0
    with pytest.raises(Undeliverable):
        sender.deliver(batch())


class Accepting:
    """Takes six seconds for each batch."""

    def __init__(self, now: list[float]) -> None:
        self._now = now

    def send(self, one: Batch) -> Settled:
        self._now[0] += 6.0
        return Settled(one, ErrorKind.TRANSPORT_ERROR, "", [])
