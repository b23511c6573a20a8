"""Options and arguments that several commands share, and the data folder they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

DATA_DEFAULT = ".cotacoes"


def _folder(text: str) -> Path:
    if not text:  # an unset variable of a script; as a path it would be the current folder
        raise typer.BadParameter("it is empty: name a folder, or leave the option out")
    return Path(text)


Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=_folder,
        help="data folder of `cotacoes up`; else $COTACOES_DATA, else ./.cotacoes",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs")]
Coin = Annotated[str, typer.Argument(metavar="COIN", help="for example bitcoin, in any case")]
Coins = Annotated[list[str] | None, typer.Argument(metavar="COIN", help="which coins; none named: all")]
Since = Annotated[
    list[str] | None,
    typer.Option(metavar="POSITION", help="all after this position first; COIN=POSITION, again for each of several"),
]
Service = Annotated[str, typer.Argument(metavar="PART", help="as `cotacoes status` names it, for example shard1")]


def data_folder(given: Path | None) -> Path:
    """The data folder that is meant: the one given, else that of the environment, else the default."""
    return given or Path(os.environ.get("COTACOES_DATA") or DATA_DEFAULT)
