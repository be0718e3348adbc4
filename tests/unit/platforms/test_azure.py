"""What the Azure face knows without Azure: time spans, and what names a message again."""

from __future__ import annotations

import inspect
import sys
import time
from collections import UserList
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._handlers.options import TrackedOptions
from doow_serverless._platforms import azure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTEXT = SimpleNamespace(invocation_id="i-1", function_name="f")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:05:00", 300.0),
        ("00:00:01", 1.0),
        ("1.00:00:00", 86_400.0),
        ("10.01:02:03", 867_723.0),
        ("0:0:7", 7.0),
        ("00:10:00.5000000", 600.0),
        ("-1", None),
        ("", None),
        ("00:00:00", None),
        ("-00:05:00", None),
        ("05:00", None),
        ("00:00:01:00", None),
        ("a.00:05:00", None),
        ("soon", None),
        (None, None),
        (300, None),
        (["00:05:00"], None),
    ],
)
def test_timespans(text: object, seconds: float | None) -> None:
    """What is no span of time, or none above zero, is no limit."""
    assert azure._timespan_s(text) == seconds


@pytest.fixture(autouse=True)
def _as_if_started() -> None:
    azure._timeout_s.cache_clear()


def remaining_s() -> float | None:
    ends_at = azure.find_deadline((), {})
    return None if ends_at is None else ends_at - time.monotonic()


def test_no_setting_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Azure nothing is looked for."""
    monkeypatch.delenv("AzureWebJobsScriptRoot", raising=False)
    monkeypatch.delenv("AzureFunctionsJobHost__functionTimeout", raising=False)
    assert azure.find_deadline((), {}) is None


def test_the_setting_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The app setting counts, then host.json, with or without a byte order mark."""
    monkeypatch.setenv("AzureWebJobsScriptRoot", str(tmp_path))
    assert remaining_s() is None
    azure._timeout_s.cache_clear()
    (tmp_path / "host.json").write_text('\ufeff{"functionTimeout": "00:00:50"}', encoding="utf-8")
    assert remaining_s() == pytest.approx(50, abs=1)
    monkeypatch.setenv("AzureFunctionsJobHost__functionTimeout", "00:00:20")
    assert remaining_s() == pytest.approx(20, abs=1)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"functionTimeout": 5}', "\udcff"]
)
def test_a_damaged_file_tells_nothing(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor does it raise."""
    monkeypatch.setenv("AzureWebJobsScriptRoot", str(tmp_path))
    (tmp_path / "host.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert remaining_s() is None


# ── identities ─────────────────────────────────────────────────────────────────────────────────


def queue(id: str = "1", dequeue_count: int = 1) -> Any:
    return SimpleNamespace(id=id, dequeue_count=dequeue_count)


def bus(
    message_id: str | None = "m", sequence_number: int | None = 7, delivery_count: int = 1
) -> Any:
    return SimpleNamespace(
        message_id=message_id, sequence_number=sequence_number, delivery_count=delivery_count
    )


def hub(sequence_number: int | None = 1, context: Any = '{"PartitionId": "0"}') -> Any:
    metadata = {} if context is None else {"PartitionContext": context}
    return SimpleNamespace(iothub_metadata={}, metadata=metadata, sequence_number=sequence_number)


def kafka(offset: int = 1, partition: int = 0) -> Any:
    return SimpleNamespace(topic="t", partition=partition, offset=offset)


def grid(id: str = "e", topic: str = "t") -> Any:
    return SimpleNamespace(event_type="T", topic=topic, id=id)


def blob(uri: str | None = "u", name: str = "n", tag: str | None = "1") -> Any:
    properties = None if tag is None else {"ETag": tag}
    return SimpleNamespace(uri=uri, name=name, blob_properties=properties)


class Document(dict[str, Any]):
    def to_json(self) -> str:
        return "{}"


def work(argument: Any) -> str:
    """How the work on ``argument`` is named."""
    found = azure.find_identity((), {"argument": argument, "context": CONTEXT})
    assert found is not None
    name, work = found
    assert name == "f"
    return str(work)


SAME: list[tuple[Any, Any]] = [
    (queue(), queue(dequeue_count=2)),
    (bus(), bus(delivery_count=2)),
    (hub(), hub(context={"PartitionId": "0"})),
    (kafka(), kafka()),
    (grid(), grid()),
    (blob(), blob(name="other")),
    (blob(uri=None), blob(uri=None)),
    (Document(_rid="r", _etag="1"), Document(_rid="r", _etag="1", x=2)),
    ([queue("1"), queue("2")], [queue("2"), queue("1")]),
    ([hub(1), hub(2)], [hub(1), hub(2)]),
    (UserList([Document(id="1", _etag="1")]), UserList([Document(id="1", _etag="1")])),
]
OTHER: list[tuple[Any, Any]] = [
    (queue(), queue("2")),
    (bus(), bus("n")),
    (bus(), bus(sequence_number=8)),
    (hub(), hub(2)),
    (hub(), hub(context={"PartitionId": "1"})),
    (kafka(), kafka(2)),
    (kafka(), kafka(partition=1)),
    (grid(), grid("f")),
    (grid(), grid(topic="u")),
    (blob(), blob("v")),
    (blob(), blob(tag="2")),
    (Document(_rid="r", _etag="1"), Document(_rid="r", _etag="2")),
    (Document(_rid="r"), Document(_rid="s")),
    ([queue("1"), queue("2")], [queue("1")]),
    (UserList([Document(id="1")]), UserList([Document(id="2")])),
]


@pytest.mark.parametrize(("first", "again"), SAME)
def test_the_same_work(first: Any, again: Any) -> None:
    """Counts of deliveries, and the order of a batch, are no part of the name."""
    assert work(first) == work(again)
    assert work(first).startswith("message")


@pytest.mark.parametrize(("first", "other"), OTHER)
def test_other_work(first: Any, other: Any) -> None:
    """Whatever names another message does."""
    assert work(first) != work(other)


@pytest.mark.parametrize(
    "argument",
    [
        "text",
        b"bytes",
        {"id": "1"},
        [],
        [queue(), "text"],
        UserList([]),
        queue(id=""),
        bus(message_id=None),
        hub(context=None),
        SimpleNamespace(past_due=False),
        SimpleNamespace(data="text"),
    ],
)
def test_what_has_no_name(argument: Any) -> None:
    """Then the invocation is the work."""
    assert work(argument) == "invocation:i-1"


def test_a_call_without_context_has_no_identity() -> None:
    """Neither has a local call, nor one whose context is another platform's."""
    assert azure.find_identity((CONTEXT,), {"message": queue()}) is None
    other = SimpleNamespace(invocation_id=1, function_name="f")
    assert azure.find_identity((), {"context": other, "message": queue()}) is None
    assert azure.find_identity((), {"context": SimpleNamespace(invocation_id="1")}) is None


def test_an_output_in_front_of_the_trigger_is_no_work() -> None:
    """The first argument that names anything counts."""
    arguments = {"out": SimpleNamespace(get=str, set=str), "message": queue(), "context": CONTEXT}
    assert azure.find_identity((), arguments) == ("f", "message:1")


def http() -> Any:
    return SimpleNamespace(method="GET", url="http://localhost/")


def event_data(number: int = 1, moment: str = "12:00:00.001") -> Any:
    """As the SDK of Event Hubs has it."""
    return SimpleNamespace(
        enqueued_time=moment, offset="64", sequence_number=number, partition_key=None
    )


class Out:
    """As azure.functions names what takes an output."""


INPUT = Document(_rid="r", _etag="1")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"req": http(), "doc": INPUT}, "invocation:i-1"),
        ({"doc": INPUT, "req": http()}, "invocation:i-1"),
        ({"message": "text", "docs": UserList([INPUT])}, "invocation:i-1"),
        ({"timer": SimpleNamespace(past_due=False), "file": blob()}, "invocation:i-1"),
        ({"doc": INPUT, "message": queue()}, "message:1"),
        ({"doc": INPUT, "messages": [queue("1"), queue("2")]}, "messages:1,2"),
        ({"file": blob(), "out": Out()}, "message:u/1"),
        ({"docs": UserList([INPUT])}, "messages:r/1"),
        ({"file": blob(), "doc": INPUT}, "message:r/1+message:u/1"),
    ],
)
def test_an_input_is_not_the_work(arguments: dict[str, Any], expected: str) -> None:
    """Three requests that read one document are three; what can be both counts where alone."""
    found = azure.find_identity((), {**arguments, "context": CONTEXT})
    assert found == ("f", expected)


def test_the_older_model_declares_the_trigger(tmp_path: Path) -> None:
    """function.json says which argument it is: the other is an input."""
    (tmp_path / "function.json").write_text(
        '{"bindings": [{"type": "blob", "name": "file", "direction": "in"},'
        ' {"type": "cosmosDBTrigger", "name": "docs", "direction": "in"}]}'
    )
    context = SimpleNamespace(
        invocation_id="i-1", function_name="f", function_directory=str(tmp_path)
    )
    arguments = {"file": blob(), "docs": UserList([INPUT]), "context": context}
    assert azure.find_identity((), arguments) == ("f", "messages:r/1")
    arguments["docs"] = "text"
    assert azure.find_identity((), arguments) == ("f", "invocation:i-1")


def test_the_types_of_the_sdks_are_known() -> None:
    """An event of Event Hubs does not name its partition, but says when it was enqueued."""
    assert work(event_data()) == work(event_data())
    assert len({work(event_data()), work(event_data(2)), work(event_data(moment="1"))}) == 3
    assert work([event_data(1), event_data(2)]) == work([event_data(2), event_data(1)])


# ── the context ────────────────────────────────────────────────────────────────────────────────


def plain(message: str, out: int = 1) -> tuple[str, int]:
    return message, out


def catching(message: str, *rest: str, **more: str) -> Any:
    return message, rest, more


def naming(message: str, context: Any) -> Any:
    return message, context


def parameters(function: Callable[..., Any]) -> list[str]:
    return [str(each) for each in inspect.signature(function).parameters.values()]


@pytest.fixture(params=["variable", "azure_functions_worker", "azure_functions_runtime"])
def _in_a_worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUNCTIONS_WORKER_RUNTIME", raising=False)
    if request.param == "variable":
        monkeypatch.setenv("FUNCTIONS_WORKER_RUNTIME", "python")
    else:
        monkeypatch.setitem(sys.modules, request.param, ModuleType(request.param))


@pytest.mark.usefixtures("_in_a_worker")
def test_idempotent_functions_ask_for_the_context() -> None:
    """As a keyword, before what catches all; the function itself does not see it."""
    settings = TrackedOptions(idempotent=True)
    asking: Any = azure.prepare(plain, settings)
    assert parameters(asking)[:2] == ["message: str", "out: int = 1"]
    assert [*inspect.signature(asking).parameters] == ["message", "out", "context"]
    assert asking("a", context=CONTEXT) == ("a", 1)
    asking = azure.prepare(catching, settings)
    assert [*inspect.signature(asking).parameters][-2:] == ["context", "more"]
    assert asking("a", "b", c="d", context=CONTEXT) == ("a", ("b",), {"c": "d"})
    assert azure.prepare(naming, settings) is naming
    assert azure.prepare(plain, TrackedOptions()) is plain


def test_elsewhere_signatures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Azure's workers pass a context by name."""
    monkeypatch.delenv("FUNCTIONS_WORKER_RUNTIME", raising=False)
    assert azure.prepare(plain, TrackedOptions(idempotent=True)) is plain
