"""Formats of settings: each rejects a text that it cannot read, and says how to write it."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from cotacoes.model.quote import COIN_PATTERN, CURRENCY_PATTERN
from cotacoes.model.venue_symbols import CURRENCIES, VENUE_NAMES, currency_of

SHARDS = ("shard1", "shard2")
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\]|[0-9a-f]*:[0-9a-f:.]+)\Z", re.ASCII)
_TOKEN = re.compile(r"[!-~]*\Z", re.ASCII)
_VENUE_SYMBOL = re.compile(r"[A-Za-z0-9/:._-]{1,32}\Z", re.ASCII)
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+\Z", re.ASCII)


def _source(text: str) -> str:
    if text not in ("sim", "venues", "exchanges") and not (text.startswith("replay:") and text != "replay:"):
        raise ValueError("write sim, replay:PATH[,PATH…], venues or exchanges")
    return text


def _venues(text: str) -> str:
    names = text.split(",")
    if unknown := [name for name in names if name not in VENUE_NAMES]:
        raise ValueError(f"{unknown[0][:32]!r} is no venue: write VENUE,… with venues of {', '.join(VENUE_NAMES)}")
    if len(set(names)) != len(names):
        raise ValueError("name each venue once")
    return text


def _venue_urls(text: str) -> str:
    for item in filter(None, text.split(",")):
        venue, _, url = item.partition("=")
        if venue not in VENUE_NAMES or not url.startswith(("ws://", "wss://")):
            raise ValueError(f"write VENUE=wss://…,… with venues of {', '.join(VENUE_NAMES)}")
    return text


def _coins(text: str) -> str:
    for item in text.split(","):
        coin, _, shard = item.partition(":")
        if not COIN_PATTERN.match(coin) or shard not in SHARDS:
            raise ValueError(f"write COIN:SHARD,… with coins of [a-z0-9-]{{1,32}} and shards of {', '.join(SHARDS)}")
    names = [item.partition(":")[0] for item in text.split(",")]
    if len(set(names)) != len(names) or len(names) > 1000:
        raise ValueError("name each coin once, at most 1000 of them")
    return text


def _speed(given: object) -> object:
    return math.inf if given == "max" else given


def _speed_in_range(speed: float) -> float:
    if not (0.01 <= speed <= 1000 or speed == math.inf):
        raise ValueError("write a number ≥ 0.01 and ≤ 1000, or max")
    return speed


def _pairs(text: str) -> str:
    for item in filter(None, text.split(",")):
        *name, coin, currency = ["", "", *item.rsplit(":", 2)]  # a pair may have a colon, as BTC/USDT:USDT
        if not (name[-1] and COIN_PATTERN.match(coin) and CURRENCY_PATTERN.match(currency)):
            raise ValueError("write PAIR:COIN:CURRENCY,… as in SOLUSDT:solana:USDT")
    return text


def _venue_symbols(text: str) -> str:
    for item in filter(None, text.split(",")):
        venue, coin, symbol = [*item.split(":", 2), "?", "?"][:3]  # a symbol may have a colon, as tLINK:USD
        if venue not in VENUE_NAMES or not COIN_PATTERN.match(coin) or (symbol and not _VENUE_SYMBOL.match(symbol)):
            raise ValueError(
                f"write VENUE:COIN:SYMBOL,… as in kraken:solana:SOL/USD; venues are {', '.join(VENUE_NAMES)}"
            )
        if symbol and currency_of(venue, symbol) is None:
            raise ValueError(f"{symbol} does not end as {venue} writes {', '.join(CURRENCIES)}")
    return text


def _origins(text: str) -> str:
    for origin in filter(None, text.split(",")):
        if not _ORIGIN.match(origin):
            raise ValueError("write origins as browsers do: https://HOST[:PORT],…, in lower case, without a path")
    return text


def _hosts(text: str) -> str:
    for host in filter(None, text.split(",")):
        if not _HOST.match(host):
            raise ValueError("write hosts as clients name them: HOST,…, in lower case, without a scheme or a port")
    return text


def _token(text: SecretStr) -> SecretStr:
    if not _TOKEN.match(text.get_secret_value()):
        raise ValueError("write ASCII letters, digits and punctuation, without spaces: it is sent in a header")
    return text


def _url(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        if text and not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"write {' or '.join(f'{scheme}://…' for scheme in schemes)}")
        return text.rstrip("/")

    return AfterValidator(check)


HttpUrl = Annotated[str, _url("http", "https")]
RedisUrl = Annotated[str, _url("redis", "rediss")]
Dsn = Annotated[str, _url("postgresql", "postgres")]
Source = Annotated[str, AfterValidator(_source)]
Coins = Annotated[str, AfterValidator(_coins)]
Speed = Annotated[float, BeforeValidator(_speed), AfterValidator(_speed_in_range)]
Pairs = Annotated[str, AfterValidator(_pairs)]
Venues = Annotated[str, AfterValidator(_venues)]
VenueUrls = Annotated[str, AfterValidator(_venue_urls)]
VenueSymbols = Annotated[str, AfterValidator(_venue_symbols)]
Hosts = Annotated[str, AfterValidator(_hosts)]
Token = Annotated[SecretStr, AfterValidator(_token)]
Origins = Annotated[str, AfterValidator(_origins)]
