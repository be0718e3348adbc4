"""Invocations that share Azure's pool threads, its event loop and its process do not mix."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from doow_serverless.local.azure.host import AzureHost, http_request
from tests.network import KEY, Server, silent
from tests.platforms.azure.apps import HEAD, both_ends, every_python, settings, write_v2
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest
    from doow_serverless.local.azure.host import Trigger


def numbered(number: int) -> dict[str, Trigger]:
    return {"req": http_request(url=f"http://localhost/?n={number}")}


POOL = (
    HEAD
    + """
def record(name, req):
    doow.track(name, attribution={"n": int(req.params["n"]), "thread": threading.get_ident()})

@app.route(route="a")
@doow.tracked(attribution={"by": "first"})
def first(req: func.HttpRequest) -> str:
    record("first", req)
    thread = threading.Thread(target=record, args=("raw", req))
    thread.start()
    thread.join()
    return str(threading.get_ident())

@app.route(route="b")
@doow.tracked(attribution={"by": "second"}, license_id="lic_second")
def second(req: func.HttpRequest) -> str:
    record("second", req)
    if int(req.params["n"]) % 3 == 0:
        raise ValueError("as it happens")
    return str(threading.get_ident())

@app.route(route="c")
def untracked(req: func.HttpRequest) -> str:
    record("untracked", req)
    return str(threading.get_ident())
"""
)
NAMES = ("first", "second", "untracked")


@both_ends
def test_pool_threads_see_no_stale_invocation(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """What an untracked function or a raw thread records is nobody's, and is not lost."""
    app = write_v2(tmp_path / "app", POOL)
    env = settings(ingest.url, PYTHON_THREADPOOL_THREAD_COUNT="2")
    with AzureHost(app, python=python, model="v2", env=env) as host:
        started = [(host.start(NAMES[n % 3], numbered(n // 3))) for n in range(90)]
        replies = [future.result(20) for future in started]
        host.invoke("first", numbered(30))  # takes along what is left of the raw threads
        host.invoke("second", numbered(31))
        events = ingest.wait_for(30 * 4 + 3)
    assert [reply.ok for reply in replies] == [n % 3 != 1 or n // 3 % 3 != 0 for n in range(90)]
    assert len({reply.return_value for reply in replies if reply.ok}) == 2

    seen = Counter[tuple[Any, ...]]()
    for event in events:
        attribution = event["attribution"]
        metric = event["measurements"][0]["metric_name"]
        seen[metric, attribution.get("by"), event["license_id"]] += 1
    assert seen == {
        ("first", "first", "lic_azure"): 31,
        ("raw", None, "lic_azure"): 31,
        ("second", "second", "lic_second"): 31,
        ("untracked", None, "lic_azure"): 30,
    }
    assert len(
        {(e["measurements"][0]["metric_name"], e["attribution"]["n"]) for e in events}
    ) == len(events)


CROWD = (
    HEAD
    + """
all_threads = threading.Barrier(20, timeout=20)
arrived, all_tasks = [], asyncio.Event()

def record(req, *parts):
    for part in parts:
        doow.track("calls", attribution={"n": int(req.params["n"]), "part": part})

@app.route(route="a")
@doow.tracked(metric="own")
def in_threads(req: func.HttpRequest) -> str:
    record(req, 1)
    all_threads.wait()
    record(req, 2, 3)
    all_threads.wait()
    record(req, 4)
    return req.params["n"]

@doow.tracked(metric="own")
@app.route(route="b")
async def on_the_loop(req: func.HttpRequest) -> str:
    record(req, 1)
    arrived.append(None)
    if len(arrived) == 20:
        all_tasks.set()
    await all_tasks.wait()
    record(req, 2)
    await asyncio.to_thread(record, req, 3)
    await asyncio.create_task(asyncio.sleep(0))
    record(req, 4)
    return req.params["n"]
"""
)


@every_python
def test_40_at_a_time_do_not_mix(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """20 threads and 20 tasks that wait for each other: each has one POST, of its own events."""
    app = write_v2(tmp_path / "app", CROWD)
    env = settings(ingest.url, PYTHON_THREADPOOL_THREAD_COUNT="20")
    with AzureHost(app, python=python, model="v2", env=env) as host:
        started = [host.start(("in_threads", "on_the_loop")[n % 2], numbered(n)) for n in range(40)]
        replies = [future.result(30) for future in started]
    assert [reply.return_value for reply in replies] == [str(n) for n in range(40)]

    parts = []
    for post in ingest.posts():
        own, *events = post.json()["events"]
        assert own["measurements"][0]["metric_name"] == "own"
        (n,) = {event["attribution"]["n"] for event in events}
        parts.append((n, [event["attribution"]["part"] for event in events]))
        assert post.received_at < replies[n].responded_at
    assert sorted(parts) == [(n, [1, 2, 3, 4]) for n in range(40)]


STALLS = (
    HEAD
    + f"""
import os

# Not by variables, which would win over the endpoint of each tracker.
doow.configure("{KEY}", endpoint=os.environ["INGEST"], budget=20, license_id="lic_1")

def stalling():
    return doow.Tracker("{KEY}", endpoint=os.environ["SILENT"], budget=2, license_id="lic_1")

@app.route(route="a")
async def stalls(req: func.HttpRequest) -> str:
    tracker = stalling()
    @doow.tracked(tracker=tracker)
    async def inner():
        tracker.track("calls")
    await inner()
    return ""

@app.route(route="b")
def stalls_in_a_thread(req: func.HttpRequest) -> str:
    tracker = stalling()
    @doow.tracked(tracker=tracker)
    def inner():
        tracker.track("calls")
    inner()
    return ""

@app.route(route="c")
@doow.tracked
async def quick(req: func.HttpRequest) -> str:
    doow.track("calls", attribution={{"n": int(req.params["n"])}})
    return ""
"""
)
QUICK, EVERY_S = 100, 0.01
ROOM_S = 0.2
REPEATS = 5


def quick_ones(host: AzureHost, first: int) -> list[float]:
    """The durations of invocations that come at a steady pace, the shortest first."""
    started = []
    begin = time.monotonic()
    for number in range(QUICK):
        started.append(host.start("quick", numbered(first + number)))
        time.sleep(max(0.0, begin + (number + 1) * EVERY_S - time.monotonic()))
    replies = [future.result(20) for future in started]
    assert all(reply.ok for reply in replies)
    return sorted(reply.duration_s for reply in replies)


def test_a_stalled_flush_is_not_noticed(ingest: Ingest, tmp_path: Path) -> None:
    """Beside functions that wait for a silent ingest, a quick one is as quick as without them."""
    app = write_v2(tmp_path / "app", STALLS)
    with Server(silent) as server:
        env = {"INGEST": ingest.url, "SILENT": server.url}
        with AzureHost(app, python=pythons()[-1], model="v2", env=env) as host:
            quick_ones(host, 0)
            for attempt in range(1, REPEATS + 1):
                alone = quick_ones(host, attempt * 1000)
                stalled = [
                    host.start(name, numbered(0)) for name in ("stalls", "stalls_in_a_thread") * 2
                ]
                server.wait_for(4 * attempt)
                beside = quick_ones(host, attempt * 1000 + QUICK)
                overlapped = not any(future.done() for future in stalled)
                assert min(future.result(10).duration_s for future in stalled) >= 1.9
                # A loop that were blocked, or one queue for all POSTs, would show as seconds each
                # time; a busy machine, now and then.
                is_unnoticed = overlapped and beside[-1] <= 2 * alone[-1] + ROOM_S
                if is_unnoticed:
                    break
    p99 = [each[-2] for each in (alone, beside)]
    figures = f"p99 alone {p99[0] * 1000:.1f} ms, beside stalled flushes {p99[1] * 1000:.1f} ms"
    assert is_unnoticed, figures
    assert len(ingest.events()) == (1 + 2 * attempt) * QUICK
