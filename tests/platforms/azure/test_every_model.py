"""Every kind of function on Azure, under its worker libraries: tracked, it is what it was.

Programming models, sync and async, positions of the tracker, triggers, outputs, annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

from doow_serverless.local import Fault, Ingest
from doow_serverless.local.azure.host import AzureHost
from tests.platforms.azure import apps as azure_apps
from tests.platforms.azure.apps import KINDS, every_python, settings
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless.local import Post
    from doow_serverless.local.azure.host import Invocation

    Model = Literal["v1", "v2"]

DELAY_S = 0.004
SLOW = Fault(delay_s=DELAY_S, times=None)
KILLED = ("s_queue_below", "a_grid_above", "s_bus_batch_between", "a_blob_app", "s_http_blueprint")


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    """One that takes its time: an answer that did not wait for it would be early."""
    with Ingest() as ingest:
        ingest.fault(SLOW)
        yield ingest


def application(folder: Path, model: Model, *, tracked: bool, future: bool) -> Path:
    directory = folder / f"{model}-{tracked}-{future}"
    if model == "v2":
        return azure_apps.write_v2(directory, azure_apps.matrix_v2(tracked=tracked, future=future))
    return azure_apps.write_v1(directory, *azure_apps.matrix_v1(tracked=tracked, future=future))


def functions(model: Model) -> list[tuple[str, str]]:
    return list(azure_apps.names(("v1",) if model == "v1" else azure_apps.POSITIONS))


def answer(invocation: Invocation) -> tuple[Any, ...]:
    return invocation.error, invocation.return_value, invocation.outputs, invocation.logs


def posts_by_function(ingest: Ingest) -> dict[str, list[Post]]:
    """The POSTs in which each function's events came."""
    found: dict[str, list[Post]] = {}
    for post in ingest.posts():
        (event,) = post.json()["events"]
        found.setdefault(event["attribution"]["function"], []).append(post)
    return found


@pytest.mark.parametrize("model", ["v2", "v1"])
@every_python
def test_tracked_is_as_undecorated(
    python: Path, model: Model, ingest: Ingest, tmp_path: Path
) -> None:
    """Same names, bindings and answers, and each event in a POST answered before the reply."""
    bare = application(tmp_path, model, tracked=False, future=False)
    expected = {}
    env = settings(ingest.url, DOOW_TRACK_DISABLED="true")
    with AzureHost(bare, python=python, model=model, env=env) as host:
        assert host.index_error is None
        declared = list(host.functions.items())
        for name, kind in functions(model):
            invocation = host.invoke(name, {"trigger": KINDS[kind].message(1, 0)})
            assert (invocation.error, set(invocation.outputs)) == (None, {"out"})
            expected[name] = answer(invocation)
    assert ingest.posts() == []

    for future in (False, True):
        app = application(tmp_path, model, tracked=True, future=future)
        replies = {}
        with AzureHost(app, python=python, model=model, env=settings(ingest.url)) as host:
            assert host.index_error is None
            assert list(host.functions.items()) == declared
            for name, kind in functions(model):
                replies[name] = host.invoke(name, {"trigger": KINDS[kind].message(1, 0)})

        assert {name: answer(reply) for name, reply in replies.items()} == expected
        posts = posts_by_function(ingest)
        assert {name: len(posts[name]) for name in posts} == dict.fromkeys(expected, 1)
        late = [
            name
            for name, (post,) in posts.items()
            if post.received_at + DELAY_S > replies[name].responded_at
        ]
        assert late == []
        ingest.reset()
        ingest.fault(SLOW)


@pytest.mark.parametrize(
    ("model", "names"),
    [("v2", KILLED), ("v1", tuple(name for name, _ in functions("v1"))[::2])],
)
def test_worker_killed_at_once(
    model: Model, names: tuple[str, ...], ingest: Ingest, tmp_path: Path
) -> None:
    """Nothing needs the worker any more once it has replied."""
    app = application(tmp_path, model, tracked=True, future=True)
    kinds = dict(functions(model))
    with AzureHost(app, python=pythons()[-1], model=model, env=settings(ingest.url)) as host:
        for number, name in enumerate(names, 1):
            trigger = KINDS[kinds[name]].message(1, 0)
            assert host.invoke(name, {"trigger": trigger}, kill=True).error is None
            arrived = [event["attribution"]["function"] for event in ingest.events()]
            assert arrived == list(names[:number])
