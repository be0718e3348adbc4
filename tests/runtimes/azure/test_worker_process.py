"""A worker may be killed or die at any time: what is under way fails, and another takes over."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import _cgroups
from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost, AzureHostError, http_request
from tests.runtimes.processes import exists

if TYPE_CHECKING:
    from pathlib import Path


def test_worker_is_killed_by_its_answer_and_replaced(
    v2_app: Path, newest_python: Path, tmp_path: Path
) -> None:
    """Nothing runs after an answer that kills, and the next invocation has a new worker."""
    late = tmp_path / "late"
    env = {"LATE_FILE": str(late), "SETTING": "value"}
    with AzureHost(v2_app, python=newest_python, model="v2", env=env) as host:
        first = host.pid
        answer = host.invoke("late", {"req": http_request()}, kill=True)
        assert answer.return_value == "value"
        assert not exists(first)

        again = host.invoke("agreet", {"req": http_request(route_params={"who": "x"})})

        assert again.ok
        assert first != host.pid
        assert not late.exists()


def test_worker_that_exits_is_an_error_with_its_output(v2_app: Path, newest_python: Path) -> None:
    """A worker that dies during an invocation ends the wait, and the next one is served."""
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        with pytest.raises(AzureHostError, match=r"the worker died; it wrote:\nabout to leave"):
            host.invoke("leave", {"req": http_request()})

        assert host.invoke("tick", {"timer": triggers.timer()}).ok


def test_killed_from_outside(v2_app: Path, newest_python: Path) -> None:
    """A worker killed by somebody else is noticed, also by the invocations under way."""
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        started = host.start("stuck", {"req": http_request()})
        os.kill(host.pid, signal.SIGKILL)
        with pytest.raises(AzureHostError, match="the worker died"):
            started.result(20)


@pytest.mark.skipif(not _cgroups.can_be_had("freezer"), reason="needs control groups, and root")
def test_a_replaced_worker_leaves_nothing_behind(v2_app: Path, newest_python: Path) -> None:
    """No control group of it, nor of its successor."""
    before = set(_cgroups.ROOT.glob("freezer/doow-local-*"))
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        for _ in range(2):
            assert host.invoke("tick", {"timer": triggers.timer()}).ok
            host.kill()
    ours = f"doow-local-{os.getpid()}-"
    left = set(_cgroups.ROOT.glob("freezer/doow-local-*")) - before
    assert [group for group in left if group.name.startswith(ours)] == []


def test_placeholder_becomes_an_application(v2_app: Path, newest_python: Path) -> None:
    """A worker that started without application and settings gets both in a later message."""
    env = {"SETTING": "later", "LATE_FILE": os.devnull}
    host = AzureHost(v2_app, python=newest_python, model="v2", env=env, placeholder=True)
    with host:
        assert host.invoke("late", {"req": http_request()}).return_value == "later"


def test_interpreter_without_the_libraries(v2_app: Path) -> None:
    """A Python that has no worker libraries is refused, with its own words."""
    with pytest.raises(AzureHostError, match=r"requirements/azure.txt(.|\n)*ModuleNotFoundError"):
        AzureHost(v2_app, python=sys.executable, model="v2").__enter__()


def test_missing_environments_are_told(v2_app: Path, tmp_path: Path) -> None:
    """Without an environment, the error says what makes one."""
    with pytest.raises(AzureHostError, match=r"`make test` makes an environment"):
        AzureHost(v2_app, python=tmp_path / "python", model="v2").__enter__()
