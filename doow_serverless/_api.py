"""What users call: the same methods for one tracker as for whichever tracker is current."""

from __future__ import annotations

from functools import update_wrapper
from time import monotonic

from ._handlers.options import TrackedOptions
from ._handlers.platform import expect_after_response
from ._handlers.wrap import wrap
from ._process import forks
from ._recording.misuse import MISSING, Misuse
from ._recording.plain import plain
from ._recording.scope import MANY, record_misused
from ._recording.transaction import Transaction
from ._values import seconds
from .errors import ConfigurationError, InvalidEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any, TypeVar, overload

    from typing_extensions import Unpack

    from ._engine import Engine
    from ._handlers.options import Options
    from ._outcome import Outcome
    from ._recording.rules import Number
    from ._recording.scope import Scope

    F = TypeVar("F", bound=Callable[..., Any])
    Handler = TypeVar("Handler")

    class ApiOptions(Options, total=False):
        """The options of ``tracked`` and of the middlewares."""

        tracker: Api | None


def _run_by(run: Callable[..., Any]) -> Callable[[F], F]:
    """Have a declared method run ``run``, which takes any arguments, and complains about some.

    Type checkers, ``inspect.signature`` and ``help`` see the declaration.
    """
    return lambda declared: update_wrapper(run, declared)  # type: ignore[return-value]  # it stands for it


def _track(
    api: Api,
    metric: Any = MISSING,
    quantity: Any = MISSING,
    /,
    *others: Any,
    license_id: Any = None,
    unit: Any = None,
    attribution: Any = None,
    metadata: Any = None,
    timestamp: Any = None,
    kind: Any = "USAGE",
    source_system: Any = None,
    metric_tuple_hint: Any = None,
    event_id: Any = None,
    **unknown: Any,
) -> None:
    labels = (license_id, unit, attribution, kind, source_system, metric_tuple_hint)
    if unknown:
        if metric is MISSING:
            metric = unknown.pop("metric", MISSING)
        if quantity is MISSING:
            quantity = unknown.pop("quantity", MISSING)
    if unknown or others or metric is MISSING:
        places = {"metric": metric, "quantity": quantity}
        misuse = Misuse("track", places, _options_of(_track), others, unknown)
        metric, quantity = misuse.values.values()
        quantity = 1 if quantity is MISSING else quantity
        scope = api._scope()
        record_misused(scope, misuse, metric, quantity, labels, metadata, timestamp, event_id)
        return
    if quantity is MISSING:
        quantity = 1
    api._scope().record(metric, quantity, labels, metadata, timestamp, event_id)


def _track_all(
    api: Api,
    measurements: Any = MISSING,
    /,
    *others: Any,
    license_id: Any = None,
    unit: Any = None,
    attribution: Any = None,
    metadata: Any = None,
    timestamp: Any = None,
    kind: Any = "USAGE",
    source_system: Any = None,
    event_id: Any = None,
    **unknown: Any,
) -> None:
    labels = (license_id, unit, attribution, kind, source_system, None)
    if not (unknown or others or measurements is MISSING):
        api._scope().record(MANY, measurements, labels, metadata, timestamp, event_id)
        return
    places = {"measurements": measurements}
    misuse = Misuse("track_all", places, _options_of(_track_all), others, unknown)
    (measurements,) = misuse.values.values()
    scope = api._scope()
    record_misused(scope, misuse, MANY, measurements, labels, metadata, timestamp, event_id)


def _track_llm(
    api: Api,
    response: Any = MISSING,
    /,
    *others: Any,
    license_id: Any = None,
    model: Any = None,
    provider: Any = None,
    unit: Any = "tokens",
    attribution: Any = None,
    metadata: Any = None,
    timestamp: Any = None,
    event_id: Any = None,
    **unknown: Any,
) -> None:
    from ._recording.llm import labelled, usage_of  # Only who asks for it pays for its import.

    scope = api._scope()
    places = {"response": response}
    misuse = Misuse("track_llm", places, _options_of(_track_llm), others, unknown)
    measurements: dict[str, int] = {}
    found: dict[str, str] = {}
    if not misuse.fault:
        try:
            measurements, found = usage_of(misuse.values["response"])
        except InvalidEvent as problem:
            misuse.fault = str(problem)
    told = labelled(found, model, provider, attribution, scope.defaults.removed)
    labels = (license_id, unit, told, "USAGE", None, None)
    record_misused(scope, misuse, MANY, measurements, labels, metadata, timestamp, event_id)


def _transaction(api: Api, /, *others: Any, **unknown: Any) -> Transaction:
    if len(others) == 1 and not unknown and callable(others[0]):
        # Not in a handler, but where one is decorated: without the brackets.
        raise ConfigurationError("write @doow.transaction(), with brackets, to decorate a function")
    _complain(api, Misuse("transaction", {}, (), others, unknown))
    return Transaction(api._scope)


def _flush(api: Api, budget: Any = MISSING, /, *others: Any, **unknown: Any) -> Outcome:
    engine, limit_s = _ready_to_flush(api, "flush", budget, others, unknown)
    return engine.flush(api._scope().buffer.root, limit_s)


async def _aflush(api: Api, budget: Any = MISSING, /, *others: Any, **unknown: Any) -> Outcome:
    engine, limit_s = _ready_to_flush(api, "aflush", budget, others, unknown)
    return await engine.aflush(api._scope().buffer.root, limit_s)


def _ready_to_flush(
    api: Api, called: str, budget: Any, others: tuple[Any, ...], unknown: dict[str, Any]
) -> tuple[Engine, float]:
    """Return the engine, which has imported what it needs, and the seconds left for its flush.

    They are those of the configuration if ``budget`` is wrong.
    """
    misuse = Misuse(called, {"budget": None if budget is MISSING else budget}, (), others, unknown)
    _complain(api, misuse)
    engine: Engine = api._engine()
    limit_s: float = engine.config.budget_s
    budget = plain(misuse.values["budget"])
    if budget is not None:
        try:
            limit_s = seconds("budget", budget)
        except ConfigurationError as problem:
            engine.complain(problem)
    began = monotonic()
    forks.notice()
    engine.load()
    return engine, max(0.0, limit_s - (monotonic() - began))


def _complain(api: Api, misuse: Misuse) -> None:
    for mistake in misuse.mistakes:
        api._engine().complain(ConfigurationError(f"{mistake}, was ignored"))


def _options_of(run: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments that only go by name."""
    code = run.__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


class Api:
    """The methods of the contract. A subclass says which engine and which scope they mean."""

    def _engine(self) -> Engine:
        """Delivers what handlers that are decorated here record."""
        raise NotImplementedError

    def _scope(self) -> Scope:
        """Where the running code records into; outside of invocations, that of the engine."""
        raise NotImplementedError

    def _expect_invocations(self) -> None:
        """A handler is decorated: what its first flush needs may be made ready."""

    @_run_by(_track)
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
        is passed is copied, so changing it afterwards changes nothing. An argument that does not
        exist is reported with a suggestion, and the event counts if the rest of it is enough.

        Args:
            metric: Name of the metric, such as ``"tokens"``; 1 to 256 characters, as all names.
            quantity: An int, float, Decimal or other number of at most 64 digits, exact on the
                wire; greater than zero for usage, of any sign for an adjustment.
            license_id: The license that receives the usage. Default: that of the enclosing
                ``tracked``, else ``DOOW_TRACK_LICENSE_ID``, else that of ``configure``.
            unit: A label, such as ``"tokens"``.
            attribution: A flat mapping of at most 100 strings (to 4,096 characters), numbers and
                bools; laid over that of ``tracked`` and ``configure``. Entries that are None are
                left out.
            metadata: Anything that JSON can say, to 32 levels, and sets, decimals and dates. No
                request payloads, customer content, secrets or raw logs, please.
            timestamp: When it happened: an aware datetime, or ISO 8601 with ``Z`` or an offset.
                Default: now.
            kind: ``"USAGE"``, or ``"ADJUSTMENT"`` to correct.
            source_system: Default ``"sdk"``.
            metric_tuple_hint: ``app_name``, ``license_name`` and ``metric_name``, all of them, to
                help Doow find the metric.
            event_id: Your own id of the event. Default: a random UUID.

        UUIDs, members of enums, dates, numbers of numpy, and proxies (werkzeug's, wrapt's) of plain
        values are taken for what they say. A label (unit, attribution, metadata, source system,
        hint) that cannot be written exactly, whose methods raise, or that looks like a credential,
        is left out. ``on_error``, or else the log, receives its name, in at most five reports of
        one event. A label never costs the usage. An event is at most 256 KiB of JSON; metadata is
        read no further than that.

        Not guaranteed: that Doow knows the metric and the license; it says so in its answer, which
        ``on_error`` receives.

        Raises:
            InvalidEvent: In strict mode, for a bad event.
        """

    @_run_by(_track_all)
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

        They are accepted or refused together; at most 10,000 are looked at. Of usage, zeros are
        left out, unless all are zero.
        All else is as for :meth:`track`.

        Raises:
            InvalidEvent: In strict mode, for a bad event.
        """

    @_run_by(_track_llm)
    def track_llm(
        self,
        response: object,
        *,
        license_id: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        unit: str | None = "tokens",
        attribution: Mapping[str, Any] | None = None,
        metadata: Any = None,
        timestamp: datetime | str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Record the tokens that a language model has used: one event with several measurements.

        ::

            answer = client.chat.completions.create(...)
            doow.track_llm(answer, license_id="lic_acme")

        They are ``input_tokens``, all of the prompt; of these ``cached_input_tokens`` and
        ``cache_creation_input_tokens``; ``output_tokens``, all of the answer; and of these
        ``reasoning_tokens``. Zeros are left out. Prompt and answer are not looked at. An answer
        that tells no usage, or not in a way that is known here, is refused with a reason.

        Args:
            response: What a client has answered: OpenAI's (chat completions, responses,
                embeddings, and whoever answers alike), Anthropic's, Google's Gen AI, boto3's
                ``converse`` of Bedrock, LiteLLM or LangChain, as an object or as decoded JSON. Of
                a stream the last chunk, where it tells the usage, or what the client puts together
                from all of them (``stream.get_final_message()``).
            license_id: As for :meth:`track`.
            model: The model, where the answer does not say it, as Bedrock's does not. Default: as
                it says; becomes the attribution ``model``.
            provider: Who answered, such as ``"azure.ai.openai"``. Default: as its shape tells,
                by OpenTelemetry's names; becomes the attribution ``provider``.
            unit: A label.
            attribution: More of it, which wins.
            metadata: As for :meth:`track`.
            timestamp: As for :meth:`track`.
            event_id: As for :meth:`track`.

        Raises:
            InvalidEvent: In strict mode, for an answer or event that is refused.
        """

    @_run_by(_transaction)
    def transaction(self) -> Transaction:
        """A block whose events count only if it succeeds.

        Use it as ``with doow.transaction():``, or ``@doow.transaction()`` on a def or an async def.
        It nests: an inner block that fails takes only its own events with it, one that succeeds
        inside an outer one that fails is discarded too.

        In a generator, sync or async, the block is around the generator's own code, on whatever
        thread that runs, and not around its consumer, who may stop early: that is no failure. A
        ``@contextmanager`` lends its blocks to the code within; so does a FastAPI dependency with
        ``yield`` that is an ``async def``. One that is a plain ``def`` cannot, since FastAPI runs
        its two halves apart from the route.

        Raises:
            ConfigurationError: A function is passed, as by ``@doow.transaction`` without brackets;
                and in strict mode for any argument, which is otherwise reported and ignored.
        """
        raise NotImplementedError

    if TYPE_CHECKING:

        @overload
        def tracked(self, handler: Handler, /) -> Handler: ...
        @overload
        def tracked(
            self, handler: None = None, /, **options: Unpack[ApiOptions]
        ) -> Callable[[Handler], Handler]: ...

    def tracked(self, handler: Any = None, /, **options: Unpack[ApiOptions]) -> Any:
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
                ``"discard"`` forgets it. Default: ``"flush"``, but ``"discard"`` where
                ``idempotent``.
            metric: A metric of which one is recorded for each invocation.
            fold: Events of which metrics fold, as for ``configure``. Default: as around.
            idempotent: True derives the ids of events and batches from what the platform calls the
                work (the request, or its messages), so that an invocation that is retried and
                records the same events is counted once. An attempt that fails, or that the platform
                kills, counts nothing, since the retry records everything again: until the handler
                has returned nothing is sent, also not by ``flush`` or shortly before the deadline.
                Not guaranteed: that messages which come again in other company count once.
            flush_mode: ``"after_response"`` has the platform wait for the flush once the response
                has gone back, where it can: on Vercel, and on Lambda. Elsewhere the flush comes
                first, as by default, and one line in the log says why. Default: that of
                ``configure``, ``"before_response"``.
            tracker: The tracker to use. Default: the current one.

        Raises:
            ConfigurationError: An option is wrong, or the handler is nothing that can be wrapped.
        """
        tracker, tracked = parted("tracked", options)
        api = self if tracker is None else tracker
        api._expect_invocations()
        engine = api._engine  # Asked at each call, since the tracker may be configured late.
        if handler is None:
            return lambda handler: wrap(handler, tracked, engine)
        return wrap(handler, tracked, engine)

    @_run_by(_flush)
    def flush(self, budget: float | None = None) -> Outcome:
        """Deliver now what the current invocation has recorded so far; for long handlers.

        Args:
            budget: Seconds to wait at most. Default: that of ``configure``. A wrong one is
                reported, and the default counts.

        Returns:
            What became of each of these events. Those of open transactions stay.

        Raises:
            ConfigurationError: In strict mode, for a wrong argument.
        """
        raise NotImplementedError

    @_run_by(_aflush)
    async def aflush(self, budget: float | None = None) -> Outcome:
        """As :meth:`flush`, without blocking the event loop."""
        raise NotImplementedError


def parted(called: str, options: ApiOptions) -> tuple[Api | None, TrackedOptions]:
    """The tracker among ``options``, and the rest, checked; raises ConfigurationError.

    Args:
        called: By which name the user called what takes the options.
        options: As the user gave them.
    """
    tracker = options.pop("tracker", None)
    tracked = TrackedOptions(called, **options)  # type: ignore[misc]  # without the tracker
    if tracked.flush_mode == "after_response":
        expect_after_response()
    return tracker, tracked
