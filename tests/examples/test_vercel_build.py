"""What Vercel's own build makes of examples/vercel, and what it makes of it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doow_serverless.local import Ingest
from doow_serverless.local.vercel.runtime import VercelRuntime
from tests.examples.test_vercel_example import EXAMPLE, FUNCTIONS, ask, usage, variables
from tests.examples.tools import npm_tool, run

ROOT = Path(__file__).parents[2]
CLI = "vercel@60.0.0"
PLACE = ROOT / ".venv-vercel" / "node"

# npm and pip download, on a cold cache.
pytestmark = [pytest.mark.extensive, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cli() -> Path:
    """The Vercel CLI, installed beside the Python that is Vercel's."""
    return npm_tool(CLI, PLACE)


@pytest.fixture(scope="module")
def python(vercel_python: Path) -> Path:
    """The interpreter under Vercel's environment, which has nothing installed of ours."""
    ask_for = "import sys; print(sys.base_prefix, 'python%d.%d' % sys.version_info[:2])"
    result = subprocess.run(
        [vercel_python, "-c", ask_for], capture_output=True, text=True, check=True
    )
    prefix, name = result.stdout.split()
    return Path(prefix) / "bin" / name


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is now, which the build finds instead of a released one."""
    place = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={place}", "."], ROOT)
    return place


def build(project: Path, cli: Path, python: Path, wheels: Path, *options: str) -> Path:
    """Build a project that is linked, and return the folder of its functions."""
    (project / ".python-version").write_text(python.name.removeprefix("python"))
    (project / ".vercel").mkdir()
    settings = {"projectId": "prj_local", "orgId": "team_local", "settings": {"framework": None}}
    (project / ".vercel" / "project.json").write_text(json.dumps(settings))
    # Ours has uv, and no Python that the build could take for the project's.
    path = os.pathsep.join(
        [str(python.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    found = f"{wheels} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    run(
        [cli, "build", "--yes", *options],
        project,
        PATH=path,
        UV_FIND_LINKS=found.replace(" ", ","),
        VERCEL_TELEMETRY_DISABLED="1",
    )
    return project / ".vercel" / "output" / "functions"


def copy_of_the_example(to: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, to, ignore=shutil.ignore_patterns("__pycache__")))


def test_each_file_becomes_a_function(
    cli: Path, python: Path, wheels: Path, tmp_path: Path
) -> None:
    """With the duration of vercel.json; what is served as a file besides holds nothing."""
    functions = build(copy_of_the_example(tmp_path / "project"), cli, python, wheels)
    configs = {
        str(path.parent.relative_to(functions)): json.loads(path.read_text())
        for path in functions.rglob(".vc-config.json")
    }
    assert {name: config["maxDuration"] for name, config in configs.items()} == {
        f"api/{function}.func": 30 for function in FUNCTIONS
    }
    assert {config["runtime"] for config in configs.values()} == {python.name}
    static = functions.parent / "static"
    assert sorted(path.name for path in static.rglob("*") if path.is_file()) == [
        ".python-version",
        "requirements.txt",
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_was_built_delivers_before_each_end(
    function: str, cli: Path, python: Path, wheels: Path, tmp_path: Path
) -> None:
    """In both modes, on an interpreter that has nothing but what the function brings."""
    project = copy_of_the_example(tmp_path / "project")
    # One at a time: the CLI copies the packages of one function while it replaces them for the next
    # (60.0.0, with --standalone alone).
    for other in FUNCTIONS.keys() - {function}:
        (project / "api" / f"{other}.py").unlink()
    directory = build(project, cli, python, wheels, "--standalone") / f"api/{function}.func"
    mode: Any
    for mode in ("ipc", "lambda"):
        with Ingest() as ingest:
            env = {**variables(ingest), "PYTHONPATH": str(directory / "_vendor")}
            with VercelRuntime(
                f"api/{function}.py", directory, mode=mode, python=python, env=env
            ) as runtime:
                for n in (1, 2):
                    response = ask(runtime, function)
                    assert (response.status, response.body) == (200, FUNCTIONS[function][2])
                    assert usage(ingest) == dict.fromkeys(FUNCTIONS[function][3], n)
                    assert len(ingest.posts()) == n
