"""Control groups of Linux (version 1): a share of a core, a bound on memory, a freeze.

https://docs.kernel.org/admin-guide/cgroup-v1/: they are directories, which root may make where the
controllers are mounted; elsewhere they cannot be had.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
"""The period of CPU quotas, as Linux has it by default."""
FREEZE_LIMIT_S = 10.0
END_LIMIT_S = 5.0
_numbers = count()


class Cgroup:
    """One control group of one controller, for processes and all that they start from then on.

    Args:
        controller: ``"cpu"``, ``"memory"`` or ``"freezer"``.

    Raises:
        OSError: The controller cannot be had here.
    """

    def __init__(self, controller: str) -> None:
        self._path = ROOT / controller / f"doow-local-{os.getpid()}-{next(_numbers)}"
        if not (ROOT / controller / "cgroup.procs").exists():
            raise FileNotFoundError(f"there is no controller {controller!r} below {ROOT}")
        self._path.mkdir()

    def __repr__(self) -> str:
        return f"Cgroup({str(self._path)!r})"

    def add(self, pid: int) -> None:
        """Take in a process, with all its threads."""
        self.write("cgroup.procs", pid)

    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(line) for line in self.read("cgroup.procs").split()]

    def write(self, name: str, value: object) -> None:
        """Set one of the controller's values."""
        (self._path / name).write_text(str(value))

    def read(self, name: str) -> str:
        """One of the controller's values."""
        return (self._path / name).read_text()

    def close(self) -> None:
        """Kill what is still in it, such as children of a function that has ended; remove it."""
        ends_at = time.monotonic() + END_LIMIT_S
        while self._path.exists():
            with suppress(OSError):  # The last process is still being buried.
                self._path.rmdir()
                return
            if time.monotonic() > ends_at:
                return
            with suppress(OSError):
                for pid in self.pids():
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)


def can_be_had(controller: str) -> bool:
    """Whether this process may make such control groups."""
    try:
        Cgroup(controller).close()
    except OSError:
        return False
    return True


def cpu_share(share: float) -> Cgroup:
    """A group that gets so much of one core, in periods of 100 ms."""
    group = Cgroup("cpu")
    group.write("cpu.cfs_period_us", PERIOD_US)
    group.write("cpu.cfs_quota_us", round(share * PERIOD_US))
    return group


def memory(megabytes: int) -> Cgroup:
    """A group whose processes are killed when they take more memory than that, swap included."""
    group = Cgroup("memory")
    group.write("memory.limit_in_bytes", megabytes * 1024 * 1024)
    with suppress(OSError):  # Only where swap is accounted for.
        group.write("memory.memsw.limit_in_bytes", megabytes * 1024 * 1024)
    return group


def set_frozen(group: Cgroup, frozen: bool) -> None:
    """Stop or continue all threads of all processes at once; back when they stand still, or run."""
    state = "FROZEN" if frozen else "THAWED"
    group.write("freezer.state", state)
    ends_at = time.monotonic() + FREEZE_LIMIT_S
    while group.read("freezer.state").strip() != state and time.monotonic() < ends_at:
        time.sleep(0.0005)
