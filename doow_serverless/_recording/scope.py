"""What the running code records into, told by a ContextVar, so that invocations never mix."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from threading import get_ident
from time import time
from weakref import ref

from doow_serverless._process import init_phase
from doow_serverless._process.log import report_fault
from doow_serverless.errors import InvalidEvent

from .event import room_of
from .generators import around, blocks
from .labels import fit_metadata
from .plain import plain
from .replays import are_possible, is_replaying
from .rules import (
    check_quantity,
    check_text,
    check_timestamp,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from datetime import datetime
    from typing import Any

    from .buffer import Buffer
    from .event import Defaults, Labels
    from .generators import Generator
    from .interfaces import Sink
    from .misuse import Misuse
    from .rules import LeftOut

MANY: Any = object()
"""In the place of a metric: the quantity is a mapping of several metrics to theirs."""
NO_LABELS: Labels = (None, None, None, "USAGE", None, None)

_FASTEST_INT = 10**15


class Life:
    """How long the scopes of one outermost handler count: from its call until its last flush.

    Tasks, threads, generators and servers carry a scope on into what is another's; from then on it
    tells nothing. The handlers of several engines may be nested: they share the life of the
    outermost, whose flush is that of all, since they hold the same response.

    Args:
        request: What a server of ASGI has said of the request, where it was one that called.

    Attributes:
        request: The same.
        held: What the outermost flushes, its own first: engines (`Engine`), and a buffer of each.
        is_over: Whether the last flush is done.
        may_replay: Whether its code may be a durable function's, which runs again and again.
        ends_at: The platform's deadline on the monotonic clock, where one of them knows it.
        guard: What delivers before it.
    """

    __slots__ = ("ends_at", "guard", "held", "is_over", "may_replay", "request")

    def __init__(self, request: object = None) -> None:
        self.request = request
        self.is_over = False
        self.may_replay = are_possible()
        self.ends_at: float | None = None
        self.guard: Any = None
        self.held: list[tuple[Any, Buffer]] = []

    def __repr__(self) -> str:
        return f"Life({'over' if self.is_over else 'running'}, {len(self.held)} buffers)"

    def join(self, engine: object, buffer: Buffer) -> None:
        """Have the outermost flush ``buffer``, too, which is one of ``engine`` (an `Engine`)."""
        if (engine, buffer) not in self.held:
            self.held.append((engine, buffer))

    def load(self) -> None:
        """Import the modules that each engine needs for sending, on this thread."""
        for engine, _ in self.held:
            if not engine.outbox.is_loaded:
                engine.load()

    def depart(self) -> None:
        """Have what waits leave, but for the first, whose flush comes at once."""
        for engine, buffer in self.held[1:]:
            engine.send_early(buffer, 1)

    def flush_meanwhile(self, limit_s: Callable[[], float]) -> None:
        """Have other threads deliver what was recorded so far."""
        for engine, buffer in self.held[:]:
            engine.flush_meanwhile(buffer, limit_s)


class Scope:
    """A buffer, the defaults of the events recorded into it, and the sink that both belong to.

    Args:
        sink: The engine.
        buffer: Takes the events.
        defaults: License and attribution of events that name none.
        outer: The scope that was current before, of whatever engine.
        life: How long this one counts.
        generator: Where it is that of a block in a generator, this: it counts while that runs.
    """

    __slots__ = ("__weakref__", "buffer", "defaults", "generator", "life", "outer", "sink")

    def __init__(
        self,
        sink: Sink,
        buffer: Buffer,
        defaults: Defaults,
        outer: Scope | None,
        life: Life,
        generator: Generator | None = None,
    ) -> None:
        self.generator = generator
        self.sink = sink
        self.buffer = buffer
        self.defaults = defaults
        self.outer = outer
        self.life = life

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
        if not sink.enabled or (self.life.may_replay and is_replaying()):
            return
        try:
            amount: float | str
            if metric is MANY:
                template = defaults.template_of_many(labels)
                amount = defaults.measurements(quantity, labels[3])
            else:
                template = defaults.template(metric, labels)
                is_plain = type(quantity) is int and 0 < quantity < _FASTEST_INT
                amount = quantity if is_plain else check_quantity(quantity, labels[3])
            when = (None if timestamp is None else check_timestamp(timestamp)) or time()
            if metadata is not None or (amount is not quantity and isinstance(amount, str)):
                metadata = fit_metadata(metadata, room_of(template, amount), defaults.removed)
            event_id = None if event_id is None else _checked_id(event_id, defaults.removed)
            buffer = self.buffer
            waiting = buffer.record(event_id, when, template, amount, metadata)
            while waiting is None:  # It is being flushed for the last time, or was replaced.
                buffer = buffer.parent or sink.unattended
                waiting = buffer.record(event_id, when, template, amount, metadata)
            if waiting >= sink.flush_at and buffer.parent is None:
                sink.send_early(buffer)
            if defaults.removed:
                sink.report_removed(defaults.removed)
        except InvalidEvent as problem:
            sink.refuse(*_refusal(problem, event_id))
        except Exception as fault:
            report_fault("track", fault)


class _Mistaken:
    """Stands in the place of an event's id, with what was wrong with the call.

    One argument more would cost every call.
    """

    __slots__ = ("event_id", "mistakes")

    def __init__(self, event_id: object, mistakes: list[str]) -> None:
        self.event_id = event_id
        self.mistakes = mistakes


def _checked_id(given: Any, removed: list[LeftOut]) -> str | None:
    """The id; mistakes are reported as left out, now that all the rest is right."""
    event_id = plain(given.event_id if type(given) is _Mistaken else given)
    if event_id is not None:
        event_id = check_text("event_id", event_id)
    if type(given) is _Mistaken:
        removed += map(InvalidEvent, reversed(given.mistakes))
    return event_id  # type: ignore[no-any-return]  # as has been checked


def _refusal(problem: InvalidEvent, given: object) -> tuple[InvalidEvent, object]:
    """The one report of a refused event, and its id."""
    if type(given) is not _Mistaken:
        return problem, given
    return InvalidEvent("; ".join((*given.mistakes, str(problem)))), given.event_id


def record_misused(
    scope: Scope,
    misuse: Misuse,
    metric: Any,
    quantity: Any,
    labels: Labels,
    metadata: Any,
    timestamp: Any,
    event_id: Any,
) -> None:
    """Record an event in spite of a call that is wrong, unless the rest of it is not enough.

    Raises:
        InvalidEvent: In strict mode.
    """
    if misuse.mistakes and not misuse.fault and not scope.sink.strict:
        event_id = _Mistaken(event_id, misuse.mistakes)
    elif misuse.mistakes or misuse.fault:
        if not scope.sink.enabled:
            return
        problem = "; ".join(filter(None, (*misuse.mistakes, misuse.fault)))
        scope.sink.refuse(InvalidEvent(problem), event_id)
        return
    scope.record(metric, quantity, labels, metadata, timestamp, event_id)


current: ContextVar[Scope | None] = ContextVar("doow_serverless.current", default=None)
"""The scope of the running code, which counts while its life lasts; None where none can be seen."""
_running: dict[ref[Scope], int] = {}
"""Those of the outermost handlers that a platform has called in this process, requests to servers
of ASGI aside, and the thread of each."""


def here() -> Scope | None:
    """The scope of the running code, which may be over; None where none can be seen."""
    scope = current.get()
    if blocks or (scope is not None and scope.generator is not None):
        found: Scope | None = around(scope)
        return found
    return scope


def run(scope: Scope) -> ref[Scope]:
    """Note that the handler of ``scope`` runs, until `stop`, or until nobody holds it any more."""
    noted = ref(scope, stop)
    _running[noted] = get_ident()
    return noted


def stop(noted: ref[Scope]) -> None:
    """It runs no more."""
    _running.pop(noted, None)


def elsewhere(scope: Scope | None) -> Scope | None:
    """The scope of code whose current one, ``scope``, is none or over; None for outside of all.

    Lambda runs one invocation at a time in a process, so that there another thread, which sees
    none, belongs to the one that runs. On the handler's own thread somebody has put it aside.
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
    """
    if scope is None:
        only = list(_running.items())
        if len(only) != 1 or only[0][1] == get_ident() or not init_phase.is_lambda():
            return None
        return only[0][0]()
    while scope is not None and scope.life.is_over:
        scope = scope.outer
    return scope


def leave(token: Token[Scope | None]) -> None:
    """Make current what was so before ``token``."""
    # In another context than it was entered in, as where a framework runs the two halves of a
    # generator on two threads, the scope is not current; nor where it has been left before.
    with suppress(ValueError, RuntimeError):
        current.reset(token)
