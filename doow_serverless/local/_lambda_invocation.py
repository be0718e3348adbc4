"""An invocation of a Lambda function: on its way, and what became of it."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Invocation:
    """What became of one invocation.

    Attributes:
        request_id: The id that the handler saw as ``context.aws_request_id``.
        payload: The very bytes that the process posted, or the error document of the platform.
        error: The decoded error document (``errorType``, ``errorMessage``, …) of a handler that
            raised, exited or ran into its deadline; else None.
        duration_s: From the delivery of the event until its answer was received: what the caller
            waits for. The time that the process needs to ask for the next event is not in it.
    """

    request_id: str
    payload: bytes
    error: dict[str, Any] | None
    duration_s: float


@dataclass
class Turn:
    """One invocation on its way; the moments are seconds on the monotonic clock."""

    event: bytes
    timeout_s: float
    arn: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    due_s: float = 0.0
    delivered_s: float = 0.0
    answered_s: float | None = None
    payload: bytes = b""
    error: dict[str, Any] | None = None

    def start(self) -> None:
        """The time counts from here, as on Lambda, where the process may still have to thaw."""
        self.delivered_s = time.monotonic()
        self.due_s = self.delivered_s + self.timeout_s

    def answer(self, payload: bytes, error: dict[str, Any] | None = None) -> None:
        """What the process has posted."""
        self.payload, self.error = payload, error
        self.answered_s = time.monotonic()

    def fail(self, error: dict[str, Any]) -> None:
        """What the platform answers for a process that did not."""
        self.answer(json.dumps(error).encode(), error)

    def outcome(self) -> Invocation:
        """The end of it, for the caller."""
        # One that never reached the process took no time.
        duration_s = (self.answered_s or 0.0) - self.delivered_s if self.delivered_s else 0.0
        return Invocation(self.request_id, self.payload, self.error, duration_s)
