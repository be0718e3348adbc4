"""The log key: signs frames, and tells signed ones from others; given or fetched, never shown."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from doow_serverless._secrets import KeptText
from doow_serverless.errors import ConfigurationError, DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._config import Config
    from doow_serverless._process.clock import Clock
    from doow_serverless._secrets import Fetch

FRESH_S = 3_600.0
"""Seconds for which a fetched key is used to sign before it is fetched once more: a reader accepts
the key before the current one, but not the one before that."""
RETRY_S = 30.0
"""Seconds after an attempt to fetch it before another is made that nobody waits for."""
_REMEDY = (
    "see that the secret is there and that this identity may read it, or remove the variable to "
    "accept unsigned lines"
)


class LogKey:
    """Holds the log key, or its place.

    Writers ask for :attr:`signing_key`, which never blocks. Readers call :meth:`verifying_keys`.
    Every method may be called from any thread.

    Args:
        key: The key itself, or None.
        place: The variable that names its place instead, and the value of this variable; or None.
        previous: Another key whose signatures readers accept, or None.
        fetch: As of `KeptText`.
        clock: Monotonic seconds.

    Attributes:
        kept: The key's place, if there is one.
        trouble: Why the key could not be fetched the last time; "" if nothing was wrong.
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
        self._clock = clock
        self._kept_keys: tuple[bytes | None, ...] | None = None
        self._old_at = float("-inf")
        self.trouble = ""
        self.reset_after_fork()

    @classmethod
    def of(cls, config: Config) -> LogKey:
        """Return the log key of a configuration."""
        return cls(config.log_key, config.log_key_place, config.previous_log_key)

    def reset_after_fork(self) -> None:
        """Forget who holds the lock: a forked child has none of those threads."""
        self._lock = threading.Lock()
        self._retry_at = float("-inf")
        if self.kept is not None:
            self.kept.reset_after_fork()

    def __repr__(self) -> str:
        state = "missing" if self.is_missing else "none" if self._key is None else "at hand"
        return f"LogKey({state}, {self.kept!r})"

    # ── writers ────────────────────────────────────────────────────────────────────────────────

    def signing_key(self) -> bytes | None:
        """Return the key, or None if there is none or it is not fetched yet; never blocks."""
        return self._key

    @property
    def is_missing(self) -> bool:
        """Whether there is a log key that has not been fetched yet."""
        return self._key is None and self.kept is not None

    def load(self) -> None:
        """Import the modules that fetch the key, if it must be fetched.

        Only for threads of the application.

        Raises:
            Exception: That fails; :meth:`fetch` will say why.
        """
        if self.kept is not None:
            self.kept.load()

    def fetch(self) -> None:
        """Fetch the key unless it is at hand; blocks.

        Raises:
            DoowError: It cannot be fetched.
        """
        try:
            if self.is_missing:
                with self._lock:
                    if self.is_missing:
                        self._fetch(anew=False)
        except DoowError as problem:
            self.trouble = str(problem)
            raise

    def fetch_aside(self, submit: Callable[[Callable[[], None]], bool]) -> None:
        """Have a thread fetch the key if it is missing or old; nobody waits for that.

        Args:
            submit: Runs a job on another thread.
        """
        now = self._clock()
        if self.kept is not None and now >= max(self._old_at, self._retry_at):
            # First of all, so that one thread does it. If it is frozen or lost, another will.
            self._retry_at = now + RETRY_S
            submit(self._refresh)

    def expire(self) -> None:
        """Fetch the key again at the next opportunity: much time may have passed unnoticed."""
        self._old_at = self._retry_at = float("-inf")

    def _refresh(self) -> None:
        try:
            with self._lock:
                if self._clock() >= self._old_at:
                    self._fetch(anew=self._key is not None)
        except Exception as problem:
            # Whoever needs the key says so. An old one is still good.
            self.trouble = str(problem)

    def _fetch(self, *, anew: bool) -> None:
        """Fetch the current key; with the lock held."""
        assert self.kept is not None
        key = _encoded(self.kept.fetch(anew=anew))
        if not key:
            raise DoowError(
                f"{self.kept.variable} points to a secret that is empty", ErrorKind.AUTH_FAILURE
            )
        self._key = key
        self.trouble = ""
        self._old_at = self._clock() + FRESH_S

    # ── readers ────────────────────────────────────────────────────────────────────────────────

    @property
    def is_configured(self) -> bool:
        """Whether readers accept signed frames only."""
        return self._key is not None or self._previous is not None or self.kept is not None

    def verifying_keys(self, *, anew: bool = False) -> list[bytes]:
        """Return the keys whose signatures count, the current one first; none if there is no key.

        The first call imports what fetching needs, and fetches: only for threads of the
        application.

        Args:
            anew: Fetch the keys again: a frame is signed, and by none of those that were returned.

        Raises:
            ConfigurationError: A log key is configured, and cannot be read. A reader that went on
                without would accept what anyone can write.
        """
        if self.kept is not None:
            with suppress(Exception):
                self.kept.load()  # fetch() says what is wrong.
            try:
                with self._lock:
                    if self._kept_keys is None or anew:
                        self._kept_keys = self._fetch_all(self.kept)
            except DoowError as problem:
                raise ConfigurationError(f"{problem}: {_REMEDY}") from None
        keys = self._kept_keys or (self._key,)
        return list(dict.fromkeys(key for key in (*keys, self._previous) if key))

    def _fetch_all(self, kept: KeptText) -> tuple[bytes, bytes | None]:
        """Fetch the current key and the one before; with the lock held."""
        self._fetch(anew=True)
        # Last, so that a rotation in between loses none that is in use.
        previous = kept.fetch_previous()
        assert self._key is not None
        return self._key, None if previous is None else _encoded(previous)


def _encoded(text: str) -> bytes:
    """Return the bytes of a key: those of the environment, whatever it was decoded from."""
    text = text.strip()
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
