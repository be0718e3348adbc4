"""CloudWatch metrics of each flush, written with Powertools."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest

import doow_serverless as doow
from doow_serverless.errors import ConfigurationError, ErrorKind
from doow_serverless.powertools import (
    cloudwatch_metrics,
)
from doow_serverless.testing import MemoryTransport
from tests.lambda_context import LambdaContext
from tests.timing import within

pytest.importorskip("aws_lambda_powertools")

from aws_lambda_powertools import Metrics


def emf(line: str) -> dict[str, Any]:
    """A line of embedded metric format, checked by the rules of its specification.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    document: dict[str, Any] = json.loads(line)
    assert set(document["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert type(document["_aws"]["Timestamp"]) is int
    for directive in document["_aws"]["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 1024
        for names in directive["Dimensions"]:
            assert len(names) <= 30
            assert all(isinstance(document[name], str) and document[name] for name in names)
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"}
            assert metric["Unit"] in {"Count", "Milliseconds"}
            values = document[metric["Name"]]
            assert values
            assert all(type(value) is float for value in values)
    return document


def test_each_flush_writes_its_metrics(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in the embedded metric format, and none for a flush without events."""
    monkeypatch.delenv("POWERTOOLS_SERVICE_NAME", raising=False)
    on_flush = cloudwatch_metrics("MyApp", service="documents", stage="prod")
    doow.configure(key, transport=MemoryTransport(), license_id="lic_1", on_flush=on_flush)

    @doow.tracked
    def handler(events: int) -> None:
        for _ in range(events):
            doow.track("tokens")

    handler(2)
    handler(0)
    (document,) = map(emf, capsys.readouterr().out.splitlines())
    (directive,) = document.pop("_aws")["CloudWatchMetrics"]
    assert directive == {
        "Namespace": "MyApp",
        "Dimensions": [["stage", "service"]],
        "Metrics": [
            {"Name": "EventsAccepted", "Unit": "Count"},
            {"Name": "EventsRejected", "Unit": "Count"},
            {"Name": "EventsUnsent", "Unit": "Count"},
            {"Name": "FlushTime", "Unit": "Milliseconds"},
            {"Name": "BacklogEvents", "Unit": "Count"},
        ],
    }
    (flush_ms,) = document.pop("FlushTime")
    assert flush_ms > 0
    within(flush_ms / 1e3, 1.0)
    assert document == {
        "stage": "prod",
        "service": "documents",
        "EventsAccepted": [2.0],
        "EventsRejected": [0.0],
        "EventsUnsent": [0.0],
        "BacklogEvents": [0.0],
    }


def test_an_outage_shows_in_the_metrics(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not delivered is unsent, and stands in the backlog."""
    doow.configure(
        key,
        transport=MemoryTransport(lambda _: 503),
        license_id="lic_1",
        on_flush=cloudwatch_metrics("MyApp"),
        on_error=lambda _: None,
    )
    doow.track("tokens")
    doow.flush(0.05)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if '"_aws"' in line)
    document = emf(line)
    fates = [document[name] for name in ("EventsAccepted", "EventsUnsent", "BacklogEvents")]
    assert fates == [[0.0], [1.0], [1.0]]


def test_the_metrics_tell_every_fate(capsys: pytest.CaptureFixture[str]) -> None:
    """Rejected and unsent events are counted, whatever the reason, and so is the backlog."""
    outcome = doow.Outcome(
        accepted=5,
        rejected=[("evt_1", "unknown metric"), ("evt_2", "unknown metric")],
        unsent={ErrorKind.TIMEOUT: 3, ErrorKind.DROPPED_EVENTS: 1},
        requests=2,
        elapsed_s=0.25,
        backlog=7,
    )
    cloudwatch_metrics("MyApp")(outcome)
    document = emf(capsys.readouterr().out)
    del document["_aws"]
    assert document == {
        "EventsAccepted": [5.0],
        "EventsRejected": [2.0],
        "EventsUnsent": [4.0],
        "FlushTime": [250.0],
        "BacklogEvents": [7.0],
    }


def test_the_metrics_of_the_user_stay_their_own(
    strict_events: MemoryTransport, capsys: pytest.CaptureFixture[str]
) -> None:
    """Powertools' Metrics, which share their state, are neither flushed nor added to."""
    hook = cloudwatch_metrics("MyApp", stage="prod")
    metrics = Metrics(namespace="Theirs", service="theirs")

    @metrics.log_metrics
    def handler(event: Any, context: Any) -> None:
        metrics.add_metric("Orders", "Count", 1)
        hook(doow.Outcome(accepted=1))
        metrics.add_metric("Orders", "Count", 2)

    handler({}, LambdaContext())
    ours, theirs = map(emf, capsys.readouterr().out.splitlines())
    assert "Orders" not in ours
    assert ours["stage"] == "prod"
    (directive,) = theirs.pop("_aws")["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["service"]]
    assert theirs == {"service": "theirs", "Orders": [1.0, 2.0]}


def test_namespace_and_service_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables of Powertools, of which one silences all metrics."""
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Theirs")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "documents")
    hook = cloudwatch_metrics()
    hook(doow.Outcome())
    document = emf(capsys.readouterr().out)
    assert document["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Theirs"
    assert document["service"] == "documents"

    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    hook(doow.Outcome())
    assert capsys.readouterr().out == ""


def test_a_text_of_the_application_is_not_written_into(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a handler captures of its own output has no metrics of ours in it; the log has."""
    hook = cloudwatch_metrics("MyApp", service="documents")
    doow.configure(key, transport=MemoryTransport(), license_id="lic_1", on_flush=hook)

    @doow.tracked
    def handler() -> None:
        doow.track("tokens")

    with contextlib.redirect_stdout(io.StringIO()) as text:
        handler()
    assert text.getvalue() == ""
    assert emf(capsys.readouterr().out)["EventsAccepted"] == [1.0]


def test_metrics_that_cannot_be_written_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a namespace, or with too many dimensions, no hook is made."""
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE", raising=False)
    with pytest.raises(ConfigurationError, match="namespace"):
        cloudwatch_metrics()
    too_many = {f"dimension{number}": "x" for number in range(31)}
    with pytest.raises(ConfigurationError, match="dimensions"):
        cloudwatch_metrics("MyApp", **too_many)
