"""The fault campaign in its short form; ``make campaign`` runs it in full."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.campaign.lane import STUCK_INVOCATIONS, Lane
from tests.campaign.ledger import End, Notes
from tests.campaign.plan import turns
from tests.campaign.run import campaign, table_of

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("awslambdaric")

INVOCATIONS = 160
LANES = 4


@pytest.mark.extensive
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_every_event_is_accounted_for(tmp_path: Path) -> None:
    """Recorded = accepted + rejected with a reason + recovered from the log, and none twice."""
    seed = random.randrange(2**32)
    again = f"python -m tests.campaign --invocations {INVOCATIONS} --lanes {LANES} --seed {seed}"
    print(again)  # noqa: T201 - pytest shows it where the test fails

    ledger = campaign(INVOCATIONS, seed, tmp_path, LANES)

    Console().print(table_of(ledger))
    assert (ledger.missing, ledger.twice, ledger.undead, ledger.troubles) == ([], [], [], []), again
    assert ledger.due == ledger.accepted + ledger.recovered + ledger.rejected
    assert ledger.invocations.total() == INVOCATIONS
    # Some seeds draw quick functions of one event for each lane: few events, but faults enough.
    assert ledger.accepted > 50, again
    assert ledger.posts.total() > ledger.posts[202], "there were faults"


def test_a_plan_is_that_of_its_seed() -> None:
    """The same seed draws the same invocations and accidents, another seed others."""

    def drawn(seed: int) -> list[object]:
        return [
            (turn.event, turn.pause_s, turn.killed_after_s, turn.frozen, len(turn.faults))
            for turn in turns(200, seed)
        ]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("line", "end", "has_journal", "expected"),
    [
        ("7 0.5 e 7.0 -", End.RETURNED, False, "exactly once"),
        ("7 0.5 e 7.0 -", End.KILLED, False, "at most once"),
        ("7 0.5 e 7.0 -", End.KILLED, True, "exactly once"),
        ("7 0.251 e 7.0 -", End.DEADLINE, False, "exactly once"),
        ("7 0.249 e 7.0 -", End.DEADLINE, False, "at most once"),
        ("7 0.5 e 7.0 0\n7 0.2 + 0", End.DEADLINE, False, "at most once"),
        ("7 0.5 e 7.0 0/1\n7 0.5 + 0/1", End.KILLED, True, "at most once"),
        ("7 0.5 e 7.0 0/1\n7 0.5 + 0/1\n7 0.5 + 0", End.RETURNED, False, "exactly once"),
        ("7 0.5 e 7.0 0/1\n7 0.5 + 0/1\n7 0.5 x 0", End.RETURNED, False, "never"),
        ("7 0.5 e 7.0 handler", End.RETURNED, False, "exactly once"),
        ("7 0.5 e 7.0 handler", End.RAISED, True, "never"),
        ("7 0.5 e 7.0 handler", End.DEADLINE, True, "at most once"),
    ],
)
def test_what_is_owed(line: str, end: End, has_journal: bool, expected: str) -> None:
    """What the ledger asks for each event, by its scope, the time left and the end."""
    notes = Notes(f"{line}\n7 0.1 e 7.")

    (event,) = notes.events

    assert notes.duty(event, end, has_journal=has_journal).value == expected


@pytest.mark.parametrize(
    ("lines", "arrived", "expected"),
    [
        ("7 0.5 t 7.0\n7 0.5 e 7.0 -\n", {"7.0": 1}, []),
        ("7 0.5 t 7.0\n", {"7.0": 1}, []),
        ("7 0.5 t 7.0\n", {"7.0": 2}, ["7.0 arrived 2 times, and was never noted"]),
        ("7 0.5 t 7.0\n7 0.5 t 7", {"7.1": 1}, ["7.1 arrived 1 times, and was never noted"]),
    ],
)
def test_an_end_before_the_note_is_no_trouble(
    lines: str, arrived: dict[str, int], expected: list[str]
) -> None:
    """An event that was announced may arrive once, since SIGTERM can come before its note."""
    assert Notes(lines).not_noted(arrived) == expected


@pytest.mark.parametrize("rests", [30, 99, 1_000])
def test_a_journal_drains_for_as_long_as_it_changes(tmp_path: Path, rests: int) -> None:
    """The drain counts invocations without a change, not seconds, and ends if nothing changes."""
    lane = Lane("0", 1, 1, tmp_path, has_journal=True, is_small=False, is_slow=False)
    journal = tmp_path / "journal"
    journal.mkdir()
    runtime = SlowDrain(journal / "file", rests)

    with lane._ingest:
        lane._drain(runtime)  # type: ignore[arg-type]  # a stand-in

    assert runtime.longest_rest == min(rests, STUCK_INVOCATIONS)
    assert lane._journal_holds() == (rests >= STUCK_INVOCATIONS)


class SlowDrain:
    """Stands in for a runtime whose journal shrinks once in so many invocations."""

    def __init__(self, file: Path, rests: int) -> None:
        file.write_bytes(b"...")
        self._file, self._rests, self._rested = file, rests, 0
        self.longest_rest = 0

    def kill(self) -> None:
        """There is no process."""

    def invoke(self, event: object, *, timeout_s: float) -> None:
        self._rested += 1
        self.longest_rest = max(self.longest_rest, self._rested)
        if self._rested == self._rests:
            self._file.write_bytes(self._file.read_bytes()[1:])
            self._rested = 0
