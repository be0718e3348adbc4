"""How to test what is metered on Vercel: a class, an ASGI and a WSGI application.

pip install pytest doow-serverless fastapi flask && pytest examples/vercel
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from doow_serverless.testing import call_asgi, call_handler, call_wsgi

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport

sys.path.insert(0, str(Path(__file__).parent))

from api import documents, index, summaries  # type: ignore[import-not-found]  # of this folder

JOB = {"customer": "acme", "text": "Usage is counted. All of it."}


def test_a_handler_class(doow_events: MemoryTransport) -> None:
    assert call_handler(index.handler, "POST", "/api", body=JOB).status == 200
    assert doow_events.total("api_calls", license_id="lic_acme") == 1


def test_a_stream(doow_events: MemoryTransport) -> None:
    headers = {"content-type": "application/json"}
    response = call_asgi(summaries.app, "POST", "/api/summaries", body=JOB, headers=headers)
    assert response.status == 200
    assert doow_events.total("tokens", license_id="lic_acme") > 0


def test_what_failed_is_not_counted(doow_events: MemoryTransport) -> None:
    job = {"customer": "globex", "documents": ["One document", ""]}
    headers = {"content-type": "application/json"}
    response = call_wsgi(documents.app, "POST", "/api/documents", body=job, headers=headers)
    assert json.loads(response.body)
    assert doow_events.total("documents", license_id="lic_globex") == 1
