"""Dead letters are written once, whole and soon; nothing about it reaches or holds the handler."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout, suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from doow_serverless._frames.format import frames_of
from doow_serverless._frames.reader import read_frame
from doow_serverless._keeping import dead_letters
from doow_serverless._keeping.dead_letters import WAIT_S, DeadLetters
from doow_serverless.errors import ErrorKind
from tests.batches import batch, contents, read_back
from tests.frames import frames_in, letters_in
from tests.network import Metronome
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless._sealing import Batch

WHY = ErrorKind.TIMEOUT


class Pipe:
    """A pipe that is full, as standard output of a sandbox that nobody empties."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._filling = 0
        with suppress(BlockingIOError):
            while True:
                self._filling += os.write(self._writes, b"." * 4_096)
        os.set_blocking(self._writes, True)
        self.stream: TextIO = os.fdopen(self._writes, "w")

    def read(self, frames: int) -> str:
        """So many frames, as soon as they have come."""
        text = ""
        while text.count("\n") < 2 * frames:  # One newline before each, and one after it.
            text += os.read(self._reads, 65_536).decode()
        text, self._filling = text[self._filling :], 0
        return text

    def close(self) -> None:
        os.close(self._reads)
        self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def put(letters: DeadLetters, one: Batch) -> bool:
    """Write a batch as a flush does, which waits for it."""
    is_taken = letters.write(one, WHY)
    letters.wait()
    return is_taken


def timed(letters: DeadLetters, one: Batch) -> float:
    began = time.perf_counter()
    put(letters, one)
    return time.perf_counter() - began


# ── the log ─────────────────────────────────────────────────────────────────────────────────────


def test_standard_output_gets_it_before_the_call_returns(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """After that the sandbox may freeze."""
    letters = DeadLetters("log")
    for events in (1, 3, 50):
        one = batch(events, noise=900)
        put(letters, one)
        assert read_back(capfd.readouterr().out) == [contents(one)]


def test_off_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a line nor a thread."""
    threads = threading.active_count()
    put(DeadLetters("off"), batch())

    assert (capfd.readouterr().out, threading.active_count()) == ("", threads)


def test_a_pipe_keeps_a_line_whole(capfd: pytest.CaptureFixture[str]) -> None:
    """With a newline before it and one after it, no line has more bytes than ``PIPE_BUF``."""
    one = batch(500, noise=900)
    put(DeadLetters("log"), one)
    text = capfd.readouterr().out

    assert len(frames_in(text)) > 80
    assert max(len(f"\n{line}\n".encode()) for line in text.splitlines()) <= 4_096
    assert [contents(letter.batch) for letter in letters_in(text)] == [contents(one)]


def test_beside_powertools_logger(capfd: pytest.CaptureFixture[str]) -> None:
    """Its lines and ours stand beside each other."""
    powertools = pytest.importorskip("aws_lambda_powertools")
    logger = powertools.Logger(service="orders", stream=sys.stdout)
    one = batch(40, noise=100)
    logger.info("before")
    put(DeadLetters("log"), one)
    logger.info("after")

    text = capfd.readouterr().out
    theirs = [json.loads(line) for line in text.split("\n") if line and not read_frame(line)]

    assert [line["message"] for line in theirs] == ["before", "after"]
    assert [contents(letter.batch) for letter in letters_in(text)] == [contents(one)]


def test_the_context_is_that_of_the_caller() -> None:
    """By it Vercel's runtime tells to which request a line belongs."""
    request: ContextVar[str] = ContextVar("request")
    seen = []

    class Stream(io.StringIO):
        def write(self, _text: str) -> int:
            seen.append(request.get())
            return 0

    letters = DeadLetters("log", Stream())
    for name in ("a", "b"):
        context = copy_context()
        context.run(request.set, name)
        context.run(put, letters, batch())

    assert seen == ["a", "b"]


# ── when it cannot be written ───────────────────────────────────────────────────────────────────


def test_a_stuck_pipe_holds_the_handler_once_and_shortly(pipe: Pipe) -> None:
    """The first batch waits, the next ones do not; what is late comes in order once it can."""
    letters = DeadLetters("log", pipe.stream)
    batches = [batch(60, noise=900) for _ in range(4)]

    with Metronome() as noise:
        waits = [timed(letters, one) for one in batches]

    within(waits[0], WAIT_S + 0.05 + noise.worst_s, at_least_s=WAIT_S * 0.9)
    within(sum(waits[1:]), WAIT_S + noise.worst_s)
    lines = sum(len(frames_of(one, WHY, 0)) for one in batches)
    assert read_back(pipe.read(lines)) == list(map(contents, batches))

    # It is waited for again once all is well.
    while letters._waiting:
        time.sleep(0.001)
    last = batch()
    put(letters, last)
    assert letters._waiting == 0
    assert read_back(pipe.read(1)) == [contents(last)]


def test_what_waits_for_a_stuck_pipe_is_bounded(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What has no room is left out, said as soon as that blocks nobody, and may be tried again."""
    monkeypatch.setattr(dead_letters, "MAX_WAITING", 2 * len(batch().body))
    letters = DeadLetters("log", pipe.stream)
    batches = [batch() for _ in range(5)]
    taken = [put(letters, one) for one in batches]
    kept = sum(taken)
    assert 0 < kept < 5
    assert taken == [True] * kept + [False] * (5 - kept)

    assert read_back(pipe.read(kept)) == list(map(contents, batches[:kept]))
    while letters._waiting:
        time.sleep(0.001)
    put(letters, batches[-1])
    assert read_back(pipe.read(1)) == [contents(batches[-1])]
    assert caplog.messages == [
        f"{5 - kept} dead letters were not written, since standard output was stuck"
    ]


class Closed(io.StringIO):
    """Closed from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.close()


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    "stream", [None, Closed(), Broken(), object()], ids=["none", "closed", "broken", "odd"]
)
def test_without_standard_output(
    stream: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No handler notices; one line warns, however many batches it befalls."""
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "__stdout__", stream)
    monkeypatch.setattr(sys, "__stderr__", stream)
    letters = DeadLetters("log")
    put(letters, batch())
    put(letters, batch())

    (message,) = caplog.messages
    assert message.startswith("dead letters cannot be written to standard output: ")


def test_a_text_of_the_application_is_not_written_into(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Redirected output is an answer of the application, say, and no log."""
    text, batches = io.StringIO(), [batch(), batch()]
    with redirect_stdout(text):
        letters = DeadLetters("log")
        put(letters, batches[0])
    put(letters, batches[1])

    assert text.getvalue() == ""
    assert read_back(capfd.readouterr().out) == list(map(contents, batches))


def test_where_the_log_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's standard error takes the lines."""
    complaints, one = io.StringIO(), batch()
    monkeypatch.setattr(sys, "__stdout__", Closed())
    monkeypatch.setattr(sys, "__stderr__", complaints)
    put(DeadLetters("log"), one)
    assert read_back(complaints.getvalue()) == [contents(one)]


def test_without_threads(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the end of the interpreter no thread can be started: then the caller writes."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    one = batch()
    put(DeadLetters("log"), one)

    assert read_back(capfd.readouterr().out) == [contents(one)]


@pytest.mark.contains
def test_a_fault_of_ours_stays_ours(
    monkeypatch: pytest.MonkeyPatch, contained_faults: list[str]
) -> None:
    """Whatever goes wrong, the handler goes on."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(dead_letters, "frames_of", fail)
    put(DeadLetters("log"), batch())

    assert len(contained_faults) == 1


# ── the process ─────────────────────────────────────────────────────────────────────────────────


def test_import_is_light() -> None:
    """What only an outage needs is not imported before there is one."""
    script = (
        "import sys, doow_serverless; before = set(sys.modules)\n"
        "import doow_serverless._keeping.dead_letters\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert set(done.stdout.split()) <= {
        "doow_serverless._keeping.dead_letters",
        "doow_serverless._frames.reader",
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_child_writes_its_own(pipe: Pipe, tmp_path: Path) -> None:
    """A new one in a child is not held by what the parent's thread is stuck with."""
    put(DeadLetters("log", pipe.stream), batch())
    child = os.fork()
    if not child:
        status = 1
        try:
            put(DeadLetters(str(tmp_path)), batch())
            status = 0 if len(list(tmp_path.iterdir())) == 1 else 2
        finally:
            os._exit(status)

    assert os.waitpid(child, 0)[1] == 0
    pipe.read(1)


def test_exit_with_a_stuck_pipe(pipe: Pipe) -> None:
    """A process whose output nobody takes ends as it would without us."""
    script = (
        "import os, doow_serverless._keeping.dead_letters as d; from tests.batches import batch\n"
        "d.DeadLetters('log').write(batch(60, noise=900), 'TIMEOUT')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=pipe.stream, stderr=subprocess.PIPE, timeout=20
    )

    assert (done.returncode, done.stderr) == (0, b"")
