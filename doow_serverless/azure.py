"""Azure Functions: ``track_app`` tracks all functions of a ``FunctionApp`` or a ``Blueprint``."""

from __future__ import annotations

from ._middleware import Middleware
from ._platforms.azure import is_orchestrator, track_builder
from .errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from typing_extensions import Unpack

    from ._api import ApiOptions

    AppT = TypeVar("AppT")

__all__ = ["track_app"]


def track_app(app: AppT, **options: Unpack[ApiOptions]) -> AppT:
    """Track all functions of a ``FunctionApp`` or a ``Blueprint``.

    ::

        app = func.FunctionApp()

        @app.route(route="summaries")
        def summaries(req): ...

        track_app(app)

    In place, and with names, bindings and signatures as they were. Call it once, after all
    functions are declared, and for a blueprint before ``register_functions``. A function that is
    ``@doow.tracked`` besides delivers in the same POST. Durable orchestrators are left out, since
    they are replayed: meter in the activities that they call.

    Args:
        app: The app or blueprint.
        **options: As of ``doow_serverless.tracked``.

    Returns:
        ``app``.

    Raises:
        ConfigurationError: An option is wrong, or there is no function to track.
    """
    builders = getattr(app, "_function_builders", None)
    if not builders:
        remedy = "call it after the functions are declared" if builders == [] else "give it one"
        raise ConfigurationError(
            f"track_app() tracks the functions of a FunctionApp or Blueprint, and "
            f"{type(app).__name__} has none: {remedy}"
        )
    tracked = _TrackedApp(**options)
    for builder in builders:
        if not is_orchestrator(builder):
            track_builder(builder, tracked.options, tracked.engine)
    return app


class _TrackedApp(Middleware):
    CALLED = "track_app"
