"""The key from Secrets Manager and Parameter Store: fetched once, and anew once it is refused."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._config import Config, checked_config
from doow_serverless._delivery.patient import sending
from doow_serverless._delivery.results import Settled
from doow_serverless._frames.keys import LogKey
from doow_serverless._platforms.aws import fetch_text
from doow_serverless.cli.doctor_service import service_checks
from tests.batches import batch
from tests.lambda_context import LambdaContext
from tests.network import KEY

pytest.importorskip("aws_lambda_powertools")
boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local import Ingest

NEW_KEY = "dk_" + "b2" * 32
PLACES = {
    "secret": "DOOW_TRACK_API_KEY_SECRET_ARN",
    "secret of JSON": "DOOW_TRACK_API_KEY_SECRET_ARN",
    "parameter": "DOOW_TRACK_API_KEY_SSM_PARAMETER",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """AWS, as moto plays it; how often each operation was called for, in what follows."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("WAIT_S", "REFRESH_WAIT_S"):  # A slow machine takes long to make a client.
        monkeypatch.setattr(f"doow_serverless._delivery.credentials.{name}", 20.0)
    client_class: Any = import_module("botocore.client").BaseClient
    counter: Counter[str] = Counter()
    call = client_class._make_api_call

    def counted(client: Any, operation: str, arguments: Any) -> Any:
        counter[operation] += 1
        return call(client, operation, arguments)

    with moto.mock_aws():
        monkeypatch.setattr(client_class, "_make_api_call", counted)
        monkeypatch.setattr("doow_serverless._platforms.aws._providers", {})
        yield counter


def keep(kind: str, key: str) -> str:
    """Have AWS keep ``key``, and say where."""
    if kind == "parameter":
        boto3.client("ssm").put_parameter(
            Name="/doow/sdk-key", Value=key, Type="SecureString", Overwrite=True
        )
        return "/doow/sdk-key"
    text = json.dumps({"team": "ai", "sdk_key": key}) if "JSON" in kind else key
    client = boto3.client("secretsmanager")
    try:
        found = client.create_secret(Name="doow-sdk-key", SecretString=text)
    except client.exceptions.ResourceExistsException:
        found = client.put_secret_value(SecretId="doow-sdk-key", SecretString=text)
    return str(found["ARN"])


@pytest.mark.parametrize("kind", PLACES)
def test_it_is_found_and_kept_and_fetched_anew_once_it_is_refused(
    kind: str,
    asked: Counter[str],
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One call for the first invocation, none for the next, one more after a rotation."""
    monkeypatch.setenv(PLACES[kind], keep(kind, KEY))
    ingest.revoke(NEW_KEY)
    doow.configure(endpoint=ingest.url, license_id="lic_1", budget=20)
    operation = "GetParameter" if kind == "parameter" else "GetSecretValue"

    @doow.tracked
    def handler(event: object, context: object) -> None:
        doow.track("tokens")

    def invoke() -> tuple[int, int]:
        handler({}, LambdaContext())
        return len(ingest.events()), asked[operation]

    assert [invoke(), invoke(), invoke()] == [(1, 1), (2, 1), (3, 1)]
    ingest.add_key(NEW_KEY)
    keep(kind, NEW_KEY)
    ingest.revoke(KEY)
    assert [invoke(), invoke(), invoke()] == [(4, 2), (5, 2), (6, 2)]
    assert len({event["event_id"] for event in ingest.events()}) == 6
    assert KEY not in caplog.text
    assert NEW_KEY not in caplog.text


def test_a_key_that_stays_refused_is_not_asked_for_again_and_again(
    asked: Counter[str], ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events are kept; AWS is asked once more, and not by each invocation."""
    monkeypatch.setenv(PLACES["secret"], keep("secret", KEY))
    ingest.revoke(KEY)
    errors: list[doow.errors.DoowError] = []
    doow.configure(endpoint=ingest.url, license_id="lic_1", budget=20, on_error=errors.append)

    @doow.tracked
    def handler(event: object, context: object) -> None:
        doow.track("tokens")

    for _ in range(4):
        handler({}, LambdaContext())
    assert asked["GetSecretValue"] == 2
    assert {error.kind for error in errors} == {"AUTH_FAILURE"}
    assert ingest.events() == []


@pytest.mark.parametrize("kind", PLACES)
def test_what_no_response_waits_for_finds_it_too(
    kind: str, asked: Counter[str], ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay, `replay` and `send` import what fetching needs, and so does `doctor`."""
    monkeypatch.setenv(PLACES[kind], keep(kind, KEY))
    monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
    with sending(*checked_config()) as sender:
        result = sender.send(batch())
    assert isinstance(result, Settled)
    assert result.accepted == 1
    checks = service_checks("tokens", "lic_1", is_event_sent=False)
    found = {check.name: check.ok for check in checks}
    assert (found["key"], found["heartbeat"]) == (True, True)


@pytest.mark.parametrize("kind", PLACES)
def test_the_log_does_not_get_the_key(
    kind: str, asked: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With the root logger at DEBUG botocore logs all answers but this one."""
    place = keep(kind, KEY)
    caplog.set_level("DEBUG")
    text = fetch_text("parameter" if kind == "parameter" else "secret", place, True)
    assert text is not None
    assert KEY in text
    assert [record.name for record in caplog.records if KEY in record.getMessage()] == []
    # What the application fetches, also of the same place, is logged as ever.
    if kind == "parameter":
        boto3.client("ssm").get_parameter(Name=place, WithDecryption=True)
    else:
        boto3.client("secretsmanager").get_secret_value(SecretId=place)
    assert [record.name for record in caplog.records if KEY in record.getMessage()] == [
        "botocore.parsers"
    ]


def test_the_version_before_the_current_one(asked: Counter[str]) -> None:
    """A secret that was never rotated has none; and the cache keeps to the current one."""
    place = keep("secret", "one")
    before = fetch_text("secret", place, False), fetch_text("secret", place, True, True)
    keep("secret", "two")
    after = fetch_text("secret", place, True), fetch_text("secret", place, True, True)
    cached = fetch_text("secret", place, False)
    assert (before, after, cached) == (("one", None), ("two", "one"), "two")
    assert asked["GetSecretValue"] == 4


def test_a_version_that_cannot_be_read(asked: Counter[str]) -> None:
    """Is no version that is missing: only that of a secret which is there may be."""
    with pytest.raises(Exception, match="can't find the specified secret"):
        fetch_text("secret", "no-such-secret", True)
    client = boto3.client("secretsmanager")
    client.create_secret(Name="binary", SecretBinary=b"\xfe\xff")
    with pytest.raises(ValueError, match=r"^it is binary, and no text$"):
        fetch_text("secret", "binary", True)


def test_lines_are_signed_with_a_kept_log_key(
    asked: Counter[str], ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of its own fetches it once the tracker is made."""
    place = keep("secret", "log key")
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY_SECRET_ARN", place)
    tracker = doow.configure(KEY, endpoint=ingest.url, license_id="lic_1")
    log_key = tracker.engine.outbox.log_key
    log_key.prepare(20.0)
    assert (log_key.signing_key(), asked["GetSecretValue"]) == (b"log key", 1)
    assert LogKey.of(Config()).verifying_keys() == [b"log key"]
    checks = list(service_checks("tokens", None, is_event_sent=False))
    assert [(check.ok, check.detail) for check in checks if check.name == "log key"] == [
        (True, f"lines of the log are signed, read from {place}")
    ]


def test_doctor_says_why_a_log_key_cannot_be_read(
    asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do; it matters by whatever way usage is delivered."""
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY_SECRET_ARN", "no-such-secret")
    monkeypatch.setenv("DOOW_TRACK_DELIVERY", "log")
    checks = list(service_checks("tokens", None, is_event_sent=False))
    [check] = [check for check in checks if check.name == "log key"]
    assert (check.ok, "can't find the specified secret" in check.detail) == (False, True)
    assert check.remedy.startswith("see that the secret is there")
    assert (
        "could not be read from Secrets Manager, where DOOW_TRACK_LOG_KEY_SECRET_ARN points"
        in check.detail
    )


def test_what_others_log_while_the_key_is_fetched(
    asked: Counter[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records of other threads pass; and the levels of the application stay."""
    parsers = logging.getLogger("botocore.parsers")
    caplog.set_level("DEBUG")
    place = keep("secret", KEY)
    caplog.clear()
    client_class: Any = import_module("botocore.client").BaseClient
    call = client_class._make_api_call

    def meanwhile(client: Any, operation: str, arguments: Any) -> Any:
        other = threading.Thread(target=parsers.debug, args=("of the application",))
        other.start()
        other.join()
        return call(client, operation, arguments)

    monkeypatch.setattr(client_class, "_make_api_call", meanwhile)
    fetch_text("secret", place, True)
    assert [each.getMessage() for each in caplog.records if each.name == parsers.name] == [
        "of the application"
    ]
    assert (parsers.level, parsers.disabled) == (logging.NOTSET, False)
