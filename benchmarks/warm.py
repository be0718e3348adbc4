"""Warm invocations: recording, memory, and whole invocations beside one bare POST."""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import requests

import doow_serverless as doow
from doow_serverless._recording.event import Defaults
from doow_serverless._recording.ids import new_id
from doow_serverless._sealing import seal
from doow_serverless.testing import MemoryTransport

from .server import answering

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "dk_" + "0" * 64
EVENTS = (1, 10, 100, 1_000)
CUSTOMERS = tuple(f"lic_{number}" for number in range(100))


def milliseconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1e3


def record(events: int) -> None:
    """Record as an application does that meters tokens for a customer and a model."""
    for number in range(events):
        doow.track("tokens", number + 1, license_id="lic_acme", unit="tokens")


def record_attributed(events: int) -> None:
    """Record with an attribution of one's own for each event."""
    for number in range(events):
        doow.track("tokens", number + 1, attribution={"model": "gpt-4o", "team": "search"})


def record_unique(events: int) -> None:
    """Record with an attribution that no other event has."""
    for number in range(events):
        doow.track("tokens", number + 1, attribution={"request": f"req-{number}"})


def record_shapes(events: int) -> None:
    """Record for one of a hundred customers after the other."""
    for number in range(events):
        doow.track("tokens", number + 1, license_id=CUSTOMERS[number % 100], unit="tokens")


def recording() -> list[tuple[str, str]]:
    """Microseconds of one ``track``, without any sending."""
    found = []
    cases = [
        ("track(metric, quantity, license_id, unit)", record),
        ("… with an attribution of two entries", record_attributed),
        ("… with an attribution that is new each time", record_unique),
        ("… folded: equal but for the quantity", record),
        ("… folded: of 100 shapes", record_shapes),
    ]
    for name, work in cases:
        tracker = doow.configure(
            KEY,
            transport=MemoryTransport(),
            license_id="lic_acme",
            max_queue_size=10**6,
            warm_up=False,
            fold="folded" in name,
        )
        best = []
        for _ in range(9):
            # Measured below the size of a batch, so that nothing is sealed meanwhile.
            with doow.transaction():
                best.append(milliseconds(partial(work, 400)) / 400 * 1e3)
                tracker.engine.unattended.take()
        found.append((name, f"{statistics.median(best):.2f} µs"))
    return found


def journaled() -> list[tuple[str, str]]:
    """Microseconds of one ``track`` that is also written to the journal."""
    with TemporaryDirectory() as directory:
        tracker = doow.configure(
            KEY,
            transport=MemoryTransport(),
            license_id="lic_acme",
            journal=directory,
            max_queue_size=10**6,
            warm_up=False,
        )
        found = []
        for _ in range(9):
            found.append(milliseconds(partial(record, 400)) / 400 * 1e3)
            tracker.engine.unattended.take()
    return [("… with the journal on", f"{statistics.median(found):.2f} µs")]


def ten_thousand(*, fold: bool = False) -> list[tuple[str, str]]:
    """10,000 events in one invocation: time, and memory at the peak."""
    with answering(0.0) as url:
        outcomes: list[doow.Outcome] = []
        doow.configure(
            KEY,
            endpoint=url,
            license_id="lic_acme",
            budget=10,
            on_flush=outcomes.append,
            fold=fold,
        )
        handler = doow.tracked(record)
        handler(500)
        times = [milliseconds(lambda: handler(10_000)) for _ in range(7)]
        gc.collect()
        tracemalloc.start()
        handler(10_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert outcomes[-1].recorded == 10_000, outcomes[-1]
    how = ", folded" if fold else ""
    return [
        (f"10,000 events in one invocation{how}, delivered", f"{statistics.median(times):.1f} ms"),
        ("… memory at the peak", f"{peak / 2**20:.2f} MB"),
    ]


def bodies(events: int) -> list[bytes]:
    """The bytes that such an invocation sends."""
    defaults = Defaults("lic_acme", None, [])
    template = defaults.template("tokens", ("lic_acme", "tokens", None, "USAGE", None, None))
    now = time.time()
    recorded = [(new_id(), now, template, number + 1, None) for number in range(events)]
    return [batch.body for batch in seal(recorded)]


def invocations(delay_s: float, rounds: int) -> list[tuple[str, ...]]:
    """Whole warm invocations beside one bare POST of the same bytes, interleaved."""
    found: list[tuple[str, ...]] = []
    with answering(delay_s) as url:
        outcomes: list[doow.Outcome] = []
        doow.configure(KEY, endpoint=url, license_id="lic_acme", on_flush=outcomes.append)
        handler = doow.tracked(record)
        session = requests.Session()
        headers = {
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }

        def bare(body: bytes) -> None:
            session.post(f"{url}/telemetry/events", data=body, headers=headers, timeout=5)

        for events in EVENTS:
            body = b"".join(bodies(events))
            pairs = [
                (milliseconds(partial(bare, body)), milliseconds(partial(handler, events)))
                for _ in range(rounds + 3)
            ][3:]  # the first ones open connections
            floor = statistics.median(bare_ms for bare_ms, _ in pairs)
            ours = statistics.median(our_ms for _, our_ms in pairs)
            found.append(
                (f"{events:,}", f"{floor:.2f}", f"{ours:.2f}", f"{ours - floor:+.2f}",
                 str(outcomes[-1].requests))
            )  # fmt: skip
            assert outcomes[-1].accepted == events, outcomes[-1]
    return found
