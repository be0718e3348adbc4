"""Calls with arguments that there are not: reported, and counted if the rest is enough."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless import _api
from doow_serverless.errors import ConfigurationError, InvalidEvent
from tests.unit.recording.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable

GOES_ON = ", and was left out; the event goes on without it"
TAKES = "which track() does not take"
MISSING = (
    "license_id is missing: pass license_id=… to track() or configure(), or set "
    "DOOW_TRACK_LICENSE_ID; that of tracked() does not count here, since no invocation that runs "
    "can be seen: give a thread its context (contextvars.copy_context().run, asyncio.to_thread), "
    "and a generator to DoowMiddleware"
)


def one(quantity: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [{"measurements": [{"metric_name": "t", "quantity": quantity}], **more}]


NAMELESS = "without a name (all but metric and quantity go by name, such as license_id=…)"
ALL = (
    "metric, quantity, license_id, unit, attribution, metadata, timestamp, kind, source_system, "
    "metric_tuple_hint, event_id"
)
HINT = (
    "'metric_tuple_hint', which track_all() does not take (it takes measurements, license_id, "
    "unit, attribution, metadata, timestamp, kind, source_system, event_id)"
)
LICENSE = f"'license', {TAKES} (did you mean 'license_id'?)"
UNKNOWN = "the quantity is unknown: pass quantity=…"
MODEL = "'modl', which track_llm() does not take (did you mean 'model'?)"
NEGATIVE = "quantity must be greater than zero for USAGE, not -1: use kind='ADJUSTMENT' to correct"
EMPTY = "event_id must be a non-empty string of at most 256 characters, not ''"
CALLS: list[tuple[Callable[[Any], None], list[dict[str, Any]], list[str]]] = [
    (lambda t: t.track("t", license="x"), one(), [LICENSE + GOES_ON]),
    (lambda t: t.track("t", 2, "lic"), one(2), [f"an argument of track() {NAMELESS}{GOES_ON}"]),
    (lambda t: t.track("t", 2, "lic", "unit", attributes={}), one(2),
     [f"2 arguments of track() {NAMELESS}{GOES_ON}",
      f"'attributes', {TAKES} (did you mean 'attribution'?){GOES_ON}"]),
    (lambda t: t.track("t", 2, event_id="e", unt=""), one(2),
     [f"'unt', {TAKES} (did you mean 'unit'?){GOES_ON}"]),
    (lambda t: t.track(), [], ["metric is missing: track(metric, …)"]),
    (lambda t: t.track(license="x"), [], [f"{LICENSE}; metric is missing: track(metric, …)"]),
    (lambda t: t.track("t", 2, quantity=3), [], ["quantity is passed twice to track()"]),
    (lambda t: t.track("t", metric="t"), [], ["metric is passed twice to track()"]),
    (lambda t: t.track("t", quantty=3), [],
     [f"'quantty', {TAKES} (did you mean 'quantity'?); {UNKNOWN}"]),
    (lambda t: t.track("t", quantitiy="3"), [],
     [f"'quantitiy', {TAKES} (did you mean 'quantity'?); {UNKNOWN}"]),
    (lambda t: t.track("t", tally=3), [], [f"'tally', {TAKES} (it takes {ALL}); {UNKNOWN}"]),
    (lambda t: t.track("t", -1, license="x"), [], [f"{LICENSE}; {NEGATIVE}"]),
    (lambda t: t.track("t", event_id="", license="x"), [], [f"{LICENSE}; {EMPTY}"]),
    (lambda t: t.track(metric="t", quantity=2), one(2), []),
    (lambda t: t.track("t", quantity=2), one(2), []),
    (lambda t: t.track_all({"t": 2}, metric_tuple_hint={}, licence_id="x"), one(2),
     [HINT + GOES_ON,
      f"'licence_id', which track_all() does not take (did you mean 'license_id'?){GOES_ON}"]),
    (lambda t: t.track_all(measurements={"t": 2}), one(2), []),
    (lambda t: t.track_all(), [], ["measurements is missing: track_all(measurements, …)"]),
    (lambda t: t.track_llm(), [], ["response is missing: track_llm(response, …)"]),
    (lambda t: t.track_llm({"usage": {"prompt_tokens": 2}}, modl="x"),
     [{"unit": "tokens", "measurements": [{"metric_name": "input_tokens", "quantity": 2}]}],
     [MODEL + GOES_ON]),
    (lambda t: t.track_llm({"usage": {"prompt_tokens": 0}}, modl="x"), [],
     [f"{MODEL}; no tokens were used, so that there is nothing to count"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "events", "told"), CALLS)
def test_a_call_that_is_wrong(
    call: Callable[[Any], None], events: list[dict[str, Any]], told: list[str]
) -> None:
    """The usage counts if the rest is enough; otherwise one report has all that is wrong."""
    assert Calls().of(call) == (events, told)


@pytest.mark.parametrize(("call", "told"), [(call, told) for call, _, told in CALLS if told])
def test_strict_mode_raises(call: Callable[[Any], None], told: list[str]) -> None:
    """All that is wrong, and nothing is recorded; where nothing is recorded anyway, nothing."""
    calls = Calls(strict=True)
    with pytest.raises(InvalidEvent) as caught:
        call(calls.tracker)
    said = "; ".join(told).replace(GOES_ON, "")
    assert str(caught.value) == said.removesuffix(f"; {NEGATIVE}").removesuffix(f"; {EMPTY}")
    assert calls.of(lambda _: None) == ([], [])
    assert Calls(strict=True, enabled=False).of(call) == ([], [])


def test_a_report_names_the_misspelt_argument_and_what_is_missing() -> None:
    """What was probably meant is suggested, and never taken for it."""
    calls = Calls(license_id=None)
    assert calls.of(lambda tracker: tracker.track("t", license="x")) == (
        [],
        [f"{LICENSE}; {MISSING}"],
    )


def test_a_mistake_is_reported_once_and_counts_each_time() -> None:
    """As a label that is left out is: a handler makes it in every invocation."""
    calls = Calls()
    told = [calls.of(lambda tracker: tracker.track("t", license="x")) for _ in range(3)]
    assert [(events, len(messages)) for events, messages in told] == [(one(), n) for n in (1, 0, 0)]


def test_many_arguments_make_few_reports() -> None:
    """The last one sums up the rest, and names of any length are cut."""
    unknown = {f"argument{number}" * 10_000: None for number in range(100)}
    events, told = Calls().of(lambda tracker: tracker.track("t", **unknown))
    assert (events, len(told), max(map(len, told)) < 400) == (one(), 4, True)
    assert told[-1] == f"each of 97 more arguments{GOES_ON}"


FLUSHES: list[tuple[dict[str, Any] | tuple[Any, ...], str]] = [
    (("soon",), "budget must be a number of seconds from 0 up, such as 0.5, not 'soon'"),
    ((-1,), "budget must be a number of seconds from 0 up, such as 0.5, not -1"),
    ({"budget": []}, "budget must be a number of seconds from 0 up, such as 0.5, not []"),
    ({"timeout": 1},
     "'timeout', which {}() does not take (it takes budget), was ignored"),
    ((1, 2), "an argument of {}() without a name (it takes budget), was ignored"),
]  # fmt: skip


@pytest.mark.parametrize("function", ["flush", "aflush"])
@pytest.mark.parametrize(("passed", "told"), FLUSHES)
def test_a_flush_that_is_called_wrongly_flushes(function: str, passed: Any, told: str) -> None:
    """With the budget of the configuration; strict mode raises ConfigurationError."""
    args, kwargs = ((), passed) if isinstance(passed, dict) else (passed, {})

    def flush(tracker: Any) -> Any:
        tracker.track("t")
        outcome = getattr(tracker, function)(*args, **kwargs)
        return asyncio.run(outcome) if function == "aflush" else outcome

    accepted: list[int] = []
    events, messages = Calls().of(lambda tracker: accepted.append(flush(tracker).accepted))
    assert (events, messages, accepted) == (one(), [told.format(function)], [1])
    with pytest.raises(ConfigurationError):
        flush(Calls(strict=True).tracker)


def test_a_transaction_that_is_called_wrongly_is_one() -> None:
    """Its block runs, and counts as ever; without brackets it fails where it decorates."""

    def call(tracker: Any) -> None:
        with tracker.transaction("t", name="t"):
            tracker.track("t")

    assert Calls().of(call) == (
        one(),
        [
            "an argument of transaction() without a name (it takes none), was ignored",
            "'name', which transaction() does not take, was ignored",
        ],
    )
    transaction: Any = doow.transaction
    with pytest.raises(ConfigurationError, match=r"write @doow\.transaction\(\), with brackets"):
        transaction(call)
    with pytest.raises(ConfigurationError):
        Calls(strict=True).tracker.transaction(1)


PUBLIC = ["track", "track_all", "track_llm", "flush", "aflush", "transaction"]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_declaration_is_what_users_see(name: str) -> None:
    """Signature, help and kind of function; and whatever is declared is what the function takes."""
    function: Any = getattr(doow, name)
    declared = inspect.signature(function)
    kinds = {parameter.kind for parameter in declared.parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    assert str(declared) in pydoc.plain(pydoc.render_doc(function))
    assert (function.__name__, function.__qualname__) == (name, f"Api.{name}")
    assert inspect.iscoroutinefunction(function) == (name == "aflush")
    taken = inspect.signature(getattr(_api, f"_{name}"), follow_wrapped=False).parameters
    by_name = {
        each.name: each.default
        for each in taken.values()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert by_name == {
        each.name: each.default
        for each in declared.parameters.values()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    }
