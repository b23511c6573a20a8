"""Options and arguments that several commands share, and the data folder that they use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

DATA_DEFAULT = ".cotacoes"


def _folder(text: str) -> Path:
    if not text:  # an unset variable of a script; as a path it would be the current folder
        raise typer.BadParameter("the folder's name is empty: name a folder or leave the option out")
    return Path(text)


Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=_folder,
        help="data folder of the system; default: $COTACOES_DATA or ./.cotacoes",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Coin = Annotated[str, typer.Argument(metavar="COIN", help="for example bitcoin; case is ignored")]
Coins = Annotated[list[str] | None, typer.Argument(metavar="COIN", help="which coins; default: all")]
Since = Annotated[
    list[str] | None,
    typer.Option(metavar="POSITION", help="start after this position; for several coins repeat COIN=POSITION"),
]
Name = Annotated[str, typer.Argument(metavar="SERVICE", help="as `cotacoes status` names it, for example shard1")]
WithAgreement = Annotated[
    bool, typer.Option("--agreement", help="CSV with the columns state, confidence, used and of: how venues agreed")
]


def data_folder(given: Path | None) -> Path:
    """The given data folder, else the one in the environment, else the default."""
    return given or Path(os.environ.get("COTACOES_DATA") or DATA_DEFAULT)
