"""The API key: given, or fetched from where a platform keeps secrets; shown to nobody."""

from __future__ import annotations

import time
from functools import partial

from doow_serverless._config import KEY_REMEDY, NO_KEY
from doow_serverless._process.fetching import FetchedKeys
from doow_serverless._redaction import API_KEY
from doow_serverless._secrets import KeptText
from doow_serverless.errors import DoowError, ErrorKind

from .breaker import KEY_REFUSED_HOLD_S, uniform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._process.clock import Clock
    from doow_serverless._process.fetching import Keys
    from doow_serverless._secrets import Fetch

WAIT_S = 1.5
"""Age of the first fetch up to which a sender waits for it: less than the usual budget, so that
its flush can report the reason."""
AGAIN_WAIT_S = 0.2
"""The same after a failure: less than a flush waits for a probe."""
REFRESH_WAIT_S = 1.0
"""Age of a fetch up to which a sender waits for it whose key was refused."""
REFRESH_S = 10.0
"""Seconds after a refusal in which no other refusal begins a fetch: it would find the same key."""
FIRST_REFUSED_HOLD_S = 30.0
"""Seconds, at most, after which a fetched key that was refused is fetched again. They double."""


class Credentials:
    """The key to send with.

    A kept key is fetched by one thread. All others wait for it within bounds, so that a place that
    cannot be reached is an outage like any other: it costs its first seconds once, a failure is
    shared for a while, and the circuit breaker decides on the next try. Every method may be called
    from any thread.

    Args:
        api_key: The key itself, well-formed, or None.
        key_place: The environment variable that names its place instead, and the value of this
            variable.
        fetch: Fetches it; see `KeptText`.
        clock: Monotonic seconds.
        uniform: A random number from 0.0 up to 1.0.

    Attributes:
        kept: The key's place, if there is one.
    """

    def __init__(
        self,
        api_key: str | None,
        key_place: tuple[str, str] | None = None,
        fetch: Fetch | None = None,
        clock: Clock = time.monotonic,
        uniform: Callable[[], float] = uniform,
    ) -> None:
        self._key = api_key
        self._key_place = key_place
        self._clock = clock
        self._uniform = uniform
        self._refused_since = self._refused_last = float("-inf")
        self.kept = None if key_place is None else KeptText("API key", key_place, fetch)
        self._fetched = FetchedKeys(
            partial(_fetch, self.kept), clock, "doow-api-key", doubt_s=REFRESH_S
        )

    def reset_after_fork(self) -> None:
        """Forget locks and threads, which are the parent's, and keep the key."""
        self._fetched.reset_after_fork()
        if self.kept is not None:
            self.kept.reset_after_fork()

    def __repr__(self) -> str:
        return f"Credentials({'dk_…' if self._at_hand() else None}, {self._key_place!r})"

    @property
    def source(self) -> str:
        """Distinguishes keys: the place of this one, otherwise the key itself. Not to be shown."""
        return self._key_place[1] if self._key_place else self._key or ""

    def load(self) -> None:
        """Import the modules that fetch the key, if it must be fetched.

        Only for threads of the application.

        Raises:
            Exception: That fails; :meth:`current` will say why.
        """
        if self.kept is not None:
            self.kept.load()
            self._fetched.forgive()  # A thread may have tried before.

    def expire(self) -> None:
        """Forget failures and fetches: much time may have passed unnoticed. The key stays."""
        self._fetched.expire()

    def current(self, wait_s: float | None = None) -> str:
        """Return the key; fetch it if it is missing, and wait for that, but not for long.

        All who wait for the same fetch stop at the same time, so that a fetch that hangs costs
        these seconds once.

        Args:
            wait_s: Age of the first fetch up to which it is waited for. Default: `WAIT_S`.

        Raises:
            DoowError: There is no key, or it could not be fetched.
        """
        key = self._at_hand()
        if key is not None:
            return key
        if self.kept is None:
            raise DoowError(f"{NO_KEY}: {KEY_REMEDY}", ErrorKind.AUTH_FAILURE)
        wait_s = WAIT_S if wait_s is None else wait_s
        if self._fetched.state.has_failed:
            wait_s = min(wait_s, AGAIN_WAIT_S)
        self._fetched.ask()
        self._fetched.wait(wait_s, wait_s)
        key = self._at_hand()
        if key is None:
            raise DoowError(self._why_missing(), ErrorKind.AUTH_FAILURE)
        return key

    def replace(self, refused: str) -> bool:
        """Fetch the key again after the server refused it; return True if there is another now.

        Raises:
            DoowError: It could not be fetched.
        """
        if self.kept is not None and self._at_hand() == refused:
            self._fetched.doubt()
            self._fetched.ask()
            self._fetched.wait(REFRESH_WAIT_S, REFRESH_WAIT_S)
            state = self._fetched.state
            if self._at_hand() != refused:
                self._refused_last = float("-inf")
            elif state.trouble or state.is_under_way:
                why = f"Doow refused the API key, and {self._why_missing()}"
                raise DoowError(why, ErrorKind.AUTH_FAILURE)
        return self._at_hand() != refused

    def refused_hold_s(self) -> float:
        """Return the seconds until a refused key is worth another try.

        Somebody may put another key into its place at any moment: a fetched key is tried soon at
        first, then less often. A fleet does so at random times, and none of it often.
        """
        if self.kept is None:
            return KEY_REFUSED_HOLD_S
        now = self._clock()
        if now - self._refused_last > 2 * KEY_REFUSED_HOLD_S:
            self._refused_since = now
        self._refused_last = now
        # What has passed, again: that doubles.
        hold_s = max(FIRST_REFUSED_HOLD_S, now - self._refused_since)
        return min(hold_s, KEY_REFUSED_HOLD_S) * (0.5 + self._uniform() / 2)

    def _at_hand(self) -> str | None:
        keys = self._fetched.state.keys
        return keys[0].decode() if keys else self._key

    def _why_missing(self) -> str:
        assert self.kept is not None
        return self._fetched.state.trouble or str(self.kept.silent())


def _fetch(kept: KeptText | None, at_hand: Keys) -> Keys:
    assert kept is not None
    found = API_KEY.search(kept.fetch(anew=bool(at_hand)))
    if found is None:
        raise DoowError(
            f"{kept.variable} points to a secret that holds no SDK key (dk_ and 64 hex digits)",
            ErrorKind.AUTH_FAILURE,
        )
    return (found.group().encode(),)
