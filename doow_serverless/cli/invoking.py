"""Invokes a handler of any platform through that platform's own runtime, on this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "dk_" + "0" * 64
"""Well formed and known to nobody: a local ingest takes any such key."""
_FLUSH = re.compile(r"flushed Outcome\(.*elapsed_s=([\d.]+)")  # DOOW_TRACK_DEBUG logs it.
_PYTHON_OF_VERCEL = (3, 12)
_MISSING = {
    "awslambdaric": "{python} -m pip install awslambdaric",
    "vercel_runtime": "{python} -m pip install vercel-runtime   (Python 3.12 or newer)",
    "azure_functions_runtime": (
        '{python} -m pip install "azure-functions<2" azurefunctions-extensions-base grpcio protobuf'
        " && {python} -m pip install --no-deps --ignore-requires-python"
        " azure-functions-runtime==1.3.0 azure-functions-runtime-v1==1.2.0"
    ),
}
"""What each platform's runtime is imported as, and the command that installs it."""


class NotInvokable(Exception):
    """What was named cannot be invoked, and why."""


@dataclass(frozen=True)
class Invoked:
    """What became of an invocation.

    Attributes:
        platform: Whose runtime it was.
        ok: Whether the handler answered.
        answer: What it answered, as text; or its error.
        took_s: Until the answer was there.
        flush_s: Seconds of it that delivering took; None where nothing was delivered.
        log: What was written meanwhile.
    """

    platform: str
    ok: bool
    answer: str
    took_s: float
    flush_s: float | None
    log: str


@dataclass(frozen=True)
class Target:
    """What is to be invoked.

    Args:
        name: ``"folder/module:function"`` on Lambda, a file of Vercel, or a folder of Azure.
        event: What it is invoked with: on Lambda anything; a request of HTTP (``method``, ``path``,
            ``headers``, ``body``, ``route_params``); or the body of a message.
        function: Of a folder of Azure, which.
        python: The interpreter that has the platform's runtime.
    """

    name: str
    event: Any = None
    function: str | None = None
    python: str = sys.executable

    def invoke(self, endpoint: str, env: Mapping[str, str] | None = None) -> Invoked:
        """Start the platform's runtime, invoke once, and stop it.

        Args:
            endpoint: Of the local ingest.
            env: More variables of the function.

        Raises:
            NotInvokable: There is no such thing, or its runtime is not installed.
        """
        variables = {
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": endpoint,
            "DOOW_TRACK_DEBUG": "true",
            **(env or {}),
        }
        path = Path(self.name)
        if path.is_dir():
            return self._on_azure(path, variables)
        if path.suffix == ".py" and path.is_file():
            return self._on_vercel(path, variables)
        module, colon, function = self.name.rpartition(":")
        file = Path(f"{module}.py")
        if not (colon and file.is_file()):
            raise NotInvokable(
                f"{self.name} is neither module:function, of a {file} that is there, nor a file "
                "of Vercel, nor a folder of Azure"
            )
        return self._on_lambda(file, function, variables)

    def _on_lambda(self, file: Path, function: str, env: Mapping[str, str]) -> Invoked:
        from doow_serverless.local.lambda_runtime import LambdaRuntime

        self._need("awslambdaric")
        handler = f"{file.stem}.{function}"
        with LambdaRuntime(
            handler, file.parent, env=env, python=self._python, timeout_s=30.0
        ) as runtime:
            done = runtime.invoke({} if self.event is None else self.event)
            return Invoked(
                "AWS Lambda",
                done.error is None,
                done.payload.decode(errors="replace"),
                done.duration_s,
                _flush_s(runtime.stdout),
                runtime.stdout,
            )

    def _on_vercel(self, file: Path, env: Mapping[str, str]) -> Invoked:
        from doow_serverless.local.vercel.runtime import VercelRuntime, VercelRuntimeError

        self._need("vercel_runtime")
        is_in_api = file.parent.name == "api"
        root = file.parent.parent if is_in_api else file.parent
        place = file.relative_to(root).as_posix()
        method, path, headers, body = _request(self.event, f"/{place.removesuffix('.py')}")
        try:
            with VercelRuntime(place, root, mode="ipc", python=self._python, env=env) as runtime:
                done = runtime.request(method, path, headers, body)
                log = "\n".join(done.log) or runtime.stdout
                return Invoked(
                    "Vercel",
                    done.status is not None,
                    f"HTTP {done.status}\n{done.body.decode(errors='replace')}",
                    done.duration_s,
                    _flush_s(runtime.stdout + log),
                    log,
                )
        except VercelRuntimeError as problem:
            raise NotInvokable(str(problem)) from None

    def _on_azure(self, folder: Path, env: Mapping[str, str]) -> Invoked:
        from doow_serverless.local.azure.host import AzureHost, AzureHostError

        self._need("azure_functions_runtime")
        model: Any = "v2" if (folder / "function_app.py").is_file() else "v1"
        try:
            with AzureHost(folder, python=self._python, model=model, env=env) as host:
                name, trigger = self._trigger(host.functions)
                done = host.invoke(name, trigger)
                log = "\n".join(line.message for line in done.logs)
                return Invoked(
                    "Azure Functions",
                    done.ok,
                    _azure_answer(done),
                    done.duration_s,
                    _flush_s(f"{log}\n{host.stdout}"),
                    log,
                )
        except AzureHostError as problem:
            raise NotInvokable(str(problem)) from None

    def _trigger(self, functions: Mapping[str, list[dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
        """The function to invoke, and what its trigger passes, by the name of its parameter."""
        from doow_serverless.local.azure import triggers

        name = self.function or (next(iter(functions)) if len(functions) == 1 else None)
        if name is None or name not in functions:
            known = ", ".join(functions) or "none"
            raise NotInvokable(f"say with --function which: {known}")
        for binding in functions[name]:
            kind = binding["type"].lower()
            if kind == "httptrigger":
                method, path, headers, body = _request(self.event, f"/api/{name}")
                routed = self.event.get("route_params") if isinstance(self.event, dict) else None
                made = triggers.http_request(
                    method,
                    f"http://localhost{path}",
                    headers=headers,
                    body=body,
                    route_params=routed,
                )
            elif kind == "queuetrigger":
                text = self.event if isinstance(self.event, str) else json.dumps(self.event)
                made = triggers.queue_message(text)
            elif kind == "timertrigger":
                made = triggers.timer()
            else:
                continue
            return name, {binding["name"]: made}
        raise NotInvokable(f"{name} has no trigger of HTTP, a queue or a timer, which invoke knows")

    @property
    def _python(self) -> str:
        """The interpreter by its whole path, since runtimes start it from another folder."""
        # Not resolved: a link into an environment is what tells it where its packages are.
        return str(Path(shutil.which(self.python) or self.python).absolute())

    def _need(self, module: str) -> None:
        """See that the runtime is there."""
        probe = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
        try:
            found = subprocess.run(  # noqa: S603  # the interpreter is the caller's own choice
                [self._python, "-c", probe], capture_output=True, check=False
            )
        except OSError as problem:
            raise NotInvokable(f"{self.python}: {problem.strerror}") from None
        if found.returncode:
            remedy = _MISSING[module].format(python=self._python)
            raise NotInvokable(f"{self.python} has no {module}; install it there with: {remedy}")


def _request(event: Any, path: str) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body of a request."""
    said = event if isinstance(event, dict) else {}
    if not said.keys() & {"method", "path", "headers", "body", "route_params"}:
        said = {} if event is None else {"method": "POST", "body": event}
    body = said.get("body", "")
    headers = {str(name): str(value) for name, value in (said.get("headers") or {}).items()}
    if not isinstance(body, str):
        body = json.dumps(body)
        headers.setdefault("content-type", "application/json")
    return said.get("method", "GET"), said.get("path", path), headers, body.encode()


def _azure_answer(done: Any) -> str:
    if done.error is not None:
        return f"{done.error.type}: {done.error.message}"
    answer = done.return_value
    if hasattr(answer, "status"):
        return f"HTTP {answer.status}\n{answer.body.decode(errors='replace')}"
    return "" if answer is None else str(answer)


def _flush_s(log: str) -> float | None:
    found = _FLUSH.findall(log)
    return float(found[-1]) if found else None
