"""How to test what is metered: with pytest, and with unittest. Copy what you need.

pip install pytest 'doow-serverless' aws-lambda-powertools && pytest examples/lambda
"""

from __future__ import annotations

import importlib.util
import json
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.testing import (
    api_gateway_event,
    captured_events,
    lambda_context,
    sqs_event,
)

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport


def handler_of(function: str) -> Any:
    """The handler of ``app.py`` in one of the folders, which all have that name."""
    path = Path(__file__).parent / function / "app.py"
    spec = importlib.util.spec_from_file_location(f"{function}_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler


summarise = handler_of("api")
index = handler_of("consumer")


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "test")


def test_a_call_is_metered_to_its_customer(doow_events: MemoryTransport) -> None:
    event = api_gateway_event(
        "POST", "/customers/acme/summaries", body={"text": "Usage is counted. All of it."}
    )
    assert summarise(event, lambda_context())["statusCode"] == 200
    assert doow_events.total("api_calls", license_id="lic_acme") == 1
    assert doow_events.total("tokens", license_id="lic_acme") == 9
    assert doow_events.total(license_id="lic_globex") == 0


def test_a_refused_call_costs_nothing(doow_events: MemoryTransport) -> None:
    event = api_gateway_event("POST", "/customers/nobody/summaries", body={"text": "Hello."})
    assert summarise(event, lambda_context())["statusCode"] == 404
    assert doow_events.events == []


class TestConsumer(unittest.TestCase):
    """The same without pytest."""

    def test_a_document_that_fails_is_not_counted(self) -> None:
        good = {"customer": "acme", "text": "three words here"}
        with captured_events() as events:
            answer = index(sqs_event(good, {"customer": "acme", "text": ""}), lambda_context())
        self.assertEqual(len(answer["batchItemFailures"]), 1)
        self.assertEqual(events.total("documents", license_id="lic_acme"), 1)
        self.assertEqual(json.dumps(answer).count("itemIdentifier"), 1)
