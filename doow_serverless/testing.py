"""What users test with: a transport in memory, and fixtures for pytest.

``pytest_plugins = ["doow_serverless.testing"]`` in a ``conftest.py`` brings the fixtures
:func:`doow_events` and :func:`doow_ingest`. :class:`MemoryTransport` works without pytest.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._config import Config
from ._delivery.answers import Answer, TransportFault, Verdict, judge, rejections
from ._tracker import Tracker, options_of, replace_default, replace_maker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from typing_extensions import Unpack

    from doow_serverless.local import Ingest

    from ._config import ConfigOptions
    from ._delivery.sender import Transport
    from ._process.clock import Clock
    from ._sealing import Batch

    Scripted: TypeAlias = int | Answer | TransportFault

__all__ = ["Answer", "MemoryTransport", "TransportFault", "rejecting"]

LICENSE_ID = "lic_test"
"""The license of events that name none, under the fixture :func:`doow_events`."""


class MemoryTransport:
    """Takes batches instead of Doow, for ``Tracker(transport=…)`` and ``configure(transport=…)``.

    It accepts everything unless told otherwise::

        MemoryTransport()
        MemoryTransport([503, TransportFault(ErrorKind.TIMEOUT, "silent")])  # then accepts
        MemoryTransport([rejecting({"evt_1": "unknown metric"})])
        MemoryTransport(lambda batch: 413 if len(batch) > 10 else 202)

    Args:
        answers: What to answer, POST by POST and 202 from then on, or a function of the batch that
            says so, from whatever thread: an HTTP status, an `Answer`, or a `TransportFault`, which
            stands for a connection on which nothing arrived.

    Attributes:
        batches: The batch of each POST, in their order, whatever was answered. Its ``event_ids``
            tell which events it holds, its ``json()`` what was sent.
        events: The events that were accepted, decoded, in their order. As at the server, a batch
            that arrives once more counts once.

    Not simulated: time, connections, and whether the key is known.
    """

    def __init__(
        self, answers: Callable[[Batch], Scripted] | Iterable[Scripted] | None = None
    ) -> None:
        self.batches: list[Batch] = []
        self.events: list[dict[str, Any]] = []
        self._lock = Lock()
        self._seen: set[str] = set()
        if callable(answers):
            self._answer = answers
        else:
            self._script = iter(() if answers is None else answers)
            self._answer = self._next

    def __repr__(self) -> str:
        return f"MemoryTransport({len(self.batches)} batches, {len(self.events)} events)"

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:  # noqa: ARG002
        """Take ``batch``, and answer as the script says."""
        with self._lock:
            self.batches.append(batch)
        scripted = self._answer(batch)  # Not under the lock: a function may take its time.
        if isinstance(scripted, TransportFault):
            raise scripted
        answer = Answer(scripted, {}, b"{}") if isinstance(scripted, int) else scripted
        if judge(answer) in (Verdict.ACCEPTED, Verdict.PARTIAL):
            with self._lock:
                self._record(batch, answer)
        return answer

    def _next(self, _: Batch) -> Scripted:
        with self._lock:
            return next(self._script, 202)

    def _record(self, batch: Batch, answer: Answer) -> None:
        if batch.id in self._seen:
            return
        self._seen.add(batch.id)
        is_partial = judge(answer) is Verdict.PARTIAL
        refused = rejections(answer, batch.event_ids) if is_partial else []
        rejected = {one for one, _ in refused}
        events = json.loads(batch.json())["events"]
        self.events += (event for event in events if event["event_id"] not in rejected)

    def has_idle(self) -> bool:
        """No connection is kept that might have died."""
        return False

    def abort(self, batch_id: str) -> None:
        """Nothing hangs here."""

    def connect(self, api_key: str) -> None:
        """There is nothing to connect to."""


def rejecting(reasons: Mapping[str, str]) -> Answer:
    """An answer (207) that accepts a batch without the events of these ids, for these reasons."""
    listed = [{"event_id": event_id, "reason": reason} for event_id, reason in reasons.items()]
    said = {"rejected": len(listed), "rejections": listed}
    return Answer(207, {"content-type": "application/json"}, json.dumps(said).encode())


def _tracker_into(
    memory: MemoryTransport,
    api_key: str | None = None,
    *,
    transport: Transport | None = None,
    clock: Clock = monotonic,
    **options: Unpack[ConfigOptions],
) -> Tracker:
    """The tracker that ``configure`` would make of these, but for what would leave the process."""
    options["environ"] = {}
    Config(api_key, **options)  # What is wrong in the application must not wait for production.
    if options.get("license_id") is None:
        options["license_id"] = LICENSE_ID
    options.setdefault("strict", True)
    options.update({"endpoint": None, "warm_up": False, "journal": False})
    return Tracker("dk_" + "0" * 64, transport=transport or memory, clock=clock, **options)


with suppress(ModuleNotFoundError):  # Without pytest there are no fixtures to make.
    import pytest

    @pytest.fixture
    def doow_events() -> Iterator[MemoryTransport]:
        """What the functions of the package deliver in one test, as a :class:`MemoryTransport`.

        The default tracker is another for the time of the test: it is strict, so that a bad event
        raises where it is recorded; events that name no license get ``lic_test``; it needs no key,
        and neither reads the environment nor touches files or the network.

        What the application gives to ``configure``, before the test or within it, is checked and
        counts (its license, attribution, hooks, ``strict``, ``enabled``…), but for what would leave
        the process: the key, the endpoint, ``warm_up``, ``journal`` and ``environ``. A transport
        that is given within the test is used. Import the application before the tests, at the top
        of their file: what it configures when it is imported within a test is over with that test.

        A ``Tracker`` that the application makes for itself sends where it says: give it
        ``transport=doow_events``, and a well-formed key, in the test.

        ::

            def test_tokens_are_metered(doow_events):
                handler({"prompt": "…"}, None)
                (event,) = doow_events.events
                assert event["measurements"] == [{"metric_name": "tokens", "quantity": 812}]
        """
        transport = MemoryTransport()
        earlier_make = replace_maker(partial(_tracker_into, transport))
        earlier = replace_default(None)
        try:
            replace_default(_tracker_into(transport, **options_of(earlier)))
            yield transport
        finally:
            replace_default(earlier)
            replace_maker(earlier_make)

    @pytest.fixture
    def doow_ingest() -> Iterator[Ingest]:
        """A local ingest that runs for one test; give ``doow_ingest.url`` as endpoint."""
        # Imported when it is used: the other fixtures need nothing of the extra "local".
        from doow_serverless.local import Ingest

        with Ingest() as ingest:
            yield ingest
