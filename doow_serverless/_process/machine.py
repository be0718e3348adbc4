"""How much of a core this process gets: by its memory size on Lambda, or its control group."""

from __future__ import annotations

import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABYTES_PER_CORE = 1_769
"""https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html"""
PERIOD_S = 0.1
"""Linux takes a process from its core for the rest of such a period once its share is used up."""
_CGROUPS = "/sys/fs/cgroup"


def cpu_share() -> float:
    """The part of one core that this process may use, from 0.0 up to 1.0 for a core and more.

    Not known, and taken for 1.0, where the machine is merely busy.
    """
    return max(0.01, min([1.0, *_shares()]))


def _shares() -> Iterator[float]:
    with suppress(KeyError, ValueError):
        yield int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) / MEGABYTES_PER_CORE
    for _, controllers, path in _groups():
        # Within a container the path is that of the host, and the root its own group.
        for place in (path, ""):
            # No limit, or no such file: as good as none.
            with suppress(OSError, ValueError, ZeroDivisionError):
                yield from _share_of(controllers.split(","), place)


def _groups() -> list[list[str]]:
    """The control groups of this process: number, controllers, path."""
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, ValueError):
        return []
    return [group for group in groups if len(group) == 3]


def _share_of(controllers: list[str], path: str) -> Iterator[float]:
    """The quota of a group, of version 2 (which names no controllers) or of version 1."""
    if controllers == [""]:
        quota, period = _read(f"{_CGROUPS}{path}/cpu.max").split()
    elif "cpu" in controllers:
        folder = f"{_CGROUPS}/{','.join(controllers)}{path}"
        quota = _read(f"{folder}/cpu.cfs_quota_us")
        period = _read(f"{folder}/cpu.cfs_period_us")
    else:
        return
    if float(quota) > 0:
        yield float(quota) / float(period)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
