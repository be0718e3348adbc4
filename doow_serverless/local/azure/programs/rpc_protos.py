"""The messages of the stream between host and worker."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any


def load_protos() -> Any:
    """The messages and stubs that the v1 wheel carries as a stray top-level ``tests.protos``.

    Under another name, since an application's own ``tests`` must not meet it.
    """
    wheel = importlib.metadata.distribution("azure-functions-runtime-v1")
    package = Path(str(wheel.locate_file("tests/protos")))
    spec = importlib.util.spec_from_file_location(
        "azure_rpc_protos", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    protos = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = protos
    spec.loader.exec_module(protos)
    return protos
