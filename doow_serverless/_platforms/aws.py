"""AWS Lambda: the deadline from the context, the key from Secrets Manager or Parameter Store."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import chain
from math import isfinite
from time import monotonic
from weakref import WeakKeyDictionary

from doow_serverless._process import init_phase
from doow_serverless._process.signals import is_from_signal
from doow_serverless._process.whole_imports import whole
from doow_serverless._secrets import SECRET

from .aws_events import work_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from doow_serverless._handlers.options import TrackedOptions
    from doow_serverless._handlers.platform import Deferred
    from doow_serverless._recording.ids import Identity


_calls: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_LIMIT_S = 5.0
"""Seconds for which a service that keeps keys may be silent, at each of three attempts."""
_PLAIN = (str, bytes, int, float, dict, list, tuple, type(None))


def find_deadline(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """When Lambda kills the function, on the monotonic clock, where a context is passed.

    It may stand anywhere among the arguments, since methods and decorators add their own, and may
    be a durable context, which carries Lambda's as ``lambda_context``. It is asked once: the
    deadline of an invocation does not move, and a context of the user's may count its calls.
    """
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, _PLAIN):
            continue
        millis = _remaining_millis(argument)
        if millis is not None:
            return monotonic() + millis / 1000
    return None


def find_identity(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Identity | None:
    """The function, and what stays the same when Lambda has it do its work again.

    That is the ids of the messages or records that the event brings, since those come again in
    another invocation; else the request id, which Lambda keeps when it retries an asynchronous
    invocation (https://docs.aws.amazon.com/lambda/latest/dg/invocation-retries.html).
    """
    arguments = (*args, *kwargs.values())
    for context in chain.from_iterable(map(_contexts, arguments)):
        request_id = getattr(context, "aws_request_id", None)
        if isinstance(request_id, str) and request_id:
            works = filter(None, map(work_of, arguments))
            work = next(works, f"request:{request_id}")
            return str(getattr(context, "function_name", "")), work + _which_call(context)
    return None


def _contexts(argument: Any) -> Iterator[Any]:
    """What may be Lambda's context: an argument, or what it carries."""
    yield argument
    yield getattr(argument, "lambda_context", None)  # As the durable functions' does.
    if type(argument).__module__.startswith("chalice."):
        yield getattr(argument, "context", None)


def _which_call(context: Any) -> str:
    """What tells the tracked functions apart that one invocation calls one after the other."""
    # A retry in the same sandbox brings a context of its own, and counts from the start.
    try:
        earlier = _calls.get(context, 0)
        _calls[context] = earlier + 1
    except TypeError:
        return ""  # A stand-in of a test that has no identity of its own.
    return f"#{earlier}" if earlier else ""


def _remaining_millis(argument: Any) -> float | None:
    try:
        for context in _contexts(argument):
            ask = getattr(context, "get_remaining_time_in_millis", None)
            millis: Any = ask() if callable(ask) else None
            # A stand-in of a test may answer to any name: only a number is a time.
            if type(millis) in (int, float) and isfinite(millis):
                return float(millis)
    except BaseException as fault:
        if is_from_signal(fault):
            raise
        # Whatever it is, it is no context of Lambda's.
    return None


def prepare(handler: Any, _options: TrackedOptions) -> Any:
    """``handler`` as it is: Lambda calls any callable."""
    return handler


def expect_after_response() -> None:
    """Register for what comes after the response: Lambda allows it in the init phase alone."""
    from .aws_extension import register  # Only who asks for it pays for its imports.

    register()


def after_response(invocation: Deferred) -> str | None:
    """Have ``invocation`` flushed after its response; else why not, "" where this is no Lambda."""
    if not init_phase.is_lambda():
        return ""
    from .aws_extension import take

    return take(invocation.flush_after_response)


def load_fetch() -> Callable[[str, str, bool, bool], str | None]:
    """Import all that fetching a key imports, and return :func:`fetch_text`.

    That is Powertools, which imports boto3 and botocore. Making a client and calling it imports
    nothing more but the codec of host names.
    """
    import encodings.idna  # noqa: F401

    with whole("aws_lambda_powertools", "boto3", "botocore", "s3transfer", "dateutil", "urllib3"):
        from aws_lambda_powertools.utilities import parameters  # noqa: F401

    return fetch_text


def fetch_text(kind: str, place: str, anew: bool, is_previous: bool = False) -> str | None:
    """Return the text of a secret of Secrets Manager, or of a SecureString of Parameter Store.

    Args:
        kind: Which of both, as of :mod:`doow_serverless._secrets`.
        place: Its ARN or name.
        anew: Whether to bypass the cache.
        is_previous: Return the version of the secret before the current one; None if there is none.
    """
    with _unlogged():
        if kind not in _providers:
            _providers[kind] = _new_provider(kind)
        get = _providers[kind].get
        if is_previous:
            value: object = _previous(get, place)
        elif kind == SECRET:
            value = get(place, force_fetch=anew)
        else:
            value = get(place, decrypt=True, force_fetch=anew)
    if value is None:
        return None
    return _decoded(value) if isinstance(value, bytes) else str(value)


_providers: dict[str, Any] = {}
"""The providers of Powertools, by the kind of place; each has a client and a cache of its own."""


def _new_provider(kind: str) -> Any:
    """Return a provider whose client gives up within half a minute; AWS's own takes five."""
    from aws_lambda_powertools.utilities.parameters import SecretsProvider, SSMProvider
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=_LIMIT_S,
        read_timeout=_LIMIT_S,
        retries={"total_max_attempts": 3, "mode": "standard"},
    )
    if kind == SECRET:
        return SecretsProvider(boto3_client=Session().client("secretsmanager", config=config))
    return SSMProvider(boto3_client=Session().client("ssm", config=config))


def _previous(get_secret: Callable[..., object], place: str) -> object:
    try:
        # Powertools' cache does not tell versions apart: pass it by, and leave nothing in it.
        return get_secret(place, max_age=0, force_fetch=True, VersionStage="AWSPREVIOUS")
    except Exception as problem:
        answer = getattr(problem.__context__, "response", None) or {}
        if answer.get("Error", {}).get("Code") == "ResourceNotFoundException":
            return None  # A secret that was never rotated has no such version.
        raise


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        # Its own message shows a byte of the secret.
        raise ValueError("it is binary, and no text") from None


_fetching: set[int] = set()
"""The threads that fetch a key right now."""


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the answer with the key out of the log, which gets every body at the level DEBUG.

    Only ``botocore.parsers`` logs it, of all loggers of botocore, urllib3 and Powertools. The
    filter passes all records of other threads, and stays: to remove it while another thread goes
    through the filters would skip one of the application's.
    """
    import logging

    logging.getLogger("botocore.parsers").addFilter(_is_of_others)
    thread = threading.get_ident()
    _fetching.add(thread)
    try:
        yield
    finally:
        _fetching.discard(thread)


def _is_of_others(_record: object) -> bool:
    return threading.get_ident() not in _fetching
