"""The API key: given, or fetched from where a platform keeps secrets; shown to nobody."""

from __future__ import annotations

import threading

from doow_serverless._redaction import API_KEY, clean
from doow_serverless.errors import DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # Takes the name of a secret, and whether to bypass caches; returns the text kept there.
    Fetch = Callable[[str, bool], str]

sources: dict[str, Fetch] = {}
"""How to fetch a key, by the environment variable that names its place. Filled by the faces."""


class Credentials:
    """The key to send with.

    Args:
        api_key: The key itself, well-formed, or None.
        variable: The environment variable that says where to fetch it instead, or None.
        place: What that variable says.
    """

    def __init__(
        self, api_key: str | None, variable: str | None = None, place: str | None = None
    ) -> None:
        self._key = api_key
        self._variable = variable
        self._place = place
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget who holds the lock: a forked child has none of those threads."""
        self.lock = threading.Lock()
        """Held while the key is fetched."""

    def __repr__(self) -> str:
        return f"Credentials({'dk_…' if self._key else None}, {self._variable!r})"

    @property
    def are_missing(self) -> bool:
        """Whether there is no key, and no place to fetch one from."""
        return self._key is None and self._variable is None

    @property
    def source(self) -> str:
        """What tells one key from another: its place, else the key itself. Not to be shown."""
        return self._place or self._key or ""

    def current(self) -> str:
        """The key; fetched at the first call, which may take as long as the network pleases.

        Raises:
            DoowError: There is none, or it cannot be fetched.
        """
        if self._key is None:
            with self.lock:
                if self._key is None:
                    self._key = self._fetch(anew=False)
        return self._key

    def replace(self, refused: str) -> bool:
        """Fetch the key anew after the server refused one; whether there is another now.

        Raises:
            DoowError: It cannot be fetched.
        """
        with self.lock:
            if self._key == refused and self._variable is not None:
                self._key = self._fetch(anew=True)
            return self._key != refused

    def _fetch(self, anew: bool) -> str:
        if self._variable is None or self._place is None:
            raise DoowError("there is no API key: set DOOW_TRACK_API_KEY", ErrorKind.AUTH_FAILURE)
        try:
            found = API_KEY.search(sources[self._variable](self._place, anew))
        except Exception as problem:
            # botocore's messages tell what is forbidden or missing, and hold no secret.
            said = clean(f"{type(problem).__name__}: {problem}")
            raise DoowError(
                f"the API key could not be read from where {self._variable} points ({said})",
                ErrorKind.AUTH_FAILURE,
            ) from None
        if found is None:
            raise DoowError(
                f"{self._variable} points to a secret that holds no SDK key "
                "(dk_ and 64 hex digits)",
                ErrorKind.AUTH_FAILURE,
            )
        return found.group()
