"""examples/azure as users meet it: its files checked, indexed and invoked by Azure's libraries."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Ingest
from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost, http_request
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "azure"
KEY = "dk_" + "5" * 64
TEXT = "Usage is counted where it happens. Everything else is an estimate."


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        yield ingest


@pytest.fixture
def host(ingest: Ingest) -> Iterator[AzureHost]:
    """The example as it stands, which wants no setting but the key."""
    env = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": ingest.url}
    with AzureHost(EXAMPLE, python=pythons()[-1], model="v2", env=env) as host:
        yield host


def usage(ingest: Ingest) -> Counter[tuple[str, Any, str, str]]:
    """(metric, quantity, license, feature) of all events."""
    return Counter(
        (
            measurement["metric_name"],
            measurement["quantity"],
            event["license_id"],
            event["attribution"]["feature"],
        )
        for event in ingest.events()
        for measurement in event["measurements"]
    )


def summary_of(host: AzureHost, customer: str) -> Any:
    request = http_request(
        "POST",
        f"http://localhost/api/customers/{customer}/summaries",
        body=TEXT.encode(),
        route_params={"customer": customer},
    )
    return host.invoke("summarise", {"req": request}, kill=True).return_value


def translation(host: AzureHost, job: dict[str, str]) -> Any:
    request = http_request(
        "POST",
        "http://localhost/api/translations",
        headers={"Content-Type": "application/json"},
        body=json.dumps(job).encode(),
    )
    return host.invoke("translations", {"req": request}, kill=True).return_value


def document(customer: str, text: str, **metadata: Any) -> dict[str, Any]:
    body = json.dumps({"customer": customer, "text": text})
    return {"message": triggers.queue_message(body, **metadata)}


def test_it_is_indexed_as_declared(host: AzureHost) -> None:
    """Four functions, and every HTTP function wants a key."""
    assert host.index_error is None
    declared = {name: bindings[0] for name, bindings in host.functions.items()}
    assert {name: trigger["type"] for name, trigger in declared.items()} == {
        "summarise": "httpTrigger",
        "index": "queueTrigger",
        "measure_storage": "timerTrigger",
        "translations": "httpTrigger",
    }
    levels = [each["authLevel"] for each in declared.values() if each["type"] == "httpTrigger"]
    assert levels == ["FUNCTION", "FUNCTION"]
    assert declared["translations"]["route"] == "translations/{*path}"


def test_a_call_is_metered_to_the_customer(host: AzureHost, ingest: Ingest) -> None:
    """Usage is at Doow with the answer, and errors of the caller cost nothing."""
    answer = summary_of(host, "acme")
    assert json.loads(answer.body) == {"summary": "Usage is counted where it happens."}
    expected = {
        ("api_calls", 1, "lic_acme", "summaries"): 1,
        ("tokens", 17, "lic_acme", "summaries"): 1,
    }
    assert usage(ingest) == expected
    assert summary_of(host, "nobody").status == 404
    assert usage(ingest) == expected
    assert len(ingest.posts()) == 1


def test_a_document_counts_once_it_succeeds(host: AzureHost, ingest: Ingest) -> None:
    """One that fails does not count, and one that comes twice counts once."""
    failed = host.invoke("index", document("globex", "", id="1"))
    assert failed.error is not None
    assert failed.error.message == "the document is empty"
    assert ingest.events() == []
    for before in (0, 1):
        message = document("globex", "This one has five words.", id="2", dequeue_count=1 + before)
        assert host.invoke("index", message, kill=True).ok
        assert usage(ingest) == {
            ("documents", 1, "lic_globex", "search"): 1,
            ("tokens", 5, "lic_globex", "search"): 1,
        }


def test_the_timer_measures_all_customers(host: AzureHost, ingest: Ingest) -> None:
    """What both have stored, in one POST."""
    assert host.invoke("measure_storage", {"timer": triggers.timer()}, kill=True).ok
    assert usage(ingest) == {
        ("storage", 40, "lic_acme", "storage"): 1,
        ("storage", 60, "lic_globex", "storage"): 1,
    }
    assert len(ingest.posts()) == 1


def test_the_web_application_is_metered(host: AzureHost, ingest: Ingest) -> None:
    """The call, and what its background task took, before the host has the answer."""
    answer = translation(host, {"customer": "acme", "text": "usage is counted"})
    assert json.loads(answer.body) == {"translation": "l'usage est compté"}
    expected = {
        ("api_calls", 1, "lic_acme", "translations"): 1,
        ("tokens", 3, "lic_acme", "translations"): 1,
    }
    assert usage(ingest) == expected
    assert translation(host, {"customer": "nobody", "text": "usage"}).status == 404
    assert usage(ingest) == expected


# ── the files ───────────────────────────────────────────────────────────────────────────────────


def test_the_host_keeps_every_dead_letter() -> None:
    """No sampling of traces, no level above that of standard output, and a timeout to know."""
    declared = json.loads((EXAMPLE / "host.json").read_text())
    logging = declared["logging"]
    sampling = logging["applicationInsights"]["samplingSettings"]
    assert "Trace" in sampling["excludedTypes"].split(";")
    assert logging["logLevel"]["Host.Function.Console"] == "Information"
    assert (declared["version"], declared["functionTimeout"]) == ("2.0", "00:05:00")
    assert declared["extensionBundle"]["id"] == "Microsoft.Azure.Functions.ExtensionBundle"


@pytest.mark.extensive
@pytest.mark.timeout(300)  # pip downloads, on a cold cache
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_what_is_published_runs_with_what_azure_installs(ingest: Ingest, tmp_path: Path) -> None:
    """``make app.zip``, unpacked; its requirements beside it, as a remote build leaves them."""
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    wheels, app = tmp_path / "wheels", tmp_path / "app"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", f"-w{wheels}", "."]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["make", "app.zip"], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(source / "app.zip") as packed:
        assert sorted(packed.namelist()) == ["function_app.py", "host.json", "requirements.txt"]
        packed.extractall(app)
    # Where Oryx puts them, and the worker looks: https://learn.microsoft.com/azure/azure-functions/
    packages = app / ".python_packages" / "lib" / "site-packages"
    python = pythons()[-1]
    install: list[str | Path] = [python, "-m", "pip", "--quiet", "install", f"--target={packages}"]
    subprocess.run(
        [*install, f"--find-links={wheels}", "-r", app / "requirements.txt"],
        check=True,
        capture_output=True,
    )
    env = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        "PYTHONPATH": str(packages),
    }
    with AzureHost(app, python=python, model="v2", env=env) as host:
        assert summary_of(host, "acme").status == 200
        assert sum(usage(ingest).values()) == 2


def test_settings_hold_no_secret() -> None:
    """The key of the example is none, and nothing of it leaves the machine."""
    declared = json.loads((EXAMPLE / "local.settings.example.json").read_text())
    values = declared["Values"]
    assert values["DOOW_TRACK_API_KEY"] == "dk_" + "0" * 64
    assert values["DOOW_TRACK_ENDPOINT"].startswith("http://127.0.0.1:")
    assert values["AzureWebJobsStorage"] == "UseDevelopmentStorage=true"
    assert values["FUNCTIONS_WORKER_RUNTIME"] == "python"


def test_local_settings_are_kept_back() -> None:
    """Neither git nor a deployment takes them."""
    ignored = (EXAMPLE / ".funcignore").read_text().split()
    for name in ("local.settings.json", "local.settings.example.json", ".venv", ".git"):
        assert any(fnmatch(name, pattern) for pattern in ignored), name
    for name in ("function_app.py", "host.json", "requirements.txt"):
        assert not any(fnmatch(name, pattern) for pattern in ignored), name
    root = EXAMPLE.parents[1]
    assert "local.settings.json" in (root / ".gitignore").read_text().split()


def test_requirements_cover_the_imports() -> None:
    """Each package that is imported is listed, or comes with one that is."""
    tree = ast.parse((EXAMPLE / "function_app.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    packages = imported - set(sys.stdlib_module_names)
    listed = re.findall(r"^[\w-]+", (EXAMPLE / "requirements.txt").read_text(), re.MULTILINE)
    provided = {"azure-functions": {"azure"}, "doow-serverless": {"doow_serverless"}}
    provided["fastapi"] = {"fastapi", "pydantic"}
    assert packages == set().union(*(provided[name] for name in listed))


def test_the_readme_sends_what_the_functions_take() -> None:
    """Its test events, its routes and its shell are right."""
    text = (EXAMPLE / "README.md").read_text()
    assert TEXT in text
    for route in ("/api/customers/acme/summaries", "/api/translations"):
        assert route in text
    bodies = [json.loads(body) for body in re.findall(r"'(\{.*?\})'", text)]
    assert [sorted(body) for body in bodies] == [["customer", "text"]] * 2
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")
