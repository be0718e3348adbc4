"""What stands in for a tracked object is that object in all but its calls."""

from __future__ import annotations

import copy
import dis
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
from doow_serverless import _callables
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
    assert "__signature__" not in dir(tracked)
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


class Model: ...


def with_models(one: Model, two: Model | None = None) -> Model:
    return one


class WithModels:
    def __call__(self, one: Model) -> Model:
        return one


async def with_models_async(one: Model) -> Model:
    return one


CALLABLES: dict[str, Any] = {
    "def": with_models,
    "async def": with_models_async,
    "method": WithModels().__call__,
    "partial": functools.partial(with_models, two=None),
    "object": WithModels(),
    "decorated": functools.wraps(with_models)(lambda *args: args),
    "builtin": [].append,
}


@pytest.fixture
def _no_blind_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is loaded that reads signatures without following ``__wrapped__``."""
    for name in _callables._BLIND_TO_WRAPPED:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("_no_blind_framework")
@pytest.mark.parametrize("kind", CALLABLES)
@pytest.mark.parametrize("eval_str", [False, True])
@pytest.mark.parametrize("wrap", [doow.tracked, doow.transaction()])
def test_the_signature_is_that_of_the_original(kind: str, eval_str: bool, wrap: Any) -> None:
    """Annotations are evaluated where the original's would be, and only there."""
    original = CALLABLES[kind]
    tracked = wrap(original)
    assert inspect.signature(tracked, eval_str=eval_str) == inspect.signature(
        original, eval_str=eval_str
    )
    if hasattr(original, "__annotations__"):
        assert typing.get_type_hints(tracked) == typing.get_type_hints(original)


@pytest.mark.usefixtures("_no_blind_framework")
@pytest.mark.parametrize("kind", CALLABLES)
def test_no_signature_is_set(kind: str) -> None:
    """A signature that is set hides how its annotations are to be evaluated."""
    assert not hasattr(doow.tracked(CALLABLES[kind]), "__signature__")


@pytest.mark.parametrize("function", [with_models, with_models_async])
def test_a_wrapper_lives_in_the_module_of_its_original(function: Any) -> None:
    """There frameworks look up names of annotations; so the wrapper itself may look up none."""
    tracked = doow.tracked(function)
    assert tracked.__globals__ is function.__globals__
    looked_up = {each.argval for each in dis.get_instructions(tracked) if "GLOBAL" in each.opname}
    assert looked_up == set()


@pytest.mark.parametrize("name", _callables._BLIND_TO_WRAPPED)
@pytest.mark.parametrize("kind", CALLABLES)
def test_where_a_framework_does_not_see_the_original(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary signature is set, with types instead of their names."""
    monkeypatch.setitem(sys.modules, name, sys)
    original: Any = CALLABLES[kind]
    seen: Any = doow.tracked(original)
    if kind in ("method", "object", "partial", "builtin"):
        seen = seen.__call__
    assert type(seen.__signature__) is inspect.Signature
    assert seen.__signature__ == inspect.signature(original, eval_str=True)


def test_an_annotation_that_cannot_be_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text stays, and so do the names of the arguments; no signature costs nothing."""
    monkeypatch.setitem(sys.modules, "pyramid", sys)

    def unknown(request: NotThere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    tracked: Any = doow.tracked(unknown)
    assert str(tracked.__signature__) == "(request: 'NotThere') -> 'None'"
    assert not hasattr(doow.tracked(dict.fromkeys), "__signature__")


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
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
