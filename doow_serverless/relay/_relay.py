"""The work of a relay, whatever the platform: records are joined, and batches delivered, once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from functools import partial
from typing import NamedTuple

from doow_serverless._config import checked_config
from doow_serverless._delivery.blame import Blame
from doow_serverless._delivery.patient import PATIENCE_S, PatientSender, Undeliverable, sending
from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import SPLIT, frames_of
from doow_serverless._frames.keys import LogKey
from doow_serverless._frames.reader import Part
from doow_serverless._frames.stdout import StandardOutput
from doow_serverless._process.log import counted, warn
from doow_serverless._redaction import clean
from doow_serverless.errors import DoowError, ErrorKind

from ._intake import Intake
from ._recent import Recent
from ._window import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from doow_serverless._config import Config
    from doow_serverless._delivery.flight import Entry
    from doow_serverless._delivery.patient import Delivery
    from doow_serverless._frames.assembly import DeadLetter
    from doow_serverless._frames.reader import Damage
    from doow_serverless._sealing import Batch

MAX_KNOWN = 200_000
"""Batches of which a process remembers that they were delivered."""
MAX_PARTS_LENGTH = 32 * 1024 * 1024
"""Characters of the frames that a process keeps until their batch is whole and delivered."""
MAX_SPLIT = 20_000
"""Batches of which a process remembers that they were split."""
MOST_TOLD = 20
"""Rejected events of a batch that are told one by one."""
MAX_FAILED = 1_000
"""Batches of which a process remembers how they have failed."""
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


class Joined(NamedTuple):
    """Frames that were joined to batches.

    Attributes:
        letters: The batches that are whole now, each once.
        begun: The frames of batches that are not.
        new: Those of them that have not come before.
        damaged: The ids of batches that cannot be read, and are not whole elsewhere.
    """

    letters: list[DeadLetter]
    begun: list[Part]
    new: list[Part]
    damaged: set[str]


class Relay:
    """Takes frames, whatever platform brings them, and delivers their batches under their own ids.

    It remembers the batches that it has delivered, and the parts of others, as long as its process
    lives; Doow deduplicates by batch id in any case. Every method may be called from any thread.

    Args:
        config: The API key, and how long an attempt may take.
        endpoint: Where to send.

    Attributes:
        log_key: Must have signed each frame, if there is one.
    """

    def __init__(self, config: Config, endpoint: str) -> None:
        self.config = config
        self.log_key = LogKey.of(config)
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._known = Recent(MAX_KNOWN)
        self._halved = Recent(MAX_SPLIT)
        self._blame = Blame()
        self._failed: dict[str, Entry] = {}
        self._parts: OrderedDict[str, dict[tuple[str, int], Part]] = OrderedDict()
        self._parts_length = 0
        self._log = StandardOutput()

    def __repr__(self) -> str:
        return f"Relay({self._endpoint!r})"

    # ── frames ─────────────────────────────────────────────────────────────────────────────────

    def intake(self) -> Intake:
        """Return a reader of frames for one invocation.

        Raises:
            ConfigurationError: The log key was never read, and cannot be: the frames must come
                again. Once it was read, no frame makes this, or reading, fail.
        """
        keys = self.log_key.verifying_keys()
        if self.log_key.kept is None:
            return Intake(keys)
        return Intake(keys, partial(self.log_key.verifying_keys, anew=True))

    def note_split(self, frame: Part | Damage) -> None:
        """Remember a batch of which a frame says that its halves stand for it."""
        if isinstance(frame, Part) and frame.reason == SPLIT:
            self._halved.add(frame.batch_id)

    def join(self, frames: Iterable[Part | Damage]) -> Joined:
        """Join ``frames``, with the parts that came before, to batches.

        Parts are kept until their batch is delivered. Damaged frames are reported.
        """
        assembly = Assembly()
        letters: list[DeadLetter] = []
        taken = list(frames)
        parts = [one for one in taken if isinstance(one, Part) and one.parts > 1]
        earlier = self.earlier_parts(*parts)
        for one in (*earlier, *taken):
            self.note_split(one)
            letter = assembly.add(one)
            if letter is not None:
                letters.append(letter)
        # Of a delivered batch a part may come again, as a message of a queue does.
        begun = [part for part in assembly.begun() if not self.knows(part.batch_id)]
        new = set(self.keep_parts(part for part in parts if not self.knows(part.batch_id)))
        damaged = self.report_damage(assembly)
        return Joined(letters, begun, [part for part in begun if part in new], damaged)

    def report_damage(self, assembly: Assembly) -> set[str]:
        """Report why frames made no whole batch; return the ids of these batches.

        That is unless the batch is whole, or waits for more.
        """
        waiting = {part.batch_id for part in assembly.begun()}
        damaged = [
            (batch_id, why)
            for batch_id, why in assembly.problems()
            if batch_id is None or not (batch_id in waiting or self.knows(batch_id))
        ]
        for batch_id, why in damaged[:MOST_TOLD]:
            named = "whose id is lost" if batch_id is None else clean(batch_id, 100)
            warn(f"batch {named} came damaged: {why}")
        if len(damaged) > MOST_TOLD:
            warn(f"and {len(damaged) - MOST_TOLD} more batches that came damaged")
        return {batch_id for batch_id, _ in damaged if batch_id is not None}

    def earlier_parts(self, *frames: Part | Damage) -> list[Part]:
        """Return the parts that came before of the batches to which ``frames`` belong."""
        with self._lock:
            return [
                part
                for batch_id in dict.fromkeys(one.batch_id for one in frames)
                for part in self._parts.get(batch_id or "", {}).values()
            ]

    def keep_parts(self, frames: Iterable[Part]) -> list[Part]:
        """Keep the parts of batches until these are delivered; return those that are new."""
        new = []
        with self._lock:
            for part in frames:
                parts = self._parts.setdefault(part.batch_id, {})
                self._parts.move_to_end(part.batch_id)
                if (part.sha256, part.number) not in parts:
                    parts[part.sha256, part.number] = part
                    self._parts_length += len(part)
                    new.append(part)
            while self._parts_length > MAX_PARTS_LENGTH:
                self._forget(self._parts.popitem(last=False)[1])
        return new

    def report_incomplete(self, parts: Sequence[Part]) -> None:
        """Report batches that are not whole, and write their frames to standard output.

        They may be lost with this process; from there ``replay`` joins them to the rest.
        """
        for batch_id in dict.fromkeys(part.batch_id for part in parts):
            warn(f"batch {batch_id} has not come whole: its frames follow")
        if parts:
            lines = [part.line(self.config.least_level) for part in parts]
            self._log.write(lines)

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def knows(self, batch_id: str, *, outside: str | None = None) -> bool:
        """Whether this process has delivered a batch, by itself or as a part of a window.

        Args:
            batch_id: Its id.
            outside: The name of a window that is left out: if an invocation of it is retried, it
                must gather the same batches again.
        """
        window = self._known.note(digest(batch_id))
        return window is not None and window != outside

    def learn(self, digests: Iterable[bytes], window: str) -> None:
        """Remember that these were delivered as a part of a window of this name."""
        for one in digests:
            self._known.add(one, window)

    def _note_delivered(self, batch_id: str) -> None:
        self._known.add(digest(batch_id))
        with self._lock:
            self._forget(self._parts.pop(batch_id, {}))

    def _forget(self, parts: dict[tuple[str, int], Part]) -> None:
        self._parts_length -= sum(map(len, parts.values()))

    def deliver(self, batches: Iterable[Batch], limit_s: float) -> None:
        """Deliver ``batches``, at the pace that the server allows.

        Rejected events are reported, and done with. So is a batch that is certainly at fault
        itself; how it has failed is remembered from one call to the next. What failed before goes
        last, so that it holds up nothing.

        Args:
            batches: Those that are known are left out.
            limit_s: Seconds from which on no attempt begins.

        Raises:
            Undelivered: The server did not decide on all of them.
        """
        todo = {batch.id: batch for batch in batches if not self.knows(batch.id)}
        if not todo:
            return
        why = ""
        with sending(self.config, self._endpoint) as sender:
            patient = PatientSender(
                sender,
                self._settled,
                self._set_aside,
                warn,
                memory=self._failed,
                blame=self._blame,
                halved=self._halved,
                may_halve=True,
                patience_s=min(PATIENCE_S, limit_s / 2),
                ends_at=time.monotonic() + limit_s,
            )
            try:
                for batch in sorted(todo.values(), key=lambda each: each.id in self._failed):
                    patient.send(batch)
                patient.finish()
            except Undeliverable as problem:
                why = str(problem)
            finally:
                patient.leave()
        for batch_id in list(self._failed)[:-MAX_FAILED]:
            self._failed.pop(batch_id, None)
        undelivered = [batch for batch in todo.values() if not self.knows(batch.id)]
        if undelivered:
            raise Undelivered(why, undelivered)

    def _settled(self, delivery: Delivery) -> None:
        self._note_delivered(delivery.batch.id)
        _tell_rejected(delivery.batch, delivery.rejected)

    def _set_aside(self, batch: Batch, why: str) -> None:
        """Write down what would hold up all that follows, and go on without it."""
        self._note_delivered(batch.id)
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
            key=self.log_key.signing_key(),
        )
        self._log.write(records)


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
