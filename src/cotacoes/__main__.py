"""`python -m cotacoes` and the script `cotacoes`.

A service of `up` is started here directly: it needs neither the commands' libraries nor the time that they take.
"""

from __future__ import annotations

import importlib
import sys

from cotacoes.printer import open_standard_streams

INTERRUPTED_EXIT_CODE = 130

_ALONE = {
    ("external-service",): ("external_service", "main"),
    ("quote-service",): ("quote_service", "main"),
    ("aggregator-service",): ("aggregator_service", "main"),
    ("gateway-service",): ("gateway_service", "main"),
    ("client-subscriber", "--json"): ("client_subscriber", "main_json"),
}


def main() -> int:
    """Run what the command line says; the exit code."""
    open_standard_streams()
    alone = _ALONE.get(tuple(sys.argv[1:]))
    if alone is None:
        try:
            from cotacoes import cli
        except KeyboardInterrupt:  # while it is still loading
            return INTERRUPTED_EXIT_CODE
        return cli.main()
    name, function = alone
    from cotacoes.service.process import run_process

    return run_process(name, getattr(importlib.import_module(f"cotacoes.{name}.app"), function))


if __name__ == "__main__":
    sys.exit(main())
