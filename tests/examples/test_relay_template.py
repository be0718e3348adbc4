"""relay.yaml: what it promises is in it; it is valid; and what it builds relays usage, once."""

from __future__ import annotations

import gzip
import json
import os
import re
from base64 import b64encode
from collections import Counter
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from doow_serverless._config import checked_config
from doow_serverless._frames.format import BY_LOG, MARKER, frames_of
from doow_serverless._frames.reader import read_frames
from doow_serverless.cli.doctor_files import _Loader
from doow_serverless.local import Fault
from doow_serverless.local.lambda_runtime import LambdaRuntime
from doow_serverless.relay._relay import Relay
from tests.batches import batch
from tests.examples.lambda_example import EXAMPLE, KEY, ROOT, event, usage, usage_of, variables
from tests.examples.tools import run

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest

TEMPLATE = ROOT / "relay.yaml"
DEEDS = 3
"""Invocations of the function whose usage is relayed."""


def template(path: Path = TEMPLATE) -> Any:
    """A template as YAML, without the tags: ``!Ref One`` is ``"One"``."""
    return yaml.load(path.read_text(), _Loader)


def resources(kind: str) -> dict[str, Any]:
    """The resources of a type, by name."""
    all_of_them = template()["Resources"].items()
    return {name: one for name, one in all_of_them if one["Type"] == kind}


# ── what is in it ───────────────────────────────────────────────────────────────────────────────


def test_each_log_group_is_subscribed_to_what_is_written() -> None:
    """All look for the marker, and keep the parts of a batch together and in order."""
    subscriptions = [*resources("AWS::Logs::SubscriptionFilter").values()]
    groups = [name for name in template()["Parameters"] if name.startswith("LogGroup")]
    assert [one["Properties"]["LogGroupName"] for one in subscriptions] == groups
    conditions = [None, *(f"Has{group}" for group in groups[1:])]
    assert [one.get("Condition") for one in subscriptions] == conditions
    for one in subscriptions:
        assert one["Properties"]["FilterPattern"] == f'"{MARKER}"'
        assert one["Properties"]["Distribution"] == "ByLogStream"


def test_the_handler_is_there() -> None:
    """Its name is that of a function of the package, and its folder exists."""
    functions = resources("AWS::Serverless::Function")
    assert len(functions) == 1
    for one in functions.values():
        module, _, name = one["Properties"]["Handler"].rpartition(".")
        assert callable(resolve_name(f"{module}:{name}"))
        assert [*(ROOT / one["Properties"]["CodeUri"]).iterdir()]


def test_nothing_is_given_up() -> None:
    """What the function reports comes again, in order, until the stream has it no more."""
    [function] = resources("AWS::Serverless::Function").values()
    source = function["Properties"]["Events"]["Usage"]["Properties"]
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["MaximumRetryAttempts"] == source["MaximumRecordAgeInSeconds"] == -1
    assert source["BisectBatchOnFunctionError"] is False
    assert source["ParallelizationFactor"] == 1
    assert source["StartingPosition"] == "TRIM_HORIZON"
    [stream] = resources("AWS::Kinesis::Stream").values()
    [expiring] = [
        one["Properties"]["Threshold"]
        for name, one in resources("AWS::CloudWatch::Alarm").items()
        if name.startswith("Expiring")
    ]
    assert expiring == 0.8 * stream["Properties"]["RetentionPeriodHours"] * 60


def test_the_roles_may_do_no_more_than_they_must() -> None:
    """One stream, one secret, one log group."""
    allowed = {
        (action, statement["Resource"])
        for role in resources("AWS::IAM::Role").values()
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    assert {resource for _, resource in allowed} == {
        "Usage.Arn", "RelayLogs.Arn", "DoowApiKeySecretArn",
    }  # fmt: skip
    assert not [action for action, _ in allowed if "*" in action]
    secret = [action for action, resource in allowed if resource == "DoowApiKeySecretArn"]
    assert secret == ["secretsmanager:GetSecretValue"]


def test_the_alarms_tell_whom_they_are_to_tell() -> None:
    """All of them, where there is a topic."""
    alarms = resources("AWS::CloudWatch::Alarm")
    assert len(alarms) == 5
    for one in alarms.values():
        actions = one["Properties"]["AlarmActions"]
        assert actions == ["HasAlarmTopic", ["AlarmTopicArn"], "AWS::NoValue"]


def test_the_alarm_on_lost_usage_knows_what_the_relay_says(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each phrase of its filter is in a line of the relay, and in no line of plain success."""
    [lost] = resources("AWS::Logs::MetricFilter").values()
    phrases = re.findall(r'\?"([^"]+)"', lost["Properties"]["FilterPattern"])
    monkeypatch.setenv("DOOW_TRACK_API_KEY", KEY)
    monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
    relay = Relay(*checked_config())
    relay.deliver([batch()], 5.0)
    assert not [phrase for phrase in phrases if phrase in caplog.text]
    [line] = frames_of(batch(), BY_LOG, 1.0)
    relay.join(read_frames(re.sub('"data":"....', '"data":"', line)))
    first = frames_of(batch(50, noise=90), "TIMEOUT", 1.0, limit=2_000)[0]
    relay.report_incomplete(relay.join(read_frames(first)).new)
    ingest.fault(Fault(reject="tokens"))
    relay.deliver([batch()], 5.0)
    relay._set_aside(batch(), "HTTP 500")
    assert len(phrases) == 4
    assert [phrase for phrase in phrases if phrase in caplog.text] == phrases


# ── what is made of it ──────────────────────────────────────────────────────────────────────────


@pytest.mark.extensive
@pytest.mark.timeout(300)
def test_the_template_is_valid(sam: Path) -> None:
    """SAM's own check, and cfn-lint's, find nothing."""
    run([sam, "validate", "--lint", f"--template={TEMPLATE}"], ROOT)
    run([sam.with_name("cfn-lint"), TEMPLATE], ROOT)


@pytest.fixture(scope="module")
def build(sam: Path, shell: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``sam build`` makes of the template, with the package as it is now."""
    place = tmp_path_factory.mktemp("relay") / "build"
    run([sam, "build", f"--template={TEMPLATE}", f"--build-dir={place}"], ROOT, **shell)
    return place


@pytest.fixture(scope="module")
def packages(build: Path, runtime: Path) -> list[Path]:
    """What is on the path of a function that has the layer."""
    return [runtime, build / "DoowServerlessLayer" / "python"]


@pytest.fixture(scope="module")
def lines(packages: list[Path], python: Path) -> list[str]:
    """What the API of the example writes to its log, invoked three times, without a key."""
    env = {
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "DOOW_TRACK_DELIVERY": "log",
        "DOOW_TRACK_ENDPOINT": "http://127.0.0.1:9",
    }
    with LambdaRuntime("app.handler", EXAMPLE / "api", env=env, python=python) as sandbox:
        for _ in range(DEEDS):
            assert sandbox.invoke(event("api")).error is None, sandbox.stdout
        written = sandbox.stdout.splitlines()
    records = [line for line in written if MARKER in line]
    assert len(records) == DEEDS, written
    return records


def record(number: int, *messages: str, kind: str = "DATA_MESSAGE") -> dict[str, Any]:
    """A record of the stream, as CloudWatch Logs writes it."""
    said = {
        "messageType": kind,
        "owner": "123456789012",
        "logGroup": "/aws/lambda/api",
        "logStream": "2026/11/22/[$LATEST]5",
        "subscriptionFilters": ["usage"],
        "logEvents": [
            {"id": f"{number}-{at}", "timestamp": 1_795_000_000_000, "message": f"{message}\n"}
            for at, message in enumerate(messages)
        ],
    }
    data = b64encode(gzip.compress(json.dumps(said).encode())).decode()
    return {
        "kinesis": {"partitionKey": "5", "sequenceNumber": str(number), "data": data},
        "eventSource": "aws:kinesis",
    }


def window(*records: dict[str, Any], state: Any = None, final: bool = False) -> dict[str, Any]:
    """What Lambda makes of records of a window."""
    return {
        "Records": [*records],
        "window": {"start": "2026-11-22T11:33:00Z", "end": "2026-11-22T11:34:00Z"},
        "state": state or {},
        "shardId": "shardId-000000000000",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/relay-Usage",
        "isFinalInvokeForWindow": final,
        "isWindowTerminatedEarly": False,
    }


def relay_of(
    build: Path, packages: list[Path], python: Path, ingest: Ingest, **more: str
) -> LambdaRuntime:
    """The function that was built, under the handler that the template names."""
    [function] = resources("AWS::Serverless::Function").values()
    return LambdaRuntime(
        function["Properties"]["Handler"],
        build / "RelayFunction",
        env=variables(ingest, *packages, **more),
        python=python,
        timeout_s=15,
    )


def totals(counted: Any) -> Counter[tuple[str, str]]:
    """Sums by metric and license, of what :func:`usage` or :func:`usage_of` count."""
    sums: Counter[tuple[str, str]] = Counter()
    for (metric, quantity, license_id), times in counted.items():
        sums[metric, license_id] += quantity * times
    return sums


@pytest.mark.extensive
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fold", ["", "true"])
def test_what_was_built_relays_a_window_once(
    fold: str, build: Path, packages: list[Path], python: Path, lines: list[str], ingest: Ingest
) -> None:
    """Though a record comes twice; nothing leaves before the window ends."""
    greeting = record(0, "CWL CONTROL MESSAGE", kind="CONTROL_MESSAGE")
    steps = [
        [greeting, record(1, lines[0], "START RequestId: 1"), record(2, lines[1])],
        [record(2, lines[1]), record(3, lines[2])],
        [],
    ]
    state: Any = {}
    with relay_of(build, packages, python, ingest, DOOW_TRACK_FOLD=fold) as sandbox:
        for step in steps:
            assert not ingest.posts()
            outcome = sandbox.invoke(window(*step, state=state, final=not step))
            assert outcome.error is None, sandbox.stdout
            answer = json.loads(outcome.payload)
            assert answer["batchItemFailures"] == []
            state = answer["state"]
    assert totals(usage(ingest)) == totals(usage_of("api", DEEDS)), sandbox.stdout
    assert len(ingest.posts()) == 1
    if fold:
        # At the full hour there are twice as many.
        assert len(ingest.events()) in {2, 4}
    else:
        assert usage(ingest) == usage_of("api", DEEDS)


@pytest.mark.extensive
@pytest.mark.timeout(300)
def test_what_doow_did_not_take_comes_again(
    build: Path, packages: list[Path], python: Path, lines: list[str], ingest: Ingest
) -> None:
    """The window's end fails as long as Doow is down; called again, it delivers all, once."""
    with relay_of(build, packages, python, ingest) as sandbox:
        outcome = sandbox.invoke(window(record(1, *lines)))
        assert outcome.error is None, sandbox.stdout
        end = window(state=json.loads(outcome.payload)["state"], final=True)
        ingest.fault(Fault(status=503, times=1_000))
        error = sandbox.invoke(end).error
        assert error is not None
        assert error["errorType"] == "Undelivered"
        ingest.clear_faults()
        assert sandbox.invoke(end).error is None, sandbox.stdout
        assert sandbox.invoke(end).error is None, sandbox.stdout
    assert usage(ingest) == usage_of("api", DEEDS)
