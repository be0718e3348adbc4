"""What builds the artifacts of Lambda, and runs them: the tools, the interpreter, the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import Ingest
from tests.examples.lambda_example import KEY, ROOT
from tests.examples.tools import run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def sam() -> Path:
    """The SAM CLI, from the environment of ``make``, the variable SAM, or the PATH."""
    ours = ROOT / ".venv-sam" / "bin" / "sam"
    found = os.environ.get("SAM") or (str(ours) if ours.exists() else shutil.which("sam"))
    if not found:
        pytest.skip("needs the SAM CLI: in .venv-sam, on PATH, or named by the variable SAM")
    return Path(found)


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter that the templates name, by its real path."""
    texts = [(ROOT / name).read_text() for name in ("template.yaml", "relay.yaml")]
    names = re.findall(r"^ +Runtime: (python\S+)$", "\n".join(texts), re.MULTILINE)
    assert len(set(names)) == 1, names
    name = names[0]
    places = [Path(entry) for entry in os.get_exec_path()]
    places += Path.home().glob(f".pyenv/versions/{name.removeprefix('python')}.*/bin")
    for candidate in (place / name for place in places):
        if not candidate.exists():
            continue
        # A shim of a version manager exists without a Python behind it, and is not the real path.
        command = [candidate, "-c", "import sys; print(sys.executable)"]
        real = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if real.returncode == 0:
            return Path(real.stdout.strip()).with_name(name)
    pytest.skip(f"needs {name}, which the templates name")


@pytest.fixture(scope="session")
def shell(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which builds find that interpreter, and the package as it is now."""
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", "."], ROOT)
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {wheels}".strip(),
    }


@pytest.fixture(scope="session")
def runtime(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lambda's own runtime has on its path: the client that calls handlers, and boto3."""
    target = tmp_path_factory.mktemp("runtime")
    packages = [f"{name}=={version(name)}" for name in ("awslambdaric", "boto3")]
    run([python, "-m", "pip", "--quiet", "install", f"--target={target}", *packages], ROOT)
    return target


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        yield ingest
