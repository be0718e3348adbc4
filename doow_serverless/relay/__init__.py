"""Forwards to Doow what functions have written to the log, at the pace that Doow allows, once.

Put one of these where the platform exports its log to. Each reads the frames of ``delivery="log"``
and dead letters of direct delivery, so that an outage or a rate limit heals without a person:

- AWS Lambda: :func:`kinesis_handler`, :func:`logs_handler`, :func:`sqs_handler`.
- Azure Functions: :func:`event_hub_handler`.
- Vercel: :class:`VercelDrain`.

The environment configures them as it does functions: ``DOOW_TRACK_API_KEY`` or its place,
``DOOW_TRACK_LOG_KEY`` or its place, ``DOOW_TRACK_ENDPOINT``, ``DOOW_TRACK_FOLD``.
"""

from __future__ import annotations

from ._aws import kinesis_handler, logs_handler, sqs_handler
from ._azure import event_hub_handler
from ._relay import Undelivered
from ._vercel import VercelDrain

__all__ = [
    "Undelivered",
    "VercelDrain",
    "event_hub_handler",
    "kinesis_handler",
    "logs_handler",
    "sqs_handler",
]
