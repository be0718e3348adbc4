"""The work of a relay, whatever the platform: records are joined, and batches delivered, once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from functools import partial

from doow_serverless._config import checked_config
from doow_serverless._delivery.patient import PATIENCE_S, PatientSender, Undeliverable, sending
from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import SPLIT, frames_of
from doow_serverless._frames.reader import Part
from doow_serverless._frames.stdout import LogLines
from doow_serverless._process.log import counted, warn
from doow_serverless.errors import DoowError, ErrorKind

from ._isolation import Isolation, Suspects
from ._recent import Recent
from ._window import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doow_serverless._config import Config
    from doow_serverless._delivery.patient import Delivers
    from doow_serverless._frames.assembly import DeadLetter
    from doow_serverless._frames.reader import Damage
    from doow_serverless._sealing import Batch

MAX_KNOWN = 200_000
"""Batches of which a process remembers that they were delivered."""
MAX_PARTS = 1_000
"""Records that a process keeps until those come that belong to them; 28 kB each, at the most."""
MOST_TOLD = 20
"""Rejected events of a batch that are told one by one."""
HALVES_PATIENCE_S = 1.0
"""Seconds of failures after which a part of a batch is given up that has failed as a whole."""
LEFT_S = 3.0
"""Seconds before the end of an invocation after which no attempt is begun any more."""


class Undelivered(DoowError):
    """The server did not decide on all batches: whoever has handed them over must do so again.

    Attributes:
        batch_ids: Those on which it did not.
    """

    def __init__(self, why: str, batches: Iterable[Batch]) -> None:
        self.batch_ids = frozenset(batch.id for batch in batches)
        many = len(self.batch_ids)
        text = f"{many} batch{'es' * (many != 1)} not delivered: {why}"
        super().__init__(text, ErrorKind.NETWORK_ERROR)


class Relay:
    """Takes records from whatever brings them, and delivers their batches under their own ids.

    It remembers what it has delivered, and which parts it waits for, as long as its process lives;
    Doow knows a batch again by its id in any case. Every method may be called from any thread.

    Args:
        config: The key, and how long an attempt may take.
        endpoint: Where to.
    """

    def __init__(self, config: Config, endpoint: str) -> None:
        self.config = config
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._known = Recent(MAX_KNOWN)
        self._halved = Recent(MAX_KNOWN)
        self._suspects = Suspects()
        self._parts: OrderedDict[tuple[str, str, int], Part] = OrderedDict()
        self._log = LogLines()

    def __repr__(self) -> str:
        return f"Relay({self._endpoint!r})"

    # ── records ────────────────────────────────────────────────────────────────────────────────

    def join(self, records: Iterable[Part | Damage]) -> tuple[list[DeadLetter], list[Part]]:
        """Join ``records``, and those that were left over, to batches.

        What is damaged is told.

        Returns:
            The batches that are whole now, each once, and the records of those that are not.
        """
        with self._lock:
            assembly = Assembly()
            letters = []
            for one in [*self._parts.values(), *records]:
                if isinstance(one, Part) and one.reason == SPLIT:
                    self._halved.add(one.batch_id)
                letter = assembly.add(one)
                if letter is not None:
                    letters.append(letter)
            # Of what was delivered a part may come again, as a message of a queue does.
            begun = [part for part in assembly.begun() if not self.knows(part.batch_id)]
            waiting = {part.batch_id for part in begun}
            for batch_id, why in assembly.problems():
                if batch_id is None or not (batch_id in waiting or self.knows(batch_id)):
                    warn(f"batch {batch_id or 'whose id is lost'} came damaged: {why}")
            for key in [key for key in self._parts if key[0] not in waiting]:
                del self._parts[key]
        return letters, begun

    def wait_for_rest(self, parts: Iterable[Part], *, is_kept: bool) -> None:
        """Keep ``parts``, whose batches are not whole, for what may come; tell it, each once.

        Args:
            parts: They may be lost with this process.
            is_kept: Whether somebody else has them. Else they are written to standard output as
                they are, from which ``replay`` joins them to the rest.
        """
        with self._lock:
            keyed = {(part.batch_id, part.sha256, part.number): part for part in parts}
            new = [part for key, part in keyed.items() if key not in self._parts]
            self._parts.update(keyed)
            while len(self._parts) > MAX_PARTS:
                self._parts.popitem(last=False)
        if new and not is_kept:
            for batch_id in dict.fromkeys(part.batch_id for part in new):
                warn(f"batch {batch_id} has not come whole: what there is of it follows")
            lines = [part.line(self.config.least_level) for part in new]
            self._log.write(lines, self._log.streams())

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def knows(self, batch_id: str) -> bool:
        """Whether a batch was delivered by this process, also as a part of a window."""
        return digest(batch_id) in self._known

    def learn(self, digests: Iterable[bytes]) -> None:
        """Remember that these were delivered, as a part of a window."""
        for one in digests:
            self._known.add(one)

    def deliver(self, batches: Iterable[Batch], limit_s: float) -> None:
        """Deliver ``batches`` in order, at the pace that the server allows.

        What the server refuses is told, and is done with; so is what it fails with again and again
        though it takes others. What has failed before goes last, so that it holds up nothing.

        Args:
            batches: Those that are known are left out.
            limit_s: Seconds after which no attempt is begun any more.

        Raises:
            Undelivered: It did not decide on all of them.
        """
        todo = [batch for batch in batches if not self.knows(batch.id)]
        todo.sort(key=lambda batch: batch.id in self._suspects)
        if not todo:
            return
        ends_at = time.monotonic() + limit_s
        undelivered: list[Batch] = []
        why = ""
        with sending(self.config, self._endpoint) as sender:
            patient = partial(PatientSender, sender, warn, halved=self._halved, ends_at=ends_at)
            usual = patient(patience_s=min(PATIENCE_S, limit_s / 2))
            while todo:
                batch = todo.pop(0)
                try:
                    self._deliver(batch, usual, patient)
                except Undeliverable as problem:
                    why = str(problem)
                    undelivered.append(batch)
                    if problem.ends_all:
                        undelivered += todo
                        break
        if undelivered:
            raise Undelivered(why, undelivered)

    def _deliver(self, batch: Batch, sender: Delivers, new_sender: Callable[..., Delivers]) -> None:
        """Deliver a batch, or all of it but for what is itself at fault that it cannot be."""
        try:
            self._send(batch, sender)
        except Undeliverable as problem:
            isolation = Isolation(
                lambda half: self._send(half, new_sender(patience_s=HALVES_PATIENCE_S)),
                self._set_aside,
                self._suspects,
                self._halved,
            )
            isolation.settle(batch, problem)
            self._known.add(digest(batch.id))

    def _send(self, batch: Batch, sender: Delivers) -> None:
        if not self.knows(batch.id):
            delivery = sender.deliver(batch)
            self._known.add(digest(batch.id))
            self._suspects.got_through(batch.id)
            _tell_rejected(batch, delivery.rejected)

    def _set_aside(self, batch: Batch, why: str) -> None:
        """Write down what would hold up all that follows, and go on without it."""
        self._known.add(digest(batch.id))
        what = f"event {batch.event_ids[0]}"
        if len(batch) > 1:
            what = f"batch {batch.id} of {counted(len(batch))}"
        warn(f"{what} cannot be delivered, though others can, and follows: {why}")
        records = frames_of(
            batch,
            ErrorKind.TRANSPORT_ERROR,
            time.time(),
            limit=self.config.record_limit,
            least_level=self.config.least_level,
        )
        self._log.write(records, self._log.streams())


def _tell_rejected(batch: Batch, rejected: list[tuple[str, str]]) -> None:
    for event_id, why in rejected[:MOST_TOLD]:
        warn(f"Doow rejected event {event_id} of batch {batch.id}: {why}")
    if len(rejected) > MOST_TOLD:
        more = counted(len(rejected) - MOST_TOLD)
        warn(f"and {more} more of batch {batch.id}, the first for: {rejected[0][1]}")


_making = threading.Lock()
_relay: Relay | None = None


def shared() -> Relay:
    """The relay of this process, as its environment says; raises ConfigurationError."""
    global _relay
    with _making:
        if _relay is None:
            _relay = Relay(*checked_config())
        return _relay
