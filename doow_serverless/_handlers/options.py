"""The options of ``tracked`` and of the middlewares, checked once, at decoration."""

from __future__ import annotations

from doow_serverless._config import Given
from doow_serverless._recording.rules import check_attribution, check_text
from doow_serverless._values import flush_mode, fold, one_of, seconds, true_or_false
from doow_serverless.errors import ConfigurationError, DoowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any, Literal

    from typing_extensions import TypedDict, Unpack

    from doow_serverless._recording.rules import LeftOut

    class Options(TypedDict, total=False):
        """What each means, says ``doow_serverless.tracked``."""

        budget: float | None
        license_id: str | None
        attribution: Mapping[str, Any] | None
        on_exception: Literal["flush", "discard"] | None
        metric: str | None
        fold: bool | Collection[str] | None
        idempotent: bool
        flush_mode: Literal["before_response", "after_response"] | None


class TrackedOptions:
    """The options of one ``tracked`` or middleware.

    Args:
        called: By which name the user called it, for messages.
        **options: As the user gave them, without ``tracker``.

    Attributes:
        budget_s: Seconds, or None for those of the configuration.
        license_id, attribution, metric: As given, checked.
        discards: Whether an invocation that raises forgets what it recorded.
        fold: Whether events fold, or those of which metrics; None for as around.
        idempotent: Whether ids derive from what the platform calls the work.
        is_attempt: Whether an invocation is one of several attempts, of which the one that succeeds
            counts; then records that are work of their own, and have succeeded, count at once.
        flush_mode: ``"before_response"`` or ``"after_response"``; None for that of the
            configuration.
        removed: Names of attributes that looked like credentials, until they are reported.

    Raises:
        ConfigurationError: An option is wrong, or is none.
    """

    def __init__(self, called: str = "tracked", /, **options: Unpack[Options]) -> None:
        given = Given(called, options)
        self.removed: list[LeftOut] = []
        self.budget_s = _unless_none(given, "budget", seconds)
        try:
            self.license_id = _unless_none(given, "license_id", check_text)
            self.attribution = check_attribution(given.take("attribution", None), self.removed)
            self.metric = _unless_none(given, "metric", check_text)
        except DoowError as problem:
            raise ConfigurationError(f"{called}(): {problem}") from None
        self.fold = _unless_none(given, "fold", fold)
        on_exception = _unless_none(given, "on_exception", _on_exception)
        self.idempotent = true_or_false("idempotent", given.take("idempotent", False))
        # A retry records again what the attempt that failed had recorded, and perhaps not alike.
        self.is_attempt = self.idempotent and on_exception is None
        self.discards = self.is_attempt or on_exception == "discard"
        self.flush_mode = _unless_none(given, "flush_mode", flush_mode)
        given.close()

    def __repr__(self) -> str:
        said = {name: value for name, value in vars(self).items() if value and name != "removed"}
        return f"TrackedOptions({', '.join(f'{name}={value!r}' for name, value in said.items())})"


def _unless_none(given: Given, name: str, check: Callable[[str, Any], Any]) -> Any:
    value = given.take(name, None)
    return None if value is None else check(name, value)


def _on_exception(name: str, value: Any) -> str:
    return one_of(name, value, ("flush", "discard"))
