"""What Doow's ingest accepts and answers: pure functions, to be read beside the protocol."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_EVENTS = 500
MAX_JSON_BYTES = 460_800
#: Bytes of one request on the wire that are read at all; a compressed body never needs more.
MAX_WIRE_BYTES = 10 * 1024 * 1024

_KEY = re.compile(r"dk_[0-9a-fA-F]{64}")
_OCCURRED_AT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, content: object, headers: Mapping[str, str] | None = None) -> Answer:
        """An answer whose body is JSON."""
        return cls(status, json.dumps(content).encode(), headers or {})


#: To a batch while another POST of it is being handled.
IN_FLIGHT = Answer.of(
    503,
    {"message": "this batch is being processed", "errorClass": "BatchInFlight"},
    {"Retry-After": "1"},
)


class Refused(Exception):
    """The whole request is refused."""

    def __init__(self, status: int, error_class: str, message: str, error: str = "") -> None:
        super().__init__(message)
        content = {"message": message, "errorClass": error_class}
        self.answer = Answer.of(status, {**content, "error": error} if error else content)


@dataclass(frozen=True)
class Batch:
    """A body that is a batch: addressable events, each to be judged on its own."""

    batch_id: str
    events: tuple[dict[str, Any], ...]
    sdk_version: str | None
    #: Of the JSON before compression: two bodies of one batch id must be equal.
    digest: str


@dataclass(frozen=True)
class Reading:
    """What could be read of a request, and why it is refused, if it is."""

    batch: Batch | None = None
    json_bytes: int | None = None
    refused: Refused | None = None


def is_key(key: str) -> bool:
    """Whether ``key`` has the form of an SDK key: ``dk_`` and 64 hex digits."""
    return _KEY.fullmatch(key) is not None


class Keys:
    """The keys that may send: those given, or with ``None`` any that is well formed."""

    def __init__(self, keys: Iterable[str] | None = None) -> None:
        self._accepted = None if keys is None else {self._checked(key) for key in keys}
        self._revoked: set[str] = set()

    @property
    def accepted(self) -> frozenset[str] | None:
        """The keys accepted now; ``None`` stands for any well-formed key but the revoked ones."""
        return None if self._accepted is None else frozenset(self._accepted - self._revoked)

    def add(self, key: str) -> None:
        """Accept ``key``, also if it was revoked."""
        self._revoked.discard(self._checked(key))
        if self._accepted is not None:
            self._accepted.add(key)

    def revoke(self, key: str) -> None:
        """Answer ``key`` with 401 from now on."""
        self._revoked.add(self._checked(key))

    def check(self, authorization: str | None) -> None:
        """Raise :class:`Refused` unless the header carries a key that is accepted."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Refused(401, "AuthenticationError", "Authorization: Bearer <key> is required")
        if not is_key(key):
            raise Refused(401, "AuthenticationError", "the key is malformed")
        if key in self._revoked or (self._accepted is not None and key not in self._accepted):
            raise Refused(401, "AuthenticationError", "the key is unknown or revoked")

    @staticmethod
    def _checked(key: str) -> str:
        if not is_key(key):
            # The value may be a real secret with a typing error: it is not repeated.
            raise ValueError("a key is dk_ and 64 hex digits")
        return key


def read(
    headers: Mapping[str, str], raw: bytes, *, max_json_bytes: int = MAX_JSON_BYTES
) -> Reading:
    """Read the body of ``POST /telemetry/events``; ``headers`` have lower-case names."""
    batch: Batch | None = None
    json_bytes: int | None = None
    try:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "UnsupportedMediaType", "Content-Type must be application/json")
        text = decode(raw, headers.get("content-encoding"), max_json_bytes)
        json_bytes = len(text)
        batch = _batch(text)
        if len(batch.events) > MAX_EVENTS:
            message = f"at most {MAX_EVENTS} events a batch"
            raise Refused(413, "PayloadTooLarge", message, "batch_too_large")
        version = headers.get("x-doow-sdk-version")
        if version and batch.sdk_version and version != batch.sdk_version:
            raise _invalid("X-Doow-SDK-Version differs from sdk_version of the body")
    except Refused as refused:
        return Reading(batch, json_bytes, refused)
    return Reading(batch, json_bytes)


def decode(raw: bytes, encoding: str | None, max_bytes: int) -> bytes:
    """The JSON of a body; never more than ``max_bytes`` of it are decompressed."""
    name = (encoding or "identity").strip().lower()
    if name == "gzip":
        return _gunzip(raw, max_bytes)
    if name != "identity":
        raise Refused(415, "UnsupportedMediaType", "Content-Encoding must be gzip or identity")
    if len(raw) > max_bytes:
        raise _too_large(max_bytes)
    return raw


def parse_json(text: bytes) -> Any:
    """Parse strictly: numbers stay exact (``int`` or ``Decimal``), NaN and Infinity are errors."""
    try:
        return json.loads(text.decode(), parse_float=Decimal, parse_constant=_no_constant)
    # Decimal has its own errors for absurd exponents, and deep nesting exhausts the parser.
    except (ValueError, ArithmeticError, RecursionError):
        raise _invalid("the body is not JSON") from None


def fault_of(event: Mapping[str, Any]) -> str | None:
    """Why the server rejects this one event, or ``None``."""
    return next((fault for check in _CHECKS if (fault := check(event))), None)


def _gunzip(raw: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        # One byte more than allowed is enough to know; a bomb is never unpacked.
        text = stream.decompress(raw, max_bytes + 1)
    except zlib.error:
        raise _invalid("the gzip body is corrupt") from None
    if len(text) > max_bytes:
        raise _too_large(max_bytes)
    if not stream.eof or stream.unused_data:
        raise _invalid("the gzip body is incomplete, or followed by something else")
    return text


def _batch(text: bytes) -> Batch:
    body = parse_json(text)
    if not isinstance(body, dict):
        raise _invalid("the body must be an object")
    batch_id, events, version = (body.get(k) for k in ("batch_id", "events", "sdk_version"))
    if not _is_text(batch_id):
        raise _invalid("batch_id is required, a string")
    if version is not None and not _is_text(version):
        raise _invalid("sdk_version must be a string")
    if not isinstance(events, list) or not events:
        raise _invalid("events is required, a list that is not empty")
    for position, event in enumerate(events):
        # A rejection names the event by its id: without one it can only be the batch's fault.
        if not isinstance(event, dict) or not _is_text(event.get("event_id")):
            raise _invalid(f"events[{position}] must be an object with an event_id, a string")
    return Batch(batch_id, tuple(events), version, hashlib.sha256(text).hexdigest())


def _invalid(message: str) -> Refused:
    return Refused(400, "ValidationError", message)


def _too_large(max_bytes: int) -> Refused:
    message = f"at most {max_bytes} bytes of JSON a batch"
    return Refused(413, "PayloadTooLarge", message, "payload_too_large")


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _is_text(value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or not value:
        return False
    # JSON can spell half of a surrogate pair, which no database takes.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: object) -> TypeGuard[int | Decimal]:
    """A number that a double can hold; ``True`` is none."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return False
    # Comparisons are exact, while abs() of a huge Decimal overflows.
    return -sys.float_info.max <= value <= sys.float_info.max


def _license_fault(event: Mapping[str, Any]) -> str | None:
    return None if _is_text(event.get("license_id")) else "license_id is required, a string"


def _time_fault(event: Mapping[str, Any]) -> str | None:
    value = event.get("occurred_at")
    if value is None:
        return "occurred_at is required"
    match = _OCCURRED_AT.fullmatch(value) if isinstance(value, str) else None
    if match:
        seconds, zone = match.groups()
        try:
            datetime.fromisoformat(seconds + zone.replace("Z", "+00:00"))
        except ValueError:
            match = None
    return None if match else "occurred_at must be ISO 8601 with Z or an offset"


def _kind_fault(event: Mapping[str, Any]) -> str | None:
    known = event.get("kind") in (None, "USAGE", "ADJUSTMENT")
    return None if known else "kind must be USAGE or ADJUSTMENT"


def _text_fault(event: Mapping[str, Any]) -> str | None:
    for name in ("unit", "source_system"):
        if event.get(name) is not None and not _is_text(event[name]):
            return f"{name} must be a string"
    return None


def _attribution_fault(event: Mapping[str, Any]) -> str | None:
    attribution = event.get("attribution")
    if attribution is None:
        return None
    if not isinstance(attribution, dict):
        return "attribution must be an object"
    for name, value in attribution.items():
        if not isinstance(value, (str, bool)) and not _is_number(value):
            return f"attribution.{name} must be a string, a number or a boolean"
    return None


def _measurements_fault(event: Mapping[str, Any]) -> str | None:
    measurements = event.get("measurements")
    if not isinstance(measurements, list) or not measurements:
        return "measurements is required, a list that is not empty"
    usage = event.get("kind") != "ADJUSTMENT"
    return next(
        (fault for each in measurements if (fault := _measurement_fault(each, usage))), None
    )


def _measurement_fault(measurement: object, usage: bool) -> str | None:
    if not isinstance(measurement, dict) or not _is_text(measurement.get("metric_name")):
        return "metric_name is required, a string"
    quantity = measurement.get("quantity")
    if not _is_number(quantity):
        return "quantity must be a number"
    if usage and quantity <= 0:
        return "quantity of usage must be greater than zero"
    hint = measurement.get("metric_tuple_hint")
    return None if hint is None or isinstance(hint, dict) else "metric_tuple_hint must be an object"


_CHECKS: tuple[Callable[[Mapping[str, Any]], str | None], ...] = (
    _license_fault,
    _time_fault,
    _kind_fault,
    _text_fault,
    _attribution_fault,
    _measurements_fault,
)
