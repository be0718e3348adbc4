"""Forks: parent and child deliver what each has recorded, and no lock of the parent's hangs one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from textwrap import dedent, indent
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import Fault, Ingest
from tests.network import KEY, Server, silent

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

COMMON = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks while there are threads: our topic.
import doow_serverless as doow

def fork(child):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return pid

def wait(pid, seconds=5.0):
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "failed" if status else "done"
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"

@doow.tracked
def record(*events):
    for event in events:
        doow.track("tokens", event_id=event)
"""


def run(script: str, endpoint: str, cwd: Path) -> list[str]:
    """The words that a script prints, in a process that has no threads but its own."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + dedent(script)],
        cwd=cwd,
        env={
            **os.environ,
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": endpoint,
            "DOOW_TRACK_LICENSE_ID": "lic_1",
            "DOOW_TRACK_BUDGET": "5000",
            "DOOW_TRACK_DEAD_LETTER": "off",  # Standard output is for what the script says.
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def batches(ingest: Ingest) -> Counter[tuple[str, ...]]:
    """The events of each POST; all of them were new."""
    assert {(post.status, post.duplicate) for post in ingest.posts()} == {(202, False)}
    return Counter(post.event_ids for post in ingest.posts())


def test_fork_within_an_invocation(ingest: Ingest, tmp_path: Path) -> None:
    """The child sends only its own events, on a connection of its own; the parent all of its."""
    script = """
        record("warm")  # So that there is a connection that the child must not use.

        pid = None

        @doow.tracked
        def handler():
            global pid
            doow.track("tokens", event_id="before")
            with doow.transaction():
                doow.track("tokens", event_id="within")
                pid = os.fork()
                mine = "parent" if pid else "child"
                doow.track("tokens", event_id=mine)
            doow.track("tokens", event_id=f"{mine}_after")
            return mine

        result = handler()
        if pid == 0:
            os._exit(result != "child")
        print(wait(pid), result)
        record("later")
    """
    assert run(script, ingest.url, tmp_path) == ["done", "parent"]
    assert batches(ingest) == {
        ("warm",): 1,
        ("child", "child_after"): 1,
        ("before", "within", "parent", "parent_after"): 1,
        ("later",): 1,
    }
    connections = {post.event_ids[0]: post.connection for post in ingest.posts()}
    assert connections["warm"] == connections["before"] == connections["later"]
    assert connections["child"] != connections["warm"]


def test_fork_with_batches_under_way(ingest: Ingest, tmp_path: Path) -> None:
    """Batches that have left early, the backlog and stray events stay with the parent."""
    script = """
        doow.configure(flush_at=2)
        record("warm")
        doow.track("tokens", event_id="stray")

        @doow.tracked
        def handler():
            global pid
            for event in ("early_1", "early_2", "kept"):
                doow.track("tokens", event_id=event)
            pid = os.fork()
            if pid == 0:
                doow.track("tokens", event_id="child")

        handler()
        if pid == 0:
            os._exit(0)
        print(wait(pid))
    """
    ingest.fault(Fault(), Fault(delay_s=0.3))
    assert run(script, ingest.url, tmp_path) == ["done"]
    assert batches(ingest) == {
        ("warm",): 1,
        ("early_1", "early_2"): 1,
        ("kept", "stray"): 1,
        ("child",): 1,
    }


def test_backlog_stays_with_the_parent(ingest: Ingest, tmp_path: Path) -> None:
    """What was not delivered before the fork is delivered by the parent alone."""
    script = """
        doow.configure(on_error=lambda error: None)
        record("failed")
        pid = fork(lambda: [(record(f"child_{each}"), time.sleep(0.1)) for each in range(5)])
        print(wait(pid))
        for each in range(20):
            record(f"parent_{each}")
            time.sleep(0.1)
    """
    ingest.fault(Fault(status=429, headers={"Retry-After": "1"}))
    assert run(script, ingest.url, tmp_path) == ["done"]
    sent = Counter(event["event_id"] for event in ingest.events())
    names = ["failed", *(f"child_{each}" for each in range(5))]
    assert sent == Counter([*names, *(f"parent_{each}" for each in range(20))])


def test_forks_while_others_record(ingest: Ingest, tmp_path: Path) -> None:
    """Forks out of a process whose other threads are busy recording and sending do not hang."""
    script = """
        over = threading.Event()
        sent = [0] * 3

        def busy(number):
            while not over.is_set():
                record(f"busy_{number}_{sent[number]}")
                sent[number] += 1

        record("warm")
        threads = [threading.Thread(target=busy, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for each in range(30):
            print(wait(fork(lambda: record(f"child_{each}"))))
        over.set()
        for thread in threads:
            thread.join()
        print(*sent)
    """
    *results, one, two, three = run(script, ingest.url, tmp_path)
    assert results == ["done"] * 30
    expected = {"warm", *(f"child_{each}" for each in range(30))}
    for number, sent in enumerate((one, two, three)):
        expected |= {f"busy_{number}_{each}" for each in range(int(sent))}
    assert batches(ingest) == {(event,): 1 for event in expected}


def test_fork_while_every_lock_is_held(ingest: Ingest, tmp_path: Path) -> None:
    """Whichever of our locks another thread holds at the moment of the fork, the child goes on."""
    script = """
        import gc
        from doow_serverless import _tracker as _tracker_module
        from doow_serverless._delivery import outbox

        record("warm")
        outbox.FORK_WAIT_S = 0.1
        kinds = (type(threading.Lock()), type(threading.RLock()))

        def locks():
            seen = list(vars(_tracker_module).values())
            for each in gc.get_objects():
                if str(type(each).__module__).startswith("doow_serverless"):
                    names = {*getattr(each, "__dict__", ()), *getattr(each, "__slots__", ())}
                    seen += [getattr(each, name, None) for name in names]
            seen += [each._lock for each in seen if isinstance(each, threading.Condition)]
            return [each for each in seen if isinstance(each, kinds)]

        pid = None
        held, over = threading.Event(), threading.Event()

        def hold():
            mine = [each for each in locks() if each.acquire(blocking=False)]
            print(len(mine))
            held.set()
            over.wait(20)
            for each in mine:
                each.release()

        @doow.tracked
        def handler():
            global pid
            doow.track("tokens", event_id="before")
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            sys.stdout.flush()
            pid = os.fork()
            if pid:
                print(wait(pid))
                over.set()
                thread.join()
            doow.track("tokens", event_id="parent" if pid else "child")

        handler()
        if pid == 0:
            _tracker_module._tracker = None
            record("child_default")
            os._exit(0)
    """
    held, result = run(script, ingest.url, tmp_path)
    assert int(held) > 8
    assert result == "done"
    assert batches(ingest) == {
        ("warm",): 1,
        ("before", "parent"): 1,
        ("child",): 1,
        ("child_default",): 1,
    }


@pytest.mark.parametrize("after_ms", [0, 1, 5, 20, 50, 100])
@pytest.mark.parametrize("importer", ["warm-up", "first-flush"])
def test_fork_while_requests_is_imported(
    after_ms: int, importer: str, ingest: Ingest, tmp_path: Path
) -> None:
    """A fork while another thread imports requests does not leave the child without it."""
    script = f"""
        doow.configure(warm_up={importer == "warm-up"})
        first = threading.Thread(target=record, args=("first",))
        first.start() if {importer == "first-flush"} else record()
        time.sleep({after_ms / 1000})
        print(wait(fork(lambda: record("child"))))
        if first.ident:
            first.join()
        record("parent")
    """
    assert run(script, ingest.url, tmp_path) == ["done"]
    first = {("first",): 1} if importer == "first-flush" else {}
    assert batches(ingest) == {("child",): 1, ("parent",): 1, **first}


def test_fork_does_not_wait_for_the_network(tmp_path: Path) -> None:
    """A fork waits for imports, but not for a connection that the warm-up opens in vain."""
    script = """
        tracker = doow.configure(warm_up="connect")
        time.sleep(1)
        began = time.monotonic()
        print(wait(fork(lambda: None)), time.monotonic() - began < 1)
        os._exit(0)
    """
    script = script.replace("os._exit", "sys.stdout.flush(); os._exit")
    with Server(silent) as server:
        assert run(script, server.url, tmp_path) == ["done", "True"]


def test_multiprocessing(ingest: Ingest, tmp_path: Path) -> None:
    """Workers of multiprocessing that were forked deliver what they record."""
    script = """
        import multiprocessing

        record("warm")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(record, [f"job_{each}" for each in range(10)], chunksize=1)
        record("parent")
    """
    assert run(script, ingest.url, tmp_path) == []
    names = ["warm", *(f"job_{each}" for each in range(10)), "parent"]
    assert batches(ingest) == {(name,): 1 for name in names}


CHILDREN = {
    "Process": """
        children = [context.Process(target=work, args=(name,)) for name in names]
        for child in children:
            child.start()
        for child in children:
            child.join()
    """,
    "Pool": """
        with context.Pool(2) as pool:
            pool.map(work, names, chunksize=1)
            pool.close()
            pool.join()
    """,
    "Pool that is terminated": """
        with context.Pool(2) as pool:
            pool.map(work, names, chunksize=1)
    """,
    "executor": """
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(work, names))
    """,
}


@pytest.mark.parametrize("where", ["handler", "discarding handler", "nowhere"])
@pytest.mark.parametrize("ways", CHILDREN)
def test_what_children_record_arrives(
    ways: str, where: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Such children run a function and end by ``os._exit``: all the same nothing is lost."""
    script = f"""
        import multiprocessing
        from doow_serverless._process import shutdown

        # The quarter of a second that platforms grant is too short for imports on a busy machine.
        shutdown.SIGTERM_LIMIT_S = 20.0
        context = multiprocessing.get_context("fork")
        names = [f"job_{{each}}" for each in range(4)]
        within = {where != "nowhere"}

        def work(name):
            doow.track("tokens", event_id=name, license_id=None if within else "lic_1")

        def run():
{indent(dedent(CHILDREN[ways]), "            ")}

        on_exception = "{"discard" if where == "discarding handler" else "flush"}"

        @doow.tracked(license_id="lic_of_the_handler", on_exception=on_exception)
        def handler():
            doow.track("tokens", event_id="handler")
            run()

        handler() if within else run()
    """
    assert run(script, ingest.url, tmp_path) == []
    names = [f"job_{each}" for each in range(4)]
    owner = "lic_1" if where == "nowhere" else "lic_of_the_handler"
    found = Counter((event["event_id"], event["license_id"]) for event in ingest.events())
    if where != "nowhere":
        names.append("handler")
    assert found == Counter((name, owner) for name in names)


def test_children_that_are_ended_at_once_end(ingest: Ingest, tmp_path: Path) -> None:
    """Whenever the signal comes: before their first step, or just before they sleep in a lock."""
    script = """
        import multiprocessing

        context = multiprocessing.get_context("fork")
        record("parent")
        lock = context.Lock()
        lock.acquire()
        for number in range(80):
            child = context.Process(target=lock.acquire)
            child.start()
            time.sleep(0.0005 * (number % 20))
            child.terminate()
            child.join(10)
            print(child.exitcode)
            child.kill()
    """
    assert run(script, ingest.url, tmp_path) == [str(-signal.SIGTERM)] * 80


def test_a_child_that_lives_on_delivers_meanwhile(ingest: Ingest, tmp_path: Path) -> None:
    """The worker of a pool need not end first."""
    script = """
        import multiprocessing

        def work(connection):
            doow.track("tokens", event_id="early")
            connection.recv()

        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
        child.start()
        sys.stdin.readline()
        ours.send("end")
        child.join()
    """
    environment = {
        **os.environ,
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", COMMON + "doow.configure()\n" + dedent(script)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
    ) as process:
        assert ingest.wait_for(1, 20)
        assert process.poll() is None
        process.communicate(b"\n", timeout=20)


def test_children_of_idempotent_work_have_ids_of_their_own(ingest: Ingest, tmp_path: Path) -> None:
    """Parent and children record the same: each counts, once however often all is done again."""
    script = """
        import multiprocessing

        class Context:
            function_name, aws_request_id = "f", "the same"

        def work():
            doow.track("tokens", 5)

        @doow.tracked(idempotent=True)
        def handler(event, context):
            work()
            for _ in range(2):
                child = multiprocessing.get_context("fork").Process(target=work)
                child.start()
                child.join()

        handler({}, Context())
        handler({}, Context())
    """
    assert run(script, ingest.url, tmp_path) == []
    assert len({event["event_id"] for event in ingest.events()}) == 3
    assert [post.duplicate for post in ingest.posts()].count(False) == 3
