"""What the running code records into, told by a ContextVar, so that invocations never mix."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from time import time

from doow_serverless._process.log import report_fault
from doow_serverless.errors import InvalidEvent

from .event import check_size
from .rules import (
    check_metadata,
    check_quantity,
    check_text,
    check_timestamp,
    measurements_json,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Token
    from datetime import datetime
    from typing import Any

    from .buffer import Buffer
    from .event import Defaults, Labels
    from .interfaces import Sink

MANY: Any = object()
"""In the place of a metric: the quantity is a mapping of several metrics to theirs."""
NO_LABELS: Labels = (None, None, None, "USAGE", None, None)

_FASTEST_INT = 10**15


class Scope:
    """A buffer, the defaults of the events recorded into it, and the sink that both belong to.

    Args:
        sink: The engine.
        buffer: Takes the events.
        defaults: License and attribution of events that name none.
        outer: The scope that was current before, of whatever engine.
    """

    __slots__ = ("buffer", "defaults", "outer", "sink")

    def __init__(self, sink: Sink, buffer: Buffer, defaults: Defaults, outer: Scope | None) -> None:
        self.sink = sink
        self.buffer = buffer
        self.defaults = defaults
        self.outer = outer

    def __repr__(self) -> str:
        return f"Scope({self.buffer!r}, {self.defaults!r})"

    def of(self, sink: Sink) -> Scope | None:
        """The innermost scope of ``sink``, from here outwards."""
        scope: Scope | None = self
        while scope is not None and scope.sink is not sink:
            scope = scope.outer
        return scope

    def record(
        self,
        metric: str,
        quantity: Any = 1,
        labels: Labels = NO_LABELS,
        metadata: Any = None,
        timestamp: datetime | str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Check an event, and put it into the buffer; with ``MANY``, of several measurements.

        Raises:
            InvalidEvent: In strict mode, for an event that breaks a rule.
        """
        sink, defaults = self.sink, self.defaults
        if not sink.enabled:
            return
        try:
            amount: float | str
            if metric is MANY:
                template = defaults.template_of_many(labels)
                amount = measurements_json(quantity, labels[3])
            else:
                template = defaults.template(metric, labels)
                is_plain = type(quantity) is int and 0 < quantity < _FASTEST_INT
                amount = quantity if is_plain else check_quantity(quantity, labels[3])
            when = time() if timestamp is None else check_timestamp(timestamp)
            if event_id is not None:
                event_id = check_text("event_id", event_id)
            if metadata is not None or type(amount) is str:
                metadata = None if metadata is None else check_metadata(metadata, defaults.removed)
                check_size(template, amount, metadata)
            buffer = self.buffer
            waiting = buffer.record(event_id, when, template, amount, metadata)
            while waiting is None:
                # Its invocation is over: a task or a thread that outlived it goes on recording.
                buffer = buffer.parent or sink.unattended
                waiting = buffer.record(event_id, when, template, amount, metadata)
            if waiting >= sink.flush_at and buffer.parent is None:
                sink.send_early(buffer)
            if defaults.removed:
                sink.report_removed(defaults.removed)
        except InvalidEvent as problem:
            sink.refuse(problem, event_id)
        except Exception as fault:
            report_fault("track", fault)


current: ContextVar[Scope | None] = ContextVar("doow_serverless.current", default=None)
"""The scope of the running code; None where no invocation can be seen."""


def leave(token: Token[Scope | None]) -> None:
    """Make current what was so before ``token``."""
    # In another context than it was entered in, as where a framework runs the two halves of a
    # generator on two threads, the scope is not current; nor where it has been left before.
    with suppress(ValueError, RuntimeError):
        current.reset(token)
