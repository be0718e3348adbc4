"""Promises that hold wherever a handler is wrapped: each is told once and tried on every adapter.

A handler is called as its platform would call it, in this process; the ingest is real HTTP.
"""

from __future__ import annotations

import pytest

from tests.conformance.adapters import ADAPTERS, Adapter


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each way to wrap a handler."""
    return ADAPTERS[request.param]


@pytest.fixture(params=[name for name, adapter in ADAPTERS.items() if adapter.streams])
def streaming_adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each way to wrap a handler whose answer goes out while it is still at work."""
    return ADAPTERS[request.param]
