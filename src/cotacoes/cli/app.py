"""The root of the commands, and how each of them ends.

Exit codes: 0 ok, 1 failure, 2 usage or settings, 3 stale, 4 unavailable, 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

import cotacoes
from cotacoes.cli.output import flush, put, say
from cotacoes.errors import CotacoesError, OutputError, ProblemError, RequestError, SettingError, UnavailableError
from cotacoes.errors.exit_codes import FAILURE, INTERRUPTED, OK, UNAVAILABLE, USAGE

_NOT_WRITABLE = {errno.EBADF, errno.ENOSPC, errno.EIO}

# The commands by the module that has them, in the order of the help. A module imports what only running a command
# needs when it runs: `--help` loads all modules, a command its own.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "system": ("up", "status", "env", "stop", "start", "pause", "freeze", "down"),
    "doctor": ("doctor",),
    "quotes": ("watch", "record", "quote", "report", "history", "candles", "export", "faults"),
    "venues": ("venues",),
    "breakers": ("breakers",),
    "coins": ("coins",),
    "shards": ("shards", "directory"),
    "discrepancies": ("ledger",),
    "audit": ("audit",),
    "services": (
        *("migrate", "external-service", "feed-service", "quote-service", "aggregator-service", "gateway-service"),
        "client-subscriber",
    ),
}


def application(command: str | None = None) -> typer.Typer:
    """The root with this command alone, or with all commands if no command has this name."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,  # plain help, the same on a terminal and in a pipe
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    home = next((module for module, commands in COMMANDS.items() if command in commands), None)
    if home is None:
        for module in COMMANDS:
            app.add_typer(_commands_of(module))
    else:
        known = _commands_of(home)
        app.registered_commands = [one for one in known.registered_commands if _name(one) == command]
        app.registered_groups = [one for one in known.registered_groups if one.name == command]
    return app


def _commands_of(module: str) -> typer.Typer:
    found = importlib.import_module(f"cotacoes.cli.{module}").app
    assert isinstance(found, typer.Typer)
    return found


def _name(command: typer.models.CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__.replace("_", "-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> object:
        command = typer.main.get_command(application(given[0] if given else None))
        with command.make_context("cotacoes", given) as context:
            return command.invoke(context)

    return ended(run)


def ended(run: Callable[[], object]) -> int:
    """Call `run` and return the exit code for its result or its error; an error is one sentence on stderr."""
    code = OK
    try:
        code = _code(run)
        flush()
    except BrokenPipeError:  # the reader has what it wanted
        _give_up_stdout()
    except OutputError as error:
        _give_up_stdout()
        say(f"cotacoes: {error}")
        return FAILURE
    return code


def _code(run: Callable[[], object]) -> int:
    try:
        code = run()
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        asked = getattr(getattr(error, "ctx", None), "command_path", "cotacoes")
        say(f"cotacoes: {error.format_message()} ({asked} --help)")
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputError:
        raise
    except CotacoesError as error:
        say(f"cotacoes: {_in_words(error)}")
        return _exit_code(error)
    except OSError as error:  # the help is written by its library
        if error.errno not in _NOT_WRITABLE or error.filename is not None:
            raise
        raise OutputError.of(error) from error
    return code if isinstance(code, int) else OK


def _give_up_stdout() -> None:
    """Discard what is still buffered: the interpreter would try to write it once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _exit_code(error: CotacoesError) -> int:
    if isinstance(error, SettingError | RequestError):
        return USAGE
    return UNAVAILABLE if isinstance(error, UnavailableError) else FAILURE


def _in_words(error: CotacoesError) -> str:
    if not isinstance(error, ProblemError):
        return str(error)
    near = error.extra.get("did_you_mean")
    return (
        f"{error.detail}: did you mean {' or '.join(map(str, near))}?"
        if isinstance(near, list) and near
        else error.detail
    )


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit", is_eager=True)] = False,
) -> None:
    """A crypto price feed that you run yourself and can pull the plug on.

    \b
    Examples:
      cotacoes up                             start the whole system and show live quotes
      cotacoes up --source exchanges          the same, with real prices of six exchanges
      cotacoes quote bitcoin                  the current price and its age
      cotacoes report                         prices, means and recent history of every coin
      cotacoes history ethereum --last 5      the latest recorded prices
      cotacoes faults error_rate=1 for_s=20   make the source fail for 20 s
      cotacoes stop shard1                    pull a plug; `cotacoes start shard1` plugs it in
      cotacoes status                         what runs, and where
      cotacoes doctor                         find what is wrong, and what fixes it
      cotacoes shards move bitcoin --to shard2
                                              move a coin while everything runs
      cotacoes audit                          prove that no quote is lost or duplicated
    """
    if version:
        put(f"cotacoes {cotacoes.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stderr.write(f"{context.get_help()}\n")
        raise typer.Exit(USAGE)
