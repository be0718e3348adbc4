"""What stands in for a tracked object is that object in all but its calls."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import subprocess
import sys
import typing
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest

import doow_serverless as doow
from tests.metering import metrics

if typing.TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport


@dataclass(eq=True)
class Handler:
    """An object that is called, with all that objects have."""

    answers: list[str] = field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]  # as dataclasses have it

    def __call__(self, event: str, *, loud: bool = False) -> str:
        doow.track("calls")
        self.answers.append(event)
        return event.upper() if loud else event

    def __len__(self) -> int:
        return len(self.answers)

    def __enter__(self) -> str:
        return "entered"

    def __exit__(self, *_: object) -> None:
        self.answers.append("left")

    def method(self) -> int:
        return len(self.answers)


class AsyncHandler:
    async def __call__(self, event: str) -> str:
        doow.track("calls")
        return event


class Method:
    """A callable that becomes a method, as those of Cython and of wrapt do."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        doow.track("calls")
        return self.function(*args)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Method(functools.partial(self.function, instance))


MODULE_LEVEL = doow.tracked(Handler())


def test_calls_are_tracked_and_the_rest_is_the_object(doow_events: MemoryTransport) -> None:
    """Attributes, also set and deleted, methods, operators, and what isinstance says."""
    handler = Handler()
    tracked: Any = doow.tracked(handler)
    assert tracked("a", loud=True) == "A"
    assert metrics(doow_events.events) == ["calls"]
    is_one = isinstance(tracked, Handler)  # Not in the assertion, which mypy would believe.
    assert is_one
    assert (tracked.answers, tracked.method(), len(tracked), bool(tracked)) == (["a"], 1, 1, True)
    tracked.flag = "mine"
    assert handler.flag == "mine"  # type: ignore[attr-defined]  # it has just been set
    del tracked.flag
    assert not hasattr(handler, "flag")
    with tracked as entered:
        assert entered == "entered"
    assert handler.answers == ["a", "left"]
    assert (tracked == handler, tracked == doow.tracked(handler), tracked != Handler()) == (
        (True,) * 3
    )
    assert (repr(tracked), vars(tracked), dir(tracked)) == (
        repr(handler),
        vars(handler),
        dir(handler),
    )
    assert (tracked.__doc__, tracked.__module__, tracked.__wrapped__) == (
        handler.__doc__,
        __name__,
        handler,
    )
    with pytest.raises(TypeError, match="unhashable"):
        hash(tracked)
    with pytest.raises(TypeError):
        iter(tracked)
    with pytest.raises(AttributeError, match="'Handler' object has no attribute 'missing'"):
        tracked.missing  # noqa: B018 - it raises


def test_what_frameworks_look_at() -> None:
    """The signature, the name, and whether calls give coroutines."""
    tracked: Any = doow.tracked(Handler())
    assert str(inspect.signature(tracked)) == "(event: 'str', *, loud: 'bool' = False) -> 'str'"
    assert inspect.getfullargspec(tracked).args == ["event"]
    assert inspect.getfullargspec(tracked.__call__).args == ["event"]
    assert (tracked.__name__, inspect.isroutine(tracked)) == ("Handler", False)
    running: Any = doow.tracked(AsyncHandler())
    assert inspect.iscoroutinefunction(running.__call__)
    assert inspect.iscoroutinefunction(doow.tracked(functools.partial(coroutine)))
    assert inspect.iscoroutinefunction(doow.tracked(Owner().async_method))


async def coroutine(event: str) -> str:
    return event


class Owner:
    method = doow.tracked(Method(lambda self, event: (self, event)))
    plain: Any = doow.tracked(lambda self, event: (self, event))
    handler = doow.tracked(Handler())
    bound: Any = doow.tracked([].append)

    async def async_method(self) -> None: ...


def test_methods(doow_events: MemoryTransport) -> None:
    """What becomes a method of a class still does, and nothing else."""
    owner = Owner()
    assert owner.method("a") == (owner, "a")
    assert owner.plain("a") == (owner, "a")
    assert owner.handler("a") == "a"
    assert owner.bound("a") is None
    assert metrics(doow_events.events) == ["calls"] * 2


def test_partials_and_bound_methods(doow_events: MemoryTransport) -> None:
    """They stay what they are, and have what they have."""
    partial: Any = doow.tracked(functools.partial(Handler(), loud=True))
    assert (partial("a"), partial.keywords, partial.__name__) == ("A", {"loud": True}, "partial")
    handler = Handler()
    method: Any = doow.tracked(handler.method)
    assert (method(), method.__self__, method.__func__, method.__name__) == (
        0,
        handler,
        Handler.method,
        "method",
    )
    assert inspect.ismethod(method)


@pytest.mark.parametrize("mock", [Mock(return_value=5), MagicMock(return_value=5)])
def test_mocks(mock: Any, doow_events: MemoryTransport) -> None:
    """A test asks the tracked mock what it was called with."""
    tracked = doow.tracked(mock)
    assert tracked({}, None) == 5
    tracked.assert_called_once_with({}, None)


@pytest.mark.parametrize(
    "copier", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies_are_tracked(copier: Any, doow_events: MemoryTransport) -> None:
    """Also those that went through pickle, as to a worker."""
    copied = copier(MODULE_LEVEL)
    assert (copied, copied is MODULE_LEVEL) == (MODULE_LEVEL, False)
    assert copied("a") == "a"
    assert metrics(doow_events.events) == ["calls"]
    if copier is not copy.copy:
        assert MODULE_LEVEL.answers == []
    MODULE_LEVEL.answers.clear()


def test_a_transaction_keeps_methods_too(doow_events: MemoryTransport) -> None:
    """Whatever wraps an object."""
    handler = Handler()
    wrapped = doow.transaction()(handler)
    assert (doow.tracked(wrapped)("a"), wrapped.method()) == ("a", 1)
    assert metrics(doow_events.events) == ["calls"]


# ── signatures ─────────────────────────────────────────────────────────────────────────────────


def handler(event: dict[str, int], /, context: Any = None, *rest: int, flag: bool = False) -> str:
    return ""


def test_every_reader_of_signatures_reads_the_right_one() -> None:
    """Those that follow __wrapped__ and those that do not."""
    tracked: Any = doow.tracked(doow.transaction()(handler))
    assert inspect.signature(tracked) == inspect.signature(handler)
    assert inspect.signature(tracked, follow_wrapped=False) == inspect.signature(handler)
    assert inspect.getfullargspec(tracked) == inspect.getfullargspec(handler)
    assert typing.get_type_hints(tracked) == typing.get_type_hints(handler)


def test_a_signature_that_stands_in() -> None:
    """It is a Signature to all who ask, and can be changed, printed, hashed and pickled."""
    late: Any = doow.tracked(handler).__signature__  # type: ignore[attr-defined]  # it is there
    real = inspect.signature(handler)
    assert isinstance(late, inspect.Signature)
    assert (late, str(late), repr(late)) == (real, str(real), repr(real))
    assert real == late
    assert list(late.parameters) == ["event", "context", "rest", "flag"]
    assert late.replace(parameters=[]).parameters == {}
    assert late.bind({}, 1).arguments == {"event": {}, "context": 1}
    assert inspect.Signature.bind(late, {}).arguments == {"event": {}}
    plain = inspect.signature(doow.tracked(lambda event: event))
    assert hash(plain) == hash(inspect.signature(lambda event: event))
    assert pickle.loads(pickle.dumps(plain)) == plain
    assert copy.deepcopy(plain) == plain


def test_a_signature_that_a_decorator_has_set_stays() -> None:
    """It knows better than the parameters of its wrapper do."""

    @functools.wraps(handler)
    def outer(*args: Any, **kwargs: Any) -> Any: ...

    outer.__signature__ = inspect.Signature()  # type: ignore[attr-defined]  # as decorators do
    assert str(inspect.signature(doow.tracked(outer))) == "()"


def test_decorating_does_not_import_inspect() -> None:
    """Which would cost a cold start some milliseconds; only a reader needs it."""
    program = (
        "import sys\n"
        "import doow_serverless as doow\n"
        "@doow.tracked\n"
        "def handler(event, context): pass\n"
        "class Kind:\n"
        "    def __call__(self, event): pass\n"
        "doow.tracked(Kind())\n"
        "print('inspect' in sys.modules)\n"
        "import inspect\n"
        "print(inspect.getfullargspec(handler).args)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n['event', 'context']\n", "")
