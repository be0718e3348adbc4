"""What recording asks of the engine."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from doow_serverless.errors import InvalidEvent

    from .buffer import Buffer
    from .event import Defaults
    from .rules import LeftOut

    class Sink(Protocol):
        """Takes what is recorded.

        Attributes:
            enabled: False records nothing.
            strict: True if a bad event raises.
            flush_at: Events in a buffer at which they leave early.
            defaults: Those of events recorded outside of any invocation.
        """

        enabled: bool
        strict: bool
        flush_at: int
        defaults: Defaults

        @property
        def outside(self) -> Any:  # A `Scope`, whose module imports this one.
            """The scope of code that no invocation can be seen for."""

        @property
        def unattended(self) -> Buffer:
            """Takes events that no invocation can be seen for; they leave with the next flush."""

        def send_early(self, buffer: Buffer) -> None:
            """Have full batches of ``buffer`` leave in the background."""

        def end_transaction(self, transaction: Buffer, *, discard: bool) -> None:
            """Forget the events of a transaction, or pass them to the buffer around it."""

        def refuse(self, problem: InvalidEvent, event_id: object) -> None:
            """Report an event that breaks a rule; raises it in strict mode."""

        def report_removed(self, left_out: list[LeftOut]) -> None:
            """Tell what was left out of events, and empty the list."""
