"""Azure's host around its own worker libraries: indexes an application and invokes its functions.

Three processes: this one, which plays the host; the worker (``programs/worker.py``), which is
Azure's code but for a thin shell; and between them the host's end of their gRPC stream
(``programs/grpc_server.py``), so that only the worker's interpreter needs grpcio.
"""

from __future__ import annotations

import threading
import uuid
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from doow_serverless.local._runtime import Runtime
from doow_serverless.local._sandbox import Sandbox
from doow_serverless.local.azure.application import PROGRAMS, Application, platform_settings
from doow_serverless.local.azure.bridge import Bridge
from doow_serverless.local.azure.function_index import FunctionIndex
from doow_serverless.local.azure.invocation import AzureHostError, HttpResponse, Invocation, Log
from doow_serverless.local.azure.messages import typed_data
from doow_serverless.local.azure.streaming import HttpExchange, fetch
from doow_serverless.local.azure.triggers import HttpRequest, Trigger, http_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from doow_serverless.local._output import Output

__all__ = [
    "AzureHost",
    "AzureHostError",
    "HttpExchange",
    "HttpRequest",
    "HttpResponse",
    "Invocation",
    "Log",
    "Trigger",
    "http_request",
]

_TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class WorkerSandbox(Sandbox):
    """One worker process, from its start to its death.

    Args:
        output: Takes what the worker writes.
        died: Called when the process has ended.
    """

    def __init__(self, output: Output, died: Callable[[], None]) -> None:
        super().__init__(output)
        self._died = died

    def _ended(self) -> None:
        self._died()


class AzureHost(Runtime[WorkerSandbox]):
    """Runs an application under Azure's worker library, and plays the host to it.

    A worker that was killed, or that died, is replaced at the next invocation, as Azure does.

    Args:
        app_directory: Where ``function_app.py`` is, or the directories with a ``function.json``.
        python: An interpreter of an environment made of ``requirements/azure.txt``.
        model: "v2", functions declared by decorators, or "v1", by ``function.json`` files.
        env: The application's settings. Nothing is inherited from this process but PATH.
        placeholder: Start the worker without the application and its settings, which then come
            in a second message: how the Consumption plan makes a warm spare into an application.
    """

    _error_type = AzureHostError

    def __init__(
        self,
        app_directory: str | Path,
        *,
        python: str | Path,
        model: Literal["v2", "v1"],
        env: Mapping[str, str] | None = None,
        placeholder: bool = False,
    ) -> None:
        super().__init__()
        directory = Path(app_directory).resolve()
        self._application = Application(
            directory=directory,
            model=model,
            settings={**platform_settings(directory), **(env or {})},
            placeholder=placeholder,
        )
        self._python = str(Path(python).absolute())  # not resolved: a link into an environment
        self._index = FunctionIndex()
        self._starting = threading.RLock()
        self._bridge = Bridge(self._python)

    def _start(self) -> None:
        self._bridge.start()
        self._ready_worker()

    def close(self) -> None:
        """Kill the worker, as the host does, and end the bridge."""
        self.kill()
        super().close()
        self._bridge.close()

    def kill(self) -> None:
        """SIGKILL, and wait for the end; what is under way fails."""
        with self._starting:
            if self._sandbox is not None:
                self._sandbox.kill()
                self._bridge.end()

    @property
    def functions(self) -> dict[str, list[dict[str, Any]]]:
        """The bindings of each function that was loaded, by its name.

        As the worker reported them, or as ``function.json`` says.
        """
        return self._index.functions

    @property
    def index_error(self) -> str | None:
        """Why functions could not be indexed or loaded; else None."""
        return self._index.error

    @property
    def http_uri(self) -> str | None:
        """The worker's own HTTP server, if the application streams; else None."""
        return self._index.http_uri

    def invoke(
        self,
        name: str,
        inputs: Mapping[str, Any],
        *,
        trigger_metadata: Mapping[str, Any] | None = None,
        retry: tuple[int, int] | None = None,
        kill: bool = False,
        timeout_s: float = 30.0,
    ) -> Invocation:
        """Invoke a function and wait for the answer; any number may be under way at a time.

        Args:
            name: One of :attr:`functions`.
            inputs: By the name of the binding: a :class:`Trigger` from one of the builders, or
                the bare value of an input binding.
            trigger_metadata: More of it; wins over the trigger's own.
            retry: The number of this retry and how many there may be, under a retry policy.
            kill: SIGKILL the worker in the very moment in which the answer arrives.
            timeout_s: For how long to wait, in seconds.

        Raises:
            AzureHostError: There is no such function, the worker died or did not answer in time.
        """
        worker = self._ready_worker()
        request = self._request(name, inputs, trigger_metadata, retry)
        started = self._bridge.invoke(request, kill=worker.pid if kill else None)
        invocation = self._wait(started, name, timeout_s)
        if kill:
            self.kill()
        return invocation

    def start(
        self,
        name: str,
        inputs: Mapping[str, Any],
        *,
        trigger_metadata: Mapping[str, Any] | None = None,
        retry: tuple[int, int] | None = None,
    ) -> Future[Invocation]:
        """Like :meth:`invoke`, but do not wait."""
        self._ready_worker()
        return self._bridge.invoke(self._request(name, inputs, trigger_metadata, retry))

    def http(
        self,
        name: str,
        method: str = "GET",
        path: str = "/",
        *,
        trigger: str = "req",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        route_params: Mapping[str, str] | None = None,
        kill: bool = False,
        timeout_s: float = 30.0,
    ) -> HttpExchange:
        """Invoke an HTTP function over the worker's HTTP server, as for an app that streams.

        ``trigger`` is the name of the trigger's binding; ``kill`` sends SIGKILL to the worker as
        soon as the body is complete and the invocation has ended: the host waits for both.
        """
        self._ready_worker()
        if self.http_uri is None:
            raise AzureHostError("the application does not stream: the worker named no HttpUri")
        # The message carries the route's parameters only; all else comes with the request.
        inputs = {trigger: HttpRequest("", "", {}, b"", route_params or {})}
        asked = self._request(name, inputs, None, None)
        started = self._bridge.invoke(asked)
        fields = {**(headers or {}), "x-ms-invocation-id": asked["invocationId"]}
        reply = fetch(self.http_uri, method, path, headers=fields, body=body, timeout_s=timeout_s)
        invocation = self._wait(started, name, timeout_s)
        if kill:
            self.kill()
        return HttpExchange(**vars(reply), invocation=invocation)

    def _request(
        self,
        name: str,
        inputs: Mapping[str, Any],
        trigger_metadata: Mapping[str, Any] | None,
        retry: tuple[int, int] | None,
    ) -> dict[str, Any]:
        """The message that asks for an invocation."""
        metadata = {
            key: value
            for trigger in inputs.values()
            if isinstance(trigger, Trigger)
            for key, value in trigger.metadata.items()
        }
        metadata.update(trigger_metadata or {})
        request: dict[str, Any] = {
            "invocationId": str(uuid.uuid4()),
            "functionId": self._index.id_of(name),
            "inputData": [{"name": key, "data": typed_data(inputs[key])} for key in inputs],
            "triggerMetadata": {key: typed_data(metadata[key]) for key in metadata},
            "traceContext": {"traceParent": _TRACE_PARENT, "traceState": ""},
        }
        if retry is not None:
            request["retryContext"] = {"retryCount": retry[0], "maxRetryCount": retry[1]}
        return request

    def _wait(self, started: Future[Invocation], name: str, timeout_s: float) -> Invocation:
        try:
            return started.result(timeout_s)
        except AzureHostError as error:
            raise AzureHostError(f"{error}; {self._output.last_words()}") from None
        except futures.TimeoutError:  # before Python 3.11 not the built-in one
            raise AzureHostError(
                f"{name!r} did not answer within {timeout_s:g} s; {self._output.last_words()}"
            ) from None

    def _ready_worker(self) -> WorkerSandbox:
        with self._starting:
            if self._sandbox is not None and not self._bridge.ended.is_set():
                return self._sandbox
            self.kill()
            if self._sandbox is not None:
                self._sandbox.close()
            app, worker_id = self._application, self._bridge.expect_worker()
            died = partial(self._bridge.end_unless_open, worker_id)
            worker = self._sandbox = WorkerSandbox(self._output, died)
            worker.launch(
                [self._python, str(PROGRAMS / "worker.py"), str(self._bridge.port), worker_id],
                app.worker_env,
                app.worker_directory,
            )
            self._index = FunctionIndex()
            try:
                self._index.introduce(self._bridge, app)
            except AzureHostError as error:
                self.kill()
                raise AzureHostError(f"{error}; {self._output.last_words()}") from None
            return worker
