"""What opens a scope to record into, and closes it: a call of a wrapped handler, a transaction."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from time import monotonic

from doow_serverless._callables import (
    dressed,
    is_coroutine_function,
    is_generator_function,
    name_of,
)
from doow_serverless._process.log import report_fault
from doow_serverless._process.timers import guard
from doow_serverless._recording.buffer import Scope, current
from doow_serverless.errors import ConfigurationError, InvalidEvent

from .platform import hand_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import Any, TypeVar

    from typing_extensions import Self

    from doow_serverless._engine import Tracker
    from doow_serverless._recording.buffer import Buffer
    from doow_serverless._recording.ids import Identity

    from .wrap import Settings

    F = TypeVar("F", bound=Callable[..., Any])


def _leave(token: Token[Scope | None]) -> None:
    # In another context than it was entered in, as where a framework runs the two halves of a
    # generator on two threads, the scope is not current.
    with suppress(ValueError):
        current.reset(token)


class Visit:
    """One call of a wrapped handler, as a context manager, sync or async.

    The outermost has a buffer of its own and flushes it at the end; one within it shares the
    buffer. Where a response goes back before the end, :meth:`flush` is called before its last byte;
    all flushes of a visit share one budget. Nothing here ever raises, nor swallows what the handler
    raises.

    Args:
        tracker: The tracker to record with.
        settings: The options of the wrapper.
        remaining_s: Gives the seconds until the platform's deadline, where there is one.
        identity: What the platform calls the function and its work, also when it is done again.
    """

    __slots__ = (
        "_deadline_watch",
        "_identity",
        "_interval_watch",
        "_is_deferred",
        "_is_handed_over",
        "_is_over",
        "_owned",
        "_remaining_s",
        "_scope",
        "_settings",
        "_spent_s",
        "_token",
        "_tracker",
    )

    def __init__(
        self,
        tracker: Tracker,
        settings: Settings,
        remaining_s: Callable[[], float] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._tracker = tracker
        self._settings = settings
        self._remaining_s = remaining_s
        self._identity = identity if settings.idempotent else None
        self._owned: Buffer | None = None
        self._scope: Scope | None = None
        self._token: Token[Scope | None] | None = None
        self._is_handed_over = False
        self._is_deferred: bool | None = None  # Not known before it is asked for.
        self._is_over = False
        self._spent_s = 0.0
        self._deadline_watch: int | None = None
        self._interval_watch: int | None = None

    def hand_over(self) -> None:
        """Leave without an end: a coroutine will enter again."""
        self._is_handed_over = True

    def __enter__(self) -> Self:
        try:
            if self._scope is None and self._tracker.config.enabled:
                self._begin()
            elif self._scope is not None:
                self._token = current.set(self._scope)
        except InvalidEvent:
            # Strict mode refuses the wrapper's own metric: the handler must not begin.
            self._end(failed=True)
            raise
        except Exception as fault:
            report_fault("beginning an invocation", fault)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._end(failed=kind is not None):
            self._flush(last=True)

    async def __aenter__(self) -> Self:
        self._is_handed_over = False
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            # The coroutine is being closed, and may not await any more.
            self.__exit__(kind)
        elif self._end(failed=kind is not None):
            await self._aflush(last=True)

    def flush(self, *, is_undecided: bool = False, last: bool = False) -> None:
        """Deliver what was recorded so far, since the response is about to be complete.

        Args:
            is_undecided: Whether an exception may still come, after which
                ``on_exception="discard"`` forgets what was recorded: that is not delivered yet.
            last: Whether the visit may never be ended: what is recorded from now on leaves with
                the next flush, whosever that is.
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
            self._interval_watch = guard.watch(monotonic() + interval_s, again)

    def _begin(self) -> None:
        tracker, settings = self._tracker, self._settings
        outer = current.get()
        enclosing = None if outer is None else outer.of(tracker)
        buffer = None if enclosing is None else enclosing.buffer.open()
        if enclosing is None or buffer is None:
            tracker.dispatch.redeliver()
            buffer = self._owned = tracker.new_buffer(self._identity)
        defaults = tracker.defaults if enclosing is None else enclosing.defaults
        if settings.attribution or settings.license_id:
            defaults = defaults.overlaid(settings, settings.license_id, settings.attribution)
        if settings.discards:
            buffer = buffer.transaction()
        self._scope = Scope(tracker, buffer, defaults, outer)
        self._token = current.set(self._scope)
        if self._owned is not None and self._remaining_s is not None:
            self._deadline_watch = tracker.watch(self._owned, self._remaining_s)
        tracker.report_removed(settings.removed)
        if settings.metric is not None:
            tracker.track(settings.metric)

    def _end(self, failed: bool) -> bool:
        """Leave the scope; whether that was the end of the visit."""
        try:
            if self._token is not None:
                token, self._token = self._token, None
                _leave(token)
            if self._is_handed_over:
                return False
            self._is_over = True
            if self._interval_watch is not None:
                guard.forget(self._interval_watch)
            if not self._is_deferred:
                self._forget_deadline()
            if self._scope is not None and self._settings.discards:
                self._tracker.conclude(self._scope.buffer, discard=failed)
        except Exception as fault:
            report_fault("ending an invocation", fault)
        return True

    def _commits(self, is_undecided: bool) -> bool:
        """Whether to flush before the end; then what was recorded so far counts."""
        if self._scope is None or (is_undecided and self._settings.discards):
            return False
        try:
            if self._settings.discards:
                self._tracker.conclude(self._scope.buffer, discard=False)
        except Exception as fault:
            report_fault("completing a response", fault)
        return True

    def _flush(self, last: bool) -> None:
        if self._owned is not None and not self._defers():
            began = monotonic()
            self._tracker.deliver(self._owned, self._limit_s(), last=last)
            self._spent_s += monotonic() - began

    async def _aflush(self, last: bool) -> None:
        if self._owned is not None and not self._defers():
            began = monotonic()
            try:
                await self._tracker.adeliver(self._owned, self._limit_s(), last=last)
            finally:  # Also when it was cancelled meanwhile.
                self._spent_s += monotonic() - began

    def _defers(self) -> bool:
        """Whether the platform runs the flush once the response has gone back."""
        if self._is_deferred is None:
            mode = self._settings.flush_mode or self._tracker.config.flush_mode
            self._is_deferred = mode == "after_response" and hand_over(self._flush_later())
        return self._is_deferred

    async def _flush_later(self) -> None:
        self._is_deferred = False
        self._forget_deadline()
        await self._aflush(last=self._is_over)

    def _flush_meanwhile(self, interval_s: float) -> None:
        # Called by the guard, which must not wait.
        if self._owned is not None and not self._is_over:
            self._tracker.deliver_meanwhile(self._owned, self._budget_s)
            self.flush_every(interval_s)

    def _forget_deadline(self) -> None:
        if self._deadline_watch is not None:
            guard.forget(self._deadline_watch)

    def _budget_s(self) -> float:
        given = self._settings.budget_s
        return self._tracker.config.budget_s if given is None else given

    def _limit_s(self) -> float:
        limit_s = self._budget_s() - self._spent_s
        if self._remaining_s is not None:
            try:
                limit_s = min(limit_s, self._remaining_s() - self._tracker.config.reserve_s)
            except Exception as fault:
                report_fault("asking for the deadline", fault)
        return max(0.0, limit_s)


class Transaction:
    """A block, or a function, whose events count only if it succeeds.

    Args:
        where: Gives the tracker and the scope that enclose the block, when it begins.
        identity: What identifies the work of the block, should it be done again. It counts only
            within a handler that is ``tracked(idempotent=True)``.
    """

    def __init__(
        self, where: Callable[[], tuple[Tracker, Scope | None]], identity: str | None = None
    ) -> None:
        self._where = where
        self._identity = identity
        self._open: list[tuple[Tracker, Buffer, Token[Scope | None]]] = []

    def __enter__(self) -> None:
        tracker, scope = self._where()
        enclosing = tracker.strays if scope is None else scope.buffer
        buffer = (enclosing.open() or tracker.strays).transaction(self._identity)
        defaults = tracker.defaults if scope is None else scope.defaults
        token = current.set(Scope(tracker, buffer, defaults, current.get()))
        self._open.append((tracker, buffer, token))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        tracker, buffer, token = self._open.pop()
        _leave(token)
        try:
            tracker.conclude(buffer, discard=kind is not None)
        except Exception as fault:
            report_fault("ending a transaction", fault)

    def __call__(self, function: F) -> F:
        """Decorate a def, an async def or another callable: each call is its own transaction."""
        if is_generator_function(function):
            raise ConfigurationError(
                f"transaction() cannot wrap the generator function {name_of(function)}, whose body "
                "runs only after it has returned: use `with transaction():` in it"
            )
        if is_coroutine_function(function):

            async def in_transaction_async(*args: Any, **kwargs: Any) -> Any:
                with Transaction(self._where, self._identity):
                    return await function(*args, **kwargs)

            return dressed(in_transaction_async, function)  # type: ignore[no-any-return]  # like it

        def in_transaction(*args: Any, **kwargs: Any) -> Any:
            with Transaction(self._where, self._identity):
                return function(*args, **kwargs)

        return dressed(in_transaction, function)  # type: ignore[no-any-return]  # like it
