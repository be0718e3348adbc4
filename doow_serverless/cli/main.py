"""The command line: ``doow-serverless ingest`` and what else a developer runs by hand."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import threading
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from doow_serverless._redaction import clean
from doow_serverless._version import __version__

_EXTRA = {"rich", "starlette", "uvicorn", "yaml"}
"""Packages that the extra brings, beside click."""
_debugs = False
_EXTRA_MISSING = "doow-serverless needs more for its command line: install doow-serverless[local]"


def _exit_without_extra() -> NoReturn:
    sys.stderr.write(f"{_EXTRA_MISSING}\n")
    raise SystemExit(2)


try:
    import click
except ModuleNotFoundError:
    # This module is a program, imported by nothing but its entry points.
    _exit_without_extra()

#: Well formed and known to nobody: what a local ingest accepts unless it was given keys.
_LOCAL_KEY = "dk_" + "0" * 64
#: The first line keeps click from filling the others up.
_REPLAY_STATUS = """\b
Exit status:
  0    everything was delivered
  1    something is damaged, incomplete, unreadable, unsigned, rejected, or only
       looks like a record: see the list
  2    wrong arguments or configuration, or the key is refused
  3    something was not delivered, since the server was down: replay again
  130  interrupted
"""


_SEND_STATUS = """\b
Exit status:
  0    everything was delivered
  1    a line was malformed, or an event rejected
  2    wrong arguments or configuration
  3    something was not delivered: it is in the file --undelivered, for replay
  130  interrupted
"""


def main() -> None:
    """Run the command line; no traceback reaches who does not ask for it."""
    try:
        commands(prog_name="doow-serverless")
    except Exception as error:
        if _debugs:
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else ""
        if (missing or "").partition(".")[0] in _EXTRA:
            _exit_without_extra()
        sys.stderr.write(
            f"a fault of doow-serverless itself: {type(error).__name__}: {clean(str(error))}\n"
            "run it again as doow-serverless --debug …, and report what it prints\n"
        )
        raise SystemExit(70) from None


def _note_debug(_: object, __: object, debugs: bool) -> None:
    global _debugs
    _debugs = debugs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_note_debug,
    help="Show the traceback of a fault of this program.",
)
def commands() -> None:
    """Meter usage from serverless Python: tools for development.

    Begin with `doow-serverless ingest`, which stands for Doow on this machine and shows what it is
    sent; then have `doow-serverless doctor` prove the way to the real one.
    """


@commands.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print what has SHELL complete the names of commands and options.

    \b
      eval "$(doow-serverless completion bash)"                      # in ~/.bashrc
      eval "$(doow-serverless completion zsh)"                       # in ~/.zshrc
      doow-serverless completion fish | source                       # in config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # It is one of the choices.
    click.echo(kind(commands, {}, "doow-serverless", "_DOOW_SERVERLESS_COMPLETE").source())


class _Failure(click.ClickException):
    """One line on standard error, and exit status 2."""

    exit_code = 2


def _pair(text: str) -> tuple[str, str]:
    """``name=value``."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{text!r} is not of the form name=value")
    return name, value


def _exact(text: str) -> int | Decimal:
    """A number, digit by digit."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is no number") from None
    is_whole = value.is_finite() and value == value.to_integral_value() and abs(value) < 10**15
    return int(value) if is_whole else value


_PATIENCE = click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0),
    default=20,
    show_default=True,
    metavar="SECONDS",
    help="How long to go on if nothing gets through. Rate limits are always waited out.",
)


@commands.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True)
@click.option(
    "--database",
    type=click.Path(dir_okay=False),
    default=":memory:",
    help="Keep what arrives in this file; without it, in memory.",
)
@click.option("--key", "keys", multiple=True, help="Accept only this key; repeatable.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Answer 429 beyond so many events a minute; Doow's own limit is 1000.",
)
@click.option("--license", "licenses", multiple=True, help="Know only this one; repeatable.")
@click.option("--metric", "metrics", multiple=True, help="Know only this one; repeatable.")
def ingest(
    port: int,
    database: str,
    keys: tuple[str, ...],
    limit: int | None,
    licenses: tuple[str, ...],
    metrics: tuple[str, ...],
) -> None:
    """Receive events on this machine, as Doow's ingest does, and show them here and as a page."""
    from rich.console import Console

    from doow_serverless.cli.ingest_lines import line
    from doow_serverless.local import Ingest

    console = Console(highlight=False, soft_wrap=True)
    try:
        server = Ingest(
            database,
            keys=keys or None,
            port=port,
            events_per_minute=limit,
            licenses=licenses or None,
            metrics=metrics or None,
            on_post=lambda post: console.print(line(post)),
        )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise _Failure(
            f"cannot listen on port {port}: {reason}; choose another with --port"
        ) from None
    except ValueError as error:
        raise _Failure(f"--key: {error}") from None
    except sqlite3.Error as error:
        raise _Failure(f"cannot use {database} as a database: {error}") from None
    # A key that the user gave is theirs: it is not shown.
    key = "<a key given with --key>" if keys else _LOCAL_KEY
    # Ctrl-C is the usual way to end it, so no error.
    with contextlib.suppress(KeyboardInterrupt), server:
        console.print(f"Doow's ingest, on this machine: {server.url}   (Ctrl-C ends it)")
        console.print(f"export DOOW_TRACK_ENDPOINT={server.url}")
        console.print(f"export DOOW_TRACK_API_KEY={key}")
        threading.Event().wait()


@commands.command(epilog=_REPLAY_STATUS)
@click.argument("files", nargs=-1, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would be delivered; needs no key.")
@click.option(
    "--since",
    metavar="TIME",
    help="Leave out what is older: 2026-11-22T11:33:00Z (UTC unless it says otherwise), or how "
    "long ago, such as 90m, 2h, 3d.",
)
@click.option(
    "--until",
    metavar="TIME",
    help="Leave out what is later, in the same words: what a relay has delivered since, say.",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep a list of what is delivered in FILE, and leave out what it names.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="EVENTS_PER_MINUTE",
    help="Send no more, so that room is left for what is recorded now: Doow takes 1,000 a minute "
    "from an organization.  [default: as fast as Doow allows]",
)
@click.option(
    "--fold",
    metavar="METRICS",
    help="Make one event of those that say the same, which is right for metrics that Doow adds up: "
    "true, or metrics with commas between. Only what was to go by the log folds. With the same "
    "FILES again, or --resume, nothing counts twice.",
)
@_PATIENCE
def replay(files: tuple[Path, ...], **options: Any) -> None:
    """Deliver the records in FILES: exported logs, gzip too, or directories of them.

    FILES are text, JSON or CSV as AWS, Vercel, Azure and container runtimes export logs. A record
    is a whole line of the log. Text that only contains one is counted and listed, not delivered.

    Without FILES, or with -, standard input is read. Doow counts no batch twice, so it is safe to
    replay the same logs again.

    The key and the endpoint come from the environment: DOOW_TRACK_API_KEY, DOOW_TRACK_ENDPOINT.
    """
    from doow_serverless.cli.replay import run
    from doow_serverless.cli.statuses import INTERRUPTED
    from doow_serverless.errors import ConfigurationError

    try:
        status = run(list(files), **options)
    except KeyboardInterrupt:
        status = INTERRUPTED  # Before it began, or while it summed up.
    except (ConfigurationError, OSError) as error:
        raise _Failure(str(error)) from None
    raise SystemExit(status)


@commands.command(epilog=_SEND_STATUS)
@click.argument("files", nargs=-1, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--metric", help="Send one event of this metric; without it, lines are read.")
@click.option("--quantity", type=_exact, metavar="NUMBER", help="How much of it.  [default: 1]")
@click.option("--license-id", help="Its license.  [default: DOOW_TRACK_LICENSE_ID]")
@click.option("--unit", help="A label, such as tokens.")
@click.option(
    "--attribution",
    type=_pair,
    metavar="NAME=VALUE",
    multiple=True,
    help="Say this of it, too; repeatable.",
)
@click.option("--timestamp", help="When it happened, such as 2026-11-22T11:33:00Z.  [default: now]")
@click.option("--kind", type=click.Choice(["USAGE", "ADJUSTMENT"]), help="[default: USAGE]")
@click.option("--event-id", help="Your own id of it.  [default: a random one]")
@click.option(
    "--undelivered",
    type=click.Path(dir_okay=False, path_type=Path),
    default="doow-undelivered.jsonl",
    show_default=True,
    metavar="FILE",
    help="Add what could not be delivered to FILE, for replay.",
)
@_PATIENCE
def send(
    files: tuple[Path, ...],
    undelivered: Path,
    patience_s: float,
    **event: Any,
) -> None:
    r"""Send one event, or those of FILES, which hold a JSON object in each line.

    \b
      doow-serverless send --metric tokens --quantity 812 --license-id lic_acme \
        --unit tokens --attribution model=gpt-4o
      echo '{"metric": "builds", "quantity": 1, "license_id": "lic_acme"}' | doow-serverless send

    The lines are those of Doow's own doow-track: metric, quantity, license_id, and, if need be,
    unit, attribution, timestamp, kind, metadata, event_id, source_system, metric_tuple_hint.
    Without FILES, or with -, standard input is read until it ends; what waits for long is sent
    meanwhile. Lines that cannot be read are told by their number, and skipped.

    The key and the endpoint come from the environment: DOOW_TRACK_API_KEY, DOOW_TRACK_ENDPOINT.
    """
    from doow_serverless.cli.send import run
    from doow_serverless.errors import ConfigurationError

    said = {name: value for name, value in event.items() if value not in (None, ())}
    if event["metric"] is None and said:
        option = next(iter(said)).replace("_", "-")
        raise click.UsageError(f"--{option} says something of one event: add --metric")
    if event["metric"] is not None and files:
        raise click.UsageError("--metric sends one event: leave out FILES")
    if "attribution" in said:
        said["attribution"] = dict(said["attribution"])
    try:
        status = run(
            list(files),
            said or None,
            undelivered=undelivered,
            patience_s=patience_s,
        )
    except ConfigurationError as error:
        raise _Failure(str(error)) from None
    raise SystemExit(status)


@commands.command()
@click.argument("target")
@click.option(
    "--event", type=click.File("rb"), metavar="FILE", help="JSON to invoke with; - reads it."
)
@click.option("--function", help="Of a folder of Azure: which of its functions.")
@click.option("--license-id", help="Of events that name none.")
@click.option(
    "--python", metavar="PATH", help="The interpreter that has the runtime.  [default: this one]"
)
def invoke(
    target: str,
    event: BinaryIO | None,
    function: str | None,
    license_id: str | None,
    python: str | None,
) -> None:
    r"""Invoke a handler once through its platform's own runtime, delivering to a local ingest.

    \b
      doow-serverless invoke app:handler --event event.json         # AWS Lambda
      doow-serverless invoke api/index.py --event request.json      # Vercel
      doow-serverless invoke . --function summarise --event …       # Azure Functions

    It shows the answer, how long it took and how much of that was delivery, and what arrived. A
    request of HTTP, on Vercel and Azure, is an object with method, path, headers, body and
    route_params; anything else is the body of a POST, or of a message.
    """
    from doow_serverless.cli.invoke import run
    from doow_serverless.cli.invoking import Target

    try:
        content = json.load(event) if event is not None else None
    except ValueError as problem:
        raise _Failure(f"--event: {problem}") from None
    made = Target(target, content, function, python or sys.executable)
    raise SystemExit(run(made, license_id=license_id))


@commands.command()
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--metric", default="api_calls", show_default=True, help="Of the test event.")
@click.option("--license-id", help="Of the test event.  [default: DOOW_TRACK_LICENSE_ID]")
@click.option("--no-send", is_flag=True, help="Send no test event.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: ok, and checks.")
def doctor(
    files: tuple[Path, ...], metric: str, license_id: str | None, no_send: bool, as_json: bool
) -> None:
    """Check the way to Doow, with one test event, and FILES for mistakes that stay silent.

    FILES are modules with handlers, and template.yaml, serverless.yml, vercel.json or host.json.
    Nothing of them is run. The key and the endpoint come from the environment: DOOW_TRACK_API_KEY,
    DOOW_TRACK_ENDPOINT. The status is 0 where all is well, else 1.
    """
    from doow_serverless.cli.doctor import run

    raise SystemExit(
        run(
            list(files),
            send=not no_send,
            metric=metric,
            license_id=license_id,
            as_json=as_json,
        )
    )


@commands.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
def check(files: tuple[Path, ...]) -> None:
    """Say what Vercel's build makes of FILES, and what it passes over in silence.

    Nothing is run. The status is 1 where a file becomes no function, or one without its meter.
    """
    from doow_serverless.local.vercel.entry_point import entry_point, problems

    found = 0
    for file in files:
        try:
            source = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _Failure(f"cannot read {file}: {error}") from None
        complaints = problems(source)
        found += len(complaints)
        for complaint in complaints or [f"Vercel serves {entry_point(source)}"]:
            click.echo(f"{file}: {complaint}")
    raise SystemExit(1 if found else 0)
