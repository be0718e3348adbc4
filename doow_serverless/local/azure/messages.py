"""Values in the form in which they travel between host and worker: protobuf's JSON."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from doow_serverless.local.azure.invocation import Failure, HttpResponse
from doow_serverless.local.azure.triggers import HttpRequest, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable


def typed_data(value: Any) -> dict[str, Any]:
    """A value in its message form, by the host's rules: what has no form of its own is JSON."""
    if isinstance(value, Trigger):
        return typed_data(value.value)
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


def value_of(data: dict[str, Any]) -> Any:
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
    body = value_of(message.get("body", {})) or b""
    return HttpResponse(
        status=int(message["statusCode"]),
        headers=message.get("headers", {}),
        body=body.encode() if isinstance(body, str) else body,
        cookies=message.get("cookies", []),
    )


def failure_of(answer: dict[str, Any]) -> Failure | None:
    """The exception in an answer, unless it reports success."""
    if answer["result"].get("status") == "Success":
        return None
    exception = answer["result"].get("exception", {})
    kind, _, message = exception.get("message", "").partition(": ")
    return Failure(kind, message, exception.get("stackTrace", ""))
