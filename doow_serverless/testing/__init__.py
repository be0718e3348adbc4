"""What users test with: a transport in memory, contexts and events of the platforms, fixtures.

The fixtures ``doow_events`` and ``doow_ingest`` are there wherever pytest runs, without a line in a
``conftest.py``; all else works without pytest. Read ``_memory`` (the transport), ``_capture`` (how
the default tracker comes to use it), and ``_calls`` (what platforms pass to handlers).
"""

from __future__ import annotations

from doow_serverless._delivery.answers import Answer, TransportFault

from ._calls import (
    LambdaContext,
    Response,
    api_gateway_event,
    azure_http_request,
    azure_queue_message,
    call_asgi,
    call_handler,
    call_wsgi,
    lambda_context,
    sqs_event,
)
from ._capture import captured_events
from ._memory import MemoryTransport, rejecting

__all__ = [
    "Answer",
    "LambdaContext",
    "MemoryTransport",
    "Response",
    "TransportFault",
    "api_gateway_event",
    "azure_http_request",
    "azure_queue_message",
    "call_asgi",
    "call_handler",
    "call_wsgi",
    "captured_events",
    "lambda_context",
    "rejecting",
    "sqs_event",
]
