"""The API key: given, or fetched from where a platform keeps secrets; shown to nobody."""

from __future__ import annotations

import threading

from doow_serverless._config import KEY_REMEDY, NO_KEY
from doow_serverless._redaction import API_KEY
from doow_serverless._secrets import KeptText
from doow_serverless.errors import DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._secrets import Fetch


class Credentials:
    """The key to send with.

    Args:
        api_key: The key itself, well-formed, or None.
        key_place: The environment variable that says where to fetch it instead, and what it says.
        fetch: As of `KeptText`.
    """

    def __init__(
        self,
        api_key: str | None,
        key_place: tuple[str, str] | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self._key = api_key
        self._key_place = key_place
        self.kept = None if key_place is None else KeptText("API key", key_place, fetch)
        """The key's place, if there is one."""
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget who holds the lock: a forked child has none of those threads."""
        self.lock = threading.Lock()
        """Held while the key is fetched."""
        if self.kept is not None:
            self.kept.reset_after_fork()

    def __repr__(self) -> str:
        return f"Credentials({'dk_…' if self._key else None}, {self._key_place!r})"

    @property
    def source(self) -> str:
        """What tells one key from another: its place, else the key itself. Not to be shown."""
        return self._key_place[1] if self._key_place else self._key or ""

    def load(self) -> None:
        """Import the modules that fetch the key, if it must be fetched.

        Only for threads of the application.

        Raises:
            Exception: That fails; :meth:`current` will say why.
        """
        if self.kept is not None:
            self.kept.load()

    def current(self) -> str:
        """Return the key; the first call fetches it, for as long as the network pleases.

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
            if self._key == refused and self.kept is not None:
                self._key = self._fetch(anew=True)
            return self._key != refused

    def _fetch(self, anew: bool) -> str:
        if self.kept is None:
            raise DoowError(f"{NO_KEY}: {KEY_REMEDY}", ErrorKind.AUTH_FAILURE)
        found = API_KEY.search(self.kept.fetch(anew=anew))
        if found is None:
            raise DoowError(
                f"{self.kept.variable} points to a secret that holds no SDK key "
                "(dk_ and 64 hex digits)",
                ErrorKind.AUTH_FAILURE,
            )
        return found.group()
