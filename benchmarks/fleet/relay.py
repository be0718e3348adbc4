"""The relay's Lambda function: the library's own handler, in a process that is recycled, too."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from doow_serverless.relay import _relay as relay_process
from doow_serverless.relay import kinesis_handler

from .sandboxes import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stream import Context, Handler

LIFE = 40
"""Invocations after which a sandbox of the relay is recycled, and knows nothing any more."""


@contextmanager
def relaying(url: str) -> Iterator[Handler]:
    """The function, as its environment configures it."""
    variables = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": url,
        "DOOW_TRACK_FOLD": "true",
    }
    earlier = dict(os.environ)
    os.environ.update(variables)
    calls = 0

    def handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
        nonlocal calls
        if calls % LIFE == 0:
            relay_process._relay = None  # What it remembers is its process's.
        calls += 1
        return kinesis_handler(event, context)

    try:
        yield handler
    finally:
        relay_process._relay = None
        os.environ.clear()
        os.environ.update(earlier)
