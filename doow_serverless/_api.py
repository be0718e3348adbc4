"""What users call: the same methods for one tracker as for whichever tracker is current."""

from __future__ import annotations

import time

from ._config import seconds
from ._handlers import wrap as _wrap
from ._handlers.invocation import Transaction
from ._process.log import report_fault
from ._recording.event import (
    check_metadata,
    check_quantity,
    check_size,
    check_text,
    check_timestamp,
    measurements_json,
)
from .errors import InvalidEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any, Literal, TypeVar, overload

    from ._engine import Tracker
    from ._outcome import Outcome
    from ._recording.buffer import Scope
    from ._recording.event import Number, Shape

    Handler = TypeVar("Handler")

_FASTEST_INT = 10**15


class Recorder:
    """The methods of the contract. A subclass says which tracker and which scope they mean."""

    def _where(self) -> tuple[Tracker, Scope | None]:
        raise NotImplementedError

    def track(
        self,
        metric: str,
        quantity: Number = 1,
        *,
        license_id: str | None = None,
        unit: str | None = None,
        attribution: Mapping[str, Any] | None = None,
        metadata: Any = None,
        timestamp: datetime | str | None = None,
        kind: str = "USAGE",
        source_system: str | None = None,
        metric_tuple_hint: Mapping[str, str] | None = None,
        event_id: str | None = None,
    ) -> None:
        """Record one usage event. It reaches Doow when the invocation that records it ends.

        Never raises, except in strict mode: a bad event goes to ``on_error`` with its reason. What
        is passed is copied, so changing it afterwards changes nothing.

        Args:
            metric: Name of the metric, such as ``"tokens"``; 1 to 256 characters, as all names.
            quantity: An int, float or Decimal of at most 64 digits, exact on the wire; greater
                than zero for usage, of any sign for an adjustment.
            license_id: The license that receives the usage. Default: that of the enclosing
                ``tracked``, else ``DOOW_TRACK_LICENSE_ID``, else that of ``configure``.
            unit: A label, such as ``"tokens"``.
            attribution: A flat mapping of at most 100 strings (to 4,096 characters), numbers and
                bools; laid over that of ``tracked`` and ``configure``. Values that look like
                credentials are removed, with a warning that names the key.
            metadata: Anything that JSON can say, to 32 levels. Credentials are removed as well.
                No request payloads, customer content, secrets or raw logs, please.
            timestamp: When it happened: an aware datetime, or ISO 8601 with ``Z`` or an offset.
                Default: now.
            kind: ``"USAGE"``, or ``"ADJUSTMENT"`` to correct.
            source_system: Default ``"sdk"``.
            metric_tuple_hint: ``app_name``, ``license_name`` and ``metric_name``, all of them, to
                help Doow find the metric.
            event_id: Your own id of the event. Default: a random UUID.

        An event is at most 256 KiB of JSON. Not guaranteed: that Doow knows the metric and the
        license; it says so in its answer, which ``on_error`` receives.

        Raises:
            InvalidEvent: In strict mode, for a bad event.
        """
        tracker, scope = self._where()
        if not tracker.config.enabled:
            return
        try:
            shape = (tracker.defaults if scope is None else scope.defaults).shape(
                metric, license_id, unit, attribution, kind, source_system, metric_tuple_hint
            )
            amount: float | str
            if type(quantity) is int and 0 < quantity < _FASTEST_INT:
                amount = quantity
            else:
                amount = check_quantity(quantity, kind)
            _keep(tracker, scope, shape, amount, metadata, timestamp, event_id)
        except InvalidEvent as problem:
            tracker.refuse(problem, event_id)
        except Exception as fault:
            report_fault("track", fault)

    def track_all(
        self,
        measurements: Mapping[str, Number],
        *,
        license_id: str | None = None,
        unit: str | None = None,
        attribution: Mapping[str, Any] | None = None,
        metadata: Any = None,
        timestamp: datetime | str | None = None,
        kind: str = "USAGE",
        source_system: str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Record one event with several measurements: a mapping of metric to quantity.

        They are accepted or refused together. All else is as for :meth:`track`.

        Raises:
            InvalidEvent: In strict mode, for a bad event.
        """
        tracker, scope = self._where()
        if not tracker.config.enabled:
            return
        try:
            shape = (tracker.defaults if scope is None else scope.defaults).shape_of_many(
                license_id, unit, attribution, kind, source_system
            )
            amount = measurements_json(measurements, kind)
            _keep(tracker, scope, shape, amount, metadata, timestamp, event_id)
        except InvalidEvent as problem:
            tracker.refuse(problem, event_id)
        except Exception as fault:
            report_fault("track_all", fault)

    def transaction(self) -> Transaction:
        """A block whose events count only if it succeeds.

        Use it as ``with doow.transaction():``, or ``@doow.transaction()`` on a def or an async def.
        It nests: an inner block that fails takes only its own events with it, one that succeeds
        inside an outer one that fails is discarded too.
        """
        return Transaction(self._where)

    if TYPE_CHECKING:

        @overload
        def tracked(self, handler: Handler, /) -> Handler: ...
        @overload
        def tracked(
            self,
            handler: None = None,
            /,
            *,
            budget: float | None = None,
            license_id: str | None = None,
            attribution: Mapping[str, Any] | None = None,
            on_exception: Literal["flush", "discard"] = "flush",
            metric: str | None = None,
            idempotent: bool = False,
            flush_mode: Literal["before_response", "after_response"] | None = None,
            tracker: Tracker | None = None,
        ) -> Callable[[Handler], Handler]: ...

    def tracked(
        self,
        handler: Any = None,
        /,
        *,
        budget: float | None = None,
        license_id: str | None = None,
        attribution: Mapping[str, Any] | None = None,
        on_exception: str = "flush",
        metric: str | None = None,
        idempotent: bool = False,
        flush_mode: str | None = None,
        tracker: Tracker | None = None,
    ) -> Any:
        """Decorate a handler: its events are delivered before its result goes back.

        With or without arguments, on a ``def`` or ``async def``, a method, or any callable; on a
        ``BaseHTTPRequestHandler`` class, whose ``do_*`` methods it wraps in place; on a WSGI or
        ASGI application, as the ``DoowMiddleware`` of :mod:`doow_serverless.wsgi` and
        :mod:`doow_serverless.asgi` do; and on an Azure function, above or below its other
        decorators. The handler's result and exception pass untouched. Nested, the outermost
        delivers. Where the result is a streaming response of Starlette's, what the stream records
        is delivered before its last byte.

        Args:
            handler: The handler; given by the decorator syntax.
            budget: Seconds for which the response may be held. Default: that of ``configure``,
                2 seconds. The platform's deadline, where it tells one, is kept besides.
            license_id: The license of events that name none.
            attribution: Attribution of all events of this handler, under their own.
            on_exception: ``"flush"`` delivers what was recorded although the handler raised;
                ``"discard"`` forgets it.
            metric: A metric of which one is recorded for each invocation.
            idempotent: True derives the ids of events and batches from what the platform calls the
                work (the request, or its messages), so that an invocation that is retried and
                records the same events is counted once.
            flush_mode: ``"after_response"`` has the platform wait for the flush once the response
                has gone back, where it can. Default: that of ``configure``,
                ``"before_response"``.
            tracker: The tracker to use. Default: the current one.

        Raises:
            ConfigurationError: An option is wrong, or the handler is nothing that can be wrapped.
        """
        settings = _wrap.Settings(
            budget=budget,
            license_id=license_id,
            attribution=attribution,
            on_exception=on_exception,
            metric=metric,
            idempotent=idempotent,
            flush_mode=flush_mode,
        )
        where = self._where if tracker is None else tracker._where
        if handler is None:
            return lambda handler: _wrap.wrap(handler, settings, lambda: where()[0])
        return _wrap.wrap(handler, settings, lambda: where()[0])

    def flush(self, budget: float | None = None) -> Outcome:
        """Deliver now what the current invocation has recorded so far; for long handlers.

        Args:
            budget: Seconds to wait at most. Default: that of ``configure``.

        Returns:
            What became of each of these events. Those of open transactions stay.
        """
        tracker, scope = self._where()
        buffer = tracker.strays if scope is None else scope.buffer
        limit_s = tracker.config.budget_s if budget is None else seconds("budget", budget)
        return tracker.deliver(buffer.root, limit_s)

    async def aflush(self, budget: float | None = None) -> Outcome:
        """As :meth:`flush`, without blocking the event loop."""
        tracker, scope = self._where()
        buffer = tracker.strays if scope is None else scope.buffer
        limit_s = tracker.config.budget_s if budget is None else seconds("budget", budget)
        return await tracker.adeliver(buffer.root, limit_s)


def _keep(
    tracker: Tracker,
    scope: Scope | None,
    shape: Shape,
    quantity: float | str,
    metadata: Any,
    timestamp: datetime | str | None,
    event_id: str | None,
) -> None:
    when = time.time() if timestamp is None else check_timestamp(timestamp)
    if event_id is not None:
        event_id = check_text("event_id", event_id)
    if metadata is not None:
        metadata = check_metadata(metadata, tracker.config.removed)
    if metadata is not None or isinstance(quantity, str):
        check_size(shape, quantity, metadata)
    buffer = tracker.strays if scope is None else scope.buffer
    waiting = buffer.record(event_id, when, shape, quantity, metadata)
    while waiting is None:
        # Its invocation is over: a task or a thread that outlived it goes on recording.
        buffer = buffer.parent or tracker.strays
        waiting = buffer.record(event_id, when, shape, quantity, metadata)
    if waiting >= tracker.config.flush_at and buffer.parent is None:
        tracker.send_early(buffer)
    if tracker.config.removed:
        tracker.report_removed(tracker.config.removed)
