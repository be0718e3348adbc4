"""``tracked`` on every kind of callable that Lambda runs, and on what it refuses."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

import doow_serverless as doow
from tests.lambda_context import LambdaContext
from tests.metering import metrics
from tests.platforms.aws.handlers import call, decorated, native, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.testing import MemoryTransport


# ── every kind of callable ─────────────────────────────────────────────────────────────────────


class Methods:
    def method(self, event: Any, context: Any) -> Any:
        return plain(event, context)

    @doow.tracked
    def tracked_method(self, event: Any, context: Any) -> Any:
        return plain(event, context)

    @staticmethod
    @doow.tracked
    def below(event: Any, context: Any) -> Any:
        return plain(event, context)

    @doow.tracked
    @staticmethod
    def above(event: Any, context: Any) -> Any:
        return plain(event, context)

    @doow.tracked
    @classmethod
    def of_class(cls, event: Any, context: Any) -> Any:
        assert cls is Methods
        return plain(event, context)

    def __call__(self, event: Any, context: Any) -> Any:
        return plain(event, context)


class AsyncCallable:
    async def __call__(self, event: Any, context: Any) -> Any:
        return await native(event, context)


def with_prefix(prefix: str, event: Any, context: Any) -> Any:
    assert prefix == "prefix"
    return plain(event, context)


KINDS: dict[str, Callable[[], Any]] = {
    "def": lambda: doow.tracked(plain),
    "def with options": lambda: doow.tracked(budget=1.0)(plain),
    "async def": lambda: doow.tracked(native),
    "bound method": lambda: doow.tracked(Methods().method),
    "tracked method": lambda: Methods().tracked_method,
    "staticmethod above": lambda: Methods().below,
    "staticmethod below": lambda: Methods().above,
    "classmethod": lambda: Methods().of_class,
    "callable object": lambda: doow.tracked(Methods()),
    "async callable object": lambda: doow.tracked(AsyncCallable()),
    "partial": lambda: doow.tracked(functools.partial(with_prefix, "prefix")),
    "partial of async def": lambda: doow.tracked(functools.partial(native)),
    "lambda": lambda: doow.tracked(lambda event, context: plain(event, context)),
    "def that returns a coroutine": lambda: doow.tracked(decorated(native)),
    "decorator over tracked": lambda: decorated(doow.tracked(native)),
    "mock": lambda: doow.tracked(MagicMock(side_effect=plain)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_callable(kind: str, events: MemoryTransport) -> None:
    """Each call delivers its events before its result goes back, which is the very same object."""
    handler = KINDS[kind]()
    for number in range(1, 4):
        event = {"number": number}
        assert call(handler, event) is event
        assert (metrics(events.events), len(events.batches)) == (["tokens"] * number, number)


def test_a_mangum_handler(events: MemoryTransport) -> None:
    """An ASGI application under Mangum is a callable object as any other."""
    mangum = pytest.importorskip("mangum")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        doow.track("requests")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    event = {
        "version": "2.0",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {},
        "requestContext": {"http": {"method": "GET", "path": "/", "sourceIp": "127.0.0.1"}},
        "isBase64Encoded": False,
    }
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    try:
        answer = doow.tracked(mangum.Mangum(application, lifespan="off"))(event, LambdaContext())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert (answer["statusCode"], answer["body"]) == (200, "fine")
    assert metrics(events.events) == ["requests"]


def test_attributes_and_signature_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrapped looks as before, to people and to frameworks."""
    for name in ("bottle", "pyramid"):  # They need a signature that is set.
        monkeypatch.delitem(sys.modules, name, raising=False)

    def handler(event: dict[str, Any], context: Any = None) -> str:
        """Handles."""
        return ""

    handler.flag = "mine"  # type: ignore[attr-defined]  # as decorators do
    wrapped: Any = doow.tracked(handler)
    assert (wrapped.__name__, wrapped.__qualname__, wrapped.__doc__, wrapped.__module__) == (
        handler.__name__,
        handler.__qualname__,
        "Handles.",
        handler.__module__,
    )
    assert (wrapped.flag, wrapped.__wrapped__) == ("mine", handler)
    assert inspect.signature(wrapped) == inspect.signature(handler)
    assert inspect.iscoroutinefunction(doow.tracked(native))
    assert not inspect.iscoroutinefunction(wrapped)
    partial: Any = doow.tracked(functools.partial(plain))
    assert partial.__name__ == "partial"


def generator(event: Any, context: Any) -> Any:
    yield event


async def async_generator(event: Any, context: Any) -> Any:
    yield event


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (generator, "generator function generator, whose body runs only after it has returned"),
        (async_generator, "generator function async_generator, whose body"),
        (functools.partial(generator), "generator function partial, whose body"),
        ("app.handler", "takes a function or another callable, not 'app.handler'"),
        (5, "takes a function or another callable, not 5"),
        (Methods, "takes a function or another callable, not <class"),
    ],
)
def test_what_cannot_be_wrapped(handler: Any, message: str) -> None:
    """It is refused where it is decorated, with the reason."""
    with pytest.raises(doow.errors.ConfigurationError) as caught:
        doow.tracked(handler)
    assert message in str(caught.value)


TEXT = "must be a non-empty string of at most 256 characters, not"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1}, "budget must be a number of seconds from 0 up, such as 0.5, not -1"),
        ({"budget": True}, "budget must be a number of seconds from 0 up, such as 0.5, not True"),
        ({"on_exception": "drop"}, "on_exception must be 'flush' or 'discard', not 'drop'"),
        ({"license_id": ""}, f"tracked(): license_id {TEXT} ''"),
        ({"metric": 5}, f"tracked(): metric {TEXT} 5"),
        ({"attribution": "x"},
         "tracked(): attribution must be a mapping such as {'team': 'search'}, not 'x'"),
    ],
)  # fmt: skip
def test_wrong_options(options: Any, message: str) -> None:
    """Each is named with its value where the handler is decorated."""
    with pytest.raises(doow.errors.ConfigurationError) as caught:
        doow.tracked(**options)
    assert str(caught.value) == message


# ── with powertools ────────────────────────────────────────────────────────────────────────────


def _powertools() -> dict[str, Callable[[Any], Any]]:
    try:
        from aws_lambda_powertools import Logger, Metrics
        from aws_lambda_powertools.middleware_factory import lambda_handler_decorator
        from aws_lambda_powertools.utilities.data_classes import SQSEvent, event_source
    except ModuleNotFoundError:
        return {}

    @lambda_handler_decorator
    def own(handler: Any, event: Any, context: Any) -> Any:
        return handler(event, context)

    made: dict[str, Callable[[Any], Any]] = {
        "inject_lambda_context": lambda handler: Logger(service="s").inject_lambda_context(handler),
        "log_metrics": lambda handler: Metrics(namespace="n", service="s").log_metrics(handler),
        "event_source": lambda handler: event_source(data_class=SQSEvent)(handler),
        "lambda_handler_decorator": own,
    }
    return made


@pytest.mark.parametrize("order", ["tracked above", "tracked below"])
@pytest.mark.parametrize("decorator", _powertools())
@pytest.mark.filterwarnings("ignore:No application metrics")
def test_with_powertools(decorator: str, order: str, events: MemoryTransport) -> None:
    """Its decorators may stand above or below, and see what they are used to see."""
    decorate = _powertools()[decorator]

    def handler(event: Any, context: Any) -> Any:
        doow.track("tokens")
        return {"statusCode": 200}

    if order == "tracked above":
        both = doow.tracked(decorate(handler))
    else:
        both = decorate(doow.tracked(handler))
    assert both({"Records": []}, LambdaContext()) == {"statusCode": 200}
    assert (metrics(events.events), len(events.batches)) == (["tokens"], 1)
