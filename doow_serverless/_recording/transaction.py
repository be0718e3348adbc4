"""A block, or a function, whose events count only if it succeeds."""

from __future__ import annotations

import sys
from contextvars import ContextVar

from doow_serverless._callables import Span, call_within, is_generator_function, name_of
from doow_serverless._process.log import report_fault
from doow_serverless.errors import ConfigurationError

from .generators import caller_of, generator_of
from .replays import has_failed
from .scope import Scope, current, here, leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import Any, TypeVar

    from typing_extensions import Self

    from .generators import Generator

    F = TypeVar("F", bound=Callable[..., Any])


_entered: ContextVar[tuple[tuple[Transaction, Block], ...]] = ContextVar(
    "doow_serverless.entered", default=()
)
"""The blocks that the running code is in, the innermost last."""


class Transaction:
    """What ``doow.transaction()`` returns: a context manager, and a decorator.

    Args:
        where: Gives the scope that encloses the block, when it begins.
        identity: What identifies the work of the block, should it be done again. It counts only
            within a handler that is ``tracked(idempotent=True)``.
    """

    def __init__(self, where: Callable[[], Scope], identity: str | None = None) -> None:
        self._where = where
        self._identity = identity
        self._open: list[Block] = []

    def __enter__(self) -> None:
        frame = sys._getframe(1)
        block = Block(self._where(), self._identity, generator_of(frame))
        block.caller = caller_of(frame)
        block.__enter__()
        self._open.append(block)
        # What was left in another context is still in this one.
        around = [each for each in _entered.get() if not each[1].is_left]
        _entered.set((*around, (self, block)))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        block = self._last_of(caller_of(sys._getframe(1)))
        self._open.remove(block)
        _entered.set(tuple(each for each in _entered.get() if each[1] is not block))
        block.__exit__(kind)

    def _last_of(self, caller: int) -> Block:
        """The block to leave: one object may be entered by many invocations at once.

        A ``with`` statement begins and ends in one frame, also that of a generator of which the two
        halves run on two threads. If both were called by hand, the context tells.
        """
        same = [block for block in self._open if block.caller == caller]
        here = [block for owner, block in _entered.get() if owner is self and block in self._open]
        both = [block for block in same if block in here]
        return (both or same or here or self._open)[-1]

    def __call__(self, function: F) -> F:
        """Decorate a def, an async def or another callable: each call is its own transaction."""
        if is_generator_function(function):
            raise ConfigurationError(
                f"transaction() cannot wrap the generator function {name_of(function)}, whose body "
                "runs only after it has returned: use `with transaction():` in it"
            )
        return call_within(function, lambda *_: Block(self._where(), self._identity))  # type: ignore[no-any-return]  # like it


class Block(Span):
    """One run of a transaction, sync or async, which is ended once.

    Args:
        outer: The scope that encloses it.
        identity: As of `Transaction`.
        generator: The one that it is a block of, if it is.

    Attributes:
        caller: Tells the frame that has entered it, for a ``with`` statement.
    """

    __slots__ = ("_scope", "_token", "caller")

    def __init__(
        self, outer: Scope, identity: str | None, generator: Generator | None = None
    ) -> None:
        enclosing = outer.buffer.open() or outer.sink.unattended
        buffer = enclosing.transaction(identity)
        self._scope = Scope(outer.sink, buffer, outer.defaults, here(), outer.life, generator)
        self._token: Token[Scope | None] | None = None
        self.caller: int | None = None
        super().__init__()

    @property
    def is_left(self) -> bool:
        """Whether it is over."""
        return self._is_left

    def __enter__(self) -> Self:
        self._token = current.set(self._scope)
        if self._scope.generator is not None:
            self._scope.generator.open(self._scope)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        generator, failed = self._scope.generator, kind is not None and has_failed(kind)
        if generator is not None:
            generator.leave()
            # Whoever consumes it has had enough: what it did so far, it did.
            failed = failed and kind is not GeneratorExit
        # The consumer of a generator may have entered a block of its own meanwhile, and be in it.
        if self._token is not None and (generator is None or current.get() is self._scope):
            leave(self._token)
        if not self._is_suspended:
            try:
                self._scope.sink.end_transaction(self._scope.buffer, discard=failed)
            except Exception as fault:
                report_fault("ending a transaction", fault)
        self._is_left = True
