"""The shape of the house, read from its source: who may import whom, and what is contract."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import doow_serverless
import doow_serverless.errors
import doow_serverless.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(doow_serverless.__file__).parent

# From the roof to the ground. A module imports from lines below its own, never from its own line.
ORDER = """
    __main__
    cli
    testing powertools replay
    asgi wsgi
    __init__
    azure
    _face
    _default
    _tracker
    _recorder
    vercel
    _wrap
    _streams
    _scopes
    _async
    _dispatch
    _delivery
    _invocation
    _deadletter _replay
    _backlog _gate _workers
    _config _journal _records
    _journal_file
    _credentials _transport _wire
    _event _answers
    _platform _process
    _faults _raw_response
    _secrets _ids _guard _shutdown _callables
    aws _entrypoint _response
    _outcome _budget errors _version local
"""
ENGINE = sorted([path.stem for path in PACKAGE.glob("_[!_]*.py")] + ["__init__", "errors"])
FRAMEWORKS = {
    "asgiref", "aws_lambda_powertools", "awslambdaric", "azure", "boto3", "botocore", "click",
    "django", "fastapi", "flask", "mangum", "rich", "starlette", "uvicorn", "vercel", "werkzeug",
}  # fmt: skip


def _levels() -> dict[str, int]:
    return {
        name: height
        for height, line in enumerate(reversed(ORDER.split("\n")))
        for name in line.split()
    }


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All of a tree but what only a type checker runs."""
    yield node
    is_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    children = node.orelse if is_types and isinstance(node, ast.If) else ast.iter_child_nodes(node)
    for child in children:
        yield from _runtime_nodes(child)


def _imports(module: str) -> Iterator[str]:
    """What ``module`` imports at run time, ours with a leading dot."""
    ours = "doow_serverless"
    for node in _runtime_nodes(_tree(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level and not base:
                names = [f"{ours}.{alias.name}" for alias in node.names]
            else:
                names = [f"{ours}.{base}" if node.level else base]
        else:
            continue
        for name in names:
            if name == ours:
                yield ".__init__"
            else:
                yield f".{name.split('.')[1]}" if name.startswith(f"{ours}.") else name


def test_every_module_has_its_place() -> None:
    """The order names each module of the package once, and none that is gone."""
    present = [path.stem for path in PACKAGE.glob("*.py")]
    present += [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(ORDER.split()) == sorted(present)


@pytest.mark.parametrize("module", sorted(path.stem for path in PACKAGE.glob("*.py")))
def test_imports_point_downwards(module: str) -> None:
    """No module imports from its own height or above."""
    levels = _levels()
    upwards = [
        name
        for name in _imports(module)
        if name.startswith(".") and levels[name[1:]] >= levels[module]
    ]
    assert upwards == []


def test_only_the_configuration_reads_the_environment() -> None:
    """``os.environ`` and ``os.getenv`` are named in one file of the engine."""
    readers = {
        module
        for module in ENGINE
        for node in ast.walk(_tree(module))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and {"environ", "getenv"} & {a.name for a in node.names}
        )
    }
    assert readers == {"_config"}


def test_only_the_transport_imports_requests() -> None:
    """One file of the engine imports requests, and what it brings along."""
    brought = {"requests", "urllib3", "certifi"}
    importers = {
        module for module in ENGINE if brought & {name.split(".")[0] for name in _imports(module)}
    }
    assert importers == {"_transport"}


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_knows_no_framework(module: str) -> None:
    """Platforms are the business of the faces."""
    assert [name for name in _imports(module) if name.split(".")[0] in FRAMEWORKS] == []


def test_the_contract() -> None:
    """The names that users may use are exactly these, and each is there."""
    assert doow_serverless.__all__ == [
        "Outcome",
        "Tracker",
        "__version__",
        "aflush",
        "configure",
        "errors",
        "flush",
        "track",
        "track_all",
        "tracked",
        "transaction",
    ]
    public = {name for name in vars(doow_serverless) if not name.startswith("_")}
    modules = {"annotations", *(path.stem for path in PACKAGE.glob("[!_]*.py")), "local"}
    assert public - modules <= set(doow_serverless.__all__)
    assert all(hasattr(doow_serverless, name) for name in doow_serverless.__all__)


def test_the_contract_of_errors() -> None:
    """The errors module offers exactly its exceptions and kinds."""
    errors = doow_serverless.errors
    assert errors.__all__ == ["ConfigurationError", "DoowError", "ErrorKind", "InvalidEvent"]


def test_the_contract_of_testing() -> None:
    """The testing module offers the transport, what scripts it, and two fixtures."""
    testing = doow_serverless.testing
    assert testing.__all__ == ["Answer", "MemoryTransport", "TransportFault", "rejecting"]
    assert callable(testing.doow_events)
    assert callable(testing.doow_ingest)
