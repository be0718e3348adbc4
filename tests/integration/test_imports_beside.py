"""The application's own imports succeed beside ours, whatever it imports, when, and where.

Each trial is a process of its own. Python's threads take turns as often as they can, so that two
imports meet at as many points as possible.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
INTERPRETERS = [Path(sys.executable), *sorted(ROOT.glob(".venv-azure-*/bin/python"))]
LIKELY = ("requests", "requests.adapters", "urllib3.connectionpool")
OTHERS = (
    "requests.sessions", "requests.utils", "requests.models", "urllib3", "urllib3.util.retry",
    "http.client", "email.message", "aiohttp", "boto3", "botocore.session", "fastapi", "httpx",
    "openai",
)  # fmt: skip

COMMON = """
import importlib.util, sys, threading, time
import typing  # A dataclass that is made while another thread imports it fails, whoever that is.
sys.setswitchinterval(1e-6)
name, delay_s = sys.argv[1], float(sys.argv[2])
if importlib.util.find_spec(name.partition(".")[0]) is None:
    sys.exit()
import doow_serverless as doow

def use():
    try:
        module = __import__(name)
    except BaseException as problem:
        print(type(problem).__name__, problem)

def later():
    time.sleep(delay_s)
    use()

def beside(work):
    other = threading.Thread(target=later)
    other.start()
    work()
    other.join()
"""
SETUPS = {
    "configure": "doow.configure(); use()",
    "tracked": "doow.tracked(print); use()",
    "Tracker": "doow.Tracker(); use()",
    "module for users": "import doow_serverless.asgi; use()",
    "first call": """
        @doow.tracked
        def handler():
            doow.track("tokens", license_id="lic_1")
            use()
        handler()
    """,
    "first call, configured within": """
        @doow.tracked
        def handler():
            doow.configure()
            use()
        handler()
    """,
    "own thread beside configure": "beside(doow.configure)",
    "own thread beside tracked": "beside(lambda: doow.tracked(print))",
    "own thread beside the first flush": """
        @doow.tracked
        def handler():
            doow.track("tokens", license_id="lic_1")
        doow.configure(warm_up=False)
        beside(handler)
    """,
    "flush on an own thread": """
        doow.configure(warm_up=False)
        doow.track("tokens", license_id="lic_1")
        flushing = threading.Thread(target=doow.flush)
        flushing.start()
        later()
        flushing.join()
    """,
}


def said(python: Path, setup: str, name: str, delay_s: float, bytecode: Path) -> str:
    """What one process complains of; "" if the application's import succeeds."""
    script = f"{COMMON}\n{dedent(SETUPS[setup])}"
    done = subprocess.run(
        [str(python), "-c", script, name, str(delay_s)],
        cwd=bytecode.parent,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": "http://127.0.0.1:9",  # Nobody listens there.
            "DOOW_TRACK_BUDGET": "10",
            "DOOW_TRACK_DEAD_LETTER": "off",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    reports = [line for line in done.stderr.splitlines() if "not delivered" not in line]
    return "\n".join([*done.stdout.splitlines(), *reports])


def failures(
    python: Path, setup: str, names: Iterable[str], delays_s: Iterable[float], bytecode: Path
) -> list[str]:
    """What the processes of one setup complain of, a few of them at once."""
    trials = [(name, delay_s) for name in names for delay_s in delays_s]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda trial: said(python, setup, trial[0], trial[1], bytecode), trials)
        said_by = zip(trials, found, strict=True)
        return [f"{trial}: {problem}" for trial, problem in said_by if problem]


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bytecode is kept, so that only the first process compiles."""
    return tmp_path_factory.mktemp("imports") / "warm"


@pytest.mark.parametrize("setup", SETUPS)
def test_the_applications_imports_succeed(setup: str, bytecode: Path) -> None:
    """Of requests, urllib3 and their parts, at two moments where threads are involved."""
    delays_s = (0.005, 0.04) if "own thread" in setup else (0.0,)
    assert failures(Path(sys.executable), setup, LIKELY, delays_s, bytecode) == []


@pytest.mark.extensive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("setup", ["configure", "first call", "own thread beside configure"])
def test_what_builds_on_them(setup: str, bytecode: Path) -> None:
    """Their other parts, clients of AWS and of language models, web frameworks."""
    assert failures(Path(sys.executable), setup, OTHERS, (0.02,), bytecode) == []


@pytest.mark.extensive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda python: python.parts[-3])
def test_on_every_interpreter(python: Path, bytecode: Path, tmp_path: Path) -> None:
    """With bytecode, and where all of it is compiled first, so that imports take seconds."""
    for setup in SETUPS:
        assert failures(python, setup, LIKELY, (0.01,), bytecode) == []
    for setup in ("configure", "first call", "own thread beside configure"):
        assert failures(python, setup, ("requests.adapters",), (0.2,), tmp_path / setup) == []
