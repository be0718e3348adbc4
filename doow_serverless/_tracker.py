"""What users hold: a tracker of their own, or the one that the functions of the package use."""

from __future__ import annotations

import threading
import time

from ._api import Api
from ._config import Config, environment_configures
from ._engine import Engine
from ._handlers.platform import expect_after_response
from ._process.clock import contained
from ._process.forks import reset_in_child
from ._process.log import report_fault
from ._recording.scope import elsewhere, here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from ._config import ConfigOptions
    from ._delivery.sender import Transport
    from ._process.clock import Clock
    from ._recording.scope import Scope

    class TrackerOptions(ConfigOptions, total=False):
        """The options of ``configure``: those of the configuration, and what sends and measures."""

        transport: Transport | None
        clock: Clock


class Tracker(Api):
    """Records events, and delivers them when their invocation ends.

    The functions of the package use a tracker made from the environment at first use, or by
    :func:`doow_serverless.configure`. Make one of your own to send with another key or elsewhere.

    Args:
        api_key: An SDK key of Doow; one that the environment gives wins.
        transport: Sends instead of HTTP.
        clock: Monotonic seconds, by which budgets and hold-offs are measured.
        **options: As of :func:`doow_serverless.configure`.

    Raises:
        ConfigurationError: An option is wrong, or is none.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock = time.monotonic,
        **options: Unpack[ConfigOptions],
    ) -> None:
        self.engine = Engine(Config(api_key, **options), transport, contained(clock))
        self._options = options
        if self.engine.enabled and self.engine.config.flush_mode == "after_response":
            expect_after_response()

    def __repr__(self) -> str:
        config = self.engine.config
        return (
            f"Tracker(endpoint={config.endpoint!r}, license_id={config.license_id!r}, "
            f"enabled={config.enabled})"
        )

    def _engine(self) -> Engine:
        return self.engine

    def _scope(self) -> Scope:
        scope = here()
        if scope is None or scope.life.is_over:
            scope = elsewhere(scope)
        return (scope and scope.of(self.engine)) or self.engine.outside


class Current(Api):
    """The functions of the package: the tracker of the current invocation, or else the default."""

    def _engine(self) -> Engine:
        sink = self._scope().sink
        return sink if isinstance(sink, Engine) else default().engine

    def _scope(self) -> Scope:
        scope = here()
        if scope is None:
            return elsewhere(None) or default().engine.outside
        if scope.life.is_over:
            return elsewhere(scope) or scope.sink.outside
        return scope

    def _expect_invocations(self) -> None:
        if _tracker is None and environment_configures():
            default()


_making = threading.Lock()
_tracker: Tracker | None = None
_make: Callable[..., Tracker] = Tracker


def default() -> Tracker:
    """The process's own tracker; made from the environment at first use."""
    global _tracker
    if _tracker is None:
        with _making:
            if _tracker is None:
                _tracker = _from_environment()
    return _tracker


def replace_default(tracker: Tracker | None) -> Tracker | None:
    """Make ``tracker`` the process's own; None for one from the environment at the next use.

    Returns:
        The earlier one, if there was any.
    """
    global _tracker
    with _making:
        earlier, _tracker = _tracker, tracker
    return earlier


def replace_maker(make: Callable[..., Tracker]) -> Callable[..., Tracker]:
    """Have `configure` make its trackers by ``make``, which takes what `Tracker` does.

    Returns:
        The earlier one.
    """
    global _make
    earlier, _make = _make, make
    return earlier


def options_of(tracker: Tracker | None) -> ConfigOptions:
    """What a tracker was made with, but its key, transport and clock."""
    return {} if tracker is None else {**tracker._options}


def _from_environment() -> Tracker:
    try:
        return Tracker()
    except Exception as fault:
        # No environment makes it raise; but if one did, no handler may hear of it.
        report_fault("reading the environment", fault)
        return Tracker(enabled=False, environ={})


@reset_in_child
def _forget_who_is_making_one() -> None:
    # That thread is not in the child, and left the lock shut.
    global _making
    _making = threading.Lock()


def configure(api_key: str | None = None, **options: Unpack[TrackerOptions]) -> Tracker:
    """Make the tracker that the functions of the package use from now on.

    Optional: without it the environment is all that counts, and it wins over what is passed here,
    as in Doow's SDKs. What an earlier tracker has not delivered is taken over.

    Args:
        api_key: An SDK key, ``dk_`` and 64 hex digits. ``DOOW_TRACK_API_KEY``, or the name of a
            secret in ``DOOW_TRACK_API_KEY_SECRET_ARN`` or ``DOOW_TRACK_API_KEY_SSM_PARAMETER``.
        delivery: ``"direct"``, or ``"log"`` to have batches written to standard output instead, for
            a relay (`doow_serverless.relay`) to bring to Doow: no network, no API key, and nothing
            to wait for; what the log has taken counts as accepted. ``DOOW_TRACK_DELIVERY``.
        endpoint: The URL of the API; https, or http to loopback. ``DOOW_TRACK_ENDPOINT``: where
            that is wrong, nothing is sent anywhere, and events are kept as without a key.
        license_id: The license of events that name none. ``DOOW_TRACK_LICENSE_ID``.
        attribution: Attribution of all events, under their own. ``DOOW_TRACK_ATTRIBUTION`` (a
            JSON object) is laid over it.
        fold: True, or the metrics of which events of an invocation that say the same (license,
            unit, attribution, kind, source system, hint), and have no id, time or metadata of their
            own, become one: its quantity is their exact sum, of decimals as they are written, its
            time that of the last. None reaches over the full hour (UTC), but where a handler is
            ``idempotent``. Only for metrics that Doow aggregates as a sum does one event of five
            mean five events of one. ``DOOW_TRACK_FOLD``: ``true``, or metrics with commas between.
        budget: Seconds that a flush may hold the response. ``DOOW_TRACK_BUDGET`` (milliseconds).
        reserve: Seconds before the platform's deadline that are left to the handler.
        timeout: Seconds after which an unanswered request is cut off, even if a flush still waits
            for it. Its events are sent again.
        enabled: False records and sends nothing. ``DOOW_TRACK_DISABLED``.
        strict: True has ``track`` raise for a bad event. ``DOOW_TRACK_STRICT``.
        debug: True logs one line for every flush. ``DOOW_TRACK_DEBUG``.
        warm_up: True (or ``"import"``) imports ``requests`` and reads certificates at once, on this
            thread; a key that is kept elsewhere is fetched on another. ``"connect"`` opens a
            connection as well. False leaves all that to the first flush, on the thread that
            flushes: an import cannot be cut off, so this flush may exceed its budget. Without any
            flush, events are written down at the end of the process, not sent.
            ``DOOW_TRACK_WARM_UP``.
        flush_at: Events, at most 500, with which a batch leaves before the end of the invocation.
            ``DOOW_TRACK_FLUSH_AT``.
        flush_interval: Seconds after which what a websocket session has recorded leaves, although
            the session goes on; 0 for not before its end. ``DOOW_TRACK_FLUSH_INTERVAL``
            (milliseconds).
        flush_mode: ``"before_response"``, or ``"after_response"`` to have the platform wait for the
            flush once the response has gone back, where it can: on Vercel, through ``wait_until``;
            on Lambda, through an internal extension, if this is said in the init phase.
            ``DOOW_TRACK_FLUSH_MODE``.
        max_queue_size: Events that one invocation, and the backlog, may hold in memory.
        max_queue_bytes: Bytes of JSON that one invocation may hold in memory, to a few percent.
        max_backlog_bytes: Compressed bytes that the backlog may hold.
        max_payload_bytes: Bytes of JSON in one POST, before compression.
        disable_compression: True sends plain JSON.
        dead_letter: Where to write down batches that are not delivered when their invocation
            returns: ``"log"`` (standard output), a directory, or ``"off"``.
            ``DOOW_TRACK_DEAD_LETTER``.
        journal: True keeps recorded events in a file until they are settled, under the temporary
            folder, or in the directory given, for the next process to recover after a crash.
        log_key: Signs each line that is written to the log, so that a relay with the same key
            accepts no others: any text that is not empty, best 32 random bytes in hex digits. It is
            shown nowhere. ``DOOW_TRACK_LOG_KEY``, or the name of a secret in
            ``DOOW_TRACK_LOG_KEY_SECRET_ARN`` or ``DOOW_TRACK_LOG_KEY_SSM_PARAMETER``.
        on_error: Receives a :class:`~doow_serverless.errors.DoowError` for events that were
            refused or not delivered; of one flush at most ten, the last of which sums up the rest.
            Whatever a hook raises is logged, and goes no further; only signals pass.
            It is called on a thread of this library, also for an async handler, which imports
            nothing itself: import at the top of your module all that a hook needs.
        on_flush: Receives the :class:`Outcome` of every flush that had events, on that thread. A
            flush waits for both hooks as long as its budget lasts, 0.1 s at least and a second at
            most; not at all while one hangs. Of calls that wait, those beyond 1,000 are dropped.
        environ: The environment; ``os.environ`` unless given.
        transport, clock: As of :class:`Tracker`.

    Returns:
        The tracker.

    Raises:
        ConfigurationError: An option is wrong; then nothing has changed. A wrong variable, or key,
            never raises: it is reported once, and ignored, but for a wrong endpoint, as said.
    """
    tracker = _make(api_key, **options)
    earlier = replace_default(tracker)
    if earlier is not None:
        tracker.engine.take_over(earlier.engine)
    return tracker
