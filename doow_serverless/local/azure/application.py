"""An application as it lies on the disk, and the settings under which Azure runs it."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Application:
    """What a worker is to run.

    Attributes:
        directory: Where ``function_app.py`` is, or the directories with a ``function.json``.
        model: "v2", functions declared by decorators, or "v1", by ``function.json`` files.
        settings: The environment of the application.
        placeholder: Whether the worker starts without both, and gets them in a second message.
    """

    directory: Path
    model: Literal["v2", "v1"]
    settings: dict[str, str]
    placeholder: bool

    @property
    def worker_env(self) -> dict[str, str]:
        """The environment in which the worker starts."""
        if self.placeholder:
            return {"PATH": os.environ["PATH"], "WEBSITE_PLACEHOLDER_MODE": "1"}
        return self.settings

    @property
    def worker_directory(self) -> Path:
        """The directory in which the worker starts."""
        return PROGRAMS if self.placeholder else self.directory


def platform_settings(directory: Path) -> dict[str, str]:
    """What the platform sets for every application, as far as it concerns one."""
    return {
        "AzureWebJobsScriptRoot": str(directory),
        "AZURE_FUNCTIONS_ENVIRONMENT": "Production",
        "FUNCTIONS_EXTENSION_VERSION": "~4",
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "HOME": "/home",
        "LANG": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "WEBSITE_HOSTNAME": "doow-local.azurewebsites.net",
        "WEBSITE_INSTANCE_ID": "0" * 32,
        "WEBSITE_SITE_NAME": "doow-local",
    }


def function_json(directory: Path) -> list[dict[str, Any]]:
    """What the host itself reads for the v1 model: each ``function.json``, in its message form."""
    found = []
    for path in sorted(directory.glob("*/function.json")):
        declared = json.loads(path.read_text())
        script = path.parent / declared.get("scriptFile", "__init__.py")
        found.append(
            {
                "name": path.parent.name,
                "functionId": str(uuid.uuid5(uuid.NAMESPACE_OID, path.parent.name)),
                "directory": str(path.parent),
                "scriptFile": str(script),
                "entryPoint": declared.get("entryPoint", ""),
                "language": "python",
                "bindings": {
                    binding["name"]: {
                        "type": binding["type"],
                        "direction": binding.get("direction", "in"),
                        "dataType": binding.get("dataType", "undefined"),
                    }
                    for binding in declared["bindings"]
                },
                "rawBindings": [json.dumps(binding) for binding in declared["bindings"]],
            }
        )
    return found
