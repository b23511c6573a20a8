"""`python -m cotacoes` and the script `cotacoes`.

Services of `up` are started here directly, without importing the libraries of the commands.
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from collections.abc import Callable

from cotacoes.errors.exit_codes import INTERRUPTED
from cotacoes.observability.printer import open_standard_streams

COMMAND_ALLOCATIONS = 50_000  # between two looks for garbage: a command still imports what it needs, and ends soon

_ALONE = {
    ("external-service",): ("external_service", "main"),
    ("feed-service",): ("feed_service", "main"),
    ("quote-service",): ("quote_service", "main"),
    ("aggregator-service",): ("aggregator_service", "main"),
    ("gateway-service",): ("gateway_service", "main"),
    ("client-subscriber", "--json"): ("client_subscriber", "main_json"),
}


def main() -> int:
    """Run the command line; returns the exit code."""
    open_standard_streams()
    gc.disable()  # imported objects stay: scanning them takes a sixth of the start
    try:
        run = _program(tuple(sys.argv[1:]))
    except KeyboardInterrupt:  # while it is still loading
        return INTERRUPTED
    gc.freeze()
    if not isinstance(run, functools.partial):
        gc.set_threshold(COMMAND_ALLOCATIONS)
    gc.enable()
    return run()


def _program(arguments: tuple[str, ...]) -> Callable[[], int]:
    """The program for these arguments, with all its imports."""
    if arguments not in _ALONE:
        from cotacoes import cli

        return cli.main
    name, function = _ALONE[arguments]
    from cotacoes.web.process import run_process

    return functools.partial(run_process, name, getattr(importlib.import_module(f"cotacoes.{name}.app"), function))


if __name__ == "__main__":
    sys.exit(main())
