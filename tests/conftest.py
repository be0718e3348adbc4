"""What every test stands on: a clean environment, no fault of ours unnoticed, a key, trackers."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# For tests/network.py; at the end, so that an installed wheel is what is tested, not the tree.
sys.path.append(str(Path(__file__).parents[1]))

from doow_serverless import Tracker
from doow_serverless import _engine as _engine_module
from doow_serverless import _tracker as _tracker_module
from doow_serverless._engine import Engine
from doow_serverless._process import forks
from doow_serverless._process.workers import is_job_here
from doow_serverless._recording import buffer as _buffer_module
from doow_serverless._recording.scope import current
from tests.importing import watch_imports
from tests.network import KEY
from tests.timing import STARVED_S, OutOfTime, Starvation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from doow_serverless.local import Ingest

pytest_plugins = ["tests.runtimes.interpreters"]

_imports = watch_imports()

# A shell has what it runs in the background ignore Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SURROUNDINGS = {
    "all_proxy", "ftp_proxy", "http_proxy", "https_proxy", "no_proxy",
    "curl_ca_bundle", "requests_ca_bundle", "ssl_cert_dir", "ssl_cert_file",
}  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """A failure of a test that the machine left without a processor for long is tried again."""
    starvation = Starvation()
    try:
        return (yield)
    except Exception as failure:
        waited_s = starvation.seconds()
        if waited_s < STARVED_S:
            raise
        raise OutOfTime(f"failed, and had no processor for {waited_s:.1f} s") from failure


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the developer's shell says about Doow, proxies or certificates counts."""
    for name in list(os.environ):
        if name.startswith("DOOW_") or name.lower() in _SURROUNDINGS:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_default_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test configures for itself."""
    monkeypatch.setattr(_tracker_module, "_tracker", None)
    monkeypatch.setattr(_engine_module, "_reported", set())
    monkeypatch.setattr(_engine_module, "_waited_s", 0.0)


@pytest.fixture(autouse=True)
def _forget_undelivered() -> Iterator[None]:
    """No tracker delivers, reports or logs during a later test.

    The collector finds a tracker with events in hand at any time, and then a thread sends them: to
    the server of a later test, which may listen on the same port, or to a log that a later test
    reads.
    """
    yield
    _buffer_module._leave_to_others()  # Those of transactions, too, which no engine lists.
    for engine in forks.members():
        if isinstance(engine, Engine):
            engine._flusher.begin_anew()
            engine.outbox.begin_anew()


class _Faults(logging.Handler):
    """Collects the lines in which the library contains a fault of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if "a fault of doow-serverless itself" in line:
            self.lines.append(line)


@pytest.fixture(autouse=True)
def contained_faults(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The faults of ours that were contained: a failure, unless the test is marked ``contains``."""
    logger = logging.getLogger("doow_serverless")
    level, faults = logger.level, _Faults()
    logger.addHandler(faults)
    yield faults.lines
    logger.removeHandler(faults)
    logger.setLevel(level)
    if request.node.get_closest_marker("contains") is None:
        assert faults.lines == []


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """No test records into the block of an earlier one, which may have ended on another thread."""
    yield
    current.set(None)
    assert not is_job_here()


@pytest.fixture(autouse=True)
def _no_import_on_a_thread_of_ours() -> Iterator[None]:
    """No thread of the library imports anything but modules of its own, in any test."""
    _imports.take()
    yield
    assert _imports.take() == []


@pytest.fixture
def key() -> str:
    """An API key of the right form."""
    return KEY


@pytest.fixture
def ingest(doow_ingest: Ingest) -> Ingest:
    """A local ingest over real HTTP, for one test."""
    return doow_ingest


@pytest.fixture
def new_tracker(key: str) -> Callable[..., Tracker]:
    """Makes a tracker with a key and a license, as soon as it is warm."""

    def new(endpoint: str | None = None, **options: Any) -> Tracker:
        tracker = Tracker(key, endpoint=endpoint, **{"license_id": "lic_1", **options})
        if tracker.engine.warm_up is not None:
            tracker.engine.warm_up.join()
        return tracker

    return new
