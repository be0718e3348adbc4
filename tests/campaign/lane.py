"""One lane of a campaign: a function under AWS's runtime client, its ingest, and its accidents."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doow_serverless.local import Ingest
from doow_serverless.local._protocol import MAX_JSON_BYTES
from doow_serverless.local.lambda_runtime import LambdaRuntime, LambdaRuntimeError
from tests.campaign.ledger import CAN_DELIVER, End, Ledger, Notes, rejected_serials, serial_of
from tests.campaign.plan import SMALL_LIMIT, Turn, turns
from tests.network import KEY, Metronome

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNCTION = Path(__file__).with_name("function")
NOISE_S = 0.04
"""How late the machine may be at a deadline, of which the guard leaves 80 ms for the log."""
WARM_INVOCATIONS = 6
STUCK_INVOCATIONS = 100
"""Invocations, each of a tenth of a second, in which a journal that drains has changed."""
BURIAL_S = 1.0
"""Seconds after which a process that SIGTERM has not ended is given something to do."""
BURIALS = 20
PATIENT_S = 30.0
"""The deadline of invocations in which nothing is to go wrong."""
ENDS = {
    None: End.RETURNED,
    "Refusal": End.RAISED,
    "Sandbox.Timedout": End.DEADLINE,
    "Runtime.ExitError": End.KILLED,
}
"""How an invocation has ended, by the type of its error."""


class Lane:
    """A sandbox and an ingest of its own.

    Args:
        name: Says which lane it is, and tells its seed from those of the others.
        seed: That of the campaign.
        invocations: How many.
        folder: Keeps the notes, the journal and the log.
        has_journal: Whether the function keeps a crash journal.
        is_small: Whether the ingest takes small batches only.
        is_slow: Whether the log is read slowly.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        invocations: int,
        folder: Path,
        *,
        has_journal: bool,
        is_small: bool,
        is_slow: bool,
    ) -> None:
        self.name = name
        self.turns = turns(invocations, f"{seed}/{name}")
        self._folder = folder
        self._is_slow = is_slow
        self._journal = folder / "journal" if has_journal else None
        self._ingest = Ingest(max_json_bytes=SMALL_LIMIT if is_small else MAX_JSON_BYTES)
        self._ends: dict[int, End] = {}
        self._recycled = 0
        self._troubles: list[str] = []

    def run(self) -> Ledger:
        """All invocations, the healing, the replay and the ledger."""
        self._folder.mkdir(parents=True)
        with self._ingest, self._runtime() as runtime:
            for turn in self.turns:
                self._ends[turn.number] = self._take(turn, runtime)
            self._ingest.start()
            self._ingest.clear_faults()
            self._drain(runtime)
            runtime.kill()
            (self._folder / "log").write_text(runtime.stdout)
            return self._settle()

    def _runtime(self) -> LambdaRuntime:
        env = {
            "CAMPAIGN_NOTES": str(self._folder / "notes"),
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_BUDGET": "100",
            "DOOW_TRACK_ENDPOINT": self._ingest.url,
            "DOOW_TRACK_LICENSE_ID": "lic_1",
        }
        if self._journal is not None:
            env["CAMPAIGN_JOURNAL"] = str(self._journal)
        if self._is_slow:
            env["CAMPAIGN_LOG_BYTES_PER_S"] = "2000000"
        return LambdaRuntime("app.handler", FUNCTION, env=env)

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def _take(self, turn: Turn, runtime: LambdaRuntime) -> End:
        if turn.ingest == "stop":
            self._ingest.stop()
        elif turn.ingest == "start":
            self._ingest.start()
        self._ingest.fault(*turn.faults)
        if turn.recycled:
            runtime.kill()
            self._recycled += 1
        time.sleep(turn.pause_s)
        if turn.is_signalled and not runtime.alive:
            runtime.invoke({**turn.event, "steps": []})  # Its handlers are set in the init phase.
        with Metronome() as noise, _accidents(turn, runtime):
            error = self._invoke(turn, runtime)
        end = self._end_of(turn, error, runtime)  # Every signal has been sent.
        return End.SPOILT if end is End.DEADLINE and noise.worst_s > NOISE_S else end

    def _invoke(self, turn: Turn, runtime: LambdaRuntime) -> dict[str, Any] | None:
        """The error of the invocation, or of a process that an accident ended when it started."""
        try:
            return runtime.invoke(turn.event, timeout_s=turn.timeout_s).error
        except LambdaRuntimeError:
            if turn.killed_after_s is None and not turn.is_signalled:
                raise
            return {"errorType": "Runtime.ExitError"}

    def _end_of(self, turn: Turn, error: dict[str, Any] | None, runtime: LambdaRuntime) -> End:
        if turn.alarmed_after_s is not None:
            # Raised in the handler, in Doow, between the two, or in the runtime, which then ends.
            if f"{turn.number} 0 !\n" not in (self._folder / "notes").read_text():
                runtime.kill()  # Or in the next invocation, which is none of this turn.
            elif runtime.alive:
                # What it keeps from being delivered leaves with the next flush.
                runtime.invoke({**turn.event, "steps": []})
            return End.ALARMED
        if turn.terminated_after_s is not None:
            self._bury(turn, runtime)
            return End.TERMINATED
        end = ENDS[error["errorType"] if error else None]
        if end is End.KILLED and turn.killed_after_s is None:
            raise RuntimeError(f"{self.name}, invocation {turn.number}: {error}")
        return end

    def _bury(self, turn: Turn, runtime: LambdaRuntime) -> None:
        """Wait until SIGTERM has ended the process: it ends by itself, once all is delivered.

        No platform freezes a process after SIGTERM. One that waits for its next event does so in C,
        where Python's handlers do not run: another invocation has it hear the signal.
        """
        pid = runtime.pid
        for _ in range(BURIALS):
            runtime.thaw()
            ends_at = time.monotonic() + BURIAL_S
            while runtime.alive and time.monotonic() < ends_at:
                time.sleep(0.01)
            if not runtime.alive:
                return
            steps = [{"do": "sleep", "seconds": 0.2}]
            runtime.invoke({**turn.event, "steps": steps}, timeout_s=PATIENT_S)
            if runtime.pid != pid:
                return  # It had ended just before, and another has taken its place.
        self._troubles.append(f"{self.name}, invocation {turn.number}: SIGTERM does not end it")
        runtime.kill()

    def _drain(self, runtime: LambdaRuntime) -> None:
        """Invoke what does nothing, so that what waits in memory and in journals can leave.

        However busy the machine is, that goes on as long as the journal changes.
        """
        if self._journal is not None:
            runtime.kill()  # So that what its predecessors have left does not wait for its gate.
        number, unchanged, before = 0, 0, self._journal_sizes()
        while number < WARM_INVOCATIONS or (
            self._journal_holds() and unchanged < STUCK_INVOCATIONS
        ):
            steps = [{"do": "sleep", "seconds": 0.1}]
            event = {"number": len(self.turns) + number, "discards": False, "steps": steps}
            runtime.invoke(event, timeout_s=PATIENT_S)
            sizes = self._journal_sizes()
            number, unchanged = number + 1, unchanged + 1 if sizes == before else 0
            before = sizes

    def _journal_holds(self) -> bool:
        return any(self._journal_sizes().values())

    def _journal_sizes(self) -> dict[str, int]:
        """The bytes of each file of the journal."""
        sizes: dict[str, int] = {}
        if self._journal is not None and self._journal.exists():
            for file in self._journal.iterdir():
                with suppress(FileNotFoundError):  # It has just been drained.
                    sizes[file.name] = file.stat().st_size
        return sizes

    # ── what it comes to ───────────────────────────────────────────────────────────────────────

    def _settle(self) -> Ledger:
        began = min((post.received_at for post in self._ingest.posts()), default=0.0)
        with (self._folder / "posts").open("w") as file:
            for post in self._ingest.posts():
                count = len(post.event_ids)
                print(
                    f"{post.received_at - began:.3f} {post.status} {post.batch_id} {count}",
                    file=file,
                )
        ledger = Ledger(Counter(end.value for end in self._ends.values()), self._recycled)
        ledger.troubles += self._troubles
        ledger.posts.update(post.status or 0 for post in self._ingest.posts())
        before = self._accepted()
        self._replay(ledger)
        after = self._accepted()
        recorded = [f"{event['batch_id']} {serial_of(event)}\n" for event in self._ingest.events()]
        (self._folder / "events").write_text("".join(recorded))
        self._replay(ledger)
        if self._accepted() != after:
            ledger.troubles.append(f"{self.name}: a second replay has added events")
        if "a fault of doow-serverless itself" in (self._folder / "log").read_text():
            ledger.troubles.append(f"{self.name}: a fault of the library was contained")
        if self._ingest.conflicts:
            ledger.troubles.append(f"{self.name}: other bytes under {self._ingest.conflicts}")
        if self._journal_holds():
            ledger.troubles.append(f"{self.name}: the journal was not drained")
        refused = rejected_serials(self._ingest.posts())
        notes = Notes((self._folder / "notes").read_text())
        for event in notes.events:
            end = self._ends[event.number]
            duty = notes.duty(event, end, has_journal=self._journal is not None)
            where = f"lane {self.name}, invocation {event.number} ({end.value})"
            counts = (before[event.serial], after[event.serial])
            ledger.enter(event, duty, *counts, event.serial in refused, where)
        ledger.troubles += [f"{self.name}: {said}" for said in notes.not_noted(after)]
        return ledger

    def _accepted(self) -> Counter[str]:
        return Counter(map(serial_of, self._ingest.events()))

    def _replay(self, ledger: Ledger) -> None:
        """``doow-serverless replay`` of the log."""
        done = subprocess.run(
            [sys.executable, "-m", "doow_serverless", "replay", str(self._folder / "log")],
            env={
                **os.environ,
                "DOOW_TRACK_API_KEY": KEY,
                "DOOW_TRACK_ENDPOINT": self._ingest.url,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        (self._folder / "replay").write_text(done.stdout + done.stderr)
        ledger.damaged = len(re.findall("^damaged ", done.stdout, re.MULTILINE))
        kills = sum(end not in CAN_DELIVER for end in self._ends.values())
        # 1 tells of events that the ingest has rejected, or of records that a kill has cut off.
        if done.returncode not in (0, 1) or ledger.damaged > kills + self._recycled:
            ledger.troubles.append(f"{self.name}: replay said {done.stdout}{done.stderr}")


@contextmanager
def _accidents(turn: Turn, runtime: LambdaRuntime) -> Iterator[None]:
    """What comes from outside while the block runs."""
    timers = []
    if turn.killed_after_s is not None:
        timers.append(threading.Timer(turn.killed_after_s, runtime.kill))
    for number, after_s in (
        (signal.SIGUSR1, turn.signalled_after_s),
        (signal.SIGUSR2, turn.alarmed_after_s),
        (signal.SIGTERM, turn.terminated_after_s),
    ):
        if after_s is not None:
            timers.append(threading.Timer(after_s, runtime.send_signal, [number]))
    if turn.frozen is not None:
        at_s, for_s = turn.frozen
        timers.append(threading.Timer(at_s, runtime.freeze))
        timers.append(threading.Timer(at_s + for_s, runtime.thaw))
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            with suppress(RuntimeError):
                timer.join()
