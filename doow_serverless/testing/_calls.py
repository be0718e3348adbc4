"""Calls as the platforms make them, in this process: contexts, events, requests."""

from __future__ import annotations

import asyncio
import io
import json
import time
import uuid
from email.message import Message
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.server import BaseHTTPRequestHandler

_REGION, _ACCOUNT = "us-east-1", "123456789012"


class LambdaContext:
    """The context of one invocation, whose time passes from when it is made."""

    def __init__(self, remaining_ms: float, request_id: str | None, function_name: str) -> None:
        self.aws_request_id = request_id or str(uuid.uuid4())
        self.function_name = function_name
        self.function_version = "$LATEST"
        self.invoked_function_arn = f"arn:aws:lambda:{_REGION}:{_ACCOUNT}:function:{function_name}"
        self.memory_limit_in_mb = "128"  # A text, as Lambda has it.
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = "test"
        self.identity = None
        self.client_context = None
        self._ends_at = time.monotonic() + remaining_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the deadline; 0 once it is over."""
        return max(0, int((self._ends_at - time.monotonic()) * 1000))

    def __repr__(self) -> str:
        return f"LambdaContext({self.function_name!r}, {self.get_remaining_time_in_millis()} ms)"


def lambda_context(
    remaining_ms: float = 30_000, *, request_id: str | None = None, function_name: str = "test"
) -> LambdaContext:
    """What Lambda passes as ``context``.

    Args:
        remaining_ms: Milliseconds until the deadline, from now on.
        request_id: What names the invocation; the same for one that is tried again. Default: one of
            its own.
        function_name: The function's.
    """
    return LambdaContext(remaining_ms, request_id, function_name)


def api_gateway_event(
    method: str = "GET",
    path: str = "/",
    *,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    path_parameters: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The event of an HTTP API (payload 2.0), which function URLs send as well.

    Args:
        method: The method.
        path: The path.
        body: A text, or what JSON can say.
        headers: With names in lower case.
        query: Parameters of the query.
        path_parameters: What the route has found in the path.
    """
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    found = {"content-type": "application/json"} if text is not body else {}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "&".join(f"{name}={value}" for name, value in (query or {}).items()),
        "headers": {**found, **(headers or {})},
        "queryStringParameters": dict(query or {}),
        "pathParameters": dict(path_parameters or {}),
        "requestContext": {
            "accountId": _ACCOUNT,
            "requestId": str(uuid.uuid4()),
            "stage": "$default",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1",
                     "sourceIp": "127.0.0.1", "userAgent": "test"},
        },
        "body": text,
        "isBase64Encoded": False,
    }  # fmt: skip


def sqs_event(*bodies: object, queue: str = "test") -> dict[str, Any]:
    """The event of messages of a queue, each with an id of its own.

    Args:
        *bodies: Of each a text, or what JSON can say.
        queue: The name of the queue.
    """
    return {
        "Records": [
            {
                "messageId": str(uuid.uuid4()),
                "receiptHandle": "test",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"ApproximateReceiveCount": "1"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{queue}",
                "awsRegion": _REGION,
            }
            for body in bodies
        ]
    }


# ── Vercel, and whatever else serves HTTP ───────────────────────────────────────────────────────


class Response(NamedTuple):
    """What a handler has answered.

    Attributes:
        status: The status.
        headers: By their names in lower case.
        body: The body.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def call_handler(
    handler: type[BaseHTTPRequestHandler],
    method: str = "GET",
    path: str = "/",
    *,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Have a class of ``BaseHTTPRequestHandler`` answer one request, as Vercel does.

    Args:
        handler: The class, tracked or not.
        method: The method.
        path: The path, with its query.
        body: Bytes, a text, or what JSON can say.
        headers: More of them, such as ``x-vercel-id``.
    """
    content = _bytes(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append("Connection: close")
    sent = "\r\n".join([*lines, "", ""]).encode("latin-1") + content

    class Connection:
        """The socket of the request."""

        def __init__(self) -> None:
            self.answer = bytearray()

        def makefile(self, *_: object, **__: object) -> io.BytesIO:
            return io.BytesIO(sent)

        def sendall(self, data: bytes) -> None:
            self.answer += data

    connection: Any = Connection()
    handler(connection, ("127.0.0.1", 0), None)  # type: ignore[arg-type]  # it has no server
    head, _, answer = bytes(connection.answer).partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    found = Message()
    for line in rest:
        name, _, value = line.partition(":")
        found[name] = value.strip()
    return Response(int(first.split()[1]), _lower(found.items()), answer)


def call_wsgi(
    app: Callable[..., Any],
    method: str = "GET",
    path: str = "/",
    *,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Have a WSGI application answer one request; its response is read to its end, and closed.

    Args:
        app: The application, tracked or not.
        method: The method.
        path: The path, with its query.
        body: Bytes, a text, or what JSON can say.
        headers: More of them.
    """
    from wsgiref.util import setup_testing_defaults

    content = _bytes(body)
    place, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": place,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content),
    }
    for name, value in (headers or {}).items():
        known = name.upper().replace("-", "_")
        environ[known if known == "CONTENT_TYPE" else f"HTTP_{known}"] = value
    setup_testing_defaults(environ)
    started: list[Any] = []

    def start_response(status: str, found: list[tuple[str, str]], *_: object) -> Any:
        started[:] = [int(status.split()[0]), _lower(found)]
        return written.extend

    written = bytearray()
    response = app(environ, start_response)
    try:
        for chunk in response:
            written += chunk
    finally:
        if hasattr(response, "close"):
            response.close()
    return Response(started[0], started[1], bytes(written))


def call_asgi(
    app: Callable[..., Any],
    method: str = "GET",
    path: str = "/",
    *,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Have an ASGI application answer one request, on an event loop of its own.

    Args:
        app: The application, tracked or not.
        method: The method.
        path: The path, with its query.
        body: Bytes, a text, or what JSON can say.
        headers: More of them.
    """
    place, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": place,
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
    }
    messages: list[dict[str, Any]] = []

    async def serve() -> None:
        asked = [{"type": "http.request", "body": _bytes(body), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if asked:
                return asked.pop()
            await asyncio.sleep(3600)  # The client stays until it has its answer.
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await app(scope, receive, send)

    asyncio.run(serve())
    [start] = (each for each in messages if each["type"] == "http.response.start")
    found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    content = b"".join(
        each.get("body", b"") for each in messages if each["type"] == "http.response.body"
    )
    return Response(start["status"], _lower(found), content)


# ── Azure Functions ─────────────────────────────────────────────────────────────────────────────


def azure_http_request(
    method: str = "GET",
    url: str = "http://localhost/api/test",
    *,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    route_params: Mapping[str, str] | None = None,
) -> Any:
    """An ``azure.functions.HttpRequest``, as the HTTP trigger passes it.

    Args:
        method: The method.
        url: The URL.
        body: Bytes, a text, or what JSON can say.
        headers: Headers.
        params: Parameters of the query.
        route_params: What the route has found in the path.

    Raises:
        ModuleNotFoundError: The package ``azure-functions`` is not installed.
    """
    from azure.functions import HttpRequest

    return HttpRequest(
        method, url, headers=headers, params=params, route_params=route_params, body=_bytes(body)
    )


def azure_queue_message(body: object = b"", *, id: str | None = None) -> Any:
    """An ``azure.functions.QueueMessage``, as the queue trigger passes it.

    Args:
        body: Bytes, a text, or what JSON can say.
        id: What names the message; the same for one that is delivered again. Default: one of its
            own.

    Raises:
        ModuleNotFoundError: The package ``azure-functions`` is not installed.
    """
    from azure.functions import QueueMessage

    return QueueMessage(id=id or str(uuid.uuid4()), body=_bytes(body))


def _bytes(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}
