"""How to test what is metered on Azure: the functions themselves, with what their triggers pass.

pip install pytest -r examples/azure/requirements.txt && pytest examples/azure
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.testing import azure_http_request, azure_queue_message

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport

sys.path.insert(0, str(Path(__file__).parent))

import function_app  # type: ignore[import-not-found]  # of this folder


def function(name: str) -> Any:
    """What the worker calls."""
    return getattr(function_app, name).build().get_user_function()


def test_a_call_is_metered_to_its_customer(doow_events: MemoryTransport) -> None:
    request = azure_http_request("POST", body="One sentence.", route_params={"customer": "acme"})
    assert function("summarise")(req=request).status_code == 200
    assert doow_events.total("api_calls", license_id="lic_acme") == 1


def test_a_document_is_metered(doow_events: MemoryTransport) -> None:
    message = azure_queue_message({"customer": "globex", "text": "This one has five words."})
    function("index")(message=message)
    assert doow_events.total("documents", license_id="lic_globex") == 1
    assert doow_events.total("tokens", license_id="lic_globex") == 5


def test_a_document_that_fails_is_not_counted(doow_events: MemoryTransport) -> None:
    message = azure_queue_message({"customer": "globex", "text": ""})
    with pytest.raises(ValueError, match="empty"):
        function("index")(message=message)
    assert doow_events.events == []
