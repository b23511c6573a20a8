"""The commands: `cotacoes …`."""

from cotacoes.cli.app import main

__all__ = ["main"]
