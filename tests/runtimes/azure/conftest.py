"""The applications on the disk, and a host of the most versatile one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure.host import AzureHost
from tests.runtimes.azure.environments import pythons
from tests.runtimes.azure.sample_apps import V1_FUNCTIONS, V2_APP, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def v2_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("v2"), function_app=V2_APP)


@pytest.fixture(scope="module")
def v1_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    app = tmp_path_factory.mktemp("v1")
    for name, (bindings, source) in V1_FUNCTIONS.items():
        write(app / name, __init__=source)
        (app / name / "function.json").write_text(json.dumps({"bindings": bindings}))
    return app


@pytest.fixture(scope="module")
def newest_python() -> Path:
    return pythons()[-1]


@pytest.fixture(scope="module")
def v2(v2_app: Path, newest_python: Path) -> Iterator[AzureHost]:
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        yield host
