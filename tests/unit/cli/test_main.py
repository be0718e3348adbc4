"""The command line as a whole: help, completion, and no traceback where nobody asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from doow_serverless.cli import main
from doow_serverless.cli.main import commands

COMMANDS = sorted(commands.commands)


def run(*arguments: str, program: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    code = f"{program}\nfrom doow_serverless.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_it_does(command: str) -> None:
    """Within 80 columns, and without a word of its own that nobody knows."""
    result = CliRunner().invoke(commands, [command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: commands {command}")
    assert max(map(len, result.output.splitlines())) <= 100


def test_the_commands_are_listed() -> None:
    """With a line for each."""
    result = CliRunner().invoke(commands, ["--help"])
    assert all(f"\n  {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The shell asks the program, which names its commands."""
    said = run("completion", shell).stdout
    assert "_DOOW_SERVERLESS_COMPLETE" in said
    words = {"bash": {"COMP_WORDS": "doow-serverless do", "COMP_CWORD": "1"},
             "zsh": {"COMP_WORDS": "doow-serverless do", "COMP_CWORD": "1"},
             "fish": {"COMP_WORDS": "doow-serverless do", "COMP_CWORD": "do"}}[shell]  # fmt: skip
    found = run(_DOOW_SERVERLESS_COMPLETE=f"{shell}_complete", **words).stdout
    assert "doctor" in found


BROKEN = """
from doow_serverless.cli import doctor
def fail(*_, **__):
    raise RuntimeError("no such \\x1b[2J thing")
doctor.run = fail
"""


def test_a_fault_is_a_line() -> None:
    """Its own exit status, and nothing that steers the terminal."""
    done = run("doctor", program=BROKEN)
    assert done.returncode == 70
    assert done.stderr.startswith("a fault of doow-serverless itself: RuntimeError: no such ")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_debug_shows_the_traceback() -> None:
    """For who asks for it."""
    done = run("--debug", "doctor", program=BROKEN)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_nothing_is_remembered() -> None:
    """Each run is for itself."""
    assert not main._debugs
