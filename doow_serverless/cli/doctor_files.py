"""The mistakes that ``doctor`` knows in the files of a project, found without running anything."""

from __future__ import annotations

import ast
import json
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import yaml

from doow_serverless.local.vercel import entry_point as vercel_check

from .doctor_check import Check
from .doctor_relay import mistakes_of_serverless, mistakes_of_template
from .doctor_values import at, mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

if TYPE_CHECKING:
    # Takes a file and its text; tells what is wrong, each with the remedy.
    Find: TypeAlias = Callable[[Path, str], Iterator[tuple[str, str]]]

_ROUTES = {"get", "post", "put", "patch", "delete", "head", "options", "route", "websocket",
           "api_route", "view", "schedule", "on_sqs_message"}  # fmt: skip
"""Decorators that register a function with an application as it is then."""
_COVERS = {"DoowMiddleware", "track_app"}
"""Names that meter what the whole application serves."""
_LATE = ", so that what is recorded leaves late or never"
_TRACK = "put @doow.tracked above it, directly above `def`"


def checks_of(path: Path) -> Iterator[Check]:
    """The checks of one file, by its name and what is in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        yield Check(str(path), False, f"cannot be read ({problem})", "see the name of the file")
        return
    find: Find = _FINDERS.get(path.name, _none)
    if path.suffix == ".py":
        find = _python
    elif find is _none and path.suffix in {".yaml", ".yml", ".json"} and _is_template(text):
        find = _sam
    try:
        mistakes = list(find(path, text))
    except (ValueError, yaml.YAMLError) as problem:
        mistakes = [(f"it cannot be understood ({problem})", "correct what is wrong with it")]
    for detail, remedy in mistakes:
        yield Check(str(path), False, detail, remedy)
    if not mistakes:
        known = "nothing is wrong" if find is not _none else "nothing that doctor knows"
        yield Check(str(path), True, known)


def _is_template(text: str) -> bool:
    return "AWS::Serverless::Function" in text or "AWS::Lambda::Function" in text


def _none(_: Path, __: str) -> Iterator[tuple[str, str]]:
    yield from ()


# ── Python ──────────────────────────────────────────────────────────────────────────────────────


def _python(path: Path, source: str) -> Iterator[tuple[str, str]]:
    """A module with handlers, of whatever platform it looks like."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as problem:
        yield f"this is no Python ({problem})", "correct it"
        return
    if path.parent.name == "api" and not path.name.startswith("_"):  # Vercel's folder.
        for complaint in vercel_check.problems(source):
            found, _, remedy = complaint.rpartition(": ")
            yield found or complaint, remedy
    module = _Module(tree)
    yield from module.too_high()
    yield from module.orchestrators()
    if not module.is_covered:
        yield from module.untracked()


class _Module:
    """What is declared in a module."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        names = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
        names |= {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)}
        self.is_covered = bool(names & _COVERS)
        self.is_azure = "FunctionApp" in names or ("Blueprint" in names and "func" in names)
        self.records = bool(names & {"track", "track_all", "track_llm"})

    def too_high(self) -> Iterator[tuple[str, str]]:
        """``@doow.tracked`` above a decorator that registers the function: that one is served."""
        for function in () if self.is_azure else self._functions:
            names = [_name(each) for each in function.decorator_list]
            if "tracked" not in names:
                continue
            below = function.decorator_list[names.index("tracked") + 1 :]
            for decorator in below:
                if isinstance(decorator, ast.Call) and _name(decorator) in _ROUTES:
                    yield (
                        (
                            f"line {function.lineno}: {function.name} is registered by "
                            f"@{ast.unparse(decorator.func)} below @tracked, so that the function "
                            "without its meter is served"
                        ),
                        "put @doow.tracked below it, directly above `def`",
                    )

    def orchestrators(self) -> Iterator[tuple[str, str]]:
        """Durable orchestrators, which are replayed."""
        for function in self._functions:
            names = [_name(each) for each in function.decorator_list]
            if "orchestration_trigger" in names and "tracked" in names:
                yield (
                    (
                        f"line {function.lineno}: {function.name} is an orchestrator, which is "
                        "replayed, and refused by @tracked"
                    ),
                    "meter in the activities that it calls",
                )

    def untracked(self) -> Iterator[tuple[str, str]]:
        """Handlers that record, or are triggered, and have no meter around them."""
        for function in self._functions:
            names = [_name(each) for each in function.decorator_list]
            is_trigger = self.is_azure and any(
                name in {"route", "function_name", "schedule"} or name.endswith("_trigger")
                for name in names
            )
            if "tracked" in names or "orchestration_trigger" in names:
                continue
            where = f"line {function.lineno}: "
            if is_trigger and any(_calls_track(node) for node in ast.walk(function)):
                found = f"{where}{function.name} records usage and is not tracked{_LATE}"
                yield found, _TRACK
            elif self._is_entry(function) and self.records and not self._is_wrapped(function.name):
                yield f"{where}the handler {function.name} is not tracked{_LATE}", _TRACK

    def is_tracked(self, name: str) -> bool | None:
        """Whether the handler of this name is; None where there is none."""
        for node in self._tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                is_decorated = "tracked" in map(_name, node.decorator_list)
                return is_decorated or self.is_covered or self._is_wrapped(name)
            if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
                return self.is_covered or "tracked" in ast.unparse(node.value)
        return None

    def _is_entry(self, function: ast.AST) -> bool:
        return function in self._tree.body and getattr(function, "name", "") in {
            "handler",
            "lambda_handler",
        }

    def _is_wrapped(self, name: str) -> bool:
        """Whether ``name = doow.tracked(name)``, or the like, stands below it."""
        return any(
            isinstance(node, ast.Assign)
            and name in map(ast.unparse, node.targets)
            and "tracked" in ast.unparse(node.value)
            for node in self._tree.body
        )


def _name(decorator: ast.expr) -> str:
    """The last part of what decorates: ``tracked`` of ``@doow.tracked(budget=1)``."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _calls_track(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _name(node) in {"track", "track_all", "track_llm"}


# ── what names a handler ────────────────────────────────────────────────────────────────────────


class _Loader(yaml.SafeLoader):
    """Takes ``!Ref`` and its like for what they are about."""


def _short_form(loader: _Loader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)  # There are no other kinds.
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _short_form)


def _sam(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """A template of SAM, or of CloudFormation."""
    document = yaml.load(text, _Loader)  # noqa: S506  # a safe loader, with tags of CloudFormation
    shared = mapping(document, "Globals", "Function")
    for name, resource in mapping(document, "Resources").items():
        if at(resource, "Type") != "AWS::Serverless::Function":
            continue
        said = {**shared, **mapping(resource, "Properties")}
        if isinstance(said.get("Handler"), str) and isinstance(said.get("CodeUri"), str):
            yield from _named(path.parent / said["CodeUri"], said["Handler"], name)
    yield from mistakes_of_template(document)


def _serverless(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """``serverless.yml``."""
    document = yaml.load(text, _Loader)  # noqa: S506
    for name, function in mapping(document, "functions").items():
        if isinstance(at(function, "handler"), str):
            yield from _named(path.parent, function["handler"], name)
    yield from mistakes_of_serverless(document)


def _named(folder: Path, handler: str, who: str) -> Iterator[tuple[str, str]]:
    """The handler that a function of a template names, ``module.function``."""
    module, _, function = handler.rpartition(".")
    if module == "doow_serverless.relay":
        return  # It tracks nothing, and need not lie in the folder.
    file = folder / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        yield f"{who} names {handler}, but there is no {file}", "correct Handler, or CodeUri"
        return
    is_tracked = _Module(ast.parse(file.read_text(encoding="utf-8"))).is_tracked(function)
    if is_tracked is None:
        yield f"{who} names {handler}, but {file} has no {function}", "correct Handler"
    elif not is_tracked:
        yield f"{who} names {handler}, which is not tracked", _TRACK


def _vercel(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """``vercel.json``: the files that it makes functions of."""
    patterns = list(mapping(json.loads(text), "functions")) or ["api/*.py"]
    files = [
        file
        for file in sorted(path.parent.rglob("*.py"))
        if any(fnmatch(file.relative_to(path.parent).as_posix(), each) for each in patterns)
    ]
    if not files:
        yield f"no file is named {' or '.join(patterns)}", "correct the names under functions"
    for file in files:
        source = file.read_text(encoding="utf-8")
        served = vercel_check.entry_point(source)
        if served is None:
            yield f"Vercel makes no function of {file}", f"see doow-serverless doctor {file}"
        elif not _is_metered(ast.parse(source)):
            yield f"{file} serves {served}, which is not tracked", "track it, or use DoowMiddleware"


def _is_metered(tree: ast.Module) -> bool:
    return any(
        getattr(each, "id", getattr(each, "attr", "")) in {*_COVERS, "tracked"}
        for each in ast.walk(tree)
        if isinstance(each, (ast.Name, ast.Attribute))
    )


def _azure(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """``host.json``: what becomes of dead letters, and the functions beside it."""
    document = json.loads(text)
    sampling = mapping(document, "logging", "applicationInsights", "samplingSettings")
    kept = str(sampling.get("excludedTypes", "")).split(";")
    if sampling.get("isEnabled", True) and "Trace" not in kept:
        yield (
            "Application Insights drops traces under load, and dead letters with them",
            'add "Trace" to logging.applicationInsights.samplingSettings.excludedTypes',
        )
    level = at(document, "logging", "logLevel", "Host.Function.Console")
    if level not in {None, "Information", "Debug", "Trace"}:
        yield (
            f"the level {level} of Host.Function.Console drops dead letters",
            'set it to "Information"',
        )
    app = path.parent / "function_app.py"
    if app.is_file() and not _is_metered(ast.parse(app.read_text(encoding="utf-8"))):
        yield f"no function of {app} is tracked", "@doow.tracked above each, or track_app(app)"


_FINDERS: dict[str, Find] = {
    "template.yaml": _sam,
    "template.yml": _sam,
    "serverless.yml": _serverless,
    "serverless.yaml": _serverless,
    "vercel.json": _vercel,
    "host.json": _azure,
}
