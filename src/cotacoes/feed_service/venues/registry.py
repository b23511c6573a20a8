"""The venues by name: each has a file of its own, and a row in `model/venue_symbols.py`."""

from __future__ import annotations

from collections.abc import Mapping

from cotacoes.feed_service.venues.binance import BINANCE
from cotacoes.feed_service.venues.bitfinex import BITFINEX
from cotacoes.feed_service.venues.bitstamp import BITSTAMP
from cotacoes.feed_service.venues.bybit import BYBIT
from cotacoes.feed_service.venues.coinbase import COINBASE
from cotacoes.feed_service.venues.gemini import GEMINI
from cotacoes.feed_service.venues.kraken import KRAKEN
from cotacoes.feed_service.venues.okx import OKX
from cotacoes.feed_service.venues.venue import Venue

_ALL = (BINANCE, COINBASE, KRAKEN, BITSTAMP, OKX, BYBIT, GEMINI, BITFINEX)
VENUES: Mapping[str, Venue] = {venue.name: venue for venue in _ALL}
