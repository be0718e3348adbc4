"""What became of an invocation of an Azure function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class AzureHostError(RuntimeError):
    """The worker could not be started, died, or did not answer in time."""


@dataclass(frozen=True)
class Failure:
    """What the worker reports of an exception."""

    type: str
    message: str
    stack: str

    def as_text(self) -> str:
        """All of it."""
        return f"{self.type}: {self.message}\n{self.stack}"


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
