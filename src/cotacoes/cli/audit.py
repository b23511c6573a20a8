"""`cotacoes audit`: the proof, shown while it is made."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Data
from cotacoes.cli.output import put, put_json
from cotacoes.up import control

if TYPE_CHECKING:
    from cotacoes.admin.audit import Audit  # slow to import, and only needed here
    from cotacoes.admin.audit_snapshot import CoinAudit

EXIT_CODES = {"right": 0, "wrong": 1, "incomplete": 4}

app = typer.Typer()


@app.command()
def audit(
    coin: Annotated[str | None, typer.Option(metavar="COIN", help="audit only this coin")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Prove that no quote is lost and none is doubled.

    \b
    Examples:
      cotacoes audit
      cotacoes audit --coin bitcoin
      cotacoes audit --json > audit.ndjson

    Reads every day of every coin on every shard while the system runs, and changes nothing. Exit code 1 if something
    is wrong, 4 if a shard did not answer.
    """
    return show(queries.find_system(data, control.ask), coin, as_json=as_json)


def show(environment: Mapping[str, str], coin: str | None, *, as_json: bool) -> int:
    """Audit the system of this environment, print the result, and return the exit code."""
    from cotacoes import config
    from cotacoes.admin import audit as proof

    settings = config.load(environment)
    progress = ProgressLine(is_shown=sys.stderr.isatty())

    def show_coin(one: CoinAudit) -> None:
        progress.clear()
        if as_json:
            put_json(coin_json(one))
        else:
            for line in coin_lines(one):
                put(line)

    try:
        found = asyncio.run(proof.main(settings, coin=coin and coin.lower(), on_coin=show_coin, say=progress.show))
    finally:
        progress.clear()
    if as_json:
        put_json(verdict_json(found))
    else:
        put(verdict_line(found))
    return EXIT_CODES[found.verdict]


class ProgressLine:
    """One line on the terminal that is overwritten, and erased at the end; nothing if there is no terminal."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._is_shown:
            sys.stderr.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Erase the line."""
        self.show("")


def coin_lines(one: CoinAudit) -> Iterator[str]:
    """A line for the coin, then one for each breach and one for each note."""
    if one.away is not None:
        yield f"{one.coin}  {one.shard or '-'}  not audited: {one.away}"
    elif one.shard is not None and not one.is_survey:
        yield f"{one.coin}  {one.shard}  {_size(one)}  {_state(one)}"
    for shard, breach in one.breaches:
        yield f"{one.coin}  {shard}  wrong  {breach}"
    if one.wrong > len(one.breaches):
        yield f"{one.coin}  {one.shard or '-'}  wrong  and {one.wrong - len(one.breaches):,} more"
    for shard, note in one.notes:
        yield f"{one.coin}  {shard}  noted  {note}"


def _size(one: CoinAudit) -> str:
    days = _number(one.days, "day") + (f" ({one.dropped_days:,} dropped)" if one.dropped_days else "")
    return ", ".join((_number(one.epochs, "epoch"), days, _number(one.quotes, "quote"), _number(one.candles, "candle")))


def _state(one: CoinAudit) -> str:
    words = [f"{one.wrong:,} wrong" if one.wrong else "ok"]
    if one.pending is None:
        words.append("pending unknown")
    elif one.pending:
        words.append(f"{one.pending:,} pending")
    if one.conflicts:
        words.append(f"{_number(one.conflicts, 'conflict')} kept aside")
    if one.orphans:
        words.append(f"{_number(one.orphans, 'orphan')} kept aside")
    if one.holes:
        words.append(_number(one.holes, "hole"))
    return ", ".join(words)


def verdict_line(found: Audit) -> str:
    """The verdict in one sentence."""
    read = f"{_number(found.quotes, 'quote')} and {_number(found.candles, 'candle')} of {_number(found.coins, 'coin')}"
    pending = f"; {found.pending:,} pending" if found.pending else ""
    if found.unknown:
        pending += f"; what is pending is unknown for {_number(found.unknown, 'coin')}, as quote_service does not say"
    away = ", ".join(found.away.values())
    unproven = f"the audit is not complete: {away or ', '.join(found.unproven)}"
    if found.verdict == "wrong":
        rest = f"; {unproven}" if away or found.unproven else ""
        return f"{_number(found.wrong, 'thing')} wrong, in {', '.join(found.wrong_in)}: of {read}{pending}{rest}"
    if found.verdict == "incomplete":
        return f"{unproven}; nothing is wrong in the rest: {read}{pending}"
    return f"nothing is wrong: {read}, on {_number(found.shards, 'shard')}{pending}"


def coin_json(one: CoinAudit) -> dict[str, Any]:
    """The audit of a coin, for programs."""
    fields = {name: value for name, value in vars(one).items() if name not in {"epochs", "breaches", "notes"}}
    breaches = [{"shard": shard, **breach._asdict()} for shard, breach in one.breaches]
    notes = [{"shard": shard, "text": text} for shard, text in one.notes]
    return {"type": "audit", **fields, "eras": one.epochs, "breaches": breaches, "notes": notes}


def verdict_json(found: Audit) -> dict[str, Any]:
    """The verdict, for programs."""
    return {"type": "verdict", "verdict": str(found.verdict), **vars(found)}


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
