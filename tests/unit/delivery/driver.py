"""The driver of delivery with nothing real below it: threads, time, wire, journal and log."""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import RLock
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from doow_serverless._config import Config
from doow_serverless._delivery import flushing, hooks, outbox
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.flush import Flusher
from doow_serverless._delivery.late_transport import LateTransport
from doow_serverless._delivery.outbox import Outbox
from doow_serverless._process.workers import Workers
from doow_serverless._recording.event import Defaults
from doow_serverless._recording.scope import NO_LABELS
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import MemoryTransport, TransportFault
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest

    from doow_serverless import Outcome
    from doow_serverless._recording.buffer import Buffer
    from doow_serverless._sealing import Batch
    from doow_serverless.errors import DoowError
    from doow_serverless.testing import Answer
    from tests.unit.delivery.turns import Signal, Turns

NEVER = float("inf")
TEMPLATE = Defaults("lic_1", None, []).template("tokens", NO_LABELS)
FOLDING = Defaults("lic_1", None, [], True).template("tokens", NO_LABELS)


def name(batch: Batch) -> str:
    """A batch, by what is in it."""
    return "+".join(batch.event_ids)


class Wire(MemoryTransport):
    """Takes batches after so many seconds, and has the diary know when they go out.

    Attributes:
        answers: Seconds and answers of the next POSTs; a function is called for its answer.
        otherwise: The same of all others.
        is_reused: Whether kept connections are used.
    """

    def __init__(self, turns: Turns, diary: list[str]) -> None:
        super().__init__(self._say)
        self.answers: deque[tuple[float, Any]] = deque()
        self.otherwise: tuple[float, Any] = (0.0, 202)
        self.is_reused = False
        self._turns = turns
        self.diary = diary
        self._cuts: dict[str, Signal] = {}

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        self.diary.append(f"post {name(batch)}{' anew' if fresh else ''}")
        return super().post(batch, api_key, fresh=fresh)

    def _say(self, batch: Batch) -> Any:
        seconds, answer = self.answers.popleft() if self.answers else self.otherwise
        if seconds:
            cut = self._cuts[batch.id] = self._turns.event()
            if self._turns.sleep(seconds, cut):
                return TransportFault(ErrorKind.TIMEOUT, "cut off")
        return answer(batch) if callable(answer) else answer

    def has_idle(self) -> bool:
        return self.is_reused

    def abort(self, batch_id: str) -> None:
        self.diary.append("cut off")
        self._cuts[batch_id].set()


class Journal:
    """In the place of a journal: has the diary know what it is told.

    Attributes:
        left: What crashed processes have left, for each call of `recover`.
        interrupt: Called whenever it is told of something.
    """

    def __init__(self, diary: list[str]) -> None:
        self.diary = diary
        self._names: dict[str, str] = {}
        self.left: deque[list[Batch]] = deque()
        self.asked: dict[str, object] = {}
        self.interrupt: Callable[[], object] = lambda: None

    def record_many(self, events: Iterable[Any]) -> None:
        self.diary.append(f"recorded {'+'.join(event[0] for event in events)}")
        self.interrupt()

    def is_interrupted(self) -> bool:
        return False

    def note_sealed(self, batch: Batch) -> None:
        self._names[batch.id] = name(batch)
        self.interrupt()
        self.diary.append(f"sealed {name(batch)}")

    def note_settled(self, batch_id: str) -> None:
        self.diary.append(f"settled {self._names.get(batch_id, batch_id)}")

    def note_split(self, batch: Batch, halves: tuple[Batch, Batch]) -> None:
        self._names.update((half.id, name(half)) for half in halves)
        self.diary.append(f"split {name(batch)}")

    def forget(self, event_ids: Iterable[str]) -> None:
        self.diary.append(f"forgot {'+'.join(event_ids)}")

    def recover(self, **how: object) -> list[Batch]:
        self.asked = how
        return self.left.popleft() if self.left else []


class Letters:
    """In the place of `DeadLetters`: has the diary know what is written down, and waited for.

    Attributes:
        has_room: Whether more can be written.
        asked: Where to write, and how.
    """

    def __init__(self, diary: list[str], target: str, **how: object) -> None:
        self.diary = diary
        self.has_room = True
        self.asked = (target, how)

    def write(self, batch: Batch, reason: str) -> bool:
        self.diary.append(f"log {name(batch)} {reason}")
        return self.has_room

    def wait(self, limit_s: float | None = None) -> None:
        self.diary.append("written" if limit_s is None else f"written within {limit_s}")


def _note_closed(transport: LateTransport) -> None:
    """Note it in the diary of its world: a tracker of an earlier test may be collected now."""
    if isinstance(transport._given, Wire):
        transport._given.diary.append("close")


class World:
    """One outbox, and what flushes into it.

    Args:
        turns: Threads and time.
        patch: Puts the stand-ins in.
        journal: Whether there is a journal.
        diary: What has happened, in order. Default: a new one.
        **options: Of the configuration.

    Attributes:
        errors, outcomes: What the hooks were told.
    """

    def __init__(
        self,
        turns: Turns,
        patch: pytest.MonkeyPatch,
        *,
        journal: bool = False,
        diary: list[str] | None = None,
        **options: Any,
    ) -> None:
        workers = partial(Workers, idle=turns)  # type: ignore[arg-type]  # in its place
        self.turns = turns
        self.diary: list[str] = [] if diary is None else diary
        patch.setattr(outbox, "Workers", workers)
        patch.setattr(hooks, "Workers", workers)
        patch.setattr(hooks, "monotonic", turns.clock)
        patch.setattr(hooks, "threading", SimpleNamespace(Event=turns.event))
        patch.setattr(flushing, "threading", SimpleNamespace(Lock=turns.lock))
        patch.setattr(outbox, "threading", SimpleNamespace(RLock=RLock, Event=turns.event))
        patch.setattr(outbox, "timers", turns)
        patch.setattr(outbox, "time", SimpleNamespace(monotonic=turns.clock))
        patch.setattr(LateTransport, "close_idle", _note_closed)
        patch.setattr(outbox, "DeadLetters", partial(Letters, self.diary))
        self.errors: list[DoowError] = []
        self.outcomes: list[Outcome] = []
        given = {
            "license_id": "lic_1",
            "warm_up": False,
            "environ": {},
            "on_error": self.errors.append,
            "on_flush": self.outcomes.append,
        }
        self.config = Config(KEY, **{**given, **options})
        self.wire = Wire(turns, self.diary)
        self.journal = Journal(self.diary)
        given_journal: Any = self.journal if journal else None
        self.outbox = Outbox(
            self.config, Credentials(KEY), given_journal, self.wire, lambda: turns.clock()
        )
        self.flusher = Flusher(self.config, self.outbox, given_journal, lambda: turns.clock())
        self.diary.clear()

    def buffer(self, *ids: str, identity: Any = None, size: int = 0) -> Buffer:
        """One of an invocation that has recorded events of these ids, of so many bytes or more."""
        buffer = self.flusher.new_buffer(identity, self.flusher.dropped.append)
        record(buffer, *ids, size=size)
        return buffer

    def kinds(self) -> list[str]:
        """What `on_error` was told, in words."""
        return [f"{error.kind} {error}" for error in self.errors]

    def take(self) -> list[str]:
        """What has happened since this was last asked."""
        happened = self.diary[:]
        self.diary.clear()
        return happened


def record(buffer: Buffer, *ids: str, size: int = 0) -> None:
    """Record events of these ids, of so many bytes or more."""
    metadata = '{"n":"' + "x" * size + '"}' if size else None
    for one in ids:
        buffer.record(one, 1_795_000_000.0, TEMPLATE, 1, metadata)
