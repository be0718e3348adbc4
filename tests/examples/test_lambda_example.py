"""examples/lambda as users meet it: imported, validated, built by SAM, and run by awslambdaric."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.local import Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("awslambdaric")
pytest.importorskip("aws_lambda_powertools")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "lambda"
KEY = "dk_" + "5" * 64
SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:doow-sdk-key-AbCdEf"

#: (metric, quantity, license) of what one delivery of the example's own event records.
API_USAGE = {("api_calls", 1, "lic_acme"): 1, ("tokens", 17, "lic_acme"): 1}
CONSUMER_USAGE = {
    ("documents", 1, "lic_acme"): 1,
    ("tokens", 6, "lic_acme"): 1,
    ("documents", 1, "lic_globex"): 1,
    ("tokens", 5, "lic_globex"): 1,
}
EMPTY_DOCUMENT = "2e1424d4-f796-459a-8184-9c92662be6da"


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        yield ingest


def event(function: str) -> Any:
    """The event file that the README names."""
    (path,) = (EXAMPLE / function / "events").glob("*.json")
    return json.loads(path.read_text())


def usage(ingest: Ingest) -> Counter[tuple[str, Any, str]]:
    return Counter(
        (measurement["metric_name"], measurement["quantity"], event["license_id"])
        for event in ingest.events()
        for measurement in event["measurements"]
    )


class TestInProcess:
    """The handlers, called as plain functions."""

    @pytest.fixture(autouse=True)
    def _configured(self, ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in os.environ:
            if name.startswith("DOOW_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "test")
        doow.configure(KEY, endpoint=ingest.url)

    def invoke(self, function: str, event: Any) -> Any:
        path = EXAMPLE / function / "app.py"
        spec = importlib.util.spec_from_file_location(f"example_lambda_{function}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        context = SimpleNamespace(
            aws_request_id="8d0c",
            function_name=function,
            memory_limit_in_mb="256",
            invoked_function_arn=f"arn:aws:lambda:us-east-1:123456789012:function:{function}",
            get_remaining_time_in_millis=lambda: 10_000,
        )
        return module.handler(event, context)

    def test_a_call_is_metered_to_the_customer(self, ingest: Ingest) -> None:
        """The call and its tokens are at Doow when the response is there, fully attributed."""
        response = self.invoke("api", event("api"))
        assert response["statusCode"] == 200
        assert json.loads(response["body"]) == {"summary": "Usage is counted where it happens."}
        assert usage(ingest) == API_USAGE
        common = {"team": "content", "feature": "summaries"}
        assert [event["attribution"] for event in ingest.events()] == [
            common,
            {**common, "model": "first-sentence"},
        ]

    @pytest.mark.parametrize(
        ("change", "status"),
        [({"rawPath": "/customers/nobody/summaries"}, 404), ({"body": "{}"}, 400)],
    )
    def test_a_refused_call_is_not_metered(
        self, ingest: Ingest, change: dict[str, str], status: int
    ) -> None:
        """Errors of the caller cost nothing, and no POST."""
        assert self.invoke("api", {**event("api"), **change})["statusCode"] == status
        assert ingest.posts() == []

    def test_a_failed_document_is_not_metered(self, ingest: Ingest) -> None:
        """The failed record is reported to SQS, and only the others count."""
        response = self.invoke("consumer", event("consumer"))
        assert response == {"batchItemFailures": [{"itemIdentifier": EMPTY_DOCUMENT}]}
        assert usage(ingest) == CONSUMER_USAGE
        assert len(ingest.posts()) == 1


# ── SAM ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sam() -> str:
    """The SAM CLI, from the environment of ``make``, the variable SAM, or the PATH."""
    ours = ROOT / ".venv-sam" / "bin" / "sam"
    found = os.environ.get("SAM") or (str(ours) if ours.exists() else shutil.which("sam"))
    if not found:
        pytest.skip("needs the SAM CLI: in .venv-sam, on PATH, or named by the variable SAM")
    return found


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter that the template names, by its real path."""
    template = (ROOT / "template.yaml").read_text()
    names = re.findall(r"^ +Runtime: (python\S+)$", template, re.MULTILINE)
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
    pytest.skip(f"needs {name}, which template.yaml names")


def run(command: list[str], **variables: str) -> None:
    """Run a tool in the repository, without what the tests' own environment would change."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"SAM_CLI_TELEMETRY": "0", **variables}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"


@pytest.fixture(scope="module")
def build(sam: str, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``sam build`` makes of the template, with the package as it is now."""
    temporary = tmp_path_factory.mktemp("sam")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={temporary}", "."])
    machine = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    places = os.environ.get("PIP_FIND_LINKS", "")
    build = [sam, "build", "--parallel", f"--build-dir={temporary / 'build'}"]
    run(
        [*build, f"--parameter-overrides=Architecture={machine}"],
        PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        PIP_FIND_LINKS=f"{places} {temporary}".strip(),
    )
    return temporary / "build"


@pytest.fixture(scope="module")
def runtime_client(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The locked awslambdaric, installed for the template's interpreter."""
    target = tmp_path_factory.mktemp("awslambdaric")
    requirement = f"awslambdaric=={version('awslambdaric')}"
    run([str(python), "-m", "pip", "--quiet", "install", f"--target={target}", requirement])
    return target


@pytest.mark.timeout(300)  # pip downloads, on a cold cache
@pytest.mark.extensive
class TestBuilt:
    """What ``sam build`` made, run as Lambda runs it."""

    @pytest.mark.parametrize(
        ("function", "logical_id", "expected"),
        [("api", "ApiFunction", API_USAGE), ("consumer", "ConsumerFunction", CONSUMER_USAGE)],
    )
    def test_it_delivers_before_each_answer(
        self,
        build: Path,
        python: Path,
        runtime_client: Path,
        ingest: Ingest,
        function: str,
        logical_id: str,
        expected: dict[tuple[str, int, str], int],
    ) -> None:
        """Invocation by invocation, with the process frozen in between, nothing comes late."""
        env = {
            "PYTHONPATH": str(runtime_client),
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": ingest.url,
            # A local run may say both: then the key is taken and AWS is not asked.
            "DOOW_TRACK_API_KEY_SECRET_ARN": SECRET_ARN,
        }
        directory = build / logical_id
        with LambdaRuntime("app.handler", directory, env=env, python=python) as runtime:
            for n in (1, 2, 3):
                assert runtime.invoke(event(function)).error is None, runtime.stdout
                assert usage(ingest) == dict.fromkeys(expected, n)
                assert len(ingest.posts()) == n

    def test_the_key_comes_from_the_secret(
        self, build: Path, python: Path, runtime_client: Path, ingest: Ingest
    ) -> None:
        """Deployed as the template says, the function finds its key in Secrets Manager."""
        server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
        server.start()
        try:
            host, port = server.get_host_and_port()
            aws = {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
            }
            env = {
                **aws,
                "PYTHONPATH": str(runtime_client),
                "DOOW_TRACK_ENDPOINT": ingest.url,
                "DOOW_TRACK_API_KEY_SECRET_ARN": create_secret(aws),
            }
            directory = build / "ApiFunction"
            with LambdaRuntime(
                "app.handler", directory, env=env, python=python, timeout_s=10
            ) as runtime:
                assert runtime.invoke(event("api")).error is None
                assert usage(ingest) == API_USAGE, runtime.stdout
                assert KEY not in runtime.stdout
        finally:
            server.stop()


def create_secret(aws: dict[str, str]) -> str:
    boto3 = pytest.importorskip("boto3")
    client = boto3.client(
        "secretsmanager",
        region_name="us-east-1",
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        aws_access_key_id=aws["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws["AWS_SECRET_ACCESS_KEY"],
    )
    arn: str = client.create_secret(Name="doow-sdk-key", SecretString=KEY)["ARN"]
    return arn


@pytest.mark.extensive
def test_the_template_is_valid(sam: str) -> None:
    """SAM's own check, and cfn-lint's, find nothing."""
    run([sam, "validate", "--lint"], AWS_DEFAULT_REGION="us-east-1")


def test_the_demo_ends_well() -> None:
    """The demo tells of the outage, loses nothing, and fits a terminal of 80 columns."""
    result = subprocess.run(
        [sys.executable, EXAMPLE / "demo.py"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    # Number, state of Doow, function, answer; then the invocation and its flush, in milliseconds.
    lines = re.findall(
        r"^ *\d+ +hangs +api +HTTP 200 +([\d.]+) +([\d.]+) ", result.stdout, re.MULTILINE
    )
    assert [float(flush) < 550 for _, flush in lines] == [True, True], result.stdout
    assert re.search(r"All \d+ events arrived", result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= 80
