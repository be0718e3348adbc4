"""The log key: signs frames, and tells signed ones from others; given or fetched, never shown."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from doow_serverless._process.fetching import FetchedKeys
from doow_serverless._process.log import warn
from doow_serverless._secrets import KeptText
from doow_serverless._values import why_no_log_key
from doow_serverless.errors import ConfigurationError, DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._config import Config
    from doow_serverless._process.clock import Clock
    from doow_serverless._process.fetching import Keys
    from doow_serverless._secrets import Fetch

MISSING_WAIT_S = 3.0
"""Age of a fetch up to which a writer waits for it that has no key, or a reader that has some."""
AGAIN_WAIT_S = 0.2
"""The same for a writer after a failure: less than a flush waits for a probe."""
OLD_WAIT_S = 0.5
"""The same for a writer that has an old one, and goes on with it."""
READER_WAIT_S = 30.0
"""Age of a fetch up to which a reader waits for it that has no keys; then its platform retries."""
READER_RETRY_S = 60.0
"""Seconds after a failure before a reader that has old ones fetches its keys again."""
_THREAD = "doow-log-key"
_REMEDY = (
    "see that the secret is there and that this identity may read it, or remove the variable to "
    "accept unsigned lines"
)


class LogKey:
    """Holds the log key, or its place.

    A kept key is fetched on a thread of its own, by one thread at a time. Writers call
    :meth:`prepare` to wait for it within bounds, and :attr:`signing_key`, which never blocks.
    Readers call :meth:`verifying_keys`. Every method may be called from any thread.

    Args:
        key: The key itself, or None.
        place: The variable that names its place instead, and the value of this variable; or None.
        previous: Another key whose signatures readers accept, or None.
        fetch: As of `KeptText`.
        clock: Monotonic seconds.

    Attributes:
        kept: The key's place, if there is one.
    """

    def __init__(
        self,
        key: str | None = None,
        place: tuple[str, str] | None = None,
        previous: str | None = None,
        fetch: Fetch | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._key = None if key is None else _encoded(key)
        self._previous = None if previous is None else _encoded(previous)
        self.kept = None if place is None else KeptText("log key", place, fetch)
        self._current = FetchedKeys(partial(_fetch_current, self.kept), clock, _THREAD)
        self._versions = FetchedKeys(partial(_fetch_versions, self.kept), clock, _THREAD)
        self._told = ""
        self.reset_after_fork()

    @classmethod
    def of(cls, config: Config, clock: Clock = time.monotonic) -> LogKey:
        """Return the log key of a configuration."""
        return cls(config.log_key, config.log_key_place, config.previous_log_key, clock=clock)

    def reset_after_fork(self) -> None:
        """Forget locks and threads, which are the parent's, and keep the keys."""
        self._current.reset_after_fork()
        self._versions.reset_after_fork()
        if self.kept is not None:
            self.kept.reset_after_fork()

    def __repr__(self) -> str:
        has_none = self.signing_key() is None
        state = "missing" if self.is_missing else "none" if has_none else "at hand"
        return f"LogKey({state}, {self.kept!r})"

    def load(self) -> None:
        """Import the modules that fetch the key, if it must be fetched.

        Only for threads of the application.

        Raises:
            Exception: That fails; a fetch will say why.
        """
        if self.kept is not None:
            self.kept.load()
            self._current.forgive()  # Should a thread have tried before.

    # ── writers ────────────────────────────────────────────────────────────────────────────────

    def signing_key(self) -> bytes | None:
        """Return the key, or None if there is none or it is not fetched yet; never blocks."""
        fetched = self._current.state.keys or self._versions.state.keys
        return fetched[0] if fetched else self._key

    @property
    def is_missing(self) -> bool:
        """Whether there is a log key that has not been fetched yet."""
        return self.kept is not None and self.signing_key() is None

    @property
    def trouble(self) -> str:
        """Why the key was not fetched the last time; "" if nothing was wrong."""
        return self._current.state.trouble

    def prepare(self, missing_s: float | None = None) -> None:
        """Fetch the key if it is missing or old, and wait for that, but not for long.

        All who wait for the same fetch stop at the same time, so that a fetch that hangs costs
        these seconds once. With an old key they stop sooner, and sign with it.

        Args:
            missing_s: Age of a fetch up to which it is waited for if there is no key. Default:
                `MISSING_WAIT_S`. After a failure, `AGAIN_WAIT_S` at most.

        Raises:
            DoowError: There is no key.
        """
        if self.kept is None:
            return
        missing_s = MISSING_WAIT_S if missing_s is None else missing_s
        if self.is_missing and self.trouble:
            missing_s = min(missing_s, AGAIN_WAIT_S)
        self._current.ask()
        self._current.wait(missing_s, OLD_WAIT_S)
        if self.is_missing:
            raise self._unavailable(self.trouble)

    def _unavailable(self, trouble: str) -> DoowError:
        assert self.kept is not None
        return DoowError(trouble, ErrorKind.AUTH_FAILURE) if trouble else self.kept.silent()

    def fetch_aside(self) -> None:
        """Begin to fetch the key if it is missing or old; nobody waits for that."""
        if self.kept is not None:
            self._current.ask(aside=True)

    def expire(self) -> None:
        """Fetch the key again at the next opportunity: much time may have passed unnoticed."""
        self._current.expire()
        self._versions.expire()

    # ── readers ────────────────────────────────────────────────────────────────────────────────

    @property
    def is_configured(self) -> bool:
        """Whether readers accept signed frames only."""
        return self._key is not None or self._previous is not None or self.kept is not None

    def verifying_keys(self, *, anew: bool = False) -> list[bytes]:
        """Return the keys whose signatures count, the current one first; none if there is no key.

        The first call fetches them, and so does a call an hour later. If that fails or takes long,
        the old keys stay in use, with a warning: they are still keys, and nobody's frames must
        stop a reader. Only for threads of the application, since it may import modules.

        Args:
            anew: A frame is signed, and by none of those that were returned. The keys are fetched
                again, but not twice within a minute: anyone can write such frames. So only if one
                was written within that minute, or the fetch fails, can a frame be refused whose
                key is newer. It is reported, as all that is refused, and can be replayed.

        Raises:
            ConfigurationError: A log key is configured, and none was ever read. A reader that went
                on without would accept what anyone can write.
        """
        fetched: Keys = ()
        if self.kept is not None:
            with suppress(Exception):
                self.kept.load()  # The fetch will say what is wrong.
            fetched = self._fetched(anew=anew)
        keys = (*fetched, self._key, self._previous)
        return list(dict.fromkeys(key for key in keys if key))

    def _fetched(self, *, anew: bool) -> Keys:
        versions = self._versions
        if anew:
            versions.doubt()
        has_keys = bool(versions.state.keys)
        versions.ask(READER_RETRY_S if has_keys else 0.0)
        versions.wait(MISSING_WAIT_S if has_keys else READER_WAIT_S, MISSING_WAIT_S)
        keys, trouble = versions.state.keys, versions.state.trouble
        if not keys:
            raise ConfigurationError(f"{self._unavailable(trouble)}: {_REMEDY}")
        if trouble and trouble != self._told:
            warn(f"{trouble}: the keys that were read before stay in use")
        self._told = trouble
        return keys


def _fetch_current(kept: KeptText | None, at_hand: Keys) -> Keys:
    assert kept is not None
    return (_usable(kept, anew=bool(at_hand)),)


def _fetch_versions(kept: KeptText | None, _: Keys) -> Keys:
    """Fetch the current key and the one before it, past all caches."""
    assert kept is not None
    current = _usable(kept, anew=True)
    # Last, so that a rotation in between loses none that is in use.
    previous = kept.fetch_previous()
    if previous is None or why_no_log_key("", previous):
        return (current,)
    return current, _encoded(previous)


def _usable(kept: KeptText, *, anew: bool) -> bytes:
    text = kept.fetch(anew=anew)
    why = why_no_log_key(f"the secret to which {kept.variable} points", text)
    if why is not None:
        raise DoowError(why, ErrorKind.AUTH_FAILURE)
    return _encoded(text)


def _encoded(text: str) -> bytes:
    """Return the bytes of a key: those of the environment, whatever it was decoded from."""
    text = text.strip()
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
