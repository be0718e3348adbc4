"""One process as a platform holds it: apart from ours, stopped and continued at will, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from doow_serverless.local import _cgroups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from doow_serverless.local._output import Output

STOP_LIMIT_S = 10.0  # within which the operating system confirms a stop


class Sandbox:
    """A process and all that it starts, from its launch to its death.

    It is frozen by a control group where one can be had: all its threads, and whatever it has
    started, at once, as a virtual machine is; elsewhere by SIGSTOP.

    Every method may be called from any thread.

    Args:
        output: Takes what the process writes; it is open as long as the process lives.

    Attributes:
        stopped: Whether the process stands still, as confirmed by the operating system.
    """

    def __init__(self, output: Output) -> None:
        self.stopped = False
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._freezer: _cgroups.Cgroup | None = None
        self._groups: list[_cgroups.Cgroup] = []
        self._stops = 0
        self._stops_when_thawed = 0
        self._is_killed = False
        self._is_watched = threading.Event()
        self._changed = threading.Condition()
        self._switch = threading.RLock()  # one at a time stops or continues the process
        self._watcher = threading.Thread(target=self._watch, name="doow-local-watch", daemon=True)

    @property
    def pid(self) -> int:
        """The process, which may have ended."""
        assert self._process is not None  # launched
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process was launched and has not ended."""
        return self._process is not None and self._exit_code is None

    @property
    def state(self) -> str:
        """How the process ended, if it did."""
        if self._exit_code is None:
            return "still running" if self.alive else "never started"
        if self._exit_code < 0:
            return f"signal: {signal.Signals(-self._exit_code).name}"
        return f"exit status {self._exit_code}"

    def launch(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        directory: Path,
        *,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start the process with this environment, of which nothing is inherited from ours."""
        # A session of its own: Ctrl-C in the terminal does not reach it, and a signal to the
        # group also reaches what the function itself has started.
        self._process = subprocess.Popen(  # noqa: S603  # the command is the caller's own choice
            command,
            env=env,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._output.fileno(),
            stderr=self._output.fileno(),
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._watcher.start()
        self._is_watched.set()
        with contextlib.suppress(OSError):  # Not root, or another kernel.
            self._freezer = self.confine(_cgroups.Cgroup("freezer"))

    def confine(self, group: _cgroups.Cgroup) -> _cgroups.Cgroup:
        """Put all processes of the sandbox into a control group, which ends with it."""
        self._groups.append(group)
        pids = [self.pid] if self._freezer is None else self._freezer.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # It has just ended.
                group.add(pid)
        return group

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process group, unless its leader, and with it our claim, is gone."""
        # It may end in between; macOS then answers that the signal is not permitted.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.alive:
                os.killpg(self.pid, number)

    def freeze(self) -> None:
        """Stop all threads, and wait until they stand still."""
        with self._switch:
            if self.stopped or self._is_killed:
                return
            if self._freezer is not None:
                with contextlib.suppress(FileNotFoundError):  # It has just ended.
                    _cgroups.set_frozen(self._freezer, True)
                self.stopped = self.alive
            else:
                self.send_signal(signal.SIGSTOP)
                self.confirm_stop()

    def thaw(self) -> None:
        """Have them run on."""
        with self._switch:
            self.stopped = False
            # All of it before the process runs: it may soon stop itself, which must stay so.
            self._stops_when_thawed = self._stops
            self.send_signal(signal.SIGCONT)
            if self._freezer is not None:
                _cgroups.set_frozen(self._freezer, False)

    def confirm_stop(self) -> None:
        """Wait until the process, whoever stops it, has stopped since it was last continued."""
        with self._switch:
            self.stopped = self.wait(
                lambda: self._stops > self._stops_when_thawed, time.monotonic() + STOP_LIMIT_S
            )

    def kill(self) -> None:
        """SIGKILL, also to a frozen process, and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self._is_killed = True
        if self._freezer is not None:  # What is frozen does not even die.
            with self._switch, contextlib.suppress(OSError):  # After a freeze that has begun.
                _cgroups.set_frozen(self._freezer, False)
        self.join()

    def join(self) -> None:
        """Wait for the end of the process, if it was launched."""
        if self._process is not None:  # Another thread may be launching it just now.
            self._is_watched.wait()
            self._watcher.join()

    def close(self) -> None:
        """Kill the process, and give back what was held for it."""
        self.kill()
        while self._groups:
            self._groups.pop().close()

    def wait(self, ready: Callable[[], bool], until_s: float) -> bool:
        """Wait for ``ready()``, which is asked again after each :meth:`notify`.

        Args:
            ready: Says whether the wait is over.
            until_s: When to give up, in seconds on the monotonic clock.

        Returns:
            Whether it came true before that moment, and before the end of the process.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: ready() or not self.alive, max(0.0, until_s - time.monotonic())
            )
            return ready() and self.alive

    def notify(self) -> None:
        """Something has changed for which somebody may wait."""
        with self._changed:
            self._changed.notify_all()

    def _watch(self) -> None:
        """Hear of every stop and of the end: only a parent is told, and only by waiting."""
        assert self._process is not None
        while self._exit_code is None:
            _, status = os.waitpid(self._process.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                self._stops += 1
            else:
                self._exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
            self.notify()
        self._ended()

    def _ended(self) -> None:
        """The process has ended: a subclass wakes whoever else waits for it."""
