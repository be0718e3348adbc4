"""The shape of the house, read from its source: who may import whom, and what is contract."""

from __future__ import annotations

import ast
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import doow_serverless
import doow_serverless.errors
import doow_serverless.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "doow_serverless"
PACKAGE = Path(doow_serverless.__file__).parent

FLOORS = (
    "__main__",
    "cli",
    "_pytest_plugin",
    "testing",
    "powertools azure asgi wsgi relay __init__",
    "_middleware",
    "_platforms",
    "_tracker",
    "_api",
    "_handlers",
    "_engine",
    "_delivery",
    "_keeping",
    "_frames",
    "_config",
    "_sealing",
    "_recording",
    "_process",
    "_values _callables",
    "_secrets",
    "_redaction _stand_ins _outcome",
    "errors _version local",
)
"""The modules and packages, from the roof to the ground. Each imports from floors below its own,
and within a package, whose modules may import one another as long as that makes no circle."""

ROOMS = ("_handlers", "_delivery", "_keeping", "_frames", "_recording", "_process")
"""The packages of the engine."""
FRAMEWORKS = {
    "asgiref", "aws_lambda_powertools", "awslambdaric", "azure", "boto3", "botocore", "click",
    "django", "fastapi", "flask", "mangum", "rich", "starlette", "uvicorn", "vercel", "werkzeug",
}  # fmt: skip
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "local" not in path.relative_to(PACKAGE).parts
}
ENGINE = [
    name
    for name in MODULES
    if name.partition(".")[0] in ROOMS
    or (name.startswith("_") and "." not in name and name != "__main__")
    or name == "errors"
]


def _floor(module: str) -> int:
    """How high a module lies: 0 is the ground."""
    top = module.partition(".")[0]
    for height, floor in enumerate(reversed(FLOORS)):
        if top in floor.split():
            return height
    pytest.fail(f"{top} has no floor: give it one in FLOORS, below all that imports it")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def _nodes(node: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """All of a tree, or all but what only a type checker runs."""
    yield node
    children = ast.iter_child_nodes(node)
    if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from _nodes(child, types=types)


def _imports(module: str, *, types: bool = False) -> Iterator[tuple[str, int]]:
    """What ``module`` imports, absolute, and in which line."""
    package = [OURS, *module.split(".")[:-1]]
    for node in _nodes(_tree(module), types=types):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).rstrip(".")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _own(imported: str) -> str | None:
    """Which of our modules an import means; None for what is not ours."""
    top, _, rest = imported.partition(".")
    if top != OURS:
        return None
    parts = rest.split(".") if rest else []
    for count in range(len(parts), 0, -1):
        for name in (".".join(parts[:count]), ".".join([*parts[:count], "__init__"])):
            if name in MODULES:
                return name
    return "local" if parts[:1] == ["local"] else "__init__"


def _arrows(module: str) -> Iterator[tuple[str, int]]:
    """Our own modules that ``module`` imports, types included, and in which line."""
    for imported, line in _imports(module, types=True):
        own = _own(imported)
        if own is not None and own != module:
            yield own, line


def test_every_module_has_its_floor() -> None:
    """The floors name each module and package once, and none that is gone."""
    present = {name.partition(".")[0] for name in MODULES} | {"local"}
    assert sorted(" ".join(FLOORS).split()) == sorted(present)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    """No module imports from its own floor or above, not even for a type."""
    package = module.partition(".")[0]
    wrong = [
        f"{module.replace('.', '/')}.py:{line} imports {other}, which does not lie below it: "
        "move what is needed down, or ask for it by a Protocol of its own"
        for other, line in _arrows(module)
        if other.partition(".")[0] != package and _floor(other) >= _floor(module)
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no circle, types included, within a package either."""
    graph = {module: sorted({other for other, _ in _arrows(module)}) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' imports '.join((*path, module))}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_packages_say_what_is_in_them() -> None:
    """The ``__init__`` of each room has a docstring that names its modules, and imports nothing."""
    for package in (*ROOMS, "_platforms", "cli"):
        tree = _tree(f"{package}.__init__")
        said = ast.get_docstring(tree) or ""
        modules = {info.name for info in pkgutil.iter_modules([str(PACKAGE / package)])}
        unsaid = {name for name in modules if f"``{name}``" not in said}
        assert (package, len(tree.body), unsaid if package != "_platforms" else set()) == (
            package,
            1,
            set(),
        )


def test_only_the_configuration_reads_the_environment() -> None:
    """``os.environ`` is named there, and where it is asked whether a platform's variable is set."""
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
    assert readers == {"_config", "_handlers.platform", "_process.init_phase", "_process.machine"}


def test_only_the_transport_imports_requests() -> None:
    """Two files of the engine import requests, and what it brings along."""
    brought = {"requests", "urllib3", "certifi"}
    importers = {
        module
        for module in ENGINE
        if brought & {name.partition(".")[0] for name, _ in _imports(module)}
    }
    assert importers == {"_delivery.transport", "_delivery.connection"}


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_knows_no_framework(module: str) -> None:
    """Platforms are the business of the faces."""
    known = [name for name, _ in _imports(module) if name.partition(".")[0] in FRAMEWORKS]
    assert known == []


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
        "track_llm",
        "tracked",
        "transaction",
    ]
    # Of a plugin pytest rewrites all modules, and adds such names.
    public = {name for name in vars(doow_serverless) if not name.startswith(("_", "@"))}
    modules = {info.name for info in pkgutil.iter_modules([str(PACKAGE)])} | {"annotations"}
    assert public - modules <= set(doow_serverless.__all__)
    assert all(hasattr(doow_serverless, name) for name in doow_serverless.__all__)


def test_what_looks_public_is_contract() -> None:
    """Without an underscore there are only what users import, and the command line."""
    public = {info.name for info in pkgutil.iter_modules([str(PACKAGE)]) if info.name[0] != "_"}
    assert public == {
        "asgi",
        "azure",
        "cli",
        "errors",
        "local",
        "powertools",
        "relay",
        "testing",
        "wsgi",
    }


@pytest.mark.parametrize("module", ["asgi", "azure", "errors", "powertools", "wsgi"])
def test_what_users_import_is_listed(module: str) -> None:
    """``__all__`` names every public class and function that a module of the contract defines."""
    tree = _tree(module)
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    }
    listed = set(__import__(f"{OURS}.{module}", fromlist=["__all__"]).__all__)
    assert defined - listed <= {"serve"}  # The engine calls that by name.
    assert sorted(listed) == sorted(set(listed))


def test_the_contract_of_testing() -> None:
    """The testing package offers the transport, what scripts it, and calls of the platforms."""
    assert doow_serverless.testing.__all__ == [
        "Answer",
        "LambdaContext",
        "MemoryTransport",
        "Response",
        "TransportFault",
        "api_gateway_event",
        "azure_http_request",
        "azure_queue_message",
        "call_asgi",
        "call_handler",
        "call_wsgi",
        "captured_events",
        "lambda_context",
        "rejecting",
        "sqs_event",
    ]
