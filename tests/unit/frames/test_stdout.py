"""Frames are written whole, on lines of their own, to the process's real standard output."""

from __future__ import annotations

import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from doow_serverless._frames import stdout
from doow_serverless._frames.stdout import StandardOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="no such pipes or signals on Windows")
LONG = "x" * 3_000_000
"""More than any socket takes at once."""


class Reader:
    """Reads a pipe or a socket to its end, on a thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._descriptor, 1 << 16):
            self._chunks.append(chunk)

    def text(self) -> str:
        """All that has come, once the other end is closed."""
        if self._thread.ident is not None:
            self._thread.join(30)
            assert not self._thread.is_alive()
        return b"".join(self._chunks).decode()


class Ends:
    """A stream to write to, and a reader of its other end."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads = reads
        self.descriptor = writes
        self.stream: TextIO = os.fdopen(writes, "w")
        self.reader = Reader(reads)

    def read_some(self) -> bytes:
        return os.read(self._reads, 1_000)

    def break_off(self) -> None:
        """Close the reader's end."""
        os.close(self._reads)
        self._reads = -1

    def finish(self) -> str:
        """Close the writer's end, and return all that has come and was not read yet."""
        self.stream.close()
        return self.reader.text()

    def close(self) -> None:
        self.finish()
        if self._reads >= 0:
            os.close(self._reads)


@pytest.fixture
def pipe() -> Iterator[Ends]:
    ends = Ends(*os.pipe())
    yield ends
    ends.close()


@pytest.fixture
def sockets() -> Iterator[Ends]:
    """They take a part of a long write, since the writer's end does not block."""
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    reads.setblocking(True)
    ends = Ends(reads.detach(), writes.detach())
    yield ends
    ends.close()


@pytest.fixture
def standard(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], io.StringIO]:
    """Replaces the process's standard output by a stream, and returns its standard error."""

    def replace(stream: object) -> io.StringIO:
        error = io.StringIO()
        monkeypatch.setattr(sys, "__stdout__", stream)
        monkeypatch.setattr(sys, "__stderr__", error)
        return error

    return replace


def fill(descriptor: int) -> int:
    """Fill a pipe up, and return with how many bytes; it blocks as it did before."""
    blocks = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(descriptor, b"." * 4_096)
    os.set_blocking(descriptor, blocks)
    return filled


# ── whole lines ─────────────────────────────────────────────────────────────────────────────────


def test_a_frame_has_a_line_to_itself(pipe: Ends) -> None:
    """It begins a line after one that is not ended, and does not wait for what is buffered."""
    pipe.reader.start()
    print("working", end="", file=pipe.stream, flush=True)
    print("buffered", end="", file=pipe.stream)
    assert StandardOutput(pipe.stream).write(["one", "two"]) is None
    assert pipe.finish() == "working\none\n\ntwo\nbuffered"


@POSIX
@pytest.mark.parametrize("blocks", [True, False])
def test_a_full_pipe_is_waited_for(pipe: Ends, *, blocks: bool) -> None:
    """The writer comes back when all is written, also if the pipe does not block."""
    os.set_blocking(pipe.descriptor, blocks)
    filled = fill(pipe.descriptor)
    troubles: list[object] = []
    frames = [str(number) * 4_000 for number in range(10)]
    thread = threading.Thread(
        target=lambda: troubles.append(StandardOutput(pipe.stream).write(frames))
    )
    thread.start()
    pipe.reader.start()
    thread.join(30)
    assert troubles == [None]
    assert pipe.finish()[filled:] == "".join(f"\n{frame}\n" for frame in frames)


@POSIX
def test_a_partial_write_is_completed(sockets: Ends) -> None:
    """A socket takes as much as it has room for; the rest follows."""
    sockets.reader.start()
    assert StandardOutput(sockets.stream).write([LONG]) is None
    assert sockets.finish() == f"\n{LONG}\n"


@POSIX
def test_frames_of_several_threads(sockets: Ends) -> None:
    """Each that is reported as written stands whole on a line, though none is taken at once."""
    output = StandardOutput(sockets.stream)
    written: list[str] = []

    def write(letter: str) -> None:
        frames = [letter * length for length in range(1_000_000, 1_000_003)]
        written.extend(frame for frame in frames if output.write([frame]) is None)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    sockets.reader.start()
    for thread in threads:
        thread.join(30)
    assert set(written) - set(sockets.finish().split("\n")) == set()


@POSIX
def test_a_frame_within_another(sockets: Ends) -> None:
    """A signal handler that writes in the middle of a frame: both stand whole on a line."""
    output = StandardOutput(sockets.stream)
    within: list[object] = []
    has_struck = threading.Event()

    def handle(*_: object) -> None:
        has_struck.set()
        within.append(output.write(["within"]))

    def strike() -> None:
        sockets.read_some()  # A part of the frame is out now.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        has_struck.wait(30)
        sockets.reader.start()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        thread = threading.Thread(target=strike)
        thread.start()
        assert output.write([LONG]) is None
        thread.join(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert within == [None]
    lines = sockets.finish().split("\n")
    assert {"within", LONG} <= set(lines)


@POSIX
def test_a_child_does_not_wait_for_its_parent(pipe: Ends, sockets: Ends) -> None:
    """A thread of the parent's that is within a frame is not in the child, and ends none there."""
    fill(pipe.descriptor)
    stuck = threading.Thread(target=StandardOutput(pipe.stream).write, args=(["stuck"],))
    stuck.start()
    while not stdout._turns:
        pass
    child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            status = 0 if StandardOutput(sockets.stream).write([LONG]) is None else 2
        os._exit(status)
    sockets.reader.start()
    assert os.waitpid(child, 0)[1] == 0
    assert sockets.finish() == f"\n{LONG}\n"
    pipe.reader.start()
    stuck.join(30)


def test_only_its_text(standard: Callable[[object], io.StringIO]) -> None:
    """A stream without a descriptor takes a frame in one call."""

    class Text(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def write(self, text: str) -> int:
            self.calls.append(text)
            return len(text)

    text = Text()
    error = standard(text)
    assert StandardOutput().write(["one", "two"]) is None
    assert (text.calls, error.getvalue()) == (["\none\n", "\ntwo\n"], "")


# ── the process's own ───────────────────────────────────────────────────────────────────────────


def test_a_text_of_the_application(pipe: Ends, standard: Callable[[object], io.StringIO]) -> None:
    """Whatever takes the place of ``sys.stdout``, and whenever, is not written into."""
    standard(pipe.stream)
    pipe.reader.start()
    text = io.StringIO()
    with redirect_stdout(text):
        output = StandardOutput()
        output.write(["within"])
    output.write(["after"])
    with redirect_stdout(text):
        output.write(["again"])
    assert (pipe.finish(), text.getvalue()) == ("\nwithin\n\nafter\n\nagain\n", "")


def test_no_replaceable_output(
    monkeypatch: pytest.MonkeyPatch, standard: Callable[[object], io.StringIO]
) -> None:
    """The application may have deleted ``sys.stdout``, and odd characters stop no frame."""
    real = io.StringIO()
    standard(real)
    monkeypatch.delattr(sys, "stdout")
    assert StandardOutput().write(["one", "\xe9\ud800"]) is None
    assert real.getvalue() == "\none\n\n\\xe9\\ud800\n"


def test_imported_within_a_redirect() -> None:
    """The application may import the package while its standard output goes elsewhere."""
    program = (
        "import contextlib, io, sys\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "    from doow_serverless._frames.stdout import StandardOutput\n"
        "    output = StandardOutput()\n"
        "    output.write(['within'])\n"
        "output.write(['after'])\n"
        "assert not text.getvalue()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"\nwithin\n\nafter\n", b"")


@pytest.mark.parametrize(
    "new",
    [
        "io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')",
        "codecs.getwriter('utf-8')(sys.stdout.detach())",
        "io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
        "os.fdopen(1, 'w')",
    ],
)
def test_a_stream_that_has_taken_over_the_descriptor(new: str) -> None:
    """A common way to set an encoding leaves an original that can do nothing any more."""
    program = (
        "import codecs, io, os, sys\n"
        "from doow_serverless._frames.stdout import StandardOutput\n"
        f"sys.stdout = {new}\n"
        "assert StandardOutput().write(['one']) is None\n"
        "print('theirs')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"\none\ntheirs\n", b"")


def test_a_descriptor_of_nobody() -> None:
    """A detached original whose descriptor no stream has: standard error stands in."""
    program = (
        "import sys\n"
        "from doow_serverless._frames.stdout import StandardOutput\n"
        "buffer, sys.stdout = sys.stdout.detach(), sys.stderr\n"
        "assert StandardOutput().write(['one']) is None\n"
        "del sys.__stdout__, sys.stdout\n"
        "assert StandardOutput().write(['two']) is None"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"\none\n\ntwo\n")


def test_a_descriptor_that_was_closed(
    pipe: Ends, tmp_path: Path, standard: Callable[[object], io.StringIO]
) -> None:
    """Another file of the application may have it by now."""
    standard_output = os.fdopen(pipe.descriptor, "w", closefd=False)
    error = standard(standard_output)
    standard_output.close()
    with (tmp_path / "data").open("w+b") as data:
        os.dup2(data.fileno(), pipe.descriptor)
        assert StandardOutput().write(["one"]) is None
        assert (data.read(), error.getvalue()) == (b"", "\none\n")


class Odd:
    """Has everything but what it should have."""

    closed = property(lambda self: 1 / 0)

    def fileno(self) -> Any:
        raise ZeroDivisionError


def test_no_standard_output(standard: Callable[[object], io.StringIO]) -> None:
    """It may be missing, closed, bare of a reader, or something else: standard error stands in."""
    reads, writes = os.pipe()
    os.close(reads)
    bad = os.fdopen(os.dup(writes), "w", closefd=False)
    os.close(bad.fileno())
    closed = io.StringIO()
    closed.close()
    with os.fdopen(writes, "w") as unread:
        for stream in (None, closed, unread, bad, Odd(), object()):
            error = standard(stream)
            assert StandardOutput().write(["one", "two"]) is None
            assert error.getvalue() == "\none\n\ntwo\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
def test_a_full_disk(standard: Callable[[object], io.StringIO]) -> None:
    """There is a standard output: what it does not take is reported, and goes nowhere else."""
    with open("/dev/full", "w") as full:
        error = standard(full)
        trouble = StandardOutput().write(["one"])
    assert isinstance(trouble, OSError)
    assert (trouble.errno, error.getvalue()) == (errno.ENOSPC, "")


@POSIX
def test_broken_off_within_a_frame(
    sockets: Ends, standard: Callable[[object], io.StringIO]
) -> None:
    """What was begun in one stream is reported, and never repeated in another."""
    error = standard(sockets.stream)

    def break_off() -> None:
        sockets.read_some()
        sockets.break_off()

    thread = threading.Thread(target=break_off)
    thread.start()
    trouble = StandardOutput().write([LONG])
    thread.join(30)
    assert isinstance(trouble, OSError)
    assert error.getvalue() == ""


@POSIX
def test_broken_off_between_frames(
    pipe: Ends, standard: Callable[[object], io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames before stand in the one log, and the rest shall not stand in another."""
    error = standard(pipe.stream)
    write = os.write

    def write_once(descriptor: int, data: bytes) -> int:
        taken = write(descriptor, data)
        pipe.break_off()
        return taken

    monkeypatch.setattr(os, "write", write_once)
    trouble = StandardOutput().write(["one", "two"])
    assert isinstance(trouble, BrokenPipeError)
    assert error.getvalue() == ""


class Ctrl(BaseException):
    """Ends the application's function."""


@POSIX
@pytest.mark.parametrize("kind", [Ctrl, TimeoutError])
def test_a_signal_that_ends_the_writing(pipe: Ends, kind: type[BaseException]) -> None:
    """An exception of the application's handler goes through; it is no trouble of the stream."""

    def handle(*_: object) -> None:
        raise kind

    fill(pipe.descriptor)
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(kind):
            StandardOutput(pipe.stream).write(["one"])
    finally:
        signal.signal(signal.SIGALRM, before)


# ── Vercel's runtime ────────────────────────────────────────────────────────────────────────────


def setup_logging(send_message: Callable[[object], None], storage: object) -> Any:
    """Makes a stream as the runtime's function of this name does."""

    class StreamWrapper:
        def __init__(self, stream: TextIO, stream_name: str) -> None:
            self.stream = stream
            self.stream_name = stream_name

        def write(self, message: str) -> None:
            send_message((storage, message))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    return StreamWrapper


class StreamWrapper(io.StringIO):
    """A stream of the application's, which has the same name."""

    stream_name = "stdout"


def test_the_stream_of_vercel(
    monkeypatch: pytest.MonkeyPatch, pipe: Ends, standard: Callable[[object], io.StringIO]
) -> None:
    """It takes frames by its method, which knows the request, and is remembered from the import."""
    messages: list[object] = []
    standard(pipe.stream)
    pipe.reader.start()
    monkeypatch.setattr(stdout, "_vercel_stream", None)
    wrapped = setup_logging(messages.append, "request")
    monkeypatch.setattr(sys, "stdout", wrapped(pipe.stream, "stdout"))
    stdout._find_vercel_stream()
    with redirect_stdout(io.StringIO()) as text:
        assert StandardOutput().write(["one"]) is None
    assert (messages, text.getvalue(), pipe.finish()) == ([("request", "\none\n")], "", "")


def test_no_stream_of_vercel(
    monkeypatch: pytest.MonkeyPatch, standard: Callable[[object], io.StringIO]
) -> None:
    """What only looks like it is the application's."""
    messages: list[object] = []
    wrapped = setup_logging(messages.append, "request")
    StreamWrapper.__qualname__ = wrapped.__qualname__
    for stream in (StreamWrapper(), wrapped(sys.stdout, "stderr"), None):
        real = io.StringIO()
        standard(real)
        monkeypatch.setattr(sys, "stdout", stream)
        assert StandardOutput().write(["one"]) is None
        assert real.getvalue() == "\none\n"
    assert messages == []
