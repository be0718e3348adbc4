"""``doow-serverless invoke``: each platform by its own runtime; what cannot be invoked is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.azure.environments import pythons

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

EXAMPLES = Path(__file__).parents[2] / "examples"


def invoke(
    *arguments: object, cwd: Path = EXAMPLES, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "doow_serverless", "invoke", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    return done


def test_lambda() -> None:
    """The answer, the time, and the events with whose they are."""
    pytest.importorskip("awslambdaric")
    done = invoke("lambda/api/app:handler", "--event", "lambda/api/events/summary.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("AWS Lambda: answered in ")
    assert ", of which delivery " in done.stdout
    assert '"statusCode": 200' in done.stdout
    assert "2 events arrived:" in done.stdout
    assert "lic_acme" in done.stdout


def test_vercel(vercel_python: Path) -> None:
    """A file, by what its build finds in it."""
    done = invoke(
        "vercel/api/index.py", "--event", "vercel/events/translation.json",
        "--python", vercel_python,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Vercel: answered in " in done.stdout
    assert "HTTP 200" in done.stdout
    assert "2 events arrived:" in done.stdout


@pytest.mark.parametrize(
    ("function", "event", "events"),
    [
        ("summarise", "azure/events/summary.json", 2),
        ("index", '{"customer": "acme", "text": "three words here"}', 2),
        ("measure_storage", "null", 2),
    ],
)
def test_azure(function: str, event: str, events: int, tmp_path: Path) -> None:
    """A folder and a function: by HTTP, by a queue, by a timer."""
    if not event.endswith(".json"):
        (tmp_path / "event.json").write_text(event)
        event = str(tmp_path / "event.json")
    done = invoke("azure", "--function", function, "--event", event, "--python", pythons()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{events} events arrived:" in done.stdout


def test_a_handler_that_fails(tmp_path: Path) -> None:
    """Its error and the end of its log; what it recorded is there all the same."""
    pytest.importorskip("awslambdaric")
    (tmp_path / "app.py").write_text(
        "import doow_serverless as doow\n"
        "@doow.tracked\n"
        "def handler(event, context):\n"
        "    doow.track('tokens')\n"
        "    raise LookupError('no such customer')\n"
    )
    done = invoke("app:handler", "--license-id", "lic_1", cwd=tmp_path)
    assert done.returncode == 1
    assert "AWS Lambda: failed in " in done.stdout
    assert "no such customer" in done.stdout
    assert "1 event arrived:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing:handler"], "neither module:function"),
        (["nowhere"], "neither module:function"),
        (["lambda/api/app:handler", "--python", "/no/python"], "/no/python"),
    ],
)
def test_what_cannot_be_invoked(arguments: list[str], said: str) -> None:
    """A line, and exit status 2."""
    done = invoke(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("target", "package"),
    [
        ("lambda/api/app:handler", "awslambdaric"),
        ("vercel/api/index.py", "vercel-runtime"),
        ("azure", "azure-functions-runtime"),
    ],
)
def test_a_runtime_that_is_not_installed_is_named(
    target: str, package: str, tmp_path: Path
) -> None:
    """With the command that installs it, there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    done = invoke(target, "--python", python)
    assert done.returncode == 2
    assert f"{python} -m pip install" in done.stderr
    assert package in done.stderr


def test_azure_wants_to_know_which(tmp_path: Path) -> None:
    """Where there are several functions."""
    done = invoke("azure", "--python", pythons()[-1])
    assert done.returncode == 2
    assert "say with --function which: " in done.stderr
    assert "summarise" in done.stderr
