"""Waits for a flight without blocking the event loop; apart, since it imports asyncio."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext, suppress
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import Any

    from .flushing import Flushing, Look


async def wait_for(flushing: Flushing, look: Look) -> asyncio.CancelledError | None:
    """As of `Flushing.wait`, without blocking the event loop.

    Returns:
        The cancellation that came meanwhile, for the caller to raise once it has cleaned up: a
        function that is cancelled is about to be frozen, so its events must leave now.
    """
    loop = _running_loop()
    if loop is None:
        await _wait_elsewhere(flushing, look)
        return None
    cancelled = None
    changed = asyncio.Event()
    flushing.wake = partial(_call_soon, loop.call_soon_threadsafe, changed.set)
    with _shielded():
        while (pause_s := flushing.pause_s(look)) is not None:
            began = flushing.now()
            waiting = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait([waiting], timeout=pause_s)
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
            finally:
                waiting.cancel()
            changed.clear()
            flushing.note_pause(began)
    return cancelled


def new_lock() -> AbstractAsyncContextManager[object]:
    """A lock of the library that runs here, whose holders take turns in the order of asking."""
    if _running_loop() is not None:
        return asyncio.Lock()
    trio = _running_trio()
    return nullcontext() if trio is None else trio.Lock()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _running_trio() -> Any:
    """The module trio, where it runs this code: Hypercorn runs applications on it, too."""
    trio: Any = sys.modules.get("trio")
    try:
        trio.lowlevel.current_task()
    except (AttributeError, RuntimeError):
        return None
    return trio


def _shielded() -> AbstractContextManager[object]:
    """Where a cancelled scope of anyio, as Starlette's, does not break off every wait at once."""
    scope = getattr(sys.modules.get("anyio"), "CancelScope", None)
    return nullcontext() if scope is None else scope(shield=True)


async def _wait_elsewhere(flushing: Flushing, look: Look) -> None:
    trio = _running_trio()
    if trio is None:
        # Another library's loop, which is held up rather than an event lost.
        flushing.wait(look)
        return
    token = trio.lowlevel.current_trio_token()
    changed = [trio.Event()]  # One of trio cannot be cleared.
    flushing.wake = partial(_call_soon, token.run_sync_soon, lambda: changed[-1].set())
    with trio.CancelScope(shield=True):  # A cancellation comes again at the next wait.
        while (pause_s := flushing.pause_s(look)) is not None:
            began = flushing.now()
            with trio.move_on_after(pause_s):
                await changed[-1].wait()
            changed.append(trio.Event())
            flushing.note_pause(began)


def _call_soon(schedule: Callable[[Callable[[], object]], object], call: Callable[[], Any]) -> None:
    with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
        schedule(call)
