"""Every mistake that ``doctor`` knows, as a file that has it; no false alarm on the examples."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from doow_serverless.cli.doctor_files import checks_of

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    ROOT / "template.yaml",
    ROOT / "relay.yaml",
    *(
        path
        for kind in ("*.py", "*.yml", "*.json")
        for path in sorted((ROOT / "examples").rglob(kind))
        if not {"node_modules", ".layer", "events", ".github", "cdk"} & set(path.parts)
        and not path.name.startswith(("test_", "demo"))
    ),
]
TRACKED = """
import doow_serverless as doow

@doow.tracked
def handler(event, context):
    doow.track("tokens")
"""
UNTRACKED = TRACKED.replace("@doow.tracked\n", "")

MISTAKES: dict[str, tuple[dict[str, str], str, str]] = {
    "a handler without a decorator": ({"app.py": UNTRACKED}, "app.py", "handler is not tracked"),
    "a route below": (
        {
            "app.py": """
            @doow.tracked
            @app.get("/jobs")
            def jobs():
                doow.track("requests")
            """
        },
        "app.py",
        "below @tracked",
    ),
    "an orchestrator": (
        {
            "function_app.py": """
            app = func.FunctionApp()
            @app.orchestration_trigger(context_name="context")
            @doow.tracked
            def orchestrate(context):
                yield
            """
        },
        "function_app.py",
        "replayed",
    ),
    "a function of Azure without a decorator": (
        {
            "function_app.py": """
            app = func.FunctionApp()
            @app.route(route="jobs")
            def jobs(req):
                doow.track("requests")
            """
        },
        "function_app.py",
        "jobs records usage and is not tracked",
    ),
    "no entry point for Vercel": (
        {"api/index.py": "handler = doow.tracked(Base)\n"},
        "api/index.py",
        "no entry point",
    ),
    "no Python": ({"app.py": "def handler("}, "app.py", "no Python"),
    "a template that names what is not tracked": (
        {"app.py": UNTRACKED, "template.yaml": "SAM"},
        "template.yaml",
        "not tracked",
    ),
    "a template that names no file": ({"template.yaml": "SAM"}, "template.yaml", "there is no"),
    "a template that names no function": (
        {"app.py": "other = 1\n", "template.yaml": "SAM"},
        "template.yaml",
        "has no handler",
    ),
    "serverless.yml": (
        {"app.py": UNTRACKED, "serverless.yml": "functions: {api: {handler: app.handler}}"},
        "serverless.yml",
        "not tracked",
    ),
    "vercel.json, and a file without a meter": (
        {"api/index.py": "app = make()\n", "vercel.json": "{}"},
        "vercel.json",
        "not tracked",
    ),
    "vercel.json, and no file": ({"vercel.json": "{}"}, "vercel.json", "no file is named"),
    "host.json that samples traces": (
        {"host.json": '{"version": "2.0"}'},
        "host.json",
        "dead letters",
    ),
    "host.json with a level": (
        {
            "host.json": '{"logging": {"logLevel": {"Host.Function.Console": "Error"},'
            ' "applicationInsights": {"samplingSettings": {"isEnabled": false}}}}'
        },
        "host.json",
        "level Error",
    ),
    "host.json, and no function tracked": (
        {
            "host.json": '{"logging": {"applicationInsights":'
            ' {"samplingSettings": {"excludedTypes": "Trace"}}}}',
            "function_app.py": "app = func.FunctionApp()\n",
        },
        "host.json",
        "is tracked",
    ),
    "what is no JSON": ({"host.json": "{"}, "host.json", "cannot be understood"),
    "what is no YAML": ({"serverless.yml": "a: [}"}, "serverless.yml", "cannot be understood"),
}
SAM = """
Globals:
  Function:
    Handler: app.handler
Resources:
  Queue:
    Type: AWS::SQS::Queue
  Api:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Role: !GetAtt Role.Arn
"""


def written(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(SAM if text == "SAM" else dedent(text))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    """With what to do."""
    files, name, said = MISTAKES[mistake]
    written(tmp_path, files)
    found = [check for check in checks_of(tmp_path / name) if not check.ok]
    assert len(found) == 1, found
    assert said in found[0].detail
    assert found[0].remedy


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_have_none(path: Path) -> None:
    """No false alarm, whatever kind of file it is."""
    assert [check.detail for check in checks_of(path) if not check.ok] == []


WELL: dict[str, str] = {
    "tracked": TRACKED,
    "wrapped below": UNTRACKED + "handler = doow.tracked(handler)\n",
    "records nothing": "def handler(event, context): pass\n",
    "a middleware around": UNTRACKED.replace("def", "app.use(DoowMiddleware())\ndef"),
    "a method": "class A:\n    def handler(self): doow.track('x')\n",
    "a route above": "@app.get('/')\n@doow.tracked\ndef jobs(): doow.track('x')\n",
    "Azure's own order": "app = func.FunctionApp()\n@doow.tracked\n@app.route(route='x')\n"
    "def jobs(req): doow.track('x')\n",
}


@pytest.mark.parametrize("kind", WELL)
def test_what_is_well_is_left_alone(kind: str, tmp_path: Path) -> None:
    """Each way in which a handler may be tracked."""
    (tmp_path / "app.py").write_text(WELL[kind])
    [check] = checks_of(tmp_path / "app.py")
    assert (check.ok, check.remedy) == (True, "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is told, and ends nothing."""
    [check] = checks_of(tmp_path / "none.py")
    assert not check.ok
