"""The simulated venues; each has a file of its own, and a row in `model/venue_symbols.py`."""

from __future__ import annotations

from cotacoes.external_service.venues.binance import BinanceSession
from cotacoes.external_service.venues.bitfinex import BitfinexSession
from cotacoes.external_service.venues.bitstamp import BitstampSession
from cotacoes.external_service.venues.bybit import BybitSession
from cotacoes.external_service.venues.coinbase import CoinbaseSession
from cotacoes.external_service.venues.gemini import GeminiSession
from cotacoes.external_service.venues.kraken import KrakenSession
from cotacoes.external_service.venues.okx import OkxSession
from cotacoes.external_service.venues.session import Session

KINDS: tuple[type[Session], ...] = (
    BinanceSession,
    CoinbaseSession,
    KrakenSession,
    BitstampSession,
    OkxSession,
    BybitSession,
    GeminiSession,
    BitfinexSession,
)
