"""Powertools for AWS Lambda: Event Handler middleware, batch records, metrics of the flushes."""

from __future__ import annotations

import json
import sys
from copy import copy

from ._callables import call_within
from ._middleware import Middleware, api_of
from ._outcome import Outcome
from ._platforms.aws_events import record_name
from ._process.log import report_fault
from ._recording.transaction import Block
from ._redaction import show
from ._values import true_or_false
from .errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, overload

    from aws_lambda_powertools.event_handler import ApiGatewayResolver, Response
    from aws_lambda_powertools.metrics import EphemeralMetrics
    from typing_extensions import Unpack

    from ._api import Api, ApiOptions
    from ._handlers.options import TrackedOptions
    from ._tracker import Tracker

    RecordHandler = TypeVar("RecordHandler", bound=Callable[..., Any])

__all__ = ["DoowMiddleware", "cloudwatch_metrics", "record_identity", "record_transaction"]


class DoowMiddleware(Middleware):
    """Middleware of Event Handler: what a route records is delivered before the resolver returns.

    ::

        app = APIGatewayRestResolver()
        app.use(middlewares=[DoowMiddleware()])

    For every resolver that takes middleware, for a ``Router``, or for one route
    (``@app.post("/jobs", middlewares=[…])``). The deadline comes from the Lambda context. Inside
    ``@doow.tracked``, or another of these, it records into the same buffer, and the outermost
    delivers, in one POST. The response and exceptions pass untouched.

    Args:
        budget: Seconds for which the response may be held. Default: that of ``configure``,
            2 seconds.
        license_id: The license of events that name none.
        attribution: Attribution of all events of these routes, under their own.
        on_exception: ``"flush"`` delivers what was recorded although the route raised;
            ``"discard"`` forgets it, also where an ``@app.exception_handler`` turns the exception
            into a response afterwards. A response that a route *returns* is a success, whatever its
            status.
        metric: A metric of which one is recorded for each request, those that find no route and
            the preflights of CORS included where the middleware is the application's.
        route_attribution: True adds ``route``, as it was declared (``"/jobs/<id>"``), and
            ``method`` to the attribution of what a request records. One that finds no route has
            neither, since its path may be any text.
        fold, flush_mode: As of :func:`doow_serverless.tracked`.
        tracker: The tracker to use. Default: the current one.

    Not covered: what runs outside of it, which is middleware that was added before, the validation
    of requests, and exception handlers. What they record leaves with the next flush, unless
    ``@doow.tracked`` is around it all. Under ``resolve_async`` Powertools runs this, as all
    middleware that is no ``async def``, on a thread of its own, so that the loop is never held.

    Raises:
        ConfigurationError: An option is wrong.
    """

    # Not derived from Powertools' BaseMiddlewareHandler, whose import brings all of Event Handler,
    # for which a consumer of messages has no use: what counts there is that this can be called.

    def __init__(self, *, route_attribution: bool = False, **options: Unpack[ApiOptions]) -> None:
        super().__init__(**options)
        self.__name__ = type(self).__name__  # By which Powertools shows the stack of middleware.
        self._tells_route = true_or_false("route_attribution", route_attribution)
        self._by_route: dict[tuple[str, str], TrackedOptions] = {}

    def __call__(
        self, app: ApiGatewayResolver, next_middleware: Callable[..., Response[Any]]
    ) -> Response[Any]:
        """Run the rest of the middleware and the route, and deliver what they recorded."""
        with self._begin(getattr(app, "lambda_context", None), options=self._options_for(app)):
            return next_middleware(app)

    def _options_for(self, app: ApiGatewayResolver) -> TrackedOptions:
        """Those of the middleware, with the attribution of the route that was found."""
        found = None
        if self._tells_route:
            try:
                found = _route_of(app)
            except Exception as fault:  # Another version of Powertools may say it otherwise.
                report_fault("looking for the route", fault)
        if found is None:
            return self.options
        if found not in self._by_route:  # No more than the application has declared.
            options = copy(self.options)
            options.attribution = {
                **dict(zip(("route", "method"), found, strict=True)),
                **(options.attribution or {}),
            }
            self._by_route[found] = options
        return self._by_route[found]


def _route_of(app: ApiGatewayResolver) -> tuple[str, str] | None:
    """The route as it was declared, and the method; None for a request that finds none."""
    # `app.request`, which is public, takes the path of a request that finds none for a route.
    route = app.context["_route"]
    if route.rule.pattern.startswith("^.*"):
        return None
    return route.path, app.current_event.http_method.upper()


if TYPE_CHECKING:

    @overload
    def record_transaction(record_handler: RecordHandler, /) -> RecordHandler: ...
    @overload
    def record_transaction(
        record_handler: None = None, /, *, tracker: Tracker | None = None
    ) -> Callable[[RecordHandler], RecordHandler]: ...


def record_transaction(record_handler: Any = None, /, *, tracker: Tracker | None = None) -> Any:
    """Decorate a record handler of batch processing: a transaction for each record.

    A record that fails leaves no events, since its message is delivered again. One that succeeds
    leaves them; where the Lambda handler is ``tracked(idempotent=True)``, in a batch of its own
    whose id derives from the record (:func:`record_identity`), so that it counts once when it is
    delivered again, in whatever company: after the invocation has failed, or on a stream behind a
    record that has.

    ::

        @record_transaction
        def process(record: SQSRecord) -> None:
            doow.track("documents")

        @doow.tracked(idempotent=True)
        def handler(event, context):
            return process_partial_response(event, process, processor, context)

    For a ``def`` under ``BatchProcessor`` and ``SqsFifoPartialProcessor``, and an ``async def``
    under ``AsyncBatchProcessor``, whose records run at once, each in a transaction of its own. It
    nests with ``doow.transaction()`` inside.

    Args:
        record_handler: The handler; given by the decorator syntax.
        tracker: The tracker to use. Default: the current one.

    Without ``@doow.tracked`` around the Lambda handler the events leave with the next flush,
    ``doow.flush()`` for one.

    Not guaranteed: without ``idempotent``, that such a record counts once. Streams go on from the
    first failure (https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html).
    Nor is a record known to have failed for another reason than its handler, as where a processor's
    own ``success_handler`` raises. A batch for each record costs a request for each.

    Raises:
        ConfigurationError: The handler cannot be called.
    """
    api = api_of(tracker)
    if record_handler is None:
        return lambda handler: _in_transaction(handler, api)
    return _in_transaction(record_handler, api)


def _in_transaction(handler: Any, api: Api) -> Any:
    if not callable(handler):
        raise ConfigurationError(
            f"record_transaction() takes a record handler, not {show(handler)}"
        )
    return call_within(handler, lambda args, kwargs: Block(api._scope(), _identity(args, kwargs)))


def _identity(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """That of the record, which Powertools passes by name, and a test or a method by position."""
    try:
        found = map(record_identity, (*kwargs.values(), *args))
        return next((identity for identity in found if identity is not None), None)
    except Exception as fault:
        report_fault("looking at the record", fault)
        return None


def record_identity(record: object) -> str | None:
    """What names a record, and names it again when it is delivered again; None if nothing does.

    The message id for SQS; the event id and the stream's ARN for Kinesis (shard and sequence
    number) and DynamoDB streams; topic, partition and offset for Kafka; and what AWS names the
    records of its other events by: SNS, S3, SES, Amazon MQ, Firehose, DocumentDB, EventBridge.

    Args:
        record: Powertools' data class, a model of its parser, or the dict that Lambda passes.

    Not guaranteed: that a message which a producer sends twice, or which is moved back from a
    dead-letter queue, keeps its identity, since SQS gives it another.
    """
    return record_name(record)


def cloudwatch_metrics(
    namespace: str | None = None, *, service: str | None = None, **dimensions: str
) -> Callable[[Outcome], None]:
    """An ``on_flush`` hook that writes CloudWatch metrics of each flush to standard output.

    ::

        doow.configure(on_flush=cloudwatch_metrics("MyApp", service="documents", stage="prod"))

    One line in the embedded metric format for each flush that had something to deliver, with
    ``EventsAccepted``, ``EventsRejected``, ``EventsUnsent`` and ``BacklogEvents`` (Count), and
    ``FlushTime`` (Milliseconds). Powertools' own ``Metrics`` are neither flushed nor added to.

    Args:
        namespace: The namespace. Default: ``POWERTOOLS_METRICS_NAMESPACE``.
        service: The dimension ``service``. Default: ``POWERTOOLS_SERVICE_NAME``.
        **dimensions: More dimensions, by their names; at most 28.

    ``POWERTOOLS_METRICS_DISABLED`` silences it where the version of Powertools knows it. Not
    guaranteed: that the sums tell what became of every event. One that is unsent may be delivered
    from the backlog later, which is no flush: alarm on ``BacklogEvents`` and ``EventsRejected``.

    Raises:
        ConfigurationError: There is no namespace, or there are too many dimensions.
    """
    # Imported when the hook is made, not while the first flush holds a response.
    from aws_lambda_powertools.metrics import EphemeralMetrics, SchemaValidationError, functions

    def measured(outcome: Outcome) -> EphemeralMetrics:
        # Metrics share one state in their class; each of these has its own, on whatever thread.
        metrics = EphemeralMetrics(namespace=namespace, service=service)
        for name, value in dimensions.items():
            metrics.add_dimension(name, value)
        metrics.add_metric("EventsAccepted", "Count", outcome.accepted)
        metrics.add_metric("EventsRejected", "Count", len(outcome.rejected))
        metrics.add_metric("EventsUnsent", "Count", sum(outcome.unsent.values()))
        metrics.add_metric("FlushTime", "Milliseconds", outcome.elapsed_s * 1000)
        metrics.add_metric("BacklogEvents", "Count", outcome.backlog)
        return metrics

    try:
        measured(Outcome()).serialize_metric_set()
    except SchemaValidationError as problem:
        raise ConfigurationError(f"cloudwatch_metrics(): {problem}") from None
    is_disabled = getattr(functions, "is_metrics_disabled", bool)  # Not in every version.
    stream = sys.stdout  # As of now: later it may be a text that the handler writes.

    def write(outcome: Outcome) -> None:
        document = measured(outcome).serialize_metric_set()
        if not is_disabled():
            stream.write(f"{json.dumps(document, separators=(',', ':'))}\n")
            stream.flush()

    return write
