"""What host and worker say before the first invocation: which functions there are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from doow_serverless.local.azure.application import PROGRAMS, function_json
from doow_serverless.local.azure.invocation import AzureHostError
from doow_serverless.local.azure.messages import failure_of

if TYPE_CHECKING:
    from doow_serverless.local.azure.application import Application
    from doow_serverless.local.azure.bridge import Bridge


class FunctionIndex:
    """The functions that a worker has loaded.

    Attributes:
        functions: The bindings of each function, by its name.
        error: Why functions could not be indexed or loaded; else None.
        http_uri: The worker's own HTTP server, if the application streams; else None.
    """

    def __init__(self) -> None:
        self.functions: dict[str, list[dict[str, Any]]] = {}
        self.error: str | None = None
        self.http_uri: str | None = None
        self._ids: dict[str, str] = {}

    def id_of(self, name: str) -> str:
        """The id under which the worker knows a function."""
        if name not in self._ids:
            known = ", ".join(self.functions) or "none"
            why = f"\n{self.error}" if self.error else ""
            raise AzureHostError(f"no function named {name!r} was loaded, but: {known}{why}")
        return self._ids[name]

    def introduce(self, bridge: Bridge, app: Application) -> None:
        """Wait for the worker, and have it index and load the application."""
        bridge.wait_for_worker()
        init = _initialize(bridge, app)
        if (failure := failure_of(init)) is not None:
            self.error = failure.as_text()
            return
        self.http_uri = init.get("capabilities", {}).get("HttpUri")
        directory = str(app.directory)
        answer = bridge.ask(
            "functionsMetadataRequest",
            {"functionAppDirectory": directory},
            "functionMetadataResponse",
        )
        by_files = answer.get("useDefaultMetadataIndexing", False)
        if by_files != (app.model == "v1"):
            raise AzureHostError(f"{directory} is no application of the {app.model} model")
        self._load(
            bridge, function_json(app.directory) if by_files else answer["functionMetadataResults"]
        )

    def _load(self, bridge: Bridge, functions: list[dict[str, Any]]) -> None:
        errors = []
        for metadata in functions:
            request = {"functionId": metadata["functionId"], "metadata": metadata}
            loaded = bridge.ask("functionLoadRequest", request, "functionLoadResponse")
            if (failure := failure_of(loaded)) is not None:
                errors.append(failure.as_text())
                continue
            name = metadata["name"]
            self._ids[name] = metadata["functionId"]
            self.functions[name] = [json.loads(each) for each in metadata["rawBindings"]]
        self.error = "\n".join(errors) or None


def _initialize(bridge: Bridge, app: Application) -> dict[str, Any]:
    """Tell the worker what it works for; a placeholder learns that in a second message."""
    directory = str(app.directory)
    init = bridge.ask(
        "workerInitRequest",
        {
            "hostVersion": "4.1037.0",
            "workerDirectory": str(PROGRAMS),
            "functionAppDirectory": "" if app.placeholder else directory,
            "capabilities": {"V2Compatable": "true"},
        },
        "workerInitResponse",
    )
    if not app.placeholder:
        return init
    return bridge.ask(
        "functionEnvironmentReloadRequest",
        {"environmentVariables": app.settings, "functionAppDirectory": directory},
        "functionEnvironmentReloadResponse",
    )
