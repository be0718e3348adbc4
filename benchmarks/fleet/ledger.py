"""The ledger: where every event that was recorded is, counted in calls of ``track``, each of one.

What is folded carries a sum, so quantities are counted, and never events alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import SPLIT
from doow_serverless._frames.reader import Damage, read_frame
from doow_serverless._keeping.refolding import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from doow_serverless._sealing import Batch


@dataclass(frozen=True)
class Row:
    """The ledger at one moment; all but the time and the last are calls of ``track``.

    Attributes:
        at: Simulated seconds.
        recorded: What the handlers have recorded.
        delivered: What Doow has.
        waiting: What a living sandbox has in memory, and Doow has not.
        in_log: What stands in the log alone.
        rest: How many events, as Doow counts them, it would take to deliver what it has not.
    """

    at: float
    recorded: int
    delivered: int
    waiting: int
    in_log: int
    rest: int

    @property
    def lost(self) -> int:
        """What is nowhere; below zero, what counts twice."""
        return self.recorded - self.delivered - self.waiting - self.in_log


@dataclass(frozen=True)
class Weight:
    """What a batch holds: calls of ``track``, in so many events."""

    calls: int
    events: int


def account(
    at: float,
    recorded: int,
    delivered: Mapping[str, int],
    waiting: Mapping[str, Weight],
    log: Mapping[str, Weight],
) -> Row:
    """The ledger, of what each place holds by batch id: a batch counts once, where it is best off.

    Args:
        at: Simulated seconds.
        recorded: Calls of ``track``.
        delivered: Calls of ``track`` that each batch has added to Doow's ledger.
        waiting: What living sandboxes have in memory.
        log: What stands in the log, and is not known to be done with.
    """
    waits = {one: waiting[one] for one in waiting.keys() - delivered.keys()}
    stands = {one: log[one] for one in log.keys() - delivered.keys() - waiting.keys()}
    left = [*waits.values(), *stands.values()]
    return Row(
        at,
        recorded,
        sum(delivered.values()),
        sum(one.calls for one in waits.values()),
        sum(one.calls for one in stands.values()),
        sum(one.events for one in left),
    )


def weight_of(batch: Batch) -> Weight:
    """What ``batch`` holds."""
    events = read(batch.json())["events"]
    calls = sum(int(one["quantity"]) for event in events for one in event["measurements"])
    return Weight(calls, len(events))


class LogBook:
    """What the logs of all sandboxes hold, read back as ``replay`` reads them, each batch once.

    Attributes:
        batches: By id.
    """

    def __init__(self) -> None:
        self.batches: dict[str, Weight] = {}
        self._assembly = Assembly()

    def read(self, line: str) -> str | None:
        """Take in a line; the id of the batch that it completes, if any.

        Raises:
            ValueError: It is damaged, or of a batch that was halved, as none is here.
        """
        found = read_frame(line)
        if found is None:
            return None
        if isinstance(found, Damage) or found.reason == SPLIT:
            raise ValueError(line)
        letter = self._assembly.add(found)
        if letter is None:
            return None
        self.batches[letter.batch.id] = weight_of(letter.batch)
        return letter.batch.id

    def without(self, batch_ids: Iterable[str]) -> dict[str, Weight]:
        """What it holds but for these."""
        return {one: self.batches[one] for one in self.batches.keys() - set(batch_ids)}
