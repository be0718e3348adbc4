"""Azure's host around its own worker libraries: indexes an application and invokes its functions.

Three processes: this one, which plays the host; the worker (``programs/worker.py``), which is
Azure's code but for a thin shell; and between them the host's end of their gRPC stream
(``programs/bridge.py``), so that only the worker's interpreter needs grpcio.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

_ROOT = Path(__file__).parents[3]
_PROGRAMS = Path(__file__).parent / "programs"
START_LIMIT_S = 60.0
_TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class AzureHostError(RuntimeError):
    """The worker could not be started, died, or did not answer in time."""


def pythons() -> list[Path]:
    """The interpreters of the workers' environments, the oldest first.

    Where there are none, one that is missing: then the tests fail that need it, and say why.
    """
    found = _ROOT.glob(".venv-azure-3.*/bin/python")
    by_version = sorted(found, key=lambda path: int(path.parts[-3].rpartition(".")[2]))
    return by_version or [_ROOT / ".venv-azure-3.x" / "bin" / "python"]


@dataclass(frozen=True)
class Failure:
    """What the worker reports of an exception."""

    type: str
    message: str
    stack: str


@dataclass(frozen=True)
class Log:
    """A line that the application logged; its level is "Information", "Warning", …."""

    level: str
    category: str
    message: str


@dataclass(frozen=True)
class HttpResponse:
    """What an HTTP function answers."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Invocation:
    """What became of one invocation.

    Attributes:
        id: What the function saw as ``context.invocation_id``.
        return_value: str, bytes, a number, what JSON text stands for, or an HttpResponse.
        outputs: The output bindings that were set, by name.
        error: None when the invocation succeeded.
        logs: The lines of the application's own loggers.
        duration_s: From the request's way to the worker until the arrival of its answer.
        responded_at: When the answer arrived, in seconds on the monotonic clock.
    """

    id: str
    return_value: Any
    outputs: dict[str, Any]
    error: Failure | None
    logs: list[Log]
    duration_s: float
    responded_at: float

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


@dataclass(frozen=True)
class HttpExchange:
    """A request over the worker's own HTTP server, and the invocation that went with it.

    Attributes:
        chunks: The body as it arrived, each part with its moment on the monotonic clock.
        complete: Whether the body came to its end, as it does not when its iterator raises.
    """

    invocation: Invocation
    status: int
    headers: dict[str, str]
    chunks: list[tuple[float, bytes]]
    complete: bool

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(chunk for _, chunk in self.chunks)


@dataclass(frozen=True)
class Trigger:
    """What the host sends along with the trigger of an invocation; see the builders below."""

    value: Any
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """A request as it travels in a message; see :func:`http_request`."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    route_params: Mapping[str, str]


def http_request(
    method: str = "GET",
    url: str = "http://localhost/api/",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    route_params: Mapping[str, str] | None = None,
) -> Trigger:
    """An HTTP trigger."""
    return Trigger(HttpRequest(method, url, headers or {}, body, route_params or {}))


def timer(*, past_due: bool = False) -> Trigger:
    """A timer trigger."""
    status = {"Last": _moment(), "Next": _moment(300), "LastUpdated": _moment()}
    schedule = {"AdjustForDST": True}
    return Trigger({"Schedule": schedule, "ScheduleStatus": status, "IsPastDue": past_due})


def queue_message(
    body: str = "hello",
    *,
    id: str = "8d1c5a3e-0000-4000-8000-000000000001",
    dequeue_count: int = 1,
    pop_receipt: str = "AgAAAAMAAAAAAAAA",
) -> Trigger:
    """A message of a storage queue."""
    return Trigger(
        body,
        {
            "QueueTrigger": body,
            "Id": id,
            "DequeueCount": dequeue_count,
            "PopReceipt": pop_receipt,
            "InsertionTime": _moment(),
            "ExpirationTime": _moment(604800),
            "NextVisibleTime": _moment(600),
        },
    )


def service_bus_message(
    body: str = "hello", *, message_id: str = "m-1", delivery_count: int = 1
) -> Trigger:
    """A message of a Service Bus queue or topic, one at a time."""
    return Trigger(
        body,
        {
            "MessageId": message_id,
            "DeliveryCount": delivery_count,
            "SequenceNumber": 17,
            "EnqueuedTimeUtc": _moment(),
            "LockToken": "00000000-0000-0000-0000-0000000000a1",
            "UserProperties": {},
            "ApplicationProperties": {},
        },
    )


def service_bus_messages(bodies: Sequence[str], *, message_ids: Sequence[str]) -> Trigger:
    """A batch of Service Bus messages, for a trigger of the cardinality "many"."""
    count = len(bodies)
    return Trigger(
        list(bodies),
        {
            "MessageIdArray": list(message_ids),
            "DeliveryCountArray": [1] * count,
            "SequenceNumberArray": list(range(count)),
            "EnqueuedTimeUtcArray": [_moment()] * count,
            "LockTokenArray": [str(uuid.UUID(int=n)) for n in range(count)],
            "UserPropertiesArray": [{}] * count,
            "ApplicationPropertiesArray": [{}] * count,
        },
    )


def event_hub_event(
    body: str = "hello", *, partition: str = "0", sequence_number: int = 1
) -> Trigger:
    """An event of an Event Hub, for a trigger of the cardinality "one"."""
    properties = _event_properties(sequence_number)
    return Trigger(
        body,
        {
            **properties,
            "PartitionContext": _partition_context(partition),
            "Properties": {},
            "SystemProperties": properties,
        },
    )


def event_hub_events(
    bodies: Sequence[str], *, partition: str = "0", first_sequence_number: int = 1
) -> Trigger:
    """Events of one partition of an Event Hub, for a trigger of the cardinality "many"."""
    properties = [_event_properties(first_sequence_number + n) for n in range(len(bodies))]
    return Trigger(
        list(bodies),
        {
            "PartitionContext": _partition_context(partition),
            "PropertiesArray": [{}] * len(bodies),
            "SystemPropertiesArray": properties,
            **{f"{name}Array": [each[name] for each in properties] for name in properties[0]},
        },
    )


def blob(content: bytes = b"hello", *, name: str = "container/blob.txt") -> Trigger:
    """A blob."""
    return Trigger(
        content,
        {
            "BlobTrigger": name,
            "Uri": f"https://account.blob.core.windows.net/{name}",
            "Properties": {"ContentLength": len(content), "ETag": "0x8D"},
            "Metadata": {},
        },
    )


def cosmos_documents(*documents: Mapping[str, Any]) -> Trigger:
    """A batch of the change feed of Cosmos DB."""
    return Trigger([dict(document) for document in documents])


def event_grid_event(data: Mapping[str, Any] | None = None, *, id: str = "e-1") -> Trigger:
    """An Event Grid event, in its own schema."""
    return Trigger(
        {
            "id": id,
            "topic": "/subscriptions/0/topics/t",
            "subject": "subject",
            "eventType": "Test.Happened",
            "eventTime": _moment(),
            "data": dict(data or {}),
            "dataVersion": "1.0",
        }
    )


def durable_client() -> str:
    """The text from which a durable client is made; no durable extension listens there."""
    return json.dumps(
        {
            "taskHubName": "hub",
            "creationUrls": {"createNewInstancePostUri": "http://127.0.0.1:1/{functionName}"},
            "managementUrls": {"id": "INSTANCEID"},
            "baseUrl": "http://127.0.0.1:1",
            "requiredQueryStringParameters": "",
            "rpcBaseUrl": "http://127.0.0.1:1/",
        }
    )


def orchestration(input: object = None, *, instance_id: str = "i-1") -> Trigger:
    """The first episode of an orchestration."""
    event = {"EventId": -1, "IsPlayed": False, "Timestamp": _moment()}
    history = [
        {**event, "EventType": 12},
        {**event, "EventType": 0, "Name": "o", "Version": "", "Input": json.dumps(input)},
    ]
    state = {
        "instanceId": instance_id,
        "isReplaying": False,
        "parentInstanceId": None,
        "input": json.dumps(input),
        "upperSchemaVersion": 2,
        "history": history,
    }
    return Trigger(json.dumps(state))


def entity(operation: str, input: object = None) -> Trigger:
    """A batch of one operation on an entity that has no state yet."""
    serialized = json.dumps(json.dumps(input))  # once by the caller, and once by the extension
    batch = {
        "self": {"name": "entity", "key": "k"},
        "exists": False,
        "state": None,
        "batch": [{"name": operation, "signal": False, "input": serialized, "id": "1"}],
    }
    return Trigger(json.dumps(batch))


def _moment(offset_s: int = 0) -> str:
    seconds = time.time() + offset_s
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def _event_properties(sequence_number: int) -> dict[str, Any]:
    return {
        "SequenceNumber": sequence_number,
        "Offset": str(sequence_number * 100),
        "PartitionKey": "key",
        "EnqueuedTimeUtc": _moment(),
    }


def _partition_context(partition: str) -> dict[str, Any]:
    return {
        "EventHubName": "hub",
        "ConsumerGroup": "$Default",
        "FullyQualifiedNamespace": "namespace.servicebus.windows.net",
        "PartitionId": partition,
    }


class AzureHost:
    """Runs an application under Azure's worker library, and plays the host to it.

    A worker that was killed, or that died, is replaced at the next invocation, as Azure does.

    Args:
        app_directory: Where ``function_app.py`` is, or the directories with a ``function.json``.
        python: An interpreter of an environment made of ``requirements/azure.txt``.
        model: "v2", functions declared by decorators, or "v1", by ``function.json`` files.
        env: The application's settings. Nothing is inherited from this process but PATH.
        placeholder: Start the worker without the application and its settings, which then come
            in a second message: how the Consumption plan makes a warm spare into an application.

    Attributes:
        functions: The bindings of each function that was loaded, by its name, as the worker
            reported them, or as ``function.json`` says.
        index_error: Why functions could not be indexed or loaded; else None.
        http_uri: The worker's own HTTP server, if the application streams; else None.
    """

    def __init__(
        self,
        app_directory: str | Path,
        *,
        python: str | Path,
        model: Literal["v2", "v1"],
        env: Mapping[str, str] | None = None,
        placeholder: bool = False,
    ) -> None:
        self.functions: dict[str, list[dict[str, Any]]] = {}
        self.index_error: str | None = None
        self.http_uri: str | None = None
        self._directory = Path(app_directory).resolve()
        self._python = str(Path(python).absolute())  # not resolved: a link into an environment
        self._model = model
        self._placeholder = placeholder
        self._env = {**_environment(self._directory), **(env or {})}
        self._starting = threading.RLock()
        self._metadata: dict[str, dict[str, Any]] = {}
        self._output = ""
        self._worker: _Worker | None = None
        self._bridge = _Bridge(self._python)

    def __enter__(self) -> Self:
        try:
            self._bridge.start()
            self._ready_worker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the worker, as the host does, and end the bridge."""
        self.kill()
        self._bridge.close()

    def kill(self) -> None:
        """SIGKILL, and wait for the end; what is under way fails."""
        with self._starting:
            if self._worker is not None:
                self._worker.kill()
                self._output += self._worker.close()
                self._worker = None
                self._bridge.end()

    @property
    def output(self) -> str:
        """Everything that the workers wrote to standard output and standard error."""
        return self._output + (self._worker.text() if self._worker is not None else "")

    @property
    def pid(self) -> int:
        """The worker that runs."""
        if self._worker is None:
            raise AzureHostError("no worker runs")
        return self._worker.pid

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
        server = urlsplit(self.http_uri)
        connection = http.client.HTTPConnection(
            server.hostname or "", server.port, timeout=timeout_s
        )
        with contextlib.closing(connection):
            fields = {**(headers or {}), "x-ms-invocation-id": asked["invocationId"]}
            _wait_for_listener(server.hostname or "", server.port or 80, timeout_s)
            connection.request(method, path, body=body, headers=fields)
            response = connection.getresponse()
            chunks = []
            complete = False
            with contextlib.suppress(http.client.IncompleteRead):
                while chunk := response.read1(65536):
                    chunks.append((time.monotonic(), chunk))
                complete = True
        invocation = self._wait(started, name, timeout_s)
        if kill:
            self.kill()
        fields = dict(response.getheaders())
        return HttpExchange(invocation, response.status, fields, chunks, complete)

    def _request(
        self,
        name: str,
        inputs: Mapping[str, Any],
        trigger_metadata: Mapping[str, Any] | None,
        retry: tuple[int, int] | None,
    ) -> dict[str, Any]:
        """The message that asks for an invocation."""
        if name not in self._metadata:
            known = ", ".join(self.functions) or "none"
            why = f"\n{self.index_error}" if self.index_error else ""
            raise AzureHostError(f"no function named {name!r} was loaded, but: {known}{why}")
        metadata = {
            key: value
            for trigger in inputs.values()
            if isinstance(trigger, Trigger)
            for key, value in trigger.metadata.items()
        }
        metadata.update(trigger_metadata or {})
        request: dict[str, Any] = {
            "invocationId": str(uuid.uuid4()),
            "functionId": self._metadata[name]["functionId"],
            "inputData": [{"name": key, "data": _typed_data(inputs[key])} for key in inputs],
            "triggerMetadata": {key: _typed_data(metadata[key]) for key in metadata},
            "traceContext": {"traceParent": _TRACE_PARENT, "traceState": ""},
        }
        if retry is not None:
            request["retryContext"] = {"retryCount": retry[0], "maxRetryCount": retry[1]}
        return request

    def _wait(self, started: Future[Invocation], name: str, timeout_s: float) -> Invocation:
        try:
            return started.result(timeout_s)
        except AzureHostError as error:
            raise AzureHostError(f"{error}; it wrote:\n{self.output[-2000:]}") from None
        except futures.TimeoutError:  # before Python 3.11 not the built-in one
            raise AzureHostError(
                f"{name!r} did not answer within {timeout_s:g} s; the worker wrote:\n"
                f"{self.output[-2000:]}"
            ) from None

    def _ready_worker(self) -> _Worker:
        with self._starting:
            if self._worker is not None and not self._bridge.ended.is_set():
                return self._worker
            self.kill()
            worker_id = self._bridge.expect_worker()
            env = self._env
            if self._placeholder:
                env = {"PATH": os.environ["PATH"], "WEBSITE_PLACEHOLDER_MODE": "1"}
            cwd = _PROGRAMS if self._placeholder else self._directory
            command = [self._python, str(_PROGRAMS / "worker.py"), str(self._bridge.port)]
            command.append(worker_id)
            died = partial(self._bridge.end_unless_open, worker_id)
            self._worker = _Worker(command, env, cwd, died)
            try:
                self._introduce()
            except AzureHostError as error:
                self.kill()
                raise AzureHostError(f"{error}; the worker wrote:\n{self._output}") from None
            return self._worker

    def _introduce(self) -> None:
        """Go through what the host and a new worker have to say before the first invocation."""
        ask = self._bridge.ask
        self.functions, self._metadata, self.index_error = {}, {}, None
        self._bridge.wait_for_worker()
        directory = str(self._directory)
        init = ask(
            "workerInitRequest",
            {
                "hostVersion": "4.1037.0",
                "workerDirectory": str(_PROGRAMS),
                "functionAppDirectory": "" if self._placeholder else directory,
                "capabilities": {"V2Compatable": "true"},
            },
            "workerInitResponse",
        )
        if self._placeholder:
            reload = {"environmentVariables": self._env, "functionAppDirectory": directory}
            init = ask(
                "functionEnvironmentReloadRequest", reload, "functionEnvironmentReloadResponse"
            )
        if (failure := _failure(init)) is not None:
            self.index_error = f"{failure.type}: {failure.message}\n{failure.stack}"
            return
        self.http_uri = init.get("capabilities", {}).get("HttpUri")
        answer = ask(
            "functionsMetadataRequest",
            {"functionAppDirectory": directory},
            "functionMetadataResponse",
        )
        by_files = answer.get("useDefaultMetadataIndexing", False)
        if by_files != (self._model == "v1"):
            raise AzureHostError(f"{directory} is no application of the {self._model} model")
        self._load(
            _function_json(self._directory) if by_files else answer["functionMetadataResults"]
        )

    def _load(self, functions: list[dict[str, Any]]) -> None:
        errors = []
        for metadata in functions:
            request = {"functionId": metadata["functionId"], "metadata": metadata}
            loaded = self._bridge.ask("functionLoadRequest", request, "functionLoadResponse")
            if (failure := _failure(loaded)) is not None:
                errors.append(f"{failure.type}: {failure.message}\n{failure.stack}")
                continue
            name = metadata["name"]
            self._metadata[name] = metadata
            self.functions[name] = [json.loads(each) for each in metadata["rawBindings"]]
        self.index_error = "\n".join(errors) or None


def _wait_for_listener(host: str, port: int, timeout_s: float) -> None:
    """The worker names its server before that listens."""
    ends_at = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=timeout_s).close()
        except ConnectionRefusedError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.01)
        else:
            return


def _environment(directory: Path) -> dict[str, str]:
    """What the platform sets for every application, as far as it concerns one."""
    return {
        "AzureWebJobsScriptRoot": str(directory),
        "AZURE_FUNCTIONS_ENVIRONMENT": "Production",
        "FUNCTIONS_EXTENSION_VERSION": "~4",
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "HOME": "/home",
        "LANG": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "WEBSITE_HOSTNAME": "doow-local.azurewebsites.net",
        "WEBSITE_INSTANCE_ID": "0" * 32,
        "WEBSITE_SITE_NAME": "doow-local",
    }


def _function_json(directory: Path) -> list[dict[str, Any]]:
    """What the host itself reads for the v1 model: each ``function.json``, in its message form."""
    found = []
    for path in sorted(directory.glob("*/function.json")):
        declared = json.loads(path.read_text())
        script = path.parent / declared.get("scriptFile", "__init__.py")
        found.append(
            {
                "name": path.parent.name,
                "functionId": str(uuid.uuid5(uuid.NAMESPACE_OID, path.parent.name)),
                "directory": str(path.parent),
                "scriptFile": str(script),
                "entryPoint": declared.get("entryPoint", ""),
                "language": "python",
                "bindings": {
                    binding["name"]: {
                        "type": binding["type"],
                        "direction": binding.get("direction", "in"),
                        "dataType": binding.get("dataType", "undefined"),
                    }
                    for binding in declared["bindings"]
                },
                "rawBindings": [json.dumps(binding) for binding in declared["bindings"]],
            }
        )
    return found


def _typed_data(value: Any) -> dict[str, Any]:
    """A value in its message form, by the host's rules: what has no form of its own is JSON."""
    if isinstance(value, Trigger):
        return _typed_data(value.value)
    if value is None:
        return {}
    if isinstance(value, HttpRequest):
        return {"http": _rpc_http(value)}
    if isinstance(value, str):
        return {"string": value}
    if isinstance(value, bytes):
        return {"bytes": _base64(value)}
    if isinstance(value, float):
        return {"double": value}
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return {"collectionString": {"string": value}}
    if isinstance(value, list) and value and all(isinstance(each, bytes) for each in value):
        return {"collectionBytes": {"bytes": [_base64(each) for each in value]}}
    return {"json": json.dumps(value)}


def _rpc_http(request: HttpRequest) -> dict[str, Any]:
    message: dict[str, Any] = {
        "method": request.method,
        "url": request.url,
        "headers": {key.lower(): value for key, value in request.headers.items()},
        "params": dict(request.route_params),
        "query": dict(parse_qsl(urlsplit(request.url).query)),
    }
    if request.body:  # bytes, since the worker asks for them (RawHttpBodyBytes)
        message["body"] = {"bytes": _base64(request.body)}
    return message


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _value(data: dict[str, Any]) -> Any:
    """What a message form stands for; 64-bit integers arrive as text."""
    decode: dict[str, Callable[[Any], Any]] = {
        "string": str,
        "json": json.loads,
        "bytes": base64.b64decode,
        "int": int,
        "double": float,
        "http": _http_response,
        "collectionString": lambda collection: collection.get("string", []),
    }
    for kind, value in data.items():
        return decode[kind](value)
    return None


def _http_response(message: dict[str, Any]) -> HttpResponse:
    body = _value(message.get("body", {})) or b""
    return HttpResponse(
        status=int(message["statusCode"]),
        headers=message.get("headers", {}),
        body=body.encode() if isinstance(body, str) else body,
        cookies=message.get("cookies", []),
    )


def _failure(answer: dict[str, Any]) -> Failure | None:
    """The exception in an answer, unless it reports success."""
    if answer["result"].get("status") == "Success":
        return None
    exception = answer["result"].get("exception", {})
    kind, _, message = exception.get("message", "").partition(": ")
    return Failure(kind, message, exception.get("stackTrace", ""))


class _Worker:
    """One worker process, from its start to its death; its output is read by a thread."""

    def __init__(
        self,
        command: list[str],
        env: Mapping[str, str],
        cwd: Path,
        died: Callable[[], None],
    ) -> None:
        self._text: list[bytes] = []
        self._died = died
        # A group of its own, so that what the application starts is killed with it.
        self._process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._pump, name="azure-worker", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def text(self) -> str:
        return b"".join(self._text).decode(errors="replace")

    def kill(self) -> None:
        # Its group may be gone already; macOS then says that the signal is not permitted.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> str:
        """Wait for the end of the killed process, and return what it wrote."""
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self.text()

    def _pump(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), 65536):
            self._text.append(chunk)
        self._died()


class _Bridge:
    """The process with the gRPC server, and what is awaited from the worker at its other end."""

    def __init__(self, python: str) -> None:
        self.port = 0
        self.ended = threading.Event()
        self._python = python
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._read, name="azure-bridge", daemon=True)
        self._lock = threading.Lock()
        self._worker = ""
        self._awaited: dict[tuple[str, str], Future[Any]] = {}
        self._logs: dict[str, list[Log]] = {}

    def start(self) -> None:
        """Start the server, and learn its port."""
        if not Path(self._python).exists():
            raise AzureHostError(
                f"there is no {self._python}; `make test` makes an environment .venv-azure-3.* of"
                " each Python from 3.10 to 3.13 that it finds"
            )
        self._process = subprocess.Popen(
            [self._python, str(_PROGRAMS / "bridge.py")],
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise AzureHostError(
                f"{self._python} has not what requirements/azure.txt and azure-runtime.txt list:\n"
                f"{self._process.stderr.read()}"
            )
        self.port = json.loads(line)["port"]
        self._thread.start()

    def close(self) -> None:
        """End the server, by the end of its input."""
        if self._process is None:
            return
        with self._process:  # closes its pipes, and waits
            assert self._process.stdin is not None
            self._process.stdin.close()
            if self._thread.ident is not None:
                self._thread.join()

    def expect_worker(self) -> str:
        """Forget the last worker, and return the id under which the next has to come."""
        with self._lock:
            self.ended.clear()
            self._worker = str(uuid.uuid4())
            self._opened: Future[Any] = Future()
            self._awaited = {("startStream", self._worker): self._opened}
            self._logs = {}
            return self._worker

    def wait_for_worker(self) -> None:
        """Until it opens its stream."""
        self._result(self._opened, "the start of the worker")

    def end_unless_open(self, worker: str) -> None:
        """A process is gone; the end of an open stream comes after all that it carried."""
        if not self._opened.done():
            self.end(worker)

    def ask(self, kind: str, content: dict[str, Any], answer: str) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        future = self._await(answer, content.get("functionId", ""))
        self._send({"requestId": str(uuid.uuid4()), kind: content})
        reply: dict[str, Any] = self._result(future, answer)["message"][answer]
        return reply

    def invoke(self, request: dict[str, Any], *, kill: int | None = None) -> Future[Invocation]:
        """Send an invocation, and whom to kill as soon as its answer arrives."""
        invocation_id = request["invocationId"]
        self._logs[invocation_id] = []
        answered = self._await("invocationResponse", invocation_id)
        outcome: Future[Invocation] = Future()

        def settle(future: Future[Any]) -> None:
            if (error := future.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(self._outcome(invocation_id, future.result()))

        answered.add_done_callback(settle)
        self._send({"requestId": invocation_id, "invocationRequest": request}, kill=kill)
        return outcome

    def end(self, worker: str | None = None) -> None:
        """The worker, if it is this one, is gone: nothing that is still awaited will come."""
        with self._lock:
            if worker not in {None, self._worker}:
                return
            self.ended.set()
            awaited, self._awaited = self._awaited, {}
        for future in awaited.values():
            future.set_exception(AzureHostError("the worker died"))

    def _outcome(self, id: str, line: dict[str, Any]) -> Invocation:
        answer = line["message"]["invocationResponse"]
        return Invocation(
            id=id,
            return_value=_value(answer.get("returnValue", {})),
            outputs={each["name"]: _value(each["data"]) for each in answer.get("outputData", [])},
            error=_failure(answer),
            logs=self._logs.pop(id),
            duration_s=line["received_at"] - line["sent_at"],
            responded_at=line["received_at"],
        )

    def _result(self, future: Future[Any], what: str) -> Any:
        try:
            return future.result(START_LIMIT_S)
        except futures.TimeoutError:  # before Python 3.11 not the built-in one
            raise AzureHostError(f"waited {START_LIMIT_S:g} s in vain for {what}") from None

    def _await(self, kind: str, id: str) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self.ended.is_set():
                raise AzureHostError("the worker died")
            self._awaited[kind, id] = future
        return future

    def _send(self, message: dict[str, Any], *, kill: int | None = None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps({"message": message, "kill": kill})
        with self._lock:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            if line.get("ended"):
                self.end(line["worker"])
            elif "rpcLog" in line["message"]:
                self._log(line["message"]["rpcLog"])
            else:
                self._settle(line)
        self.end()

    def _settle(self, line: dict[str, Any]) -> None:
        message = line["message"]
        kind = next(key for key in message if key != "requestId")
        ids = (message[kind].get(key) for key in ("invocationId", "functionId", "workerId"))
        with self._lock:
            if line["worker"] != self._worker:  # one that was replaced
                return
            future = self._awaited.pop((kind, next(filter(None, ids), "")), None)
        if future is not None:
            future.set_result(line)

    def _log(self, log: dict[str, Any]) -> None:
        """Keep an application's line; one that comes after the answer belongs to nobody."""
        lines = self._logs.get(log.get("invocationId", ""))
        if lines is not None and log.get("logCategory", "User") == "User":
            lines.append(Log(log.get("level", "Trace"), log["category"], log["message"]))
