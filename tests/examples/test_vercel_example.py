"""examples/vercel as users meet it: its files, and each function under Vercel's own runtime."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import __version__
from doow_serverless.local import Fault, Ingest
from doow_serverless.local.vercel.entry_point import entry_point, problems
from doow_serverless.local.vercel.runtime import VercelRuntime
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local.vercel.runtime import Response

EXAMPLE = Path(__file__).parents[2] / "examples" / "vercel"
DELAY_S = 0.1

#: File, path and body of the README's requests; the answer; (metric, quantity, license) of each.
FUNCTIONS: dict[str, tuple[str, dict[str, Any], bytes, dict[tuple[str, int, str], int]]] = {
    "index": (
        "/api",
        {"customer": "acme", "text": "Usage is counted"},
        json.dumps({"translation": "l'usage est compté"}).encode(),
        {("api_calls", 1, "lic_acme"): 1, ("tokens", 6, "lic_acme"): 1},
    ),
    "summaries": (
        "/api/summaries",
        {"customer": "acme", "text": "Usage is counted. All of it."},
        b"Usage is counted ",
        {("api_calls", 1, "lic_acme"): 1, ("tokens", 9, "lic_acme"): 1},
    ),
    "documents": (
        "/api/documents",
        {"customer": "globex", "documents": ["One document", ""]},
        b'{"failed":[{"document":1,"reason":"the document is empty"}]}\n',
        {("documents", 1, "lic_globex"): 1, ("tokens", 2, "lic_globex"): 1},
    ),
}


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        yield ingest


def variables(ingest: Ingest) -> dict[str, str]:
    """What the project's settings give to the functions."""
    return {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": ingest.url}


def ask(runtime: VercelRuntime, function: str, **changes: Any) -> Response:
    """Send the README's request."""
    path, document, _, _ = FUNCTIONS[function]
    headers = {"Content-Type": "application/json"}
    body = json.dumps({**document, **changes}).encode()
    return runtime.request("POST", path, headers, body)


def usage(ingest: Ingest) -> Counter[tuple[str, Any, str]]:
    return Counter(
        (measurement["metric_name"], measurement["quantity"], event["license_id"])
        for event in ingest.events()
        for measurement in event["measurements"]
    )


@pytest.mark.parametrize("mode", ["ipc", "lambda"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_request_is_metered_before_its_end(
    function: str, mode: Any, vercel_python: Path, ingest: Ingest
) -> None:
    """Request by request, with the process frozen in between, in one POST each."""
    _, _, answer, expected = FUNCTIONS[function]
    with VercelRuntime(
        f"api/{function}.py", EXAMPLE, mode=mode, python=vercel_python, env=variables(ingest)
    ) as runtime:
        for n in (1, 2):
            ingest.fault(Fault(delay_s=DELAY_S))
            response = ask(runtime, function)
            assert (response.status, response.body) == (200, answer), runtime.stdout
            assert usage(ingest) == dict.fromkeys(expected, n)
            assert len(ingest.posts()) == n
            answered_at = ingest.posts()[-1].received_at + DELAY_S
            assert answered_at <= response.sent_at + response.ended_s
        assert {event["attribution"]["team"] for event in ingest.events()} == {"content"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_stranger_is_refused_and_not_metered(
    function: str, vercel_python: Path, ingest: Ingest
) -> None:
    """No such customer, no usage, no POST."""
    with VercelRuntime(
        f"api/{function}.py", EXAMPLE, mode="ipc", python=vercel_python, env=variables(ingest)
    ) as runtime:
        assert ask(runtime, function, customer="nobody").status == 404
    assert ingest.posts() == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"no JSON"])
def test_nonsense_is_refused_and_not_metered(
    body: bytes, vercel_python: Path, ingest: Ingest
) -> None:
    """By the handler class, which has no framework that would."""
    with VercelRuntime(
        "api/index.py", EXAMPLE, mode="ipc", python=vercel_python, env=variables(ingest)
    ) as runtime:
        assert runtime.request("POST", "/api", body=body).status == 400
    assert ingest.posts() == []


def test_a_dead_letter_of_a_function_is_in_its_log(vercel_python: Path, ingest: Ingest) -> None:
    """While Doow is silent, the response waits for the budget, and the log has the events."""
    ingest.fault(Fault(hang=True, times=None))
    env = {**variables(ingest), "DOOW_TRACK_BUDGET": "300"}
    with VercelRuntime(
        "api/index.py", EXAMPLE, mode="ipc", python=vercel_python, env=env
    ) as runtime:
        response = ask(runtime, "index")
    assert response.status == 200
    assert any("doow_dead_letter" in line for line in response.log)
    assert KEY not in runtime.stdout


@pytest.mark.parametrize(
    ("function", "name"), [("index", "handler"), ("summaries", "app"), ("documents", "app")]
)
def test_the_build_serves_what_is_meant(function: str, name: str) -> None:
    """Each file has one entry point, the metered one."""
    source = (EXAMPLE / "api" / f"{function}.py").read_text()
    assert entry_point(source) == name
    assert problems(source) == []


def test_the_settings_fit_the_functions() -> None:
    """Every file below api/ is one of the three, and gets a duration."""
    files = {path.name for path in (EXAMPLE / "api").glob("*") if path.is_file()}
    assert files == {f"{function}.py" for function in FUNCTIONS}
    assert json.loads((EXAMPLE / "vercel.json").read_text()) == {
        "$schema": "https://openapi.vercel.sh/vercel.json",
        "functions": {"api/*.py": {"maxDuration": 30}},
    }


def test_the_requirements_are_what_is_imported() -> None:
    """Nothing else, and this version of the package."""
    lines = (EXAMPLE / "requirements.txt").read_text().split()
    names = [re.split(r"[^\w-]", line)[0] for line in lines]
    assert names == ["doow-serverless", "fastapi", "flask"]
    assert lines[0] == f"doow-serverless~={__version__.rpartition('.')[0]}"


def test_the_readme_shows_the_requests_that_are_tried() -> None:
    """Each with its path and its body."""
    text = (EXAMPLE / "README.md").read_text()
    shown = re.findall(r"curl \$HOST(\S+) --json '(.+)'", text)
    assert [(path, json.loads(body)) for path, body in shown] == [
        (path, body) for path, body, _, _ in FUNCTIONS.values()
    ]
