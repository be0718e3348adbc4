"""Handlers as tests wrap them, and a server in memory that does not answer."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import Any

import doow_serverless as doow
from doow_serverless.testing import MemoryTransport
from tests.lambda_context import LambdaContext
from tests.network import KEY

WAIT_S = 10
"""Seconds after which a test that hangs gives up."""


def configure(transport: Any, **options: Any) -> doow.Tracker:
    return doow.configure(
        KEY, transport=transport, **{"license_id": "lic_1", "warm_up": False, **options}
    )


class Silent(MemoryTransport):
    """A server that does not answer until the test is over."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.posted = threading.Event()
        super().__init__(self._wait)

    def _wait(self, _: Any) -> int:
        self.posted.set()
        self.may_answer.wait(WAIT_S)
        return 202


def plain(event: Any, context: Any) -> Any:
    doow.track("tokens")
    return event


async def native(event: Any, context: Any) -> Any:
    doow.track("tokens")
    await asyncio.sleep(0)
    return event


def call(handler: Any, event: Any = None, context: Any = None) -> Any:
    """As a runtime calls, for async handlers as an adapter would."""
    result = handler(event, context or LambdaContext())
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def decorated(handler: Any) -> Any:
    """As decorators of frameworks do: a def that returns the coroutine of what it wraps."""

    @functools.wraps(handler)
    def wrapper(event: Any, context: Any) -> Any:
        return handler(event, context)

    return wrapper
