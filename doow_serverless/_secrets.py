"""A text that a platform keeps: fetched by the name in a variable, late, and shown to nobody."""

from __future__ import annotations

import threading
from importlib import import_module

from ._redaction import clean
from .errors import DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # Takes the kind of place, the name of the secret, whether to bypass caches, and whether the
    # version before the current one is wanted; returns the text kept there, None if there is none.
    Fetch = Callable[[str, str, bool, bool], str | None]

SECRET, PARAMETER = "secret", "parameter"
"""The kinds of place: Secrets Manager, and Parameter Store."""
_SERVICES = {SECRET: "Secrets Manager", PARAMETER: "Parameter Store"}
"""The names of the services that keep them."""
_KINDS = {"_SECRET_ARN": SECRET, "_SSM_PARAMETER": PARAMETER}
"""How a variable ends that names a place, and the kind of that place."""
_FETCHER = "doow_serverless._platforms.aws"
"""The module above that fetches, imported if something must be fetched."""


def places(variable: str) -> tuple[str, ...]:
    """Return the variables that may name a place for the text of ``variable``, by precedence."""
    return tuple(variable + ending for ending in _KINDS)


class KeptText:
    """A secret of Secrets Manager, or a SecureString of Parameter Store.

    Args:
        name: What it is, for messages: ``"API key"``.
        place: The environment variable that names its place, and the value of this variable.
        fetch: Fetches it. Default: the function of the platform.

    Attributes:
        variable, place: The two parts of ``place``.
    """

    def __init__(self, name: str, place: tuple[str, str], fetch: Fetch | None = None) -> None:
        self._name = name
        self.variable, self.place = place
        self._kind = next(kind for end, kind in _KINDS.items() if self.variable.endswith(end))
        self._fetch = fetch
        self._trouble: Exception = DoowError("the modules that fetch it are not imported yet")
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget who holds the lock: a forked child has none of those threads."""
        self.importing = threading.Lock()
        """Held while the modules that fetch are imported; a fork waits for it."""

    def __repr__(self) -> str:
        return f"KeptText({self.variable!r}, {self.place!r})"

    @property
    def is_versioned(self) -> bool:
        """Whether the place keeps the version before the current one."""
        return self._kind == SECRET

    def load(self) -> None:
        """Import the modules that fetch. Only for threads of the application.

        Raises:
            Exception: That fails; :meth:`fetch` will say why.
        """
        if self._fetch is not None:
            return
        try:
            with self.importing:
                self._fetch = import_module(_FETCHER).load_fetch()
        except Exception as problem:
            self._trouble = problem
            raise

    def fetch(self, *, anew: bool = False) -> str:
        """Return the text; blocks for as long as the network pleases.

        Args:
            anew: Whether to bypass caches.

        Raises:
            DoowError: It cannot be fetched.
        """
        text = self._fetched(anew, is_previous=False)
        if text is None:
            raise self._unreadable("there is no such version")
        return text

    def fetch_previous(self) -> str | None:
        """Return the version before the current one, past all caches; None if there is none.

        Raises:
            DoowError: It cannot be fetched.
        """
        return self._fetched(anew=True, is_previous=True) if self.is_versioned else None

    def _fetched(self, anew: bool, *, is_previous: bool) -> str | None:
        try:
            if self._fetch is None:
                raise self._trouble
            return self._fetch(self._kind, self.place, anew, is_previous)
        except Exception as problem:
            # botocore's messages tell what is forbidden or missing, and hold no secret.
            raise self._unreadable(f"{type(problem).__name__}: {problem}") from None

    def silent(self) -> DoowError:
        """Return the error to report while the service has not answered."""
        return self._unreadable("no answer yet: see that this network has a route to it")

    def _unreadable(self, why: str) -> DoowError:
        return DoowError(
            f"the {self._name} could not be read from {_SERVICES[self._kind]}, where "
            f"{self.variable} points ({clean(why)})",
            ErrorKind.AUTH_FAILURE,
        )
