"""How venues agreed on a price goes with it unchanged, from the page of its source to every answer, file and shard."""

import asyncio
import csv
import io
import json
import threading
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.contract.conftest import psql
from tests.harness_agreements import AGREEMENTS, agreement_of
from tests.system.conftest import System, wait_until

from cotacoes.client import Client, Quote
from cotacoes.config import SHARDS
from cotacoes.model.live_message import encode_quote
from cotacoes.model.quote import Agreement, agreement_fields

COIN = "bitcoin"
COUNT = 121  # so that the newest one has an agreement
EVERY = timedelta(milliseconds=150)
TAPE = {"COTACOES_SOURCE_MODE": "tape", "COTACOES_POLL_INTERVAL_S": "0.1"}
FIELDS = tuple(AGREEMENTS[0].__struct_fields__)
LIMIT_S = 60.0

Shown = dict[str, Mapping[str, Any]]  # the agreement of each price, as it is written; the prices are all different


def expected() -> Shown:
    return {f"{67_000 + number}.50": agreement_fields(agreement_of(number)) for number in range(COUNT)}


def recording(file: Path) -> Path:
    """A recording as `cotacoes record` writes it, with a quote of each agreement and of none."""
    start = datetime(2026, 11, 24, tzinfo=UTC)
    lines = [b'{"v":1,"type":"recording","started_at":"2026-11-24T00:00:00.000000Z","coins":["bitcoin"]}']
    for number, price in enumerate(expected()):
        at = start + number * EVERY
        one = Quote(COIN, "USD", Decimal(price), 5, number + 1, at, at, "consensus", agreement=agreement_of(number))
        lines.append(encode_quote(one))
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


def shown_in(rows: Iterable[Mapping[str, Any]]) -> Shown:
    return {row["price"]: {name: row[name] for name in FIELDS if name in row} for row in rows}


def shown_by(quotes: Iterable[Quote]) -> Shown:
    return {str(quote.price): agreement_fields(quote.agreement) for quote in quotes}


def ndjson(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Listener(threading.Thread):
    """What the gateway sends over a stream, until all prices have come."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.shown: Shown = {}

    @property
    def is_complete(self) -> bool:
        return len(self.shown) >= COUNT


class EventStreamListener(Listener):
    """Server-sent events, from the first quote on."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = f"{url}/v1/stream?coins={COIN}&since={COIN}:1-1"

    def run(self) -> None:
        with urllib.request.urlopen(self._url, timeout=LIMIT_S) as response:
            for line in response:
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if event["type"] == "quote":
                        self.shown |= shown_in([event])
                if self.is_complete:
                    return


class ClientListener(Listener):
    """The Python client over a WebSocket."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        async with Client(self._url) as client:
            async for event in client.stream(COIN, since="1-1"):
                if isinstance(event, Quote):
                    self.shown |= shown_by([event])
                if self.is_complete:
                    return


async def history_of(url: str) -> list[Quote]:
    async with Client(url) as client:
        return [one async for one in client.history(COIN, last=COUNT) if isinstance(one, Quote)]


async def current_of(url: str) -> Quote:
    async with Client(url) as client:
        return (await client.quote(COIN)).quote


def stored_in(system: System) -> Shown:
    """The agreements in the rows of the shards."""
    rows = [
        row.split("|")
        for shard in SHARDS
        for row in psql(
            system.dsn(shard),
            "SELECT price, agreement FROM quote AS q JOIN fence AS f USING (coin_id) WHERE f.state = 'open'",
        ).splitlines()
    ]
    return {price: agreement_fields(Agreement.parse(text) if text else None) for price, text in rows}


def test_an_agreement_arrives_everywhere_as_its_source_stated_it(tmp_path: Path) -> None:
    source = recording(tmp_path / "agreed.ndjson")
    again = tmp_path / "again.ndjson"
    options = ("--source", f"replay:{source}", "--failure-rate", "0")
    with System(tmp_path / "data", *options, environment=TAPE) as system:
        system.start()
        gateway = system.url("gateway_service")
        listeners = [EventStreamListener(gateway), ClientListener(gateway)]
        for listener in listeners:
            listener.start()
        system.cli("record", "--out", str(again), "--for", "3", COIN)
        wait_until("the whole recording is in the shards", lambda: len(stored_in(system)) == COUNT, LIMIT_S)

        assert stored_in(system) == expected()
        page = ndjson(system.cli("history", COIN, "--last", str(COUNT), "--json").stdout)
        assert shown_in(page) == expected()
        assert shown_by(asyncio.run(history_of(gateway))) == expected()
        check_answers(system, gateway)
        check_exports(system)
        check_recording(again)
        for listener in listeners:
            listener.join(LIMIT_S)
            assert listener.shown == expected(), listener
        check_subscriber(system)
        check_move(system)


def check_answers(system: System, gateway: str) -> None:
    price = list(expected())[-1]
    newest = expected()[price]
    current = system.get("quote_service", f"/cotacao_atual/{COIN}").body
    assert shown_in([current]) == {price: newest}
    assert shown_by([asyncio.run(current_of(gateway))]) == {price: newest}
    report = system.get("aggregator_service", "/report/full").body["coins"][COIN]
    assert shown_in([report["current"]]) == {price: newest}
    assert report["last_logs"]
    assert shown_in(report["last_logs"]).items() <= expected().items()


def check_exports(system: System) -> None:
    lines = ndjson(system.cli("export", COIN, "--format", "ndjson").stdout)
    assert shown_in(lines) == expected()
    plain = list(csv.DictReader(io.StringIO(system.cli("export", COIN).stdout)))
    assert (len(plain), set(FIELDS) & set(plain[0])) == (COUNT, set())
    rows = csv.DictReader(io.StringIO(system.cli("export", COIN, "--agreement").stdout))
    found = [row | {"used": int(row["used"]), "of": int(row["of"])} if row["state"] else without(row) for row in rows]
    assert shown_in(found) == expected()


def without(row: Mapping[str, str]) -> dict[str, str]:
    assert {row[name] for name in FIELDS} == {""}
    return {name: value for name, value in row.items() if name not in FIELDS}


def check_recording(file: Path) -> None:
    quotes = [line for line in ndjson(file.read_text()) if line["type"] == "quote"]
    assert len(quotes) > 5
    assert shown_in(quotes).items() <= expected().items()


def check_subscriber(system: System) -> None:
    shown = shown_in(event for event in list(system.events) if event["type"] == "quote")
    assert len(shown) > 5
    assert shown.items() <= expected().items()


def check_move(system: System) -> None:
    assert system.cli("shards", "move", COIN, "--to", "shard2").returncode == 0
    assert stored_in(system) == expected()
    assert shown_in(ndjson(system.cli("history", COIN, "--last", str(COUNT), "--json").stdout)) == expected()
    done = system.cli("audit")
    assert done.returncode == 0, done.stdout
