"""Values whose methods raise, and proxies: a label is left out, what is billed is refused."""

from __future__ import annotations

import asyncio
import collections.abc
import signal
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock

import flask
import lazy_object_proxy  # type: ignore[import-untyped]  # it has no types
import pytest
import wrapt
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

import doow_serverless as doow
from tests.unit.recording.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Lazy:
    """As Django's SimpleLazyObject, whose every attribute asks a database."""

    @property
    def __class__(self) -> Any:
        raise ConnectionError("gone")

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise ConnectionError("gone")


class Cancelled:
    """One that raises what is no Exception."""

    def __getattribute__(self, name: str) -> Any:
        raise asyncio.CancelledError("gone")

    __eq__ = __hash__ = __getattribute__  # type: ignore[assignment]


class Loading(collections.abc.Mapping[str, str]):
    """A mapping that loads its entries, in vain."""

    def __getitem__(self, key: str) -> str:
        raise RuntimeError("gone")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class Text(str):
    """A string by type, of which every method raises."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("gone")

    strip = encode = isascii = __len__ = __eq__ = __str__ = __repr__ = __contains__ = _raise  # type: ignore[assignment]
    __hash__ = _raise


class Whole(int):
    """A number by type, likewise."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("gone")

    __gt__ = __lt__ = __le__ = __eq__ = __int__ = __str__ = __repr__ = __bool__ = _raise
    __hash__ = _raise


class Dict(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError("gone")


class Zone(tzinfo):
    def __init__(self, offset: timedelta | None) -> None:
        self._offset = offset

    def utcoffset(self, _: datetime | None) -> timedelta:
        if self._offset is None:
            raise RuntimeError("gone")
        return self._offset

    tzname = dst = lambda *_: None


class Late(datetime):
    """As pandas.NaT: a datetime that is none."""

    def astimezone(self, tz: Any = None) -> Any:
        return self

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "NaT"


class Broken(Enum):
    ONE = 1

    @property
    def value(self) -> Any:
        raise RuntimeError("gone")


def unbound() -> Any:
    """What flask's ``session`` is outside of a request."""
    return LocalProxy(lambda: (_ for _ in ()).throw(RuntimeError("outside")))


UNREADABLE: dict[str, Callable[[], Any]] = {
    "lazy": Lazy,
    "cancelled": Cancelled,
    "loading": Loading,
    "dict": lambda: Dict(a="b"),
    "unbound": unbound,
    "session": lambda: flask.session,
    "enum": lambda: Broken.ONE,
    "wrapt": lambda: wrapt.ObjectProxy(Lazy()),
    "lazy_object_proxy": lambda: lazy_object_proxy.Proxy(lambda: 1 // 0),
    "mock": lambda: Mock(spec=str),
    "magic": lambda: MagicMock(spec=dict, **{"items.side_effect": KeyError}),
}
LABELS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "unit": lambda value: {"unit": value},
    "source_system": lambda value: {"source_system": value},
    "attribution": lambda value: {"attribution": value},
    "attribution['a']": lambda value: {"attribution": {"a": value}},
    "attribution keys": lambda value: {"attribution": {_Key(value): 1}},
    "metadata": lambda value: {"metadata": value},
    "metadata['a']": lambda value: {"metadata": {"a": value}},
    "metadata[0]": lambda value: {"metadata": [value]},
    "metric_tuple_hint": lambda value: {"metric_tuple_hint": value},
}


class _Key:
    """An object that hides another where that would have to be hashed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def __class__(self) -> Any:
        return type(self.value.__class__)

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("value", UNREADABLE)
def test_a_label_that_cannot_be_read_is_left_out(value: str, label: str) -> None:
    """The event counts, and ``on_error`` receives the name of the label, also in strict mode."""
    named = LABELS[label](UNREADABLE[value]())
    for strict in (False, True):
        calls = Calls(strict=strict)
        events, told = calls.track("m", 2, **named)
        for event in events:
            assert event.pop("metadata", {}) in ({}, [])
        assert events == [{"measurements": [{"metric_name": "m", "quantity": 2}]}]
        assert [message.startswith(label) for message in told] == [True]
        assert told[0].endswith(", and was left out; the event goes on without it")


BILLED: dict[str, Callable[[Any, Any], None]] = {
    "metric": lambda tracker, value: tracker.track(value),
    "quantity": lambda tracker, value: tracker.track("m", value),
    "license_id": lambda tracker, value: tracker.track("m", license_id=value),
    "timestamp": lambda tracker, value: tracker.track("m", timestamp=value),
    "event_id": lambda tracker, value: tracker.track("m", event_id=value),
    "kind": lambda tracker, value: tracker.track("m", kind=value),
    "measurements": lambda tracker, value: tracker.track_all(value),
    "quantity ": lambda tracker, value: tracker.track_all({"m": value}),
    "metric ": lambda tracker, value: tracker.track_all({_Key(value): 1}),
}


@pytest.mark.parametrize("argument", BILLED)
@pytest.mark.parametrize("value", UNREADABLE)
def test_what_is_billed_and_cannot_be_read_is_refused(value: str, argument: str) -> None:
    """The one report names the argument; strict mode raises it."""
    call = BILLED[argument]
    events, told = Calls().of(lambda tracker: call(tracker, UNREADABLE[value]()))
    assert (events, len(told)) == ([], 1)
    assert told[0].startswith(f"{argument.strip()} must be ")
    with pytest.raises(doow.errors.InvalidEvent, match=f"^{argument.strip()} must be "):
        call(Calls(strict=True).tracker, UNREADABLE[value]())


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (datetime(2026, 1, 1, tzinfo=Zone(None)), "not <datetime> that raised RuntimeErr"),
        (datetime(2026, 1, 1, tzinfo=Zone(timedelta(days=2))), "not <datetime> that raised Value"),
        (Late(2026, 1, 1, tzinfo=timezone.utc), "not <Late>"),
    ],
    ids=["raises", "two days", "NaT"],
)  # fmt: skip
def test_a_moment_that_cannot_be_read(timestamp: Any, reason: str) -> None:
    """An odd tzinfo, and what is a datetime by type alone, make an invalid event."""
    events, (told,) = Calls().of(lambda tracker: tracker.track("m", timestamp=timestamp))
    start = "timestamp must be an aware datetime or an ISO 8601 string, "
    assert (events, told[: len(start + reason)]) == ([], start + reason)


def test_subclasses_of_built_in_types_count_as_these() -> None:
    """Whatever their own methods do: the characters and digits are there."""
    events, told = Calls().of(
        lambda tracker: tracker.track(
            Text("m"),
            Whole(3),
            license_id=Text("lic_2"),
            unit=Text("u"),
            attribution={"t": Text("x"), "n": Whole(4)},
            kind=Text("ADJUSTMENT"),
            source_system=Text("s"),
            metadata=[Text("y"), Whole(5)],
            metric_tuple_hint={
                "app_name": Text("a"), "license_name": Text("l"), "metric_name": Text("m"),
            },
        )
    )  # fmt: skip
    assert (events, told) == ([EVERYTHING], [])


HINT = {"app_name": "a", "license_name": "l", "metric_name": "m"}
EVERYTHING = {
    "license_id": "lic_2",
    "source_system": "s",
    "kind": "ADJUSTMENT",
    "unit": "u",
    "attribution": {"t": "x", "n": 4},
    "metadata": ["y", 5],
    "measurements": [{"metric_name": "m", "quantity": 3, "metric_tuple_hint": HINT}],
}


@pytest.mark.parametrize(
    "proxy",
    [wrapt.ObjectProxy, lambda value: LocalProxy(lambda: value),
     lambda value: lazy_object_proxy.Proxy(lambda: value)],
    ids=["wrapt", "werkzeug", "lazy_object_proxy"],
)  # fmt: skip
def test_a_proxy_counts_as_what_it_stands_for(proxy: Callable[[Any], Any]) -> None:
    """In every argument, and within mappings and lists."""
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    events, told = Calls().of(
        lambda tracker: tracker.track(
            proxy("m"),
            proxy(3),
            license_id=proxy("lic_2"),
            unit=proxy("u"),
            attribution=proxy({"t": proxy("x"), "n": proxy(4), "none": proxy(None)}),
            kind=proxy("ADJUSTMENT"),
            source_system=proxy("s"),
            metadata=proxy([proxy("y"), proxy(5)]),
            timestamp=proxy(moment),
            event_id=proxy("evt_1"),
            metric_tuple_hint=proxy({name: proxy(text) for name, text in HINT.items()}),
        )
    )
    assert (events, told) == ([EVERYTHING], [])
    amounts = {"a": proxy(1.5), "b": proxy(Decimal("0.10")), "c": proxy(0)}
    events, told = Calls().of(lambda tracker: tracker.track_all(proxy(amounts)))
    assert [one["quantity"] for one in events[0]["measurements"]] == [1.5, 0.10]
    events, told = Calls().of(
        lambda tracker: tracker.track(
            "m",
            license_id=proxy(None),
            unit=proxy(None),
            attribution=proxy(None),
            metadata=proxy(None),
            timestamp=proxy(None),
            source_system=proxy(None),
            metric_tuple_hint=proxy(None),
            event_id=proxy(None),
        )
    )
    assert (events, told) == ([{"measurements": [{"metric_name": "m", "quantity": 1}]}], [])


def test_a_value_does_not_answer_for_another_event() -> None:
    """One that claims to equal everything is not kept where later events are looked up."""

    class Same(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    asked: list[object] = []

    class Asking(str):
        def __eq__(self, other: object) -> bool:
            asked.append(other)
            return False

        __hash__ = str.__hash__

    calls = Calls()
    for metric in (Same("m"), Asking("m")):
        calls.track(metric, license_id=Asking("lic_2"))
    asked.clear()
    calls.of(lambda tracker: tracker.track("m", license_id="lic_2"))
    assert asked == []


def test_what_a_signal_raises_in_a_method_is_the_applications() -> None:
    """A timeout that ends the handler is not taken for a value that cannot be read."""

    class Timeout(BaseException):
        pass

    def give_up(*_: Any) -> None:
        raise Timeout

    class Slow(dict[str, str]):
        def items(self) -> Any:
            signal.raise_signal(signal.SIGUSR1)

    earlier = signal.signal(signal.SIGUSR1, give_up)
    try:
        for name in ("attribution", "metadata", "metric_tuple_hint"):
            with pytest.raises(Timeout):
                Calls().tracker.track("m", **{name: Slow()})
    finally:
        signal.signal(signal.SIGUSR1, earlier)


class Answer:
    """A model's answer whose usage can be read, and nothing else."""

    usage = {"prompt_tokens": 3, "completion_tokens": 2}  # noqa: RUF012 - as clients have it

    @property
    def model(self) -> str:
        raise asyncio.CancelledError


def llm(response: Any, tracker: Any, **options: Any) -> None:
    tracker.track_llm(response, **options)


def test_answers_of_models_whose_properties_raise() -> None:
    """The tokens count where they can be read; the rest is left out, or refused with a reason."""
    tokens = [
        {"metric_name": "input_tokens", "quantity": 3},
        {"metric_name": "output_tokens", "quantity": 2},
    ]
    event = {"unit": "tokens", "measurements": tokens}
    calls = Calls()
    assert calls.of(lambda tracker: tracker.track_llm(Answer())) == ([event], [])
    for attribution in (unbound(), Lazy(), Dict(a="b"), 5):
        events, told = Calls().of(partial(llm, Answer(), attribution=attribution))
        assert (events, len(told)) == ([event], 1)
        assert told[0].startswith("attribution must be a mapping")
    for response in (Lazy(), Cancelled(), unbound()):
        events, told = Calls().of(partial(llm, response))
        assert (events, len(told)) == ([], 1)


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize(
    "option", ["budget", "license_id", "attribution", "strict", "flush_at", "fold", "flush_mode",
               "warm_up", "dead_letter", "endpoint", "delivery", "environ", "api_key"],
)  # fmt: skip
def test_an_option_that_cannot_be_read(option: str, value: str) -> None:
    """It is a ConfigurationError like any other wrong value, and no exception of its own."""
    if option in ("fold", "environ") and value in ("dict", "loading", "magic"):
        pytest.skip("what is asked of these does not raise")
    given = UNREADABLE[value]()
    options: dict[str, Any] = {"environ": {}, "enabled": False, option: given}
    if option == "api_key":
        assert not doow.Tracker(**options).engine.config.has_key
        return
    with pytest.raises(doow.errors.ConfigurationError):
        doow.Tracker(**options)
    if option in ("budget", "license_id", "attribution", "fold", "flush_mode"):
        tracked: Any = doow.tracked
        with pytest.raises(doow.errors.ConfigurationError):
            tracked(**{option: given})


class Made:
    """Stands for a value that Hypothesis could not even look at."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def made(value: Any) -> Any:
    """The value that is passed in the place of a drawn one."""
    if type(value) is Made:
        return UNREADABLE[value.name]()
    if type(value) is list:
        return [made(item) for item in value]
    if type(value) is dict:
        return {key: made(item) for key, item in value.items()}
    return value


ANYTHING: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        st.builds(Made, st.sampled_from(list(UNREADABLE)))
        | st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.decimals()
        | st.fractions()
        | st.complex_numbers()
        | st.text(max_size=300)
        | st.binary(max_size=20)
        | st.datetimes(timezones=st.none() | st.timezones())
        | st.dates()
        | st.uuids()
        | st.sampled_from(["tokens", "lic_1", "USAGE", 10**64, object(), object])
        | st.lists(ANYTHING, max_size=3)
        | st.dictionaries(st.text(max_size=3), ANYTHING, max_size=3)
    )
)
NAMES = ["license_id", "unit", "attribution", "metadata", "timestamp", "kind", "source_system",
         "metric_tuple_hint", "event_id", "metric", "quantity", "license", "quantty", "model",
         "measurements", "response"]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["track", "track_all", "track_llm"]),
    st.lists(ANYTHING | st.just({"tokens": 1}) | st.just(Answer()), max_size=4),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
)
def test_every_call_ends_as_one_event_or_one_refusal(
    function: str, places: list[Any], named: dict[str, Any]
) -> None:
    """Whatever is passed, nothing is raised, and nothing is taken for a fault of ours."""
    calls = Calls(license_id="lic_1")
    args, kwargs = made(places), made(named)
    events, told = calls.of(lambda tracker: getattr(tracker, function)(*args, **kwargs))
    refused = [message for message in told if "the event goes on" not in message]
    refused = [message for message in refused if "and it goes on" not in message]
    assert (len(events) + len(refused), len(told) <= 6) == (1, True)


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize("position", ["event", "context", "named"])
def test_a_handler_may_take_and_return_them(value: str, position: str) -> None:
    """Looking for a deadline in its arguments, and for a stream in its result, raises nothing."""
    given = UNREADABLE[value]()
    args = {"event": (given, None), "context": ({}, given), "named": ()}[position]
    named = {"extra": given} if position == "named" else {}
    tracker = Calls().tracker

    def handler(*args: Any, **kwargs: Any) -> Any:
        tracker.track("m")
        return given

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return handler()

    for options in ({}, {"idempotent": True}):
        assert tracker.tracked(**options)(handler)(*args, **named) is given
        assert asyncio.run(tracker.tracked(**options)(coroutine)(*args, **named)) is given
