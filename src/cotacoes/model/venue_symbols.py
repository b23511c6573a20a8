"""What each exchange calls a coin: its base asset, the currency of its price there, and the spelling of the pair.

    bitcoin ──▶ BTC ─┐
    kraken ───▶ USD ─┴─▶ BTC/USD

The adapters of feed_service and the simulated venues of external_service share this table and nothing else. Venues list
and delist coins at will, so `COTACOES_VENUE_SYMBOLS` adds to the table and corrects it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

BASES: Mapping[str, str] = {
    "bitcoin": "BTC",
    "ethereum": "ETH",
    "solana": "SOL",
    "ripple": "XRP",
    "cardano": "ADA",
    "dogecoin": "DOGE",
    "litecoin": "LTC",
    "bitcoin-cash": "BCH",
    "ethereum-classic": "ETC",
    "polkadot": "DOT",
    "chainlink": "LINK",
    "avalanche": "AVAX",
    "stellar": "XLM",
    "uniswap": "UNI",
    "aave": "AAVE",
    "cosmos": "ATOM",
    "algorand": "ALGO",
    "near": "NEAR",
    "filecoin": "FIL",
    "aptos": "APT",
    "arbitrum": "ARB",
    "optimism": "OP",
    "sui": "SUI",
    "hedera": "HBAR",
    "internet-computer": "ICP",
    "tron": "TRX",
    "toncoin": "TON",
    "binance-coin": "BNB",
    "shiba-inu": "SHIB",
    "pepe": "PEPE",
    "bonk": "BONK",
    "dogwifhat": "WIF",
    "polygon": "POL",
    "the-graph": "GRT",
    "curve": "CRV",
    "compound": "COMP",
    "lido": "LDO",
    "injective": "INJ",
    "render": "RENDER",
    "tezos": "XTZ",
    "monero": "XMR",
    "zcash": "ZEC",
    "worldcoin": "WLD",
    "celestia": "TIA",
    "sei": "SEI",
    "ondo": "ONDO",
    "tether": "USDT",
    "usd-coin": "USDC",
}
_TITLES = {  # of those that are not written as their words
    "ripple": "XRP",
    "tron": "TRON",
    "near": "NEAR Protocol",
    "binance-coin": "BNB",
    "dogwifhat": "dogwifhat",
    "usd-coin": "USD Coin",
    "lido": "Lido DAO",
}
CURRENCIES = ("USDT", "USDC", "USD")  # those that a rate turns into USD
STABLECOINS = ("USDT", "USDC")  # their rates to USD are asked of the venues that quote them in it
_RATED = {"USDT": "tether", "USDC": "usd-coin"}


class VenueSymbol(NamedTuple):
    """A venue's name for a coin, and the currency in which it quotes the coin."""

    symbol: str
    currency: str


# A symbol by venue and coin; an empty symbol leaves the coin out at that venue.
Overrides = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class _Listing:
    """The currency in which a venue quotes coins, how it writes a pair, and the bases that it does not list."""

    currency: str
    write: Callable[[str, str], str]
    unlisted: frozenset[str] = frozenset()


def _joined(base: str, currency: str) -> str:
    return f"{base}{currency}"


def _lower(base: str, currency: str) -> str:
    return f"{base}{currency}".lower()


def _dashed(base: str, currency: str) -> str:
    return f"{base}-{currency}"


def _slashed(base: str, currency: str) -> str:
    return f"{base}/{currency}"


_BITFINEX_NAMES = {"USDT": "UST", "USDC": "UDC", "ATOM": "ATO", "ALGO": "ALG", "BCH": "BCHN"}


def _bitfinex(base: str, currency: str) -> str:
    """`tBTCUSD`, but `tLINK:USD` with a name of more than three letters."""
    names = [_BITFINEX_NAMES.get(name, name) for name in (base, currency)]
    return "t" + (":" if max(map(len, names)) > 3 else "").join(names)


_LISTINGS: Mapping[str, _Listing] = {
    "binance": _Listing("USDT", _joined, frozenset({"XMR"})),
    "coinbase": _Listing("USD", _dashed, frozenset({"TRX", "XMR", "USDC"})),
    "kraken": _Listing("USD", _slashed),
    "bitstamp": _Listing("USD", _lower, frozenset({"XMR", "ZEC", "TRX", "TON", "BNB", "TIA", "ICP", "ATOM"})),
    "okx": _Listing("USDT", _dashed, frozenset({"XMR"})),
    "bybit": _Listing("USDT", _joined, frozenset({"XMR", "ZEC"})),
    "gemini": _Listing("USD", _lower, frozenset({"XMR", "TRX", "TON", "BNB", "ADA", "XLM", "ALGO", "TIA", "ICP"})),
    "bitfinex": _Listing("USD", _bitfinex, frozenset({"BNB"})),
}
VENUE_NAMES = tuple(_LISTINGS)
_COINBASE_OWN_USDC_BOOKS = ("USDT-USDC", "EURC-USDC")


def base_of(coin: str) -> str | None:
    """The base asset of a coin, which may also be named by its asset (`btc`); None if the table does not have it."""
    asset = coin.upper()
    return BASES.get(coin) or (asset if asset in BASES.values() else None)


def title_of(coin: str) -> str:
    """The coin's name as people write it: Bitcoin Cash for `bitcoin-cash`."""
    return _TITLES.get(coin) or " ".join(word.capitalize() for word in coin.split("-"))


def spell(venue: str, base: str, currency: str) -> str:
    """The venue's symbol for a pair such as BTC, USD."""
    return _LISTINGS[venue].write(base, currency)


def symbol_at(venue: str, coin: str, overrides: Overrides) -> VenueSymbol | None:
    """The venue's symbol for a coin; None if the coin is not to be subscribed there."""
    listing, base = _LISTINGS[venue], base_of(coin)
    if (symbol := overrides.get((venue, coin))) is not None:
        currency = currency_of(venue, symbol)
        return None if currency is None else VenueSymbol(symbol, currency)
    if base is None or base == listing.currency or base in listing.unlisted:
        return None
    return VenueSymbol(listing.write(base, listing.currency), listing.currency)


def rate_symbols_at(venue: str, overrides: Overrides) -> dict[str, str]:
    """The venue's symbols for USDT and USDC in USD, by stablecoin; only those that it quotes in USD."""
    found = {stablecoin: symbol_at(venue, coin, overrides) for stablecoin, coin in _RATED.items()}
    return {stablecoin: pair.symbol for stablecoin, pair in found.items() if pair and pair.currency == "USD"}


def currency_of(venue: str, symbol: str) -> str | None:
    """The currency in which a venue states a symbol's book; None if it is not one of `CURRENCIES`."""
    if venue == "coinbase":
        symbol = coinbase_book(symbol)
    ends = {currency: spell(venue, "", currency).removeprefix("t") for currency in CURRENCIES}  # Bitfinex's tUSD
    return next((currency for currency, end in ends.items() if symbol.endswith(end) and symbol != end), None)


def coinbase_book(product: str) -> str:
    """The product under which Coinbase states a product's book: `BTC-USD` for `BTC-USDC`, with few exceptions."""
    if not product.endswith("-USDC") or product in _COINBASE_OWN_USDC_BOOKS:
        return product
    return product.removesuffix("C")
