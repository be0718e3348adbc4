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


@pytest.mark.parametrize("form", ["first use", "configure"])
def test_requests_is_imported_on_another_thread(form: str, tmp_path: Path) -> None:
    """An enabled tracker has requests imported on a thread of its own while the handler runs."""
    script = f"""
        import sys, threading
        class Importer:
            def find_spec(self, name, path=None, target=None):
                if name == "requests":
                    print(threading.current_thread() is threading.main_thread())
        sys.meta_path.insert(0, Importer())
        import doow_serverless as doow
        tracker = doow.configure() if {form!r} == "configure" else doow._tracker.default()
        tracker.engine.warm_up.join()
        print("requests" in sys.modules)
    """
    words = run(script, tmp_path, DOOW_TRACK_API_KEY=KEY)
    assert words == ["False", "True"]


ON_LAMBDA = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "DOOW_TRACK_API_KEY": KEY}
WHEN_IMPORTED = """
import sys, threading
class Importer:
    def find_spec(self, name, path=None, target=None):
        if name == "requests":
            print(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Importer())
import doow_serverless as doow
"""


@pytest.mark.parametrize(
    ("code", "variables", "expected"),
    [
        ("doow.tracked(print)", {}, ["True", "loaded"]),
        ("doow.configure()", {}, ["True", "loaded"]),
        ("from doow_serverless.wsgi import DoowMiddleware as m; m(print)", {}, ["True", "loaded"]),
        ("doow.tracked(print)", {"DOOW_TRACK_WARM_UP": "background"}, ["False", "loaded"]),
        ("doow.configure(warm_up=False)", {}, []),
        ("doow.tracked(print)", {"DOOW_TRACK_DISABLED": "1"}, []),
        # Nobody has said which key: that is for configure() to say, and then to load.
        ("doow.tracked(print)", {"DOOW_TRACK_API_KEY": ""}, []),
        # The init phase is over.
        (
            "doow.Tracker(warm_up=False).tracked(lambda: doow.configure())()",
            {},
            ["False", "loaded"],
        ),
        ("doow.configure(warm_up='import')", {"AWS_LAMBDA_RUNTIME_API": ""}, ["True", "loaded"]),
    ],
)
def test_in_the_init_phase_of_lambda(
    code: str, variables: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    """What the first flush needs is loaded before the module is: then it costs nothing."""
    say = """
import time
tracker = doow._tracker._tracker
thread = tracker and tracker.engine.warm_up
if thread:
    thread.join()
if tracker and tracker.engine.outbox._transport.is_loaded:
    print("loaded")
"""
    environ = {name: value for name, value in {**ON_LAMBDA, **variables}.items() if value}
    words = run(f"{WHEN_IMPORTED}\n{code}\n{say}", tmp_path, **environ)
    assert words == expected


def test_the_init_phase_waits_for_a_key_that_is_kept_elsewhere(tmp_path: Path) -> None:
    """But for no longer than three seconds, should the network be silent."""
    fetch = f"""
import sys, time, types
import doow_serverless as doow
from doow_serverless._delivery import credentials
def fetch(variable, place, anew):
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
    return "{KEY}"
credentials.Credentials._fetcher = lambda self: fetch
began = time.monotonic()
doow.tracked(print)
print(doow._tracker.default().engine._credentials._key is not None)
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
