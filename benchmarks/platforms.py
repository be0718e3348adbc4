"""Cold starts under the platforms' own runtimes, of this tree and others, by turns.

``python -m benchmarks.platforms [FOLDER…]``: each folder holds another version of the package.
Parts of a core need control groups, and so root; runtimes that are not installed are left out.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from doow_serverless.local import _cgroups as cgroups
from doow_serverless.local.azure.host import AzureHost, http_request
from doow_serverless.local.lambda_runtime import LambdaRuntime
from doow_serverless.local.vercel.runtime import VercelRuntime
from doow_serverless.testing import api_gateway_event

from .server import answering
from .warm import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
SHARES = (1.0, 1 / 14)
ROUNDS = 5
LAMBDA = {
    "def": """
        {metered}import doow_serverless as doow
        {metered}@doow.tracked
        def handler(event, context):
            {metered}doow.track("tokens")
            return {{"statusCode": 200}}
    """,
    "FastAPI, Mangum": """
        from fastapi import FastAPI
        from mangum import Mangum
        app = FastAPI()
        @app.get("/")
        def answer():
            {metered}doow.track("tokens")
            return {{}}
        {metered}import doow_serverless as doow
        {metered}from doow_serverless.asgi import DoowMiddleware
        {metered}app.add_middleware(DoowMiddleware)
        handler = Mangum(app, lifespan="off")
    """,
}
AZURE = """
    import azure.functions as func
    app = func.FunctionApp()
    {metered}import doow_serverless as doow
    @app.route("answer")
    {metered}@doow.tracked
    def answer(req: func.HttpRequest) -> str:
        {metered}doow.track("tokens")
        return "done"
"""
VERCEL = """
    from flask import Flask
    app = Flask(__name__)
    @app.get("/")
    def answer():
        {metered}doow.track("tokens")
        return "done"
    {metered}import doow_serverless as doow
    {metered}from doow_serverless.wsgi import DoowMiddleware
    {metered}app.wsgi_app = DoowMiddleware(app.wsgi_app)
"""


def written(folder: Path, name: str, source: str, *, is_metered: bool) -> None:
    """Write an application, with or without its lines that meter."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(source).format(metered="" if is_metered else "# "))


def on_lambda(
    source: str, share: float, *, is_init_limited: bool
) -> Callable[[Path, dict[str, str], bool], list[float]]:
    """Milliseconds of the init phase, and of the first and the fifth invocation."""

    def measure(folder: Path, env: dict[str, str], is_metered: bool) -> list[float]:
        written(folder, "app.py", source, is_metered=is_metered)
        limit = None if share == 1 else share
        runtime = LambdaRuntime(
            "app.handler", folder, env=env, memory_mb=max(128, round(1_769 * share)),
            timeout_s=60.0, cpu_share=limit, init_cpu_share=limit if is_init_limited else None,
        )  # fmt: skip
        with runtime:
            event = api_gateway_event("GET", "/")
            times = [runtime.invoke(event).duration_s for _ in range(5)]
            return [runtime.init_s * 1e3, times[0] * 1e3, times[-1] * 1e3]

    return measure


def limited(pid: int, share: float) -> cgroups.Cgroup | None:
    """Hold a process to a part of a core from now on."""
    if share == 1:
        return None
    group = cgroups.cpu_share(share)
    group.add(pid)
    return group


def on_azure(share: float) -> Callable[[Path, dict[str, str], bool], list[float]]:
    """The same under Azure's worker; the part of a core counts once the application is loaded."""
    python = max(ROOT.glob(".venv-azure-*/bin/python"))

    def measure(folder: Path, env: dict[str, str], is_metered: bool) -> list[float]:
        written(folder, "function_app.py", AZURE, is_metered=is_metered)
        (folder / "host.json").write_text('{"version": "2.0"}')
        began = time.perf_counter()
        with AzureHost(folder, python=python, model="v2", env=env) as host:
            assert host.index_error is None, host.index_error
            times = [time.perf_counter() - began]
            group = limited(host.pid, share)
            for _ in range(5):
                began = time.perf_counter()
                host.invoke("answer", {"req": http_request("GET", "http://localhost/api/answer")})
                times.append(time.perf_counter() - began)
        if group is not None:
            group.close()
        return [times[0] * 1e3, times[1] * 1e3, times[-1] * 1e3]

    return measure


def on_vercel(share: float) -> Callable[[Path, dict[str, str], bool], list[float]]:
    """The same under Vercel's runtime."""
    python = ROOT / ".venv-vercel" / "bin" / "python"

    def measure(folder: Path, env: dict[str, str], is_metered: bool) -> list[float]:
        written(folder, "api/index.py", VERCEL, is_metered=is_metered)
        began = time.perf_counter()
        with VercelRuntime("api/index.py", folder, mode="ipc", python=python, env=env) as runtime:
            times = [time.perf_counter() - began]
            group = limited(runtime.pid, share)
            for _ in range(5):
                began = time.perf_counter()
                assert runtime.request("GET", "/").status == 200
                times.append(time.perf_counter() - began)
        if group is not None:
            group.close()
        return [times[0] * 1e3, times[1] * 1e3, times[-1] * 1e3]

    return measure


def cases() -> dict[str, Callable[[Path, dict[str, str], bool], list[float]]]:
    """Return the measurements by name."""
    found = {
        f"Lambda, {name}, {'1' if share == 1 else '1/14'} core"
        f"{', init limited' if is_init_limited else ''}": on_lambda(
            source, share, is_init_limited=is_init_limited
        )
        for name, source in LAMBDA.items()
        for share in SHARES
        for is_init_limited in ((False, True) if share < 1 else (False,))
    }
    for share in SHARES:
        part = "1" if share == 1 else "1/14"
        if any(ROOT.glob(".venv-azure-*/bin/python")):
            found[f"Azure, def, {part} core"] = on_azure(share)
        if (ROOT / ".venv-vercel").exists():
            found[f"Vercel, Flask, {part} core"] = on_vercel(share)
    return found


def main() -> None:
    """Measure and print."""
    trees = {"undecorated": None, "this tree": ROOT, **{each: Path(each) for each in sys.argv[1:]}}
    made = Table(title=f"Cold starts, ms, medians of {ROUNDS} by turns", title_justify="left")
    for column in ("", "version", "load", "first", "fifth"):
        made.add_column(column, justify="left" if column in ("", "version") else "right")
    with answering(0.0) as url:
        env = {
            "DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": url, "DOOW_TRACK_LICENSE_ID": "lic_1",
        }  # fmt: skip
        for name, measure in cases().items():
            runs: dict[str, list[list[float]]] = {tree: [] for tree in trees}
            with TemporaryDirectory() as folder:
                for _ in range(ROUNDS + 1):
                    for tree, path in trees.items():
                        variables = {**env, **({"PYTHONPATH": str(path)} if path else {})}
                        where = Path(folder) / str(len(str(path)))
                        runs[tree].append(measure(where, variables, path is not None))
            for tree, each in runs.items():
                # The first start writes the bytecode.
                medians = [statistics.median(one) for one in zip(*each[1:], strict=True)]
                made.add_row(name, Path(tree).name, *(f"{median:.1f}" for median in medians))
    Console(width=120).print(made)


if __name__ == "__main__":
    main()
