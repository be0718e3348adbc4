"""The shell around Azure's worker libraries, run in a process of its own by ``AzureHost``.

Azure's own shell (``proxy_worker``) is on no package index. This one does what that does between
the gRPC stream and the libraries' handlers, and nothing of what the handlers do.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc  # type: ignore[import-untyped]
from rpc_protos import load_protos  # type: ignore[import-not-found]  # this script's neighbour

# What the host asks for, and the name of the answer: each is a coroutine function of the library.
_ANSWERS = {
    "worker_init_request": "worker_init_response",
    "function_environment_reload_request": "function_environment_reload_response",
    "functions_metadata_request": "function_metadata_response",
    "function_load_request": "function_load_response",
    "invocation_request": "invocation_response",
}
_LEVELS = [(50, "Critical"), (40, "Error"), (30, "Warning"), (20, "Information"), (0, "Debug")]
_INVOCATION_ID = "__azure_function_invocation_id__"
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class _InvocationTask(asyncio.Task[Any]):
    """A task that hands the invocation's id on to the tasks that it starts, for the log lines."""

    def __init__(self, coro: Any, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(coro, loop=loop, **options)
        setattr(self, _INVOCATION_ID, getattr(_current_task(), _INVOCATION_ID, None))


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


class _Worker:
    """One stream to the host, whose requests become tasks of the one loop."""

    def __init__(self, port: int, worker_id: str) -> None:
        self._protos = load_protos()
        self._worker_id = worker_id
        self._address = f"127.0.0.1:{port}"
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._library: Any = None

    async def run(self) -> None:
        """Serve until the host ends the stream, as far as it does not kill the process first."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coro, **options: _InvocationTask(coro, loop=loop, **options)
        )
        ended = asyncio.Event()
        thread = threading.Thread(target=self._poll, args=(loop, ended), daemon=True)
        thread.start()
        await ended.wait()

    def log(self, record: logging.LogRecord, text: str) -> None:
        """Send a line of the application's, or of the libraries', to the host."""
        library = record.name.startswith(("azure.functions", "azure_functions_runtime"))
        rpc = self._protos.RpcLog
        self._send(
            rpc_log=rpc(
                invocation_id=self._invocation_id(),
                category=record.name,
                level=next(rpc.Level.Value(name) for no, name in _LEVELS if record.levelno >= no),
                message=text,
                log_category=rpc.System if library else rpc.User,
            )
        )

    def _invocation_id(self) -> str | None:
        """What the task on the loop carries, else what the library set in the pool's thread."""
        of_task: str | None = getattr(_current_task(), _INVOCATION_ID, None)
        if of_task is None and self._library is not None:
            of_task = self._library.invocation_id_cv.get()
        return of_task

    def _poll(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        try:
            with grpc.insecure_channel(self._address, _CHANNEL_OPTIONS) as channel:
                stub = self._protos.FunctionRpcStub(channel)
                self._send(start_stream=self._protos.StartStream(worker_id=self._worker_id))
                for request in stub.EventStream(iter(self._outgoing.get, None)):
                    loop.call_soon_threadsafe(loop.create_task, self._dispatch(request))
        except grpc.RpcError as error:
            sys.stderr.write(f"the stream to the host broke: {error}\n")
        finally:
            loop.call_soon_threadsafe(ended.set)

    async def _dispatch(self, message: Any) -> None:
        kind = message.WhichOneof("content")
        request = getattr(message, kind)
        if kind in {"worker_init_request", "function_environment_reload_request"}:
            self._choose_library(request.function_app_directory)
        elif kind == "invocation_request":
            setattr(asyncio.current_task(), _INVOCATION_ID, request.invocation_id)
        envelope = SimpleNamespace(
            name=kind, request=message, properties={"protos": self._protos, "host": "127.0.0.1"}
        )
        answer = await getattr(self._library, kind)(envelope)
        self._send(request_id=message.request_id, **{_ANSWERS[kind]: answer})

    def _choose_library(self, directory: str) -> None:
        """The v2 library where the v2 model's one file is, else the v1 library."""
        script = os.environ.get("PYTHON_SCRIPT_FILE_NAME", "function_app.py")
        is_v2 = (Path(directory) / script).exists()
        name = "azure_functions_runtime" if is_v2 else "azure_functions_runtime_v1"
        self._library = importlib.import_module(name)
        self._library.start_threadpool_executor()

    def _send(self, **content: Any) -> None:
        self._outgoing.put(self._protos.StreamingMessage(**content))


class _HostLog(logging.Handler):
    """Hands every line on to the host; what is printed goes to standard output instead."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.log(record, self.format(record))


def main() -> None:
    """Arguments: the port of the host, and the id under which it expects this worker."""
    # Instead of this script's directory, which is no part of an application.
    sys.path[0] = os.environ.get("AzureWebJobsScriptRoot", os.devnull)  # noqa: SIM112  # its name
    worker = _Worker(int(sys.argv[1]), sys.argv[2])
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(_HostLog(worker))
    asyncio.run(worker.run())


if __name__ == "__main__":
    main()
