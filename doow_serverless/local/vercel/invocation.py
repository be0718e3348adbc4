"""An invocation of a Vercel function: on its way, and what became of it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REGION = "iad1"


class VercelRuntimeError(RuntimeError):
    """The process does not come up, is gone, or never ended an invocation."""


@dataclass(frozen=True)
class Response:
    """What became of one invocation.

    Attributes:
        status: None if the process closed the connection, or ended the invocation, without an
            answer; Vercel makes that a 500 of its own.
        headers: As sent, in order, without the one that Vercel's proxy keeps to itself.
        body: Without the framing of the transfer.
        raw: Every byte that came over the connection, also those behind the end of the answer;
            empty in lambda mode, where http.client has taken them apart inside the process.
        first_byte_s: Until the first byte of the body, in seconds since the request was sent; None
            without a body and in lambda mode.
        duration_s: Until the invocation was over and its answer had arrived.
        log: The lines that Vercel attributes to this request; in lambda mode all that the process
            wrote meanwhile.
        messages: What the process said about this request over its socket; none in lambda mode.
        error: The exception that ``vc_handler`` raised in lambda mode.
        sent_at: When the request was sent, in seconds on the monotonic clock.
        last_byte_s: Until the last byte that came before the end or soon after it, in seconds since
            the request was sent; None where there was none, and in lambda mode.
        ended_s: Until the end of the invocation, likewise.
    """

    status: int | None
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes
    first_byte_s: float | None
    duration_s: float
    log: list[str]
    messages: list[dict[str, Any]]
    error: str | None = None
    sent_at: float = 0.0
    last_byte_s: float | None = None
    ended_s: float = 0.0

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Turn:
    """One request on its way; the moments are seconds on the monotonic clock."""

    request_id: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    due_s: float
    sent_s: float = 0.0
    ended_s: float | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    def as_http(self) -> bytes:
        """The request, as Vercel's proxy sends it."""
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines.extend(f"{name}: {value}" for name, value in self.headers)
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def proxied(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    request_id: int,
    max_duration_s: float,
) -> list[tuple[str, str]]:
    """The headers of a request, and those that Vercel's proxy sends where they are not given."""
    pairs: list[tuple[str, str]] = list(headers.items() if hasattr(headers, "items") else headers)
    given = {name.lower() for name, _ in pairs}
    if body and not given & {"content-length", "transfer-encoding"}:
        pairs.append(("content-length", str(len(body))))
    deadline = datetime.fromtimestamp(time.time() + max_duration_s, timezone.utc)
    invocation_id = uuid.uuid4().hex
    of_proxy = {
        "host": "local.vercel.app",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-host": "local.vercel.app",
        "x-forwarded-proto": "https",
        "x-vercel-id": f"{REGION}::{REGION}::{invocation_id[:5]}-{invocation_id[:12]}",
        "x-vercel-internal-deadline": deadline.isoformat(timespec="milliseconds"),
        "x-vercel-internal-invocation-id": invocation_id,
        "x-vercel-internal-request-id": str(request_id),
    }
    pairs.extend((name, value) for name, value in of_proxy.items() if name not in given)
    return pairs


def public(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the timings of the cold start, which the first answer of a process carries."""
    return [each for each in headers if each[0].lower() != "x-vercel-internal-timing"]
