"""What all stand-ins share: a process is frozen, thawed and killed, and what it writes is read."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import _cgroups
from doow_serverless.local._output import Output
from doow_serverless.local._runtime import Runtime
from doow_serverless.local._sandbox import Sandbox
from tests.runtimes.processes import ends, exists, state
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 10.0  # ample, for what takes milliseconds


@pytest.fixture
def output() -> Iterator[Output]:
    output = Output()
    output.open()
    yield output
    output.close()


@pytest.fixture
def launch(output: Output) -> Iterator[Callable[[str], Sandbox]]:
    """Starts a Python script in a sandbox; all are closed at the end."""
    launched: list[Sandbox] = []

    def launch(script: str) -> Sandbox:
        sandbox = Sandbox(output)
        launched.append(sandbox)
        sandbox.launch([sys.executable, "-u", "-c", script], {"MINE": "1"}, Path.cwd())
        return sandbox

    yield launch
    for sandbox in launched:
        sandbox.close()


def written(output: Output, text: str) -> bool:
    """Whether the process has come so far as to write the text."""
    give_up = time.monotonic() + LIMIT_S
    while text not in output.text() and time.monotonic() < give_up:
        time.sleep(0.005)
    return text in output.text()


def test_a_frozen_process_stands_still_when_freeze_returns(
    launch: Callable[[str], Sandbox], output: Output
) -> None:
    """The system has confirmed the stop; after thaw the process goes on, and can be frozen anew."""
    sandbox = launch("import time\nwhile True: print('tick'); time.sleep(0.001)")
    for _ in range(3):
        sandbox.freeze()
        assert sandbox.stopped
        assert state(sandbox.pid) in "TD"  # By a signal, or by a control group.
        size = output.size()
        time.sleep(0.05)  # some fifty ticks, if it ran
        assert output.size() == size
        sandbox.thaw()
        assert written(output, "tick\n" * (size // 5 + 1))


def test_freezing_twice_is_freezing_once(launch: Callable[[str], Sandbox]) -> None:
    """A second freeze does not wait for a stop that the system reports no more."""
    sandbox = launch("import time; time.sleep(60)")
    begin = time.monotonic()
    sandbox.freeze()
    sandbox.freeze()
    assert sandbox.stopped
    within(time.monotonic() - begin, LIMIT_S)


def test_a_process_that_stops_itself_is_awaited(launch: Callable[[str], Sandbox]) -> None:
    """Whoever sent the signal, the stop counts."""
    sandbox = launch("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint('on')")
    sandbox.confirm_stop()
    assert sandbox.stopped
    sandbox.thaw()
    sandbox.join()
    assert sandbox.state == "exit status 0"


def test_kill_ends_a_frozen_process_and_all_that_it_started(
    launch: Callable[[str], Sandbox], output: Output
) -> None:
    """The signal goes to the group, in a session apart from ours."""
    sandbox = launch(
        "import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '60']).pid, 'started'); time.sleep(60)"
    )
    assert written(output, "started")
    child = int(output.text().split()[0])
    assert os.getsid(sandbox.pid) == sandbox.pid
    sandbox.freeze()
    sandbox.kill()
    assert (sandbox.alive, exists(sandbox.pid), ends(child)) == (False, False, True)


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("raise SystemExit(7)", "exit status 7"),
        ("import os; os.kill(os.getpid(), 15)", "signal: SIGTERM"),
    ],
)
def test_the_state_tells_how_a_process_ended(
    launch: Callable[[str], Sandbox], script: str, state: str
) -> None:
    """By its exit status, or by the name of the signal."""
    sandbox = launch(script)
    sandbox.join()
    assert sandbox.state == state


def test_a_sandbox_that_was_never_launched_can_be_closed(output: Output) -> None:
    """As after an error on the way there."""
    sandbox = Sandbox(output)
    assert (sandbox.alive, sandbox.state) == (False, "never started")
    sandbox.send_signal(signal.SIGKILL)
    sandbox.close()


def test_no_freeze_begins_once_it_is_killed(
    launch: Callable[[str], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that asks for its event just then would be frozen, and never die."""
    sandbox = launch("import time; time.sleep(60)")
    join, stops = sandbox.join, []

    def freeze_and_join() -> None:
        monkeypatch.setattr(_cgroups, "set_frozen", lambda *args: stops.append(args))
        monkeypatch.setattr(sandbox, "confirm_stop", lambda: stops.append(()))
        sandbox.freeze()
        monkeypatch.undo()
        join()

    monkeypatch.setattr(sandbox, "join", freeze_and_join)
    sandbox.kill()
    assert (stops, sandbox.alive) == ([], False)


def test_a_wait_ends_with_the_process(launch: Callable[[str], Sandbox]) -> None:
    """What comes true no more is not awaited, and a dead process counts as not ready."""
    sandbox = launch("")
    begin = time.monotonic()
    assert not sandbox.wait(lambda: False, begin + LIMIT_S)
    within(time.monotonic() - begin, LIMIT_S)
    assert not sandbox.wait(lambda: True, begin + LIMIT_S)


def test_a_wait_ends_in_time(launch: Callable[[str], Sandbox]) -> None:
    """A process that lives and does nothing is waited for until the given moment."""
    sandbox = launch("import time; time.sleep(60)")
    until = time.monotonic() + 0.05
    assert not sandbox.wait(lambda: False, until)
    assert time.monotonic() >= until
    assert sandbox.wait(lambda: True, until)


def test_the_environment_is_the_given_one(
    launch: Callable[[str], Sandbox], output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is inherited."""
    monkeypatch.setenv("OURS", "1")
    launch("import os; print({'MINE', 'OURS'} & set(os.environ))").join()
    assert output.text() == "{'MINE'}\n"


def test_all_that_a_dead_process_wrote_is_there_at_once(
    launch: Callable[[str], Sandbox], output: Output
) -> None:
    """Many times what a pipe holds, from both of its streams."""
    launch("import sys; print('x' * 1_000_000); print('last', file=sys.stderr)").join()
    assert output.text() == "x" * 1_000_000 + "\nlast\n"


def test_output_is_read_from_an_offset_and_stays_after_the_end(output: Output) -> None:
    """Offsets are bytes, and closing twice is closing once."""
    output.add("für ")
    offset = output.size()
    output.add("immer")
    output.close()
    output.close()
    assert (offset, output.text(offset), output.text()) == (5, "immer", "für immer")
    assert output.last_words() == "it wrote:\nfür immer"


class OneProcess(Runtime[Sandbox]):
    """A platform that runs a Python script."""

    def __init__(self, script: str, error: Exception | None = None) -> None:
        super().__init__()
        self._script = script
        self._error = error

    def _start(self) -> None:
        self._sandbox = Sandbox(self._output)
        self._sandbox.launch([sys.executable, "-c", self._script], {}, Path.cwd())
        if self._error is not None:
            raise self._error


def test_a_runtime_ends_its_process() -> None:
    """Leaving the block kills the process, and what it wrote stays."""
    with OneProcess("import time; print('on', flush=True); time.sleep(60)") as runtime:
        assert written(runtime._output, "on\n")
        runtime.freeze()
    assert (exists(runtime.pid), runtime.stdout) == (False, "on\n")


def test_a_runtime_that_cannot_start_leaves_nothing() -> None:
    """The error comes out, and the process is gone."""
    runtime = OneProcess("import time; time.sleep(60)", LookupError("no such thing"))
    with pytest.raises(LookupError, match="no such thing"), runtime:
        pass
    assert not exists(runtime.pid)


def test_a_runtime_that_is_not_started_says_so() -> None:
    """By its own name."""
    with pytest.raises(RuntimeError, match="not started: use OneProcess as a context manager"):
        OneProcess("").kill()
