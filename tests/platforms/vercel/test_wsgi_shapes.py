"""WSGI responses of every shape under Vercel's runtime, which sends a head at start_response."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Literal

import pytest

from doow_serverless.local import Fault
from doow_serverless.local.vercel.runtime import VercelRuntime
from tests.network import KEY
from tests.platforms.vercel.stage import comparable
from tests.platforms.wsgi.shapes import AFTERWARDS, APPS, WRAPPED

if TYPE_CHECKING:
    from doow_serverless.local import Ingest
    from doow_serverless.local.vercel.runtime import Response

ROOT = Path(__file__).parents[3]
SLOW_S = 0.02
"""Seconds that Doow takes to answer, while which an invocation that does not wait would end."""


def runtime(
    app: str, mode: Literal["ipc", "lambda"], directory: Path, python: Path, endpoint: str
) -> VercelRuntime:
    """One that serves an application of ``tests/platforms/wsgi/shapes.py``."""
    (directory / "api").mkdir(parents=True)
    (directory / "api" / "index.py").write_text(
        dedent(f"""
        import sys
        sys.path.append({str(ROOT)!r})
        from tests.platforms.wsgi.shapes import {app} as served

        def app(environ, start_response):
            return served(environ, start_response)
        """)
    )
    return VercelRuntime(
        "api/index.py",
        directory,
        mode=mode,
        python=python,
        env={
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": endpoint,
            "DOOW_TRACK_LICENSE_ID": "lic_1",
            "DOOW_TRACK_BUDGET": "20000",
            **({"DOOW_TRACK_DISABLED": "1"} if app == "site" else {}),
        },
    )


def masked(response: Response) -> dict[str, Any]:
    """What may be compared. A second head, which the runtime sends too, counts as body."""
    said = comparable(response)
    return {**said, "body": re.sub(rb"Date: [^\r]*", b"", said["body"])}


@pytest.mark.parametrize("mode", ["ipc", "lambda"])
def test_every_shape(
    mode: Literal["ipc", "lambda"], tmp_path: Path, vercel_python: Path, doow_ingest: Ingest
) -> None:
    """The same bytes in both ways to meter, and due events arrive before the process freezes."""
    answers, missing = {}, {}
    with runtime("site", mode, tmp_path / "bare", vercel_python, doow_ingest.url) as bare:
        for name, (app, method, _) in APPS.items():
            answers[name] = masked(bare.request(method, f"/{app.__name__}"))
    with runtime("wrapped", mode, tmp_path / "metered", vercel_python, doow_ingest.url) as metered:
        for way in WRAPPED:
            for name, (app, method, events) in APPS.items():
                doow_ingest.reset()
                doow_ingest.fault(Fault(delay_s=SLOW_S, times=None))
                answer = masked(metered.request(method, f"/{way}/{app.__name__}"))
                assert (name, answer) == (name, answers[name])
                due = events - AFTERWARDS.get(name, 0)
                missing[way, name] = max(due - len(doow_ingest.events()), 0)
    assert missing == dict.fromkeys(missing, 0)
