"""`cotacoes ledger`: holes of the history, and recorded quotes that are not in it."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Coin, Data, WithAgreement
from cotacoes.cli.output import AGREEMENT_COLUMNS, printable, put, put_json, put_table, put_text, say
from cotacoes.errors import SettingError
from cotacoes.model.quote import QuoteJson, agreement_fields, format_time

if TYPE_CHECKING:
    from cotacoes import config
    from cotacoes.adapters.postgres.discrepancies import Discrepancy, Orphan

LIST_COLUMNS = ("noted", "coin", "kind", "where", "quotes", "reason", "accepted")
ORPHAN_COLUMNS = (
    "coin",
    "position",
    "at",
    "observed_at",
    "price",
    "currency",
    "origin",
    "reason",
    "noted_at",
    "accepted_at",
)

app = typer.Typer()
ledger_app = typer.Typer(help="List and accept holes and orphans of the history.")
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("list")
def list_all(
    coin: Annotated[str | None, typer.Option(metavar="COIN", help="list only this coin")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List every hole and every batch of orphans, oldest first.

    \b
    Examples:
      cotacoes ledger list
      cotacoes ledger list --coin bitcoin --json
    """
    from cotacoes.admin import discrepancies

    found = asyncio.run(discrepancies.found(queries.settings_of(data), coin and coin.lower()))
    if as_json:
        for one in found:
            put_json(_fields(one))
        return
    put_table(LIST_COLUMNS, [_row(one) for one in found])


@ledger_app.command()
def export(
    coin: Coin,
    agreement: WithAgreement = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write the orphans of a coin as CSV or as lines of JSON, with every digit as recorded.

    \b
    Examples:
      cotacoes ledger export bitcoin > orphans.csv
      cotacoes ledger export bitcoin --json > orphans.ndjson
    """
    asyncio.run(_export(queries.settings_of(data), coin.lower(), as_json=as_json, has_agreement=agreement))


@ledger_app.command()
def accept(
    coin: Annotated[str | None, typer.Argument(metavar="COIN", help="for example bitcoin, in any case")] = None,
    everything: Annotated[bool, typer.Option("--all", help="accept those of every coin")] = False,
    data: Data = None,
) -> None:
    """Accept the discrepancies of a coin so far, so that the audit, /readyz and the metrics raise no alarm for them.

    \b
    Examples:
      cotacoes ledger accept bitcoin
      cotacoes ledger accept --all

    Nothing is deleted: they stay listed, and readers still get a gap for each hole.
    """
    from cotacoes.admin import directory, discrepancies

    if (coin is None) != everything:
        raise SettingError("name one coin or give --all")
    settings = queries.settings_of(data)
    coins = [coin.lower()] if coin is not None else list(asyncio.run(directory.read(settings)).homes)
    for name in coins:
        holes, orphans = asyncio.run(discrepancies.accept(settings, name))
        if holes or orphans or coin is not None:
            put(f"{name}: accepted {holes} holes, {orphans} orphans")
    say("accepted")


async def _export(settings: config.Settings, coin: str, *, as_json: bool, has_agreement: bool) -> None:
    from cotacoes.admin import discrepancies

    columns = ORPHAN_COLUMNS + AGREEMENT_COLUMNS if has_agreement else ORPHAN_COLUMNS
    if not as_json:
        put(",".join(columns))
    async for one in discrepancies.orphans(settings, coin):
        fields = dict(zip(ORPHAN_COLUMNS, _cells(one), strict=True)) | agreement_fields(one.quote.agreement)
        if as_json:
            put_json(fields)
        else:
            written = io.StringIO()
            cells = [fields.get(column) for column in columns]
            csv.writer(written, lineterminator="\n").writerow(
                ["" if cell is None else printable(str(cell)) for cell in cells]
            )
            put_text(written.getvalue())


def _cells(one: Orphan) -> tuple[str | None, ...]:
    quote = QuoteJson.from_quote(one.quote)
    return (
        quote.coin,
        str(one.quote.position),
        quote.at,
        quote.observed_at,
        quote.price,
        quote.currency,
        quote.origin,
        one.reason,
        format_time(one.noted_at),
        _time(one.accepted_at),
    )


def _fields(one: Discrepancy) -> dict[str, Any]:
    first = None if one.first is None else str(one.first)
    bounds = {"after": first, "next": str(one.last)} if one.kind == "hole" else {"first": first, "last": str(one.last)}
    return {
        "type": one.kind,
        "coin": one.coin,
        **bounds,
        **({} if one.count is None else {"quotes": one.count}),
        "reason": one.reason,
        "noted_at": format_time(one.noted_at),
        "accepted_at": _time(one.accepted_at),
    }


def _row(one: Discrepancy) -> tuple[object, ...]:
    where = (
        f"between {one.first or 'the beginning'} and {one.last}" if one.kind == "hole" else f"{one.first}..{one.last}"
    )
    accepted = "no" if one.accepted_at is None else f"{format_time(one.accepted_at)[:19]}Z"
    count = "?" if one.count is None else one.count
    return f"{format_time(one.noted_at)[:19]}Z", one.coin, one.kind, where, count, one.reason, accepted


def _time(at: datetime | None) -> str | None:
    return None if at is None else format_time(at)
