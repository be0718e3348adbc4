"""One call of a tracked handler: it opens a scope, and flushes before the response is complete."""

from __future__ import annotations

from enum import Enum
from functools import partial
from time import monotonic

from doow_serverless._callables import Span
from doow_serverless._process import forks
from doow_serverless._process.log import report_fault
from doow_serverless._process.signals import is_from_signal
from doow_serverless._process.timers import timers
from doow_serverless._recording.replays import has_failed
from doow_serverless._recording.scope import (
    Life,
    Scope,
    current,
    elsewhere,
    here,
    leave,
    run,
    stop,
)
from doow_serverless.errors import InvalidEvent

from .platform import run_after_response
from .streams import follow, is_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from contextvars import Token
    from typing import Any
    from weakref import ref

    from typing_extensions import Self

    from doow_serverless._engine import Engine
    from doow_serverless._recording.buffer import Buffer
    from doow_serverless._recording.ids import Identity

    from .options import TrackedOptions


_LIFE = "doow_serverless.life"
"""Where a request notes the invocation that it is: with its server, or the middleware around."""


class _Flusher(Enum):
    """Who delivers what an invocation recorded."""

    UNDECIDED = "the platform has not been asked yet"
    INVOCATION = "the invocation, before its response is complete"
    PLATFORM = "the platform, which calls on the invocation once the response has gone back"


class Invocation(Span):
    """One call of a tracked handler, as a context manager, sync or async.

    The outermost has a buffer of its own and flushes it at the end; one within it shares the
    buffer, or, where it is another engine's, has the outermost flush its own. Where a response goes
    back before the end, :meth:`flush` is called before its last byte; all flushes of an invocation
    share one budget. Nothing here ever raises, nor swallows what the handler raises; but in strict
    mode a metric of the wrapper's own that is refused.

    Args:
        engine: Records and delivers.
        options: Those of the wrapper.
        find_deadline: Gives the platform's deadline on the monotonic clock, where there is one. It
            is asked once, and only for an invocation that is within no other.
        identity: What the platform calls the function and its work, also when it is done again.
        request: Where a server of ASGI calls, what it says of the request (the scope): that of
            another request, which its context may carry, is not around this one.
    """

    __slots__ = (
        "_engine",
        "_find_deadline",
        "_identity",
        "_interval_timer",
        "_is_over",
        "_life",
        "_options",
        "_owned",
        "_request",
        "_running",
        "_scope",
        "_spent_s",
        "_token",
        "_who_flushes",
    )

    def __init__(
        self,
        engine: Engine,
        options: TrackedOptions,
        find_deadline: Callable[[], float | None] | None = None,
        identity: Identity | None = None,
        request: MutableMapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._request = request
        self._engine = engine
        self._options = options
        self._find_deadline = find_deadline
        self._identity = identity if options.idempotent else None
        self._owned: Buffer | None = None
        self._life: Life | None = None
        self._running: ref[Scope] | None = None
        self._scope: Scope | None = None
        self._token: Token[Scope | None] | None = None
        self._who_flushes = _Flusher.UNDECIDED
        self._is_over = False
        self._spent_s = 0.0
        self._interval_timer: int | None = None

    def __repr__(self) -> str:
        state = "over" if self._is_over else "suspended" if self._is_suspended else "running"
        return f"Invocation({state}, {self._owned or 'within another'}, {self._options!r})"

    @property
    def outer(self) -> Scope | None:
        """The scope of the code around."""
        return None if self._scope is None else self._scope.outer

    def settle(self, result: Any) -> None:
        """Follow what the handler returned, where that is a stream whose body is yet to run."""
        if is_stream(result):
            self.flush(is_undecided=True)  # The body may raise.
            follow(result, self)

    async def asettle(self, result: Any) -> None:
        """As :meth:`settle`, without blocking the event loop."""
        if is_stream(result):
            await self.aflush(is_undecided=True)
            follow(result, self)

    def __enter__(self) -> Self:
        try:
            if self._scope is None and self._engine.config.enabled:
                self._begin()
            elif self._scope is not None:
                self._token = current.set(self._scope)
        except BaseException as fault:
            is_ours = isinstance(fault, Exception) and not isinstance(fault, InvalidEvent)
            if not is_ours or is_from_signal(fault):
                # Strict mode refuses the wrapper's own metric, or the application's signal ends the
                # call: the handler must not begin.
                self._is_left = self._end(failed=True)
                raise
            report_fault("beginning an invocation", fault)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._end(failed=kind is not None and has_failed(kind)):
            self._flush(last=True)
        self._is_left = True

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            # The coroutine is being closed, and may not await any more.
            self.__exit__(kind)
        elif self._end(failed=kind is not None and has_failed(kind)):
            self._is_left = (
                True  # A flush that is cancelled has sent all: no second one, that blocks.
            )
            await self._aflush(last=True)
        self._is_left = True

    def flush(self, *, is_undecided: bool = False, last: bool = False) -> None:
        """Deliver what was recorded so far, since the response is about to be complete.

        Args:
            is_undecided: True while ``on_exception="discard"`` may still apply; under that option
                nothing is sent yet.
            last: True where the invocation may never be left: what is recorded from now on leaves
                with the next flush, whosever that is.
        """
        if self._commits(is_undecided):
            self._flush(last=last)

    async def aflush(self, *, is_undecided: bool = False) -> None:
        """As :meth:`flush`, without blocking the event loop."""
        if self._commits(is_undecided):
            await self._aflush(last=False)

    def flush_every(self, interval_s: float) -> None:
        """Deliver in the background, again and again, what a long session records."""
        if self._owned is not None and interval_s:
            again = partial(self._flush_meanwhile, interval_s)
            self._interval_timer = timers.call_at(monotonic() + interval_s, again)

    def _begin(self) -> None:
        engine, options = self._engine, self._options
        forks.notice()
        outer = here()
        if outer is not None and (outer.life.is_over or self._request is not None):
            outer = self._around(elsewhere(outer))
        enclosing = None if outer is None else outer.of(engine)
        buffer = None if enclosing is None else enclosing.buffer.open()
        # A forked child works on its own, but for a transaction, which may yet fail in it.
        if buffer is None or (buffer.is_endless and buffer.parent is None):
            engine.outbox.redeliver()
            buffer = self._owned = engine.new_buffer(self._identity)
        defaults = engine.defaults if enclosing is None else enclosing.defaults
        if options.attribution or options.license_id or options.fold is not None:
            defaults = defaults.overlaid(
                options, options.license_id, options.attribution, options.fold
            )
        if options.discards:
            buffer = buffer.transaction()
            buffer.is_attempt = options.is_attempt
        life = self._life_of(outer)
        self._scope = Scope(engine, buffer, defaults, outer, life)
        self._token = current.set(self._scope)
        if self._owned is not None:
            self._hold(life, self._owned)
        if options.removed:
            engine.report_removed(options.removed)
        if options.metric is not None:
            self._scope.record(options.metric)

    def _around(self, outer: Scope | None) -> Scope | None:
        """The scope of the code around, where it is known not to be another request's.

        Servers call for the next request in the context in which they heard of it, which may be
        that of an earlier one: uvicorn does on a connection that is kept.
        """
        if outer is None or self._request is None or outer.life.request is None:
            return outer
        return outer if self._request.get(_LIFE) is outer.life else None

    def _life_of(self, outer: Scope | None) -> Life:
        """That of the outermost handler around, or else a new one, which this invocation ends."""
        is_apart = self._owned is not None and outer is not None and outer.buffer.root.is_endless
        if outer is not None and not is_apart:
            return outer.life
        self._life = life = Life(self._request)
        if self._request is not None:
            self._request[_LIFE] = life
        return life

    def _hold(self, life: Life, buffer: Buffer) -> None:
        """Have the outermost flush ``buffer``, and before the deadline of whoever knows one."""
        life.join(self._engine, buffer)
        find, self._find_deadline = self._find_deadline, None  # It holds the arguments.
        if find is not None and life.ends_at is None:
            life.ends_at = find()
            if life.ends_at is not None:
                life.guard = self._engine.flush_before(life.ends_at, life.flush_meanwhile)
        if self._life is not None and self._request is None and self._scope is not None:
            self._running = run(self._scope)

    def _end(self, failed: bool) -> bool:
        """Leave the scope; whether that was the end of the invocation."""
        try:
            if self._token is not None:
                leave(self._token)
                self._token = None
            if self._is_suspended:
                return False
            self._is_over = True
            if self._interval_timer is not None:
                timers.cancel(self._interval_timer)
            if self._who_flushes is not _Flusher.PLATFORM:
                self._cancel_guard()
            if self._scope is not None and self._options.discards:
                self._engine.end_transaction(self._scope.buffer, discard=failed)
        except Exception as fault:
            report_fault("ending an invocation", fault)
        return True

    def _commits(self, is_undecided: bool) -> bool:
        """Whether to flush before the end; then what was recorded so far counts."""
        if self._scope is None or (is_undecided and self._options.discards):
            return False
        try:
            if self._options.discards:
                self._engine.end_transaction(self._scope.buffer, discard=False)
        except Exception as fault:
            report_fault("completing a response", fault)
        return True

    def _flush(self, last: bool) -> None:
        began = monotonic()
        if self._life is not None and not self._platform_flushes(last):
            left = self._life.held[:]
            try:
                self._life.depart()
                while left:
                    engine, buffer = left.pop(0)
                    engine.flush(buffer, self._left_s(began), last=last)
            finally:  # Also where a signal has ended the wait: what is not delivered must be kept.
                self._give_up(left, began, last)

    async def _aflush(self, last: bool) -> None:
        began = monotonic()
        if self._life is not None and not self._platform_flushes(last):
            left = self._life.held[:]
            try:
                self._life.depart()
                while left:
                    engine, buffer = left.pop(0)
                    await engine.aflush(buffer, self._left_s(began), last=last)
            finally:  # Also when it was cancelled meanwhile.
                self._give_up(left, began, last)

    def _give_up(self, left: list[tuple[Any, Buffer]], began: float, last: bool) -> None:
        """End a flush: what could not be waited for is kept, and written down."""
        for engine, buffer in left:
            engine.flush(buffer, 0.0, last=last)
        self._spent_s += monotonic() - began
        if last and self._is_over:
            self._end_life()

    def _end_life(self) -> None:
        if self._life is not None:
            self._life.is_over = True
            self._stop_running()

    def _stop_running(self) -> None:
        """Threads that see no invocation belong to this one no longer."""
        if self._running is not None:
            stop(self._running)

    def _platform_flushes(self, last: bool) -> bool:
        """Whether the platform runs the flush after the response; asked at the first flush."""
        if self._who_flushes is _Flusher.UNDECIDED:
            if self._life is not None:
                self._life.load()  # Here, since the platform may flush on a thread of ours.
            mode = self._options.flush_mode or self._engine.config.flush_mode
            takes = mode == "after_response" and run_after_response(self)
            self._who_flushes = _Flusher.PLATFORM if takes else _Flusher.INVOCATION
        is_platform = self._who_flushes is _Flusher.PLATFORM
        if is_platform and last and self._is_over:
            self._stop_running()
        return is_platform

    def flush_after_response(self, ends_at: float) -> None:
        """Deliver, once a platform that has taken it calls this, on whatever thread.

        Args:
            ends_at: The platform's deadline on the monotonic clock; the arguments of the handler
                may have told none.
        """
        self._begin_late_flush()
        if self._life is not None and self._life.ends_at is None:
            self._life.ends_at = ends_at
        self._flush(last=self._is_over)

    async def aflush_after_response(self) -> None:
        """As :meth:`flush_after_response`, without blocking the event loop."""
        self._begin_late_flush()
        await self._aflush(last=self._is_over)

    def _begin_late_flush(self) -> None:
        self._who_flushes = _Flusher.INVOCATION
        self._cancel_guard()

    def _flush_meanwhile(self, interval_s: float) -> None:
        # Called by the timers' thread, which must not wait.
        if self._owned is not None and not self._is_over:
            self._engine.flush_meanwhile(self._owned, self._budget_s)
            self.flush_every(interval_s)

    def _cancel_guard(self) -> None:
        if self._life is not None and self._life.guard is not None:
            self._life.guard.cancel()

    def _budget_s(self) -> float:
        given: float | None = self._options.budget_s
        return self._engine.config.budget_s if given is None else given

    def _left_s(self, began: float) -> float:
        """Seconds for which a flush that began then may still hold the response."""
        limit_s = self._budget_s() - self._spent_s - (monotonic() - began)
        if self._life is not None and self._life.ends_at is not None:
            ends_at = self._life.ends_at - self._engine.config.reserve_s
            limit_s = min(limit_s, ends_at - monotonic())
        return max(0.0, limit_s)
