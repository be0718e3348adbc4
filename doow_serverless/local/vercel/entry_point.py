"""What Vercel's build takes for the entry point of a file, and the mistakes it does not mention.

The build reads the source and runs nothing. A file in which it finds no entry point becomes no
function, without a word; one in which it finds another than was meant is served without its meter.
"""

from __future__ import annotations

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeGuard

_APPS = ("app", "application")
_CLASSES = ("handler", "Handler")
_TRACKING = ("DoowMiddleware", "tracked")
_NOTHING = (
    "Vercel finds no entry point here, and makes no function of the file, without a word: define a "
    "class named handler, or app or application, at the top level"
)


def entry_point(source: str) -> str | None:
    """The name of the entry point that Vercel's build finds in a module, without running it.

    It takes the first statement at the top level that binds ``app`` or ``application`` by an
    assignment, a function or an import from a module, or that is a class named ``handler`` or
    ``Handler``. ``handler = …`` is none of these. As of ``@vercel/python`` 16 to 25.
    """
    try:
        served = _served(ast.parse(source))
    except (SyntaxError, ValueError):  # A null byte is the latter, before Python 3.12.
        return None
    return None if served is None else served[0]


def problems(source: str) -> list[str]:
    """What the build passes over in silence in a module, each with its line and the remedy."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as problem:
        line = getattr(problem, "lineno", None) or 1
        return [f"line {line}: this is no Python ({problem}), so Vercel makes no function of it"]
    served = _served(tree)
    if served is None:
        found = [f"line {line}: {text}" for line, text in sorted(_unseen(tree))]
        return found or [_NOTHING]
    return [f"line {line}: {text}" for line, text in sorted(_shadowed(tree, *served))]


def _served(tree: ast.Module) -> tuple[str, ast.stmt] | None:
    """The name that the build finds, and the statement that binds it."""
    for node in tree.body:
        if _is_handler(node):
            return node.name, node
        for name in _bound(node):
            if name in _APPS:
                return name, node
    return None


def _is_handler(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    return isinstance(node, ast.ClassDef) and node.name in _CLASSES


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement binds, as far as the build can see."""
    if isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)


# ── nothing is served ────────────────────────────────────────────────────────────────────────────


def _unseen(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What looks like an entry point, and is none."""
    for node in tree.body:
        for name in _bound(node):
            if name in _CLASSES:
                yield node.lineno, _no_handler(name, node)
    for node, around in _statements(tree.body):
        names = [node.name] if _is_handler(node) else [n for n in _bound(node) if n in _APPS]
        for name in names if around else ():
            yield node.lineno, _within(name, around)
        for name, line in _hidden(node):
            yield line, _no_binding(name)


def _no_handler(name: str, node: ast.stmt) -> str:
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        what = f"`{name} = …`"
        remedy = f"decorate the class itself, with `@doow.tracked` above `class {name}(…)`"
    elif isinstance(node, ast.ImportFrom):
        what = f"an imported {name}"
        remedy = f"import it under another name, and derive `class {name}(…)` from it here"
    else:
        what = f"a function named {name}"
        remedy = "name a WSGI or ASGI application app; handler is for a BaseHTTPRequestHandler"
    return f"{what} is no entry point, so Vercel makes no function of the file: {remedy}"


def _within(name: str, around: str) -> str:
    return (
        f"{name} is defined within `{around}`, where Vercel does not look, so it makes no function "
        "of the file: define it at the top level"
    )


def _no_binding(name: str) -> str:
    return (
        f"{name} is bound in a way that Vercel does not see, so it makes no function of the file: "
        f"write `{name} = …` at the top level, as a statement of its own"
    )


def _statements(body: list[ast.stmt], around: str = "") -> Iterator[tuple[ast.stmt, str]]:
    """All that bind names of the module, with the word of the statement around each."""
    for node in body:
        yield node, around
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        word = type(node).__name__.removeprefix("Async").removesuffix("Star").lower()
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.stmt):
                yield from _statements([inner], word)
            elif isinstance(inner, (ast.ExceptHandler, ast.match_case)):
                yield from _statements(inner.body, word)


def _hidden(node: ast.stmt) -> Iterator[tuple[str, int]]:
    """The applications that a statement binds by unpacking, or within an expression."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    unpacked = [target for target in targets if isinstance(target, (ast.Tuple, ast.List))]
    for inner in (each for target in unpacked for each in ast.walk(target)):
        if isinstance(inner, ast.Name) and inner.id in _APPS:
            yield inner.id, inner.lineno
    expressions = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
    for inner in (each for expression in expressions for each in ast.walk(expression)):
        if isinstance(inner, ast.NamedExpr) and inner.target.id in _APPS:
            yield inner.target.id, inner.lineno


# ── another is served than was meant ─────────────────────────────────────────────────────────────


def _shadowed(tree: ast.Module, name: str, first: ast.stmt) -> Iterator[tuple[int, str]]:
    """What comes after the statement that is served, and seems to be meant instead."""
    serves = f"is not served: Vercel serves {name} of line {first.lineno}, which comes first"
    later = tree.body[tree.body.index(first) + 1 :]
    for place, node in enumerate(later):
        if _is_handler(node) and node.name != name:
            yield node.lineno, f"class {node.name} {serves}: give that one another name"
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        if any(name in _bound(after) for after in later[place:]):
            continue  # What is served is bound once more, perhaps to this.
        for other in _bound(node):
            if _is_handler(first):
                # Tracking a class is done in place: of that one, any name will do.
                if other in _CLASSES and not _uses(node.value, name):
                    yield node.lineno, f"{other} {serves}: give that one another name"
            elif _wraps(node.value, name, other):
                adds = f"without what {other} adds: write `{name} = …` here, too"
                yield node.lineno, f"{other} {serves}, {adds}"


def _wraps(value: ast.expr | None, name: str, other: str) -> bool:
    """Whether a call makes of ``name`` what is bound to ``other``, and meant to be served."""
    if not isinstance(value, ast.Call) or not _uses(value, name):
        return False
    called = value.func.func if isinstance(value.func, ast.Call) else value.func  # tracked(…)(app)
    return other in _APPS or ast.unparse(called).rpartition(".")[2] in _TRACKING


def _uses(value: ast.expr | None, name: str) -> bool:
    inner = () if value is None else ast.walk(value)
    return any(isinstance(each, ast.Name) and each.id == name for each in inner)
