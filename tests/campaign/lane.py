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
from typing import TYPE_CHECKING

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
DRAIN_S = 15.0
BURIAL_S = 1.0
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
            end = self._invoke(turn, runtime)
        return End.SPOILT if end is End.DEADLINE and noise.worst_s > NOISE_S else end

    def _invoke(self, turn: Turn, runtime: LambdaRuntime) -> End:
        try:
            invocation = runtime.invoke(turn.event, timeout_s=turn.timeout_s)
        except LambdaRuntimeError:
            if turn.killed_after_s is not None:
                return End.KILLED  # It was just starting.
            if turn.terminated_after_s is not None:
                return End.TERMINATED
            if turn.alarmed_after_s is not None:
                return End.ALARMED
            raise
        kind = invocation.error["errorType"] if invocation.error else None
        if turn.alarmed_after_s is not None:
            # Raised in the handler, in Doow, between the two, or in the runtime, which then ends.
            if f"{turn.number} 0 !\n" not in (self._folder / "notes").read_text():
                runtime.kill()  # Or in the next invocation, which is none of this turn.
            elif runtime.alive:
                # What it keeps from being delivered leaves with the next flush.
                runtime.invoke({**turn.event, "steps": []})
            return End.ALARMED
        if turn.terminated_after_s is not None:
            self._bury(runtime)
            return End.TERMINATED
        end = ENDS[kind]
        if end is End.KILLED and turn.killed_after_s is None:
            raise RuntimeError(f"{self.name}, invocation {turn.number}: {invocation.error}")
        return end

    def _bury(self, runtime: LambdaRuntime) -> None:
        """SIGKILL when the last flush is over, before which no platform freezes after SIGTERM."""
        runtime.thaw()
        ends_at = time.monotonic() + BURIAL_S
        # Where it waits for its next event in C, Python's handlers do not run.
        while runtime.alive and time.monotonic() < ends_at:
            time.sleep(0.01)
        runtime.kill()

    def _drain(self, runtime: LambdaRuntime) -> None:
        """Invoke what does nothing, so that what waits in memory and in journals can leave."""
        ends_at = time.monotonic() + DRAIN_S
        number = len(self.turns)
        if self._journal is not None:
            runtime.kill()  # So that what its predecessors have left does not wait for its gate.
        while number < len(self.turns) + WARM_INVOCATIONS or self._journal_holds():
            if time.monotonic() > ends_at:
                break
            steps = [{"do": "sleep", "seconds": 0.1}]
            runtime.invoke({"number": number, "discards": False, "steps": steps})
            number += 1

    def _journal_holds(self) -> bool:
        if self._journal is None or not self._journal.exists():
            return False
        return any(file.stat().st_size for file in self._journal.iterdir())

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
        self._check_unknown(ledger, after, {event.serial for event in notes.events})
        return ledger

    def _check_unknown(self, ledger: Ledger, after: Counter[str], noted: set[str]) -> None:
        """What arrived without a note was recorded just before a kill: once, too."""
        for serial in after.keys() - noted:
            end = self._ends[int(serial.partition(".")[0])]
            if after[serial] > 1 or end in (End.RETURNED, End.RAISED, End.TERMINATED):
                ledger.troubles.append(f"{self.name}: {serial} arrived, and was never noted")

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
