"""Times on the command line: RFC 3339, or a date, which means midnight UTC."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cotacoes.model.quote import format_time, parse_time

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)


def read_time(text: str) -> str:
    """The time as the services write it."""
    try:
        return format_time(parse_time(f"{text}T00:00:00Z" if _DATE.match(text) else text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or as a date, 2026-11-24") from error


From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", parser=read_time, help="start of the range; a date means midnight UTC"),
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", parser=read_time, help="end of the range, exclusive")]
