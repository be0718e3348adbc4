"""An ASGI application served from a thread of this process, on loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
import uvicorn.loops.asyncio

if TYPE_CHECKING:
    from typing_extensions import Self


class ServerThread:
    """Serves ``app`` with uvicorn on ``127.0.0.1`` until :meth:`stop`, or as a context manager.

    Args:
        app: An ASGI application.
        port: The TCP port; 0 lets the system choose a free one.
        **options: Further settings of ``uvicorn.Config``. ``timeout_graceful_shutdown`` is how many
            seconds :meth:`stop` lets requests end by themselves, before it cuts them off.

    The port is bound in the constructor, so that ``url`` is known, and a port that is taken is an
    ``OSError`` at the caller's line, before anything runs.
    """

    def __init__(self, app: Any, *, port: int = 0, **options: Any) -> None:
        # The protocol is named since asyncio turns off Nagle's delay only where it reads TCP.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        settings: dict[str, Any] = {
            "log_level": "error",
            "access_log": False,
            "lifespan": "off",
            "date_header": False,
            "server_header": False,
            "loop": "asyncio",
            "timeout_graceful_shutdown": 1,
            **options,
        }
        config = uvicorn.Config(_cancellable(app), **settings)
        config.load()  # Here, since it imports: the thread must not do so beside this one.
        self._server = _PromptServer(config)
        self._thread = threading.Thread(target=self._run, name="doow-local-server", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def listen(self) -> None:
        """Have the kernel queue connections, for :meth:`start` to serve."""
        self._socket.listen(128)

    def start(self) -> Self:
        """Listen, and serve from a daemon thread; there is no need to wait until it runs."""
        self.listen()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving, close every connection and wait for the thread."""
        if self._thread.ident is not None:
            self._server.stop()
            self._thread.join(timeout=10)
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _PromptServer(uvicorn.Server):
    """Stops when it is told to; uvicorn polls, which adds up over the tests that start one."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Let :meth:`main_loop` return; from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it stopped by itself
                self._loop.call_soon_threadsafe(self._stop.set)

    async def main_loop(self) -> None:
        """Wait for :meth:`stop`."""
        self._loop = asyncio.get_running_loop()
        # Asked only now: who called stop() before the line above could not wake this loop.
        if not self.should_exit:
            await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, close idle ones, and give the others their time."""
        # asyncio forgets to close what it has accepted, and not handed over yet, when a server is
        # closed: so it stops to accept before that, and hands over meanwhile.
        with contextlib.suppress(NotImplementedError):  # Of Windows' loop.
            for server in self.servers:
                for listener in server.sockets:
                    asyncio.get_running_loop().remove_reader(listener.fileno())
        await _some_turns()
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks = set(self.server_state.tasks)
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=self.config.timeout_graceful_shutdown)
        await self._abort_connections()
        # Cancelled after that, tasks find their connection lost, and do not try to answer.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._abort_connections()  # One may have come meanwhile.

    async def _abort_connections(self) -> None:
        """Cut them off; their sockets are closed some turns of the loop later."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await _some_turns()


async def _some_turns() -> None:
    """Let the loop do what it has begun: accept, hand over, close; each is a turn or two."""
    for _ in range(10):
        await asyncio.sleep(0)


def _cancellable(app: Any) -> Any:
    async def run(scope: Any, receive: Any, send: Any) -> None:
        # Only _PromptServer cancels these tasks, at the end; uvicorn would print a traceback.
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return run
