"""What an import loads: nothing that only sending needs, and no more than that when disabled."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.network import KEY

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {
    "asyncio", "aws_lambda_powertools", "azure", "boto3", "certifi", "concurrent",
    "dataclasses", "email", "http", "inspect", "requests", "socket",
    "ssl", "starlette", "typing_extensions", "urllib", "urllib3", "uuid",
    "doow_serverless._keeping.journal", "doow_serverless._recording.folding",
    "doow_serverless._delivery.log_sender", "doow_serverless._delivery.patient",
    "doow_serverless._keeping.refolding", "doow_serverless.relay",
    "doow_serverless._recording.quantities",
}  # fmt: skip


def run(script: str, cwd: Path, **environ: str) -> list[str]:
    """The words that a script prints in a process of its own, where nothing else is imported."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        cwd=cwd,
        env={"PATH": "", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


# What the environment itself loads at the start of Python is not ours.
LOADED = f"import sys\nbefore = set(sys.modules)\nheavy = {HEAVY}\n"
SAY = "\nprint(*sorted(name for name in heavy if name in sys.modules and name not in before))"
DECORATE = """
import doow_serverless as doow

@doow.tracked
def handler(event, context):
    doow.track("tokens", 812, license_id="lic_acme")
    return "result"

@doow.tracked(budget=0.5, license_id="lic_acme", attribution={"team": "ai"})
async def async_handler(event, context):
    return "result"
"""


def test_import_and_decoration_are_light(tmp_path: Path) -> None:
    """Importing the package and decorating a def and an async def loads nothing heavy."""
    assert run(LOADED + DECORATE + SAY, tmp_path) == []


def test_light_means_light(tmp_path: Path) -> None:
    """The test above can see what is imported."""
    assert run(LOADED + "import requests, uuid" + SAY, tmp_path) != []


WITH_KEY = {"DOOW_TRACK_API_KEY": KEY}
ON_LAMBDA = {**WITH_KEY, "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}
WHEN_IMPORTED = """
import sys, threading
class Importer:
    def find_spec(self, name, path=None, target=None):
        if name == "requests":
            print("main" if threading.current_thread() is threading.main_thread() else "other")
sys.meta_path.insert(0, Importer())
import doow_serverless as doow
"""
SAY_WHETHER = """
tracker = doow._tracker._tracker
if tracker and tracker.engine.outbox._transport.is_loaded:
    print("loaded")
"""
FACES = ("asgi", "azure", "powertools", "wsgi")


@pytest.mark.parametrize("where", [WITH_KEY, ON_LAMBDA], ids=["anywhere", "on Lambda"])
@pytest.mark.parametrize(
    ("code", "variables", "expected"),
    [
        ("doow.tracked(print)", {}, ["main", "loaded"]),
        ("doow.configure()", {}, ["main", "loaded"]),
        ("doow.configure(warm_up='connect')", {}, ["main", "loaded"]),
        ("doow._tracker.default()", {}, ["main", "loaded"]),
        *((f"import doow_serverless.{face}", {}, ["main", "loaded"]) for face in FACES),
        # Who asks for the imports later has them with the first flush, on its thread.
        ("doow.configure(warm_up=False)", {}, []),
        ("doow.configure(warm_up=False).tracked(lambda: None)()", {}, ["main", "loaded"]),
        ("doow.configure(warm_up=False).flush()", {}, ["main", "loaded"]),
        ("import doow_serverless.asgi", {"DOOW_TRACK_WARM_UP": "false"}, []),
        ("doow.tracked(print)", {"DOOW_TRACK_DISABLED": "1"}, []),
        ("import doow_serverless.asgi", {"DOOW_TRACK_DISABLED": "1"}, []),
        # Nobody has said which key: that is for configure() to say, and then to load.
        ("doow.tracked(print)", {"DOOW_TRACK_API_KEY": ""}, []),
        ("import doow_serverless.asgi", {"DOOW_TRACK_API_KEY": ""}, []),
        # The log needs no key, and no requests.
        ("doow.tracked(print)", {"DOOW_TRACK_DELIVERY": "log", "DOOW_TRACK_API_KEY": ""}, []),
    ],
)
def test_where_sending_is_imported(
    code: str,
    variables: dict[str, str],
    expected: list[str],
    where: dict[str, str],
    tmp_path: Path,
) -> None:
    """On the thread that decorates, configures, flushes, or imports a module for users."""
    environ = {name: value for name, value in {**where, **variables}.items() if value}
    words = run(f"{WHEN_IMPORTED}\n{code}\n{SAY_WHETHER}", tmp_path, **environ)
    assert words == expected


def test_the_log_alone_makes_the_tracker(tmp_path: Path) -> None:
    """Where the environment says that the log delivers, importing a module for users is enough."""
    code = "import doow_serverless.wsgi\nprint(doow_serverless._tracker._tracker)"
    assert run(code, tmp_path, DOOW_TRACK_DELIVERY="log") != ["None"]
    assert run(code, tmp_path) == ["None"]


def test_the_init_phase_waits_for_a_key_that_is_kept_elsewhere(tmp_path: Path) -> None:
    """But for no longer than three seconds, should the network be silent."""
    fetch = f"""
import sys, time, types
import doow_serverless as doow
from doow_serverless._platforms import aws
def fetch(kind, place, anew, is_previous):
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
    return "{KEY}"
aws.load_fetch = lambda: fetch
began = time.monotonic()
doow.tracked(print)
print(doow._tracker.default().engine._credentials._at_hand() is not None)
print(time.monotonic() - began < 3.0)
"""
    environ = {**ON_LAMBDA, "DOOW_TRACK_API_KEY_SECRET_ARN": "arn:aws:x", "DOOW_TRACK_API_KEY": ""}
    assert run(fetch, tmp_path, **environ) == ["True", "True"]


def test_disabled_imports_nothing(tmp_path: Path) -> None:
    """A disabled process runs its handlers and never imports requests, nor starts a thread."""
    invoke = "\nimport threading\nassert handler({}, None) == 'result'"
    invoke += "\nassert threading.active_count() == 1"
    invoke += "\nheavy.discard('urllib')"  # to read the endpoint
    words = run(LOADED + DECORATE + invoke + SAY, tmp_path, DOOW_TRACK_DISABLED="true")
    assert words == []


def complaints(script: str, cwd: Path, **environ: str) -> list[str]:
    """The lines that a script has logged, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "import doow_serverless as doow\n" + dedent(script)],
        cwd=cwd, env={"PATH": "", "DOOW_TRACK_DEAD_LETTER": "off", **environ},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stderr.splitlines()


LATE = """
    @doow.tracked
    def handler(event, context):
        doow.configure()
    handler({}, None)
"""
IN_TIME = "doow.configure()\n" + dedent(LATE)
ELSEWHERE = {name: value for name, value in ON_LAMBDA.items() if name in WITH_KEY}


@pytest.mark.parametrize(
    ("script", "environ", "expected"),
    [
        ("doow.Tracker(warm_up=False).tracked(lambda: doow.configure())()", ON_LAMBDA, 1),
        ("import requests\ndoow.Tracker(warm_up=False).tracked(doow.configure)()", ON_LAMBDA, 0),
        (LATE, ON_LAMBDA, 0),  # The decorator has made a tracker in time.
        (IN_TIME, ON_LAMBDA, 0),
        ("doow.Tracker(warm_up=False).tracked(lambda: doow.configure())()", ELSEWHERE, 0),
    ],
)
def test_an_import_that_comes_too_late_says_what_to_do(
    script: str, environ: dict[str, str], expected: int, tmp_path: Path
) -> None:
    """On Lambda alone, where an import within an invocation gets a part of a core."""
    lines = [line for line in complaints(script, tmp_path, **environ) if "doow.configure()" in line]
    assert len(lines) == expected
    assert all(line.startswith("requests is imported during an invocation") for line in lines)


def test_a_malformed_variable_is_reported_once(tmp_path: Path) -> None:
    """Although a decorator makes a tracker, and configure() another."""
    environ = {**WITH_KEY, "DOOW_TRACK_BUDGET": "soon"}
    lines = complaints(f"{LATE}    doow.configure()", tmp_path, **environ)
    assert [line.partition(" must ")[0] for line in lines] == ["DOOW_TRACK_BUDGET"]
