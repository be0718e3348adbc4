"""A scope checks what is recorded into it, and asks its sink for all else."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._recording.buffer import Buffer
from doow_serverless._recording.event import Defaults
from doow_serverless._recording.scope import MANY, Life, Scope, current, leave
from doow_serverless.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._recording.rules import LeftOut

DEFAULTS = Defaults("lic_1", {}, [])
BOUND = 100


class Sink:
    """Writes down what it is asked for."""

    def __init__(self, *, enabled: bool = True, flush_at: int = 500, strict: bool = False) -> None:
        self.enabled = enabled
        self.flush_at = flush_at
        self.strict = strict
        self.defaults = DEFAULTS
        self.unattended = Buffer(BOUND)
        self.outside = Scope(self, self.unattended, DEFAULTS, None, Life())
        self.asked: list[tuple[Any, ...]] = []

    def send_early(self, buffer: Buffer) -> None:
        self.asked.append(("send early", buffer))

    def end_transaction(self, transaction: Buffer, *, discard: bool) -> None:
        self.asked.append(("end", transaction, discard))

    def refuse(self, problem: InvalidEvent, event_id: object) -> None:
        if self.strict:
            raise problem
        self.asked.append(("refuse", str(problem), event_id))

    def report_removed(self, left_out: list[LeftOut]) -> None:
        self.asked.append(("removed", list(map(str, left_out))))
        left_out.clear()


def waiting(buffer: Buffer) -> int:
    """Takes the events of a buffer, and counts them."""
    return len(buffer.take())


def new_scope(sink: Sink, buffer: Buffer | None = None, outer: Scope | None = None) -> Scope:
    return Scope(sink, Buffer(BOUND) if buffer is None else buffer, DEFAULTS, outer, Life())


def test_an_event_goes_into_the_buffer() -> None:
    """Of one metric or of several; the sink is not asked for anything."""
    sink = Sink()
    scope = new_scope(sink)
    scope.record("tokens", 5)
    scope.record(MANY, {"input": 1, "output": 2.5})
    assert (waiting(scope.buffer), sink.asked) == (2, [])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (lambda scope: scope.record("", 1), "metric must be"),
        (lambda scope: scope.record("tokens", -1), "quantity must be"),
        (lambda scope: scope.record("tokens", 1, timestamp="noon"), "timestamp must be"),
        (lambda scope: scope.record("tokens", 1, event_id=""), "event_id must be"),
        (lambda scope: scope.record(MANY, {}), "measurements must be"),
    ],
)
def test_what_breaks_a_rule_is_refused(record: Callable[[Scope], None], message: str) -> None:
    """The sink hears of it, and nothing of the event is kept."""
    sink = Sink()
    scope = new_scope(sink)
    record(scope)
    ((what, told, _),) = sink.asked
    assert (what, waiting(scope.buffer)) == ("refuse", 0)
    assert message in told


def test_a_strict_sink_raises() -> None:
    """The exception of the sink reaches whoever recorded."""
    with pytest.raises(InvalidEvent, match="quantity"):
        new_scope(Sink(strict=True)).record("tokens", 0)


def test_a_disabled_sink_records_and_checks_nothing() -> None:
    """Not even what is as wrong as can be."""
    sink = Sink(enabled=False, strict=True)
    scope = new_scope(sink)
    scope.record("", -1)
    assert (waiting(scope.buffer), sink.asked) == (0, [])


def test_a_full_buffer_is_told_at_each_event_from_then_on() -> None:
    """From ``flush_at`` events; that of a transaction is not, for it may yet be forgotten."""
    sink = Sink(flush_at=2)
    scope = new_scope(sink)
    for _ in range(3):
        scope.record("tokens")
    assert sink.asked == [("send early", scope.buffer)] * 2
    transaction = new_scope(sink, Buffer(BOUND, scope.buffer))
    for _ in range(3):
        transaction.record("tokens")
    assert len(sink.asked) == 2


def test_what_outlives_its_invocation_is_unattended() -> None:
    """A buffer that is closed takes nothing: its parent does, and in the end the sink's own."""
    sink = Sink()
    invocation = Buffer(BOUND)
    transaction = Buffer(BOUND, invocation)
    scope = new_scope(sink, transaction)
    transaction.take_last()
    scope.record("after the transaction")
    assert (waiting(invocation), waiting(sink.unattended)) == (1, 0)
    invocation.take_last()
    scope.record("after the invocation")
    assert waiting(sink.unattended) == 1


@pytest.mark.contains
def test_a_fault_of_ours_is_contained(contained_faults: list[str]) -> None:
    """Whatever is wrong with us, who records does not hear of it as an exception."""
    scope = new_scope(Sink())
    scope.defaults = None  # type: ignore[assignment]  # as a fault of ours might have it
    scope.record("tokens")
    assert len(contained_faults) == 1


def test_the_innermost_scope_of_a_sink() -> None:
    """Scopes of other sinks in between are passed over."""
    one, other = Sink(), Sink()
    outer = new_scope(one)
    inner = new_scope(other, outer=outer)
    innermost = new_scope(one, outer=inner)
    assert (innermost.of(one), innermost.of(other), inner.of(one)) == (innermost, inner, outer)
    assert outer.of(other) is None


def test_leaving_in_another_context_is_survived() -> None:
    """As where a framework runs the halves of a generator on two threads."""
    scope = new_scope(Sink())
    token = copy_context().run(current.set, scope)
    leave(token)
    assert current.get() is None
    token = current.set(scope)
    leave(token)
    assert current.get() is None
