"""``tracked`` on every kind of handler that Lambda runs, in process and on the real clock."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import logging
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

import doow_serverless as doow
from doow_serverless._recording.scope import current
from doow_serverless.errors import InvalidEvent
from doow_serverless.testing import MemoryTransport, TransportFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "dk_" + "a1" * 32
WAIT_S = 10


@pytest.fixture
def events() -> Iterator[MemoryTransport]:
    """The default tracker sends into memory."""
    transport = MemoryTransport()
    configure(transport)
    yield transport
    assert current.get() is None


def configure(transport: Any, **options: Any) -> doow.Tracker:
    return doow.configure(
        KEY, transport=transport, **{"license_id": "lic_1", "warm_up": False, **options}
    )


def metrics(transport: MemoryTransport) -> list[str]:
    return [event["measurements"][0]["metric_name"] for event in transport.events]


class Context:
    """What Lambda passes, with ``remaining_ms`` left when it is made."""

    aws_request_id = "8d0c"
    function_name = "mine"
    memory_limit_in_mb = "256"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:mine"

    def __init__(self, remaining_ms: float = 10_000) -> None:
        self._ends_at = time.monotonic() + remaining_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        return int((self._ends_at - time.monotonic()) * 1000)


class Silent(MemoryTransport):
    """A server that does not answer until the test is over."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.posted = threading.Event()
        super().__init__(self._wait)

    def _wait(self, _: Any) -> int:
        self.posted.set()
        self.may_answer.wait(WAIT_S)
        return 202


@pytest.fixture
def silent() -> Iterator[Silent]:
    transport = Silent()
    yield transport
    transport.may_answer.set()


# ── every kind of callable ─────────────────────────────────────────────────────────────────────


def plain(event: Any, context: Any) -> Any:
    doow.track("tokens")
    return event


async def native(event: Any, context: Any) -> Any:
    doow.track("tokens")
    await asyncio.sleep(0)
    return event


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


def decorated(handler: Any) -> Any:
    """As decorators of frameworks do: a def that returns the coroutine of what it wraps."""

    @functools.wraps(handler)
    def wrapper(event: Any, context: Any) -> Any:
        return handler(event, context)

    return wrapper


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


def call(handler: Any, event: Any = None, context: Any = None) -> Any:
    """As a runtime calls, for async handlers as an adapter would."""
    result = handler(event, context or Context())
    return asyncio.run(result) if inspect.iscoroutine(result) else result


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_callable(kind: str, events: MemoryTransport) -> None:
    """Each call delivers its events before its result goes back, which is the very same object."""
    handler = KINDS[kind]()
    for number in range(1, 4):
        event = {"number": number}
        assert call(handler, event) is event
        assert (metrics(events), len(events.batches)) == (["tokens"] * number, number)


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
        answer = doow.tracked(mangum.Mangum(application, lifespan="off"))(event, Context())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert (answer["statusCode"], answer["body"]) == (200, "fine")
    assert metrics(events) == ["requests"]


def test_attributes_and_signature_stay() -> None:
    """What is wrapped looks as before, to people and to frameworks."""

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
    assert both({"Records": []}, Context()) == {"statusCode": 200}
    assert (metrics(events), len(events.batches)) == (["tokens"], 1)


# ── the budget and the deadline ────────────────────────────────────────────────────────────────


def _unrelated() -> Any:
    return SimpleNamespace(get_remaining_time_in_millis="soon")


def _durable(context: Any) -> Any:
    return SimpleNamespace(lambda_context=context)


@pytest.mark.parametrize(
    "place",
    [
        lambda handler, context: handler({}, context),
        lambda handler, context: handler(event={}, context=context),
        lambda handler, context: handler(context, {}),
        lambda handler, context: handler(object(), {}, context),
        lambda handler, context: handler(_unrelated(), {}, context),
        lambda handler, context: handler(MagicMock(), {}, context),
        lambda handler, context: handler({}, _durable(context)),
        lambda handler, context: handler({}, anything=context),
    ],
)
def test_the_deadline_is_found_anywhere(place: Any, silent: Silent) -> None:
    """In whatever argument the context stands, its deadline is kept less the reserve."""
    configure(silent, budget=5.0)

    @doow.tracked
    def handler(*args: Any, **kwargs: Any) -> float:
        doow.track("tokens")
        return time.monotonic()

    ended = place(handler, Context(600))
    assert 0.25 < time.monotonic() - ended < 0.5


@pytest.mark.parametrize(
    ("remaining_ms", "at_least_s", "at_most_s"),
    [(600, 0.2, 0.5), (200, 0.0, 0.15), (-50, 0.0, 0.15)],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_deadline_beats_the_budget(
    kind: str, remaining_ms: int, at_least_s: float, at_most_s: float, silent: Silent
) -> None:
    """With a budget of 5 s, a silent server costs what the platform leaves, less 250 ms."""
    configure(silent, budget=5.0)
    handler = doow.tracked(plain if kind == "def" else native)
    context = Context(remaining_ms)

    async def timed() -> float:
        began = time.monotonic()
        result = handler({}, context)
        if inspect.iscoroutine(result):
            await result
        return time.monotonic() - began

    assert at_least_s <= asyncio.run(timed()) <= at_most_s


def test_the_time_that_the_handler_took_counts(silent: Silent) -> None:
    """The deadline is asked for when the handler is done."""
    configure(silent, budget=5.0)
    context = Context(900)

    @doow.tracked
    def handler(event: Any, context: Any) -> float:
        doow.track("tokens")
        while context.get_remaining_time_in_millis() > 400:
            threading.Event().wait(0.01)
        return time.monotonic()

    assert time.monotonic() - handler({}, context) < 0.3


@pytest.mark.parametrize("context", [None, MagicMock(), _unrelated(), "context"])
def test_without_a_deadline_the_budget_counts(context: Any, silent: Silent) -> None:
    """Test doubles that answer to any name tell no time."""
    configure(silent, budget=0.1)
    began = time.monotonic()
    call(doow.tracked(plain), {}, context or SimpleNamespace())
    assert 0.1 <= time.monotonic() - began < 0.35


def test_the_budget_of_the_wrapper(silent: Silent) -> None:
    """It beats the one that was configured."""
    configure(silent, budget=5.0)
    began = time.monotonic()
    call(doow.tracked(budget=0.1)(plain))
    assert 0.1 <= time.monotonic() - began < 0.35


@pytest.mark.contains
def test_a_context_that_fails_is_contained(events: MemoryTransport) -> None:
    """The budget is what counts where the deadline cannot be told."""

    class Failing:
        calls = 0

        def get_remaining_time_in_millis(self) -> int:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("frozen")
            return 1_000

    assert call(doow.tracked(plain), 5, Failing()) == 5
    assert metrics(events) == ["tokens"]


# ── what passes untouched ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["def", "async def", "def that returns a coroutine"])
@pytest.mark.parametrize(
    "exception",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()],
    ids=lambda exception: type(exception).__name__,
)
def test_exceptions_pass_untouched(
    kind: str, exception: BaseException, events: MemoryTransport
) -> None:
    """The same object comes out, from the same frames of the user, and the events are sent."""

    def fail() -> None:
        raise exception

    if kind == "def":

        def handler(event: Any, context: Any) -> None:
            doow.track("tokens")
            fail()

    else:

        async def handler(event: Any, context: Any) -> None:  # type: ignore[misc]  # either
            doow.track("tokens")
            fail()

    tracked = doow.tracked(
        handler if kind != "def that returns a coroutine" else decorated(handler)
    )
    run: Any = _run_async if kind != "def" else lambda handler: handler({}, None)
    with pytest.raises(type(exception)) as caught:
        run(tracked)
    assert caught.value is exception
    assert caught.value.__context__ is None
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-2:] == [
        "handler",
        "fail",
    ]
    assert metrics(events) == ["tokens"]


def _run_async(handler: Any) -> None:
    """Call ``handler`` on a loop, and let even what ends a loop come out of it."""
    raised: list[BaseException] = []

    async def main() -> None:
        try:
            await handler({}, None)
        except BaseException as exception:
            raised.append(exception)

    asyncio.run(main())
    raise raised[0]


def test_a_coroutine_that_is_closed_flushes(silent: Silent) -> None:
    """A closed coroutine may not await, and its events leave all the same."""
    configure(silent, budget=0.1)

    @doow.tracked
    async def handler(event: Any, context: Any) -> None:
        doow.track("tokens")
        await asyncio.Event().wait()

    async def main() -> None:
        coroutine = handler({}, None)
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert silent.posted.wait(WAIT_S)
    assert current.get() is None


def test_the_exception_survives_a_server_that_fails() -> None:
    """A failing flush can neither mask nor chain the handler's error."""
    error = ValueError("mine")
    configure(MemoryTransport([TransportFault(doow.errors.ErrorKind.TIMEOUT, "x")]), budget=0.05)

    @doow.tracked
    def handler(event: Any, context: Any) -> None:
        doow.track("tokens")
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        handler({}, None)
    assert (caught.value, caught.value.__context__, caught.value.__cause__) == (error, None, None)


@pytest.mark.parametrize("result", [None, 0, [], object(), NotImplemented, {"a": 1}])
def test_the_result_is_the_same_object(result: Any, events: MemoryTransport) -> None:
    """Whatever a handler returns comes back as itself."""
    assert doow.tracked(lambda event, context: result)({}, None) is result


# ── scopes ─────────────────────────────────────────────────────────────────────────────────────


def test_no_scope_leaks_into_the_next_call(events: MemoryTransport) -> None:
    """After a call, be it well or ill, what is recorded belongs to nobody's invocation."""
    seen = []

    @doow.tracked(license_id="lic_own")
    def handler(event: Any, context: Any) -> None:
        seen.append(current.get())
        if event:
            raise ValueError

    for event in (False, True, False):
        with suppress(ValueError):
            handler(event, None)
        assert current.get() is None
    doow.track("later")
    doow.flush()
    assert [event["license_id"] for event in events.events] == ["lic_1"]
    assert len(set(map(id, seen))) == 3


def test_nested_wrappers_share_one_post(events: MemoryTransport) -> None:
    """The outermost delivers, once."""
    inner = doow.tracked(plain)

    @doow.tracked
    def outer(event: Any, context: Any) -> Any:
        inner(event, context)
        assert events.batches == []
        return inner(event, context)

    call(outer)
    assert (metrics(events), len(events.batches)) == (["tokens", "tokens"], 1)


def test_an_empty_invocation_sends_nothing(events: MemoryTransport) -> None:
    """No event, no POST."""
    assert doow.tracked(lambda event, context: 5)({}, None) == 5
    assert events.batches == []


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["def", "async def", "def that returns a coroutine"])
def test_discard(kind: str, fails: bool, events: MemoryTransport) -> None:
    """With ``on_exception="discard"`` a failed invocation is not metered, nor its own metric."""

    def body() -> None:
        doow.track("tokens")
        if fails:
            raise ValueError

    def handler(event: Any, context: Any) -> None:
        body()

    async def async_handler(event: Any, context: Any) -> None:
        body()

    wrap = doow.tracked(on_exception="discard", metric="api_calls")
    kinds = {"def": handler, "async def": async_handler}
    tracked: Any = wrap(kinds.get(kind, decorated(async_handler)))
    with suppress(ValueError):
        call(tracked)
    assert metrics(events) == ([] if fails else ["api_calls", "tokens"])
    assert len(events.batches) == (0 if fails else 1)


def test_its_own_metric(events: MemoryTransport) -> None:
    """``metric=`` records one of it for each invocation, with the wrapper's license and labels."""
    tracked = doow.tracked(metric="api_calls", license_id="lic_2", attribution={"team": "ai"})(
        plain
    )
    call(tracked)
    assert [
        (event["measurements"][0], event["license_id"], event["attribution"])
        for event in events.events
    ] == [
        ({"metric_name": "api_calls", "quantity": 1}, "lic_2", {"team": "ai"}),
        ({"metric_name": "tokens", "quantity": 1}, "lic_2", {"team": "ai"}),
    ]


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """``track`` over ``tracked``, the inner over the outer, over the environment, over code."""
    transport = MemoryTransport()
    monkeypatch.setenv("DOOW_TRACK_LICENSE_ID", "lic_env")
    monkeypatch.setenv("DOOW_TRACK_ATTRIBUTION", '{"b": "env", "c": "env", "d": "env", "e": "env"}')
    configure(transport, license_id="lic_code", attribution=dict.fromkeys("abcde", "code"))

    @doow.tracked(license_id="lic_inner", attribution={"d": "inner", "e": "inner"})
    def inner() -> None:
        doow.track("inner")
        doow.track("own", license_id="lic_own", attribution={"e": "own"})

    @doow.tracked(attribution={"c": "outer", "d": "outer"})
    def middle() -> None:
        doow.track("middle")
        inner()

    @doow.tracked(license_id="lic_outer")
    def outer() -> None:
        doow.track("outer")
        middle()

    doow.track("stray")
    outer()
    found = {
        event["measurements"][0]["metric_name"]: (
            event["license_id"],
            [event["attribution"][name] for name in "abcde"],
        )
        for event in transport.events
    }
    assert found == {
        "stray": ("lic_env", ["code", "env", "env", "env", "env"]),
        "outer": ("lic_outer", ["code", "env", "env", "env", "env"]),
        "middle": ("lic_outer", ["code", "env", "outer", "outer", "env"]),
        "inner": ("lic_inner", ["code", "env", "outer", "inner", "inner"]),
        "own": ("lic_own", ["code", "env", "outer", "inner", "own"]),
    }


def test_a_tracker_of_its_own(events: MemoryTransport) -> None:
    """``tracker=`` sends there, and the functions of the package record with it inside."""
    own = MemoryTransport()
    tracker = doow.Tracker(KEY, transport=own, license_id="lic_own", warm_up=False)
    call(doow.tracked(tracker=tracker)(plain))
    call(tracker.tracked(plain))
    assert (metrics(own), metrics(events)) == (["tokens", "tokens"], [])


def test_configured_late(events: MemoryTransport) -> None:
    """A handler that was decorated before ``configure`` uses what was configured since."""
    handler = doow.tracked(plain)
    later = MemoryTransport()
    configure(later)
    call(handler)
    assert (metrics(events), metrics(later)) == ([], ["tokens"])


def test_a_disabled_process_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded, checked or sent, and the handler runs as ever."""
    monkeypatch.setenv("DOOW_TRACK_DISABLED", "true")
    transport = MemoryTransport()
    tracker = configure(transport, strict=True)

    @doow.tracked(metric="api_calls")
    def handler(event: Any, context: Any) -> Any:
        doow.track("", -1)  # as wrong as can be
        with doow.transaction():
            doow.track("tokens")
        assert current.get() is None
        return event

    assert call(handler, 5) == 5
    assert asyncio.run(doow.tracked(native)(6, None)) == 6
    assert doow.flush() == doow.Outcome()
    assert (transport.batches, tracker.engine.unattended.in_hand) == ([], 0)


def test_strict_mode_refuses_before_the_body_of_a_coroutine() -> None:
    """An async handler whose own metric is refused is not begun: nothing is left unawaited."""
    tracker = doow.Tracker(KEY, transport=MemoryTransport(), strict=True, warm_up=False)
    begun: list[str] = []

    class Handler:
        async def __call__(self) -> None:
            begun.append("the body")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InvalidEvent, match="license_id"):
            asyncio.run(tracker.tracked(metric="api_calls")(Handler())())
        gc.collect()
    assert (begun, [str(each.message) for each in caught]) == ([], [])


def test_hooks_that_raise_are_contained(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever ``on_error`` and ``on_flush`` do, the handler hears nothing of it."""

    def failing(argument: object) -> None:
        raise RuntimeError(f"of {type(argument).__name__}")

    configure(MemoryTransport([400]), on_error=failing, on_flush=failing)
    with caplog.at_level(logging.WARNING, "doow_serverless"):
        assert call(doow.tracked(plain), 5) == 5
        doow.track("tokens", -1)
    assert caplog.messages == [
        "on_error raised RuntimeError('of DoowError')",
        "on_flush raised RuntimeError('of Outcome')",
        "on_error raised RuntimeError('of InvalidEvent')",
    ]


# ── threads, tasks, cancellation ───────────────────────────────────────────────────────────────


def test_a_cancelled_handler_flushes(events: MemoryTransport) -> None:
    """The cancellation reaches the caller once the events are delivered."""

    @doow.tracked
    async def handler(began: asyncio.Event) -> None:
        doow.track("tokens")
        began.set()
        await asyncio.Event().wait()

    async def main() -> bool:
        began = asyncio.Event()
        task = asyncio.ensure_future(handler(began))
        await began.wait()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert metrics(events) == ["tokens"]


def test_a_flush_that_is_cancelled_completes(silent: Silent) -> None:
    """A cancellation while the flush waits is kept until the answer is there."""
    configure(silent, budget=5.0)
    handler = doow.tracked(native)

    async def main() -> bool:
        task = asyncio.ensure_future(handler({}, None))
        await asyncio.to_thread(silent.posted.wait, WAIT_S)
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        silent.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert metrics(silent) == ["tokens"]


def test_the_loop_turns_while_a_flush_waits(silent: Silent) -> None:
    """An async flush leaves the event loop to others."""
    configure(silent, budget=5.0)

    async def main() -> Any:
        async def answer() -> None:
            await asyncio.to_thread(silent.posted.wait, WAIT_S)
            silent.may_answer.set()

        return (await asyncio.gather(doow.tracked(native)(5, None), answer()))[0]

    assert asyncio.run(main()) == 5
    assert metrics(silent) == ["tokens"]


def test_concurrent_invocations_never_mix(events: MemoryTransport) -> None:
    """Each task and each thread sends its own, in a batch of its own."""
    together = threading.Barrier(4)

    @doow.tracked
    def handler(number: int) -> None:
        doow.track(f"m{number}")
        together.wait(WAIT_S)
        doow.track(f"m{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(handler, range(4)))

    @doow.tracked
    async def async_handler(number: int) -> None:
        doow.track(f"m{number}")
        await asyncio.sleep(0)
        doow.track(f"m{number}")

    async def main() -> None:
        await asyncio.gather(*(async_handler(number) for number in range(4, 8)))

    asyncio.run(main())
    batches = [metrics_of(batch) for batch in events.batches]
    assert sorted(batches) == [[f"m{number}"] * 2 for number in range(8)]


def metrics_of(batch: Any) -> list[str]:
    import json

    return [e["measurements"][0]["metric_name"] for e in json.loads(batch.json())["events"]]


def test_executor_threads_record_into_the_invocation(events: MemoryTransport) -> None:
    """``asyncio.to_thread`` carries the invocation along."""

    @doow.tracked
    async def handler() -> None:
        await asyncio.to_thread(doow.track, "in a thread")
        doow.track("in the task")

    asyncio.run(handler())
    assert [metrics_of(batch) for batch in events.batches] == [["in a thread", "in the task"]]


def test_raw_threads_leave_with_the_next_flush(events: MemoryTransport) -> None:
    """A thread that sees no invocation loses nothing."""

    @doow.tracked
    def handler() -> None:
        thread = threading.Thread(target=doow.track, args=("in a raw thread",))
        thread.start()
        thread.join()
        doow.track("in the handler")

    handler()
    assert [sorted(metrics_of(batch)) for batch in events.batches] == [
        ["in a raw thread", "in the handler"]
    ]


def test_early_batches_of_raw_threads_are_reported() -> None:
    """What the server refuses of them is told, by the next flush at the latest."""
    told: list[str] = []
    transport = MemoryTransport(lambda _: 400)
    configure(transport, flush_at=2, on_error=lambda error: told.extend(error.event_ids))

    def in_thread() -> None:
        doow.track("tokens", event_id="1")
        doow.track("tokens", event_id="2")

    @doow.tracked
    def handler() -> None:
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        doow.track("tokens", event_id="3")

    handler()
    handler()
    assert set(told) == {"1", "2", "3"}


def test_what_outlives_its_invocation_leaves_with_the_next(events: MemoryTransport) -> None:
    """A late task and a late thread record after the end: kept, and sent with the next flush."""
    may_go_on = threading.Event()
    threads: list[threading.Thread] = []

    def late() -> None:
        may_go_on.wait(WAIT_S)
        doow.track("late")

    @doow.tracked
    def handler(first: bool) -> None:
        doow.track("in time")
        if first:
            context = contextvars.copy_context()
            threads.append(threading.Thread(target=context.run, args=(late,)))
            threads[0].start()

    handler(True)
    may_go_on.set()
    threads[0].join()
    handler(False)
    assert [sorted(metrics_of(batch)) for batch in events.batches] == [
        ["in time"],
        ["in time", "late"],
    ]


def test_a_late_task(events: MemoryTransport) -> None:
    """A task that outlives its invocation neither raises nor is lost."""

    async def late(ended: asyncio.Event) -> None:
        await ended.wait()
        with doow.transaction():
            doow.track("late")

    @doow.tracked
    async def handler(ended: asyncio.Event) -> asyncio.Task[None]:
        return asyncio.create_task(late(ended))

    async def main() -> None:
        ended = asyncio.Event()
        task = await handler(ended)
        ended.set()
        await task
        await doow.aflush()

    asyncio.run(main())
    assert metrics(events) == ["late"]


def test_a_tracked_call_in_a_late_context_flushes_itself(events: MemoryTransport) -> None:
    """Where the invocation around it is over, a wrapper is outermost again."""
    contexts: list[contextvars.Context] = []
    doow.tracked(lambda: contexts.append(contextvars.copy_context()))()
    contexts[0].run(doow.tracked(plain), None, None)
    assert (metrics(events), len(events.batches)) == (["tokens"], 1)


def test_a_transaction_across_contexts(events: MemoryTransport) -> None:
    """The halves of a generator may run in two contexts, as frameworks have it."""

    def dependency() -> Any:
        with doow.transaction():
            doow.track("tokens")
            yield

    halves = dependency()
    contextvars.copy_context().run(next, halves)
    contextvars.copy_context().run(next, halves, None)
    doow.flush()
    assert metrics(events) == ["tokens"]


def test_the_handler_runs_once_per_call(events: MemoryTransport) -> None:
    """Nothing is retried but what is ours."""
    configure(MemoryTransport([500, 500]), budget=1.0)
    handler = MagicMock(side_effect=plain)
    call(doow.tracked(handler))
    assert handler.call_count == 1
    assert sys.exc_info() == (None, None, None)
