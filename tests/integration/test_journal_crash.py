"""The journal among real processes: killed in the middle, forked, and many on one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from doow_serverless._keeping.journal import Journal
from doow_serverless._recording.event import Defaults
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from doow_serverless._recording.event import Event
    from doow_serverless._sealing import Batch
    from doow_serverless.local import Ingest

TOKENS = Defaults("lic_1", None, []).template("tokens", (None, None, None, "USAGE", None, None))
PRELUDE = """
import os, sys
from doow_serverless._recording.event import Defaults
from doow_serverless._keeping.journal import Journal
from doow_serverless._sealing import seal
SHAPE = Defaults("lic_1", None, []).template("tokens", (None, None, None, "USAGE", None, None))
def event(name):
    return name, 1.5, SHAPE, 1, None
journal = Journal(sys.argv[1])
"""
CONFIRM = """
def confirm(name):
    os.write(1, f"{name}\\n".encode())
"""


def event(name: str) -> Event:
    return name, 1.5, TOKENS, 1, None


def ids(batches: Iterable[Batch]) -> list[str]:
    """The ids of the events that the server would read."""
    bodies = (json.loads(batch.json())["events"] for batch in batches)
    return [one["event_id"] for one in chain.from_iterable(bodies)]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that runs a script on a folder; kills it in the end."""
    processes: list[subprocess.Popen[str]] = []

    def begin(script: str, *arguments: object) -> subprocess.Popen[str]:
        code = PRELUDE + CONFIRM + textwrap.dedent(script)
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        with process:
            process.kill()


def killed(process: subprocess.Popen[str]) -> list[str]:
    """Kill a process outright; the lines that it had written and that were not read yet."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    lines = process.stdout.read().split()
    assert process.wait() == -signal.SIGKILL
    return lines


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.01, 0.05, 0.1])
def test_killed_in_the_middle_of_recording(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], delay_s: float
) -> None:
    """Every event whose recording had returned is recovered, once; at most one more may be."""
    process = start(
        """
        for number in range(10**9):
            journal.record_many([event(f"evt-{number}")])
            confirm(f"evt-{number}")
        """,
        tmp_path,
    )
    assert process.stdout is not None
    first = process.stdout.readline().split()
    time.sleep(delay_s)
    confirmed = first + killed(process)
    recovered = ids(Journal(tmp_path).recover())
    assert recovered[: len(confirmed)] == confirmed
    assert len(recovered) - len(confirmed) <= 1


def test_killed_in_the_middle_of_everything(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Over many crashes in a row, what was recorded is settled, or left; if both, under one id."""
    confirmed: set[str] = set()
    settled: set[str] = set()
    posts: dict[str, str] = {}
    for life in range(12):
        process = start(
            """
            for batch in journal.recover():
                confirm(f"post:{batch.id}:{','.join(batch.event_ids)}")
                journal.note_settled(batch.id)
            for number in range(10**9):
                names = [f"{sys.argv[2]}-{number}-{one}" for one in range(3)]
                for name in names:
                    journal.record_many([event(name)])
                    confirm(f"recorded:{name}")
                batches = list(seal([event(name) for name in names[:2]]))
                for batch in batches:
                    journal.note_sealed(batch)
                    confirm(f"post:{batch.id}:{','.join(batch.event_ids)}")
                    journal.note_settled(batch.id)
            """,
            tmp_path,
            life,
        )
        assert process.stdout is not None
        lines = process.stdout.readline().split()
        time.sleep(0.003 * life)
        for kind, _, rest in (line.partition(":") for line in lines + killed(process)):
            if kind == "recorded":
                confirmed.add(rest)
            else:
                batch_id, _, names = rest.partition(":")
                # The server knows an id that was posted before, with the same events.
                assert posts.setdefault(batch_id, names) == names
                settled.update(names.split(","))
    batches = Journal(tmp_path).recover()
    left = ids(batches)
    assert max(Counter(left).values()) == 1
    assert confirmed <= settled | set(left)
    # What is in both was posted by a life that was killed before it noted the answer.
    again = {batch.id for batch in batches if settled & set(batch.event_ids)}
    assert again <= set(posts)


def test_recovered_under_the_ids_that_were_posted(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Whatever moment a process is killed in, an event is never posted under two batch ids."""
    posted: dict[str, set[str]] = {}
    for life in range(10):
        process = start(
            """
            def post(batch):
                for name in batch.event_ids:
                    confirm(f"{name}={batch.id}")
            for batch in journal.recover():
                post(batch)
                journal.note_settled(batch.id)
            for number in range(10**9):
                name = f"{sys.argv[2]}-{number}"
                journal.record_many([event(name)])
                for batch in seal([event(name)]):
                    journal.note_sealed(batch)
                    post(batch)
                    journal.note_settled(batch.id)
            """,
            tmp_path,
            life,
        )
        assert process.stdout is not None
        lines = process.stdout.readline().split()
        time.sleep(0.002 * life)
        for line in lines + killed(process):
            name, _, batch_id = line.partition("=")
            posted.setdefault(name, set()).add(batch_id)
    assert len(posted) > 10
    assert {len(batch_ids) for batch_ids in posted.values()} == {1}


def test_two_living_processes_on_one_folder(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Each recovers nothing of the other, however often it looks; the dead one's goes to one."""
    script = """
    for number in range(100):
        journal.record_many([event(f"{sys.argv[2]}-{number}")])
    confirm("ready")
    sys.stdin.readline()
    for batch in journal.recover():
        for name in batch.event_ids:
            confirm(name)
    confirm("done")
    sys.stdin.readline()
    """
    dead = start(script, tmp_path, "dead")
    living = [start(script, tmp_path, name) for name in ("a", "b", "c")]
    for process in (dead, *living):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    killed(dead)
    for process in living:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    recovered = []
    for process in living:
        assert process.stdout is not None
        recovered += list(iter(process.stdout.readline, "done\n"))
    assert sorted(recovered) == sorted(f"dead-{number}\n" for number in range(100))
    for process in living:
        killed(process)
    last = ids(Journal(tmp_path).recover())
    assert sorted(last) == sorted(
        f"{name}-{n}" for name in ("a", "b", "c", "dead") for n in range(100)
    )


def test_many_processes_recover_at_once(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Of everything that many dead ones left, each event comes to exactly one."""
    for life in range(20):
        journal = Journal(tmp_path)
        journal.record_many(event(f"{life}-{number}") for number in range(20))
        journal.close()
    script = """
    confirm("ready")
    sys.stdin.readline()
    for batch in journal.recover():
        for name in batch.event_ids:
            confirm(name)
        journal.note_settled(batch.id)
    confirm("done")
    """
    processes = [start(script, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    recovered = []
    for process in processes:
        assert process.stdout is not None
        recovered += list(iter(process.stdout.readline, "done\n"))
    assert sorted(recovered) == sorted(f"{life}-{n}\n" for life in range(20) for n in range(20))
    assert list(tmp_path.iterdir()) == []


def test_a_child_leaves_the_files_of_its_parent(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """A fork shares no file: the child begins its own, and neither sends the other's events."""
    process = start(
        """
        dead = Journal(sys.argv[1])
        dead.record_many([event("dead")])
        dead.close()
        journal.recover()
        journal.record_many([event("parent")])
        child = os.fork()
        if not child:
            journal.after_fork()
            assert journal.recover() == []
            journal.record_many([event("child")])
            confirm(os.getpid())
        else:
            confirm(os.getpid())
        sys.stdin.readline() if child else __import__("time").sleep(60)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    pids = {int(process.stdout.readline()), int(process.stdout.readline())}
    (child,) = pids - {process.pid}
    try:
        # The parent still holds its lock, although a copy of it was closed.
        assert Journal(tmp_path).recover() == []
        process.kill()
        process.wait()
        # The child holds none of it, and lives.
        survivor = Journal(tmp_path)
        assert sorted(ids(survivor.recover())) == ["dead", "parent"]
    finally:
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 10
    found: list[str] = []
    while not found and time.monotonic() < deadline:
        found = ids(survivor.recover())
    assert found == ["child"]


def test_a_full_disk(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Where the system refuses to write more, recording goes on and what was written is safe."""
    process = start(
        """
        import logging, resource
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        names = [f"evt-{number}" for number in range(1000)]
        for name in names:
            journal.record_many([event(name)])
        journal.note_settled("any")
        confirm("done")
        sys.stdin.readline()
        """,
        tmp_path,
    )
    assert process.stdout is not None
    said = list(iter(process.stdout.readline, "done\n"))
    why = "No space left on device"
    assert said == [f"the journal is off, and a crash may lose events: {why}\n"]
    killed(process)
    recovered = ids(Journal(tmp_path).recover())
    assert 20 < len(recovered) < 200
    assert recovered == [f"evt-{number}" for number in range(len(recovered))]


def test_a_program_that_is_started_inherits_no_lock(tmp_path: Path) -> None:
    """A subprocess that outlives its parent keeps nobody from recovering."""
    code = PRELUDE + textwrap.dedent(
        """
        import subprocess
        journal.record_many([event("evt")])
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        print(child.pid, flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait()
        try:
            assert ids(Journal(tmp_path).recover()) == ["evt"]
        finally:
            os.kill(child, signal.SIGKILL)


def test_recovery_of_a_full_file_is_bounded_in_memory(tmp_path: Path) -> None:
    """A process in the smallest sandbox survives the largest file, instead of crashing again."""
    journal = Journal(tmp_path)
    journal.record_many(event(f"evt-{number}") for number in range(40_000))
    journal.close()
    code = PRELUDE + textwrap.dedent(
        """
        import resource
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = sum(map(len, journal.recover()))
        print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    found, grown_kib = map(int, done.stdout.split())
    assert found == 40_000
    assert grown_kib < 64 * 1024


def test_what_was_folded_is_recovered_whole(tmp_path: Path, ingest: Ingest) -> None:
    """A process that is killed amid an invocation leaves the sum so far, which counts once."""
    script = f"""
        import doow_serverless as doow
        tracker = doow.configure(
            {KEY!r}, endpoint={ingest.url!r}, journal=sys.argv[1], license_id="lic_1", fold=True
        )
        @doow.tracked
        def handler():
            for _ in range(100):
                doow.track("tokens", 0.1)
            doow.flush()
            for _ in range(50):
                doow.track("tokens", 2)
                doow.track("calls")
            os.kill(os.getpid(), 9)
        if sys.argv[2] == "crash":
            handler()
        doow.tracked(lambda: doow.track("calls", 7))()
    """
    for how in ("crash", "recover"):
        subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script), tmp_path, how], check=False
        )
    ends_at = time.monotonic() + 10
    while len(ingest.events()) < 4 and time.monotonic() < ends_at:
        time.sleep(0.05)
    arrived = [each for event in ingest.events() for each in event["measurements"]]
    assert sorted((each["metric_name"], float(each["quantity"])) for each in arrived) == [
        ("calls", 7), ("calls", 50), ("tokens", 10), ("tokens", 100),
    ]  # fmt: skip
