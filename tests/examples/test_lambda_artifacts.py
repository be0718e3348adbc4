"""What deploys examples/lambda: validated, built, and each artifact run as Lambda runs it.

By SAM, by the Serverless Framework, as an image, and as a layer alone.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._frames.format import FOR_A_RELAY, MARKER
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.examples.lambda_example import (
    EXAMPLE,
    KEY,
    ROOT,
    SECRET_ARN,
    USAGE,
    event,
    usage,
    usage_of,
    variables,
)
from tests.examples.tools import npm_tool, run
from tests.runtimes.aws.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest

# pip and npm download, on a cold cache.
pytestmark = [pytest.mark.extensive, pytest.mark.timeout(300)]

SERVERLESS = "serverless@3.40.0"
LAYER_ARN = "arn:aws:lambda:us-east-1:123456789012:layer:doow-serverless:1"
LARGEST_LAYER = 5_000_000
"""Bytes of the packed layer: most are Powertools, and bytecode, which spares cold starts much."""


# ── the tools ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def serverless() -> Path:
    """The Serverless Framework, installed beside the SAM CLI."""
    return npm_tool(SERVERLESS, ROOT / ".venv-sam" / "node")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example in which may be built."""
    copy = tmp_path_factory.mktemp("example") / "lambda"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns(".layer", "layer.zip", "__py*"))
    return copy


@pytest.fixture(scope="module")
def layer(example: Path, shell: dict[str, str]) -> Path:
    """The layer, packed, as ``make layer.zip`` leaves it, and its folder beside it."""
    run(["make", "layer.zip"], example, **shell)
    return example / "layer.zip"


def check_under_the_emulator(function: str, emulator: Emulator, ingest: Ingest) -> None:
    """Three deliveries of its event, each of which is metered before the next."""
    with emulator:
        for deliveries in (1, 2, 3):
            answer = emulator.invoke(event(function))
            assert "errorType" not in answer, (answer, emulator.log)
            assert usage(ingest) == usage_of(function, deliveries), emulator.log


# ── SAM ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def build(sam: Path, shell: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``sam build`` makes of the template, with the package as it is now."""
    place = tmp_path_factory.mktemp("sam") / "build"
    run([sam, "build", "--parallel", f"--build-dir={place}"], ROOT, **shell)
    return place


def test_the_template_is_valid(sam: Path) -> None:
    """SAM's own check, and cfn-lint's, find nothing."""
    run([sam, "validate", "--lint"], ROOT)
    run([sam.with_name("cfn-lint"), "template.yaml"], ROOT)


@pytest.mark.parametrize("mode", ["before_response", "after_response"])
@pytest.mark.parametrize("function", USAGE)
def test_a_built_function_is_metered(
    function: str, mode: str, build: Path, python: Path, runtime: Path, ingest: Ingest
) -> None:
    """Whether the stack's parameter has it deliver before or after the response."""
    layer = build / "DoowServerlessLayer" / "python"
    env = variables(ingest, runtime, layer, DOOW_TRACK_FLUSH_MODE=mode)
    directory = build / f"{function.title()}Function"
    check_under_the_emulator(
        function, Emulator("app.handler", directory, env=env, python=python), ingest
    )


def test_nothing_comes_late_where_the_sandbox_is_frozen(
    build: Path, python: Path, runtime: Path, ingest: Ingest
) -> None:
    """Invocation by invocation, one POST each, with the process frozen in between."""
    env = variables(ingest, runtime, build / "DoowServerlessLayer" / "python")
    with LambdaRuntime("app.handler", build / "ApiFunction", env=env, python=python) as sandbox:
        for number in (1, 2, 3):
            assert sandbox.invoke(event("api")).error is None, sandbox.stdout
            assert usage(ingest) == usage_of("api", number)
            assert len(ingest.posts()) == number


def test_the_key_comes_from_the_secret(
    build: Path, python: Path, runtime: Path, ingest: Ingest
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
            "PYTHONPATH": f"{runtime}{os.pathsep}{build / 'DoowServerlessLayer' / 'python'}",
            "DOOW_TRACK_ENDPOINT": ingest.url,
            "DOOW_TRACK_API_KEY_SECRET_ARN": create_secret(aws),
        }
        directory = build / "ApiFunction"
        with LambdaRuntime(
            "app.handler", directory, env=env, python=python, timeout_s=10
        ) as sandbox:
            assert sandbox.invoke(event("api")).error is None
            assert usage(ingest) == USAGE["api"], sandbox.stdout
            assert KEY not in sandbox.stdout
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


# ── the layer ───────────────────────────────────────────────────────────────────────────────────


def test_the_layer_is_small_and_serves_every_machine(layer: Path, python: Path) -> None:
    """Nothing of it is compiled for one machine; its bytecode is there, and taken as it is."""
    with zipfile.ZipFile(layer) as packed:
        names = packed.namelist()
        sources = [name for name in names if name.endswith(".py")]
        tag = f"cpython-3{python.name.removeprefix('python3.')}"
        for name in sources:
            head, _, tail = name.rpartition("/")
            code = packed.read(f"{head}/__pycache__/{tail.removesuffix('.py')}.{tag}.pyc")
            # https://peps.python.org/pep-0552/: by hash, and never compared with the source.
            assert int.from_bytes(code[4:8], "little") == 0b01, name
    size = layer.stat().st_size
    sys.stdout.write(f"the layer: {size:,} bytes packed, {len(sources)} modules\n")
    assert len(sources) > 100
    assert not [name for name in names if name.endswith((".so", ".pyd"))]
    assert {name.split("/")[0] for name in names} == {"python"}
    assert size < LARGEST_LAYER


def test_the_layer_alone_serves_a_function_that_vendors_nothing(
    layer: Path, python: Path, ingest: Ingest, runtime: Path, tmp_path: Path
) -> None:
    """Unpacked, read-only as Lambda has it."""
    opt, task = tmp_path / "opt", tmp_path / "task"
    with zipfile.ZipFile(layer) as packed:
        packed.extractall(opt)
    task.mkdir()
    (task / "app.py").write_text(
        "import doow_serverless as doow\n"
        "@doow.tracked\n"
        "def handler(event, context):\n"
        "    doow.track('tokens', 812, license_id='lic_acme')\n"
        "    return doow.__file__\n"
    )
    # The tests may be root's, whom permissions do not keep from writing.
    env = variables(ingest, runtime, opt / "python", PYTHONDONTWRITEBYTECODE="1")
    with Emulator("app.handler", task, env=env, python=python) as emulator:
        place = emulator.invoke({})
    assert usage(ingest) == {("tokens", 812, "lic_acme"): 1}
    assert place == str(opt / "python" / "doow_serverless" / "__init__.py")


# ── the Serverless Framework ────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def package(serverless: Path, sam: Path, example: Path) -> Path:
    """What ``serverless package`` makes, checked by cfn-lint."""
    variables = {
        "DOOW_TRACK_API_KEY_SECRET_ARN": SECRET_ARN,
        "DOOW_SERVERLESS_LAYER_ARN": LAYER_ARN,
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }
    said = run([serverless, "package"], example, **variables)
    assert "Warning" not in said
    place = example / ".serverless"
    # W3005: it names a dependency twice.
    template = place / "cloudformation-template-update-stack.json"
    run([sam.with_name("cfn-lint"), "--ignore-checks=W3005", f"--template={template}"], example)
    return place


@pytest.mark.parametrize("function", USAGE)
def test_a_packaged_function_is_metered(
    function: str,
    package: Path,
    layer: Path,
    python: Path,
    runtime: Path,
    ingest: Ingest,
    tmp_path: Path,
) -> None:
    """Its archive, unpacked, beside the layer."""
    with zipfile.ZipFile(package / f"{function}.zip") as packed:
        packed.extractall(tmp_path)
    template = json.loads((package / "cloudformation-template-update-stack.json").read_text())
    properties = template["Resources"][f"{function.title()}LambdaFunction"]["Properties"]
    assert properties["Layers"] == [LAYER_ARN]
    env = variables(ingest, runtime, layer.parent / ".layer" / "python")
    emulator = Emulator(properties["Handler"], tmp_path, env=env, python=python)
    check_under_the_emulator(function, emulator, ingest)


# ── the image ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def image(python: Path, shell: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the Dockerfile leaves in the image, done without docker; and its command.

    Of AWS's base image: https://docs.aws.amazon.com/lambda/latest/dg/python-image.html
    """
    root = tmp_path_factory.mktemp("image")
    command = None
    for line in (EXAMPLE / "Dockerfile").read_text().splitlines():
        step, _, rest = line.partition(" ")
        if step == "FROM":
            assert rest == f"public.ecr.aws/lambda/python:{python.name.removeprefix('python')}"
        elif step == "COPY":
            source, target = rest.split()
            (root / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(EXAMPLE / source, root / target)
        elif step == "RUN":
            pip, *options = shlex.split(rest)
            assert pip == "pip"
            target = f"--target={root / 'site-packages'}"
            run([python, "-m", pip, "--quiet", *options, target], root, **shell)
        elif step == "CMD":
            command = json.loads(rest)
        else:
            assert not step or step == "#", line
    assert command == ["api/app.handler"]
    return root


@pytest.mark.parametrize("function", USAGE)
def test_a_function_of_the_image_is_metered(
    function: str, image: Path, python: Path, runtime: Path, ingest: Ingest
) -> None:
    """With the command that its configuration names."""
    env = variables(ingest, runtime, image / "site-packages")
    emulator = Emulator(f"{function}/app.handler", image, env=env, python=python)
    check_under_the_emulator(function, emulator, ingest)


# ── snippets ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("layer")
def test_the_cdk_stack_is_synthesized(sam: Path, example: Path, tmp_path: Path) -> None:
    """Its template passes cfn-lint; it may read the one secret; the layer is as it was built."""
    python = sam.with_name("python")
    run([python, "app.py"], example / "cdk", CDK_OUTDIR=str(tmp_path))
    path = tmp_path / "doow-example.template.json"
    run([sam.with_name("cfn-lint"), "--ignore-checks=W3005", f"--template={path}"], tmp_path)
    resources = json.loads(path.read_text())["Resources"].values()
    [policy] = (each for each in resources if each["Type"] == "AWS::IAM::Policy")
    [statement] = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Resource"] == {"Ref": "DoowApiKeySecretArn"}
    assert len(list(tmp_path.glob("asset.*/python/doow_serverless/__init__.py"))) == 1


def test_the_terraform_module_says_the_same(sam: Path) -> None:
    """Terraform itself is in no registry: the file is parsed, and what counts is read."""
    code = "import hcl2, json, sys; print(json.dumps(hcl2.load(sys.stdin)))"
    with (EXAMPLE / "terraform" / "main.tf").open() as file:
        result = subprocess.run(
            [sam.with_name("python"), "-c", code],
            stdin=file, capture_output=True, text=True, check=True,
        )  # fmt: skip
    resources: dict[str, Any] = {}
    for resource in json.loads(result.stdout)["resource"]:
        for kind, named in resource.items():
            resources.setdefault(kind.strip('"'), []).extend(named.values())
    [function] = resources["aws_lambda_function"]
    [environment] = function["environment"]
    assert "DOOW_TRACK_API_KEY_SECRET_ARN" in environment["variables"]
    assert function["layers"] == ["${aws_lambda_layer_version.doow_serverless.arn}"]
    for kind in ("aws_cloudwatch_log_metric_filter", "aws_cloudwatch_metric_alarm"):
        assert len(resources[kind]) == 1


def test_the_alarms_watch_for_what_is_written() -> None:
    """Each filter looks for the marker of dead letters, but for what is on its usual way."""
    pattern = f'"{MARKER}" -"{FOR_A_RELAY}"'
    for name in ("template.yaml", "examples/lambda/serverless.yml"):
        assert f"FilterPattern: '{pattern}'" in (ROOT / name).read_text(), name
    escaped = pattern.replace('"', '\\"')
    assert f'"{escaped}"' in (EXAMPLE / "terraform" / "main.tf").read_text()
    assert f"'{pattern}'" in (EXAMPLE / "cdk" / "app.py").read_text()
