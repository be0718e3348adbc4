"""examples/lambda as users meet it: its handlers, called as plain functions, and its demo."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.local import Ingest
from tests.examples.lambda_example import EXAMPLE, KEY, USAGE, event, usage
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("awslambdaric")
pytest.importorskip("aws_lambda_powertools")

EMPTY_DOCUMENT = "2e1424d4-f796-459a-8184-9c92662be6da"


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        yield ingest


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
        assert usage(ingest) == USAGE["api"]
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
        assert usage(ingest) == USAGE["consumer"]
        assert len(ingest.posts()) == 1

    def test_an_hour_is_measured_once(self, ingest: Ingest) -> None:
        """What is stored counts for the hour, exactly, also when its event comes again."""
        for _ in range(2):
            assert self.invoke("scheduled", event("scheduled")) == {"customers": 2}
        assert usage(ingest) == USAGE["scheduled"]
        assert {each["occurred_at"] for each in ingest.events()} == {"2026-11-29T10:00:00Z"}


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
    assert re.search(r"All \d+ events arrived", result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert len(lines) == 2, result.stdout
    for _, flush_ms in lines:
        within(float(flush_ms) / 1e3, 0.55)
