"""Every shape of function under Vercel's own runtime, which stops with the invocation's end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.platforms.vercel.sources import RECORDED, SHAPES
from tests.platforms.vercel.stage import DELAY_S, Stage, comparable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

MODES = ("ipc", "lambda")
KINDS = ("plain", "stream", "head", "none", "unsized", "refused", "raise", "late", "chunked")

STAGES = [(shape, mode) for shape in SHAPES for mode in MODES]

#: Where the client waits for nothing after certain bytes, whatever becomes of the connection.
BOUNDED = ("plain", "head", "none", "refused", "late")


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, vercel_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    shape, mode = request.param
    directory = tmp_path_factory.mktemp(shape)
    with Stage(directory, vercel_python, shape, mode, bare=True) as stage:
        for runtime in (stage.runtime, stage.bare):
            stage.request("plain", runtime=runtime)  # Cold starts are not what is compared.
        yield stage


def everywhere(*kinds: str) -> pytest.MarkDecorator:
    """On each stage, each of these kinds of requests."""
    return pytest.mark.parametrize(
        ("stage", "kind"),
        [
            pytest.param(stage, kind, id="-".join((*stage, kind)))
            for stage in STAGES
            for kind in kinds
            if kind != "chunked" or stage[0] == "handler"
        ],
        indirect=["stage"],
        scope="module",
    )


@everywhere(*KINDS)
def test_every_event_has_arrived_when_the_invocation_ends(stage: Stage, kind: str) -> None:
    """In one POST, whose answer came before the end, and before the bytes that complete it."""
    stage.delay()
    call = stage.next_call()
    response = stage.request(kind, call)
    arrived, posts = stage.recorded(call), stage.posts(call)
    assert stage.runtime.stopped
    # What comes after the completing bytes is no part of an invocation that ends with them.
    ends_early = stage.mode == "lambda" and kind == "late"
    due = [metric for metric in RECORDED[kind] if not (ends_early and metric == "late")]
    if ends_early:
        assert arrived[: len(due)] == due
    else:
        assert arrived == due, response.log
    assert [post.status for post in posts] == [202] * (2 if "late" in arrived else 1)
    ended_at = response.sent_at + response.ended_s
    assert [post.received_at + DELAY_S <= ended_at for post in posts] == [True] * len(posts)
    if stage.mode == "ipc" and kind in BOUNDED:
        assert response.last_byte_s is not None
        assert response.sent_at + response.last_byte_s >= posts[0].received_at + DELAY_S


@everywhere("late")
def test_what_comes_too_late_arrives_after_the_next_thaw(stage: Stage, kind: str) -> None:
    """What background work records after the response is kept over the freeze."""
    call = stage.next_call()
    stage.request(kind, call)
    stage.request("plain")
    while len(stage.recorded(call)) < len(RECORDED[kind]):  # Bounded by the time for a test.
        stage.ingest.wait_for(len(stage.ingest.events()) + 1)
    assert stage.recorded(call) == RECORDED[kind]


@everywhere(*KINDS, "missing")
def test_the_response_is_that_of_the_bare_application(stage: Stage, kind: str) -> None:
    """To the byte, and a failure is the same failure."""
    stage.ingest.clear_faults()
    call = stage.next_call()
    answers = [
        comparable(stage.request(kind, call, runtime=each)) for each in (stage.runtime, stage.bare)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, id="-".join(stage)) for stage in STAGES if stage[0] == "handler"],
    indirect=True,
    scope="module",
)
def test_a_missing_method_is_answered_by_the_runtime(stage: Stage) -> None:
    """With 501, the same bytes, and without a POST."""
    stage.ingest.reset()
    answers = [
        comparable(each.request("PATCH", "/plain/none")) for each in (stage.runtime, stage.bare)
    ]
    assert answers[0]["status"] == 501
    assert answers[0] == answers[1]
    assert stage.ingest.posts() == []
