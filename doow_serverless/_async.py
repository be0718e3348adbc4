"""Waits for a shipment without blocking the event loop; apart, since it imports asyncio."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._budget import Budget
    from ._delivery import Shipment


async def wait_for_shipment(shipment: Shipment, budget: Budget) -> asyncio.CancelledError | None:
    """Wait until everything is settled or given up, or ``budget`` is used up.

    Returns:
        The cancellation that came meanwhile, for the caller to raise once it has cleaned up: a
        function that is cancelled is about to be frozen, so its events must leave now.
    """
    loop = asyncio.get_running_loop()
    cancelled = None
    for pause in shipment.waits(budget):
        settled = asyncio.Event()
        shipment.on_change(partial(_set, loop, settled))
        waiting = asyncio.ensure_future(settled.wait())
        try:
            await asyncio.wait([waiting], timeout=pause)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
        finally:
            waiting.cancel()
    return cancelled


def _set(loop: asyncio.AbstractEventLoop, settled: asyncio.Event) -> None:
    with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
        loop.call_soon_threadsafe(settled.set)
