"""The command that starts a local ingest."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import requests

from tests.local.posting import batch, command, endpoint, event

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest


# ── the command line ────────────────────────────────────────────────────────────────────────────


def test_the_command(tmp_path: Path) -> None:
    """It tells what to export, shows each POST in a line, and ends well on Ctrl-C."""
    hostile = [event(f"evt_\x1b[2J{n}", license_id="") for n in range(5)]
    with command("--port", "0", "--database", str(tmp_path / "ledger")) as process:
        url = endpoint(process)
        assert process.stdout
        exported = process.stdout.readline().strip()
        headers = {
            "Authorization": f"Bearer {exported.partition('=')[2]}",
            "Content-Type": "application/json",
        }
        several = batch(
            event(
                measurements=[{"metric_name": "tokens", "quantity": 1200}],
                attribution={"model": "gpt\x1b[2J", "n": 1},
            ),
            event("evt_2", measurements=[{"metric_name": "cost", "quantity": 0.5}]),
        )
        contents: tuple[object, ...] = (several, several, batch(*hostile, batch_id="batch_2"), [])
        for content in contents:
            requests.post(f"{url}/telemetry/events", json=content, headers=headers, timeout=5)
        lines = [process.stdout.readline().strip()[9:] for _ in range(4)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)

    assert exported == "export DOOW_TRACK_API_KEY=dk_" + "0" * 64
    assert lines == [
        "202  2 events  lic_1 model=gpt\ufffd[2J n=1 tokens=1,200  lic_1 cost=0.5",
        "202  2 events  duplicate",
        "207  5 events  "
        + "".join(f"evt_\ufffd[2J{n}: license_id is required, a string  " for n in range(3))
        + "and 2 more",
        "400  0 events  the body must be an object",
    ]
    assert (process.returncode, errors) == (0, "")


def test_a_port_that_is_taken(ingest: Ingest) -> None:
    """A taken port is one clear line."""
    with command("--port", str(ingest.port)) as process:
        _, errors = process.communicate(timeout=5)
    assert errors == (
        f"Error: cannot listen on port {ingest.port}: Address already in use; "
        "choose another with --port\n"
    )
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "sk_secret"], "Error: --key: a key is dk_ and 64 hex digits\n"),
        (
            ["--database", "/nowhere/x"],
            "Error: cannot use /nowhere/x as a database: unable to open database file\n",
        ),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    """An option that cannot work is one clear line."""
    with command("--port", "0", *arguments) as process:
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (2, message)


@pytest.mark.parametrize("missing", ["click", "rich", "starlette", "uvicorn"])
def test_without_the_extra(missing: str) -> None:
    """Without the extra the command says what to install."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['ingest', '--port', '0'];"
        "from doow_serverless.cli.main import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=10
    )
    assert (found.returncode, found.stdout, found.stderr) == (
        2,
        "",
        "doow-serverless needs more for its command line: install doow-serverless[local]\n",
    )
