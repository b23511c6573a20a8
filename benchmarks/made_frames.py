"""Frames of each venue with given prices, written with the keys and the other values of recorded ones."""

from __future__ import annotations

from collections.abc import Callable

AT_MS = 1_786_613_174_873  # 2026-08-13T09:26:14.873Z
SYMBOLS = {
    "binance": "BTCUSDT",
    "coinbase": "BTC-USD",
    "kraken": "BTC/USD",
    "bitstamp": "btcusd",
    "okx": "BTC-USDT",
    "bybit": "BTCUSDT",
    "gemini": "btcusd",
    "bitfinex": "tBTCUSD",
}
# without which a frame of Bitfinex names no symbol
SUBSCRIBED_CHANNEL = b'{"event":"subscribed","channel":"ticker","chanId":104,"symbol":"tBTCUSD","pair":"BTCUSD"}'


def binance(bid: str, ask: str) -> bytes:
    ticker = f'{{"u":98494969448,"s":"BTCUSDT","b":"{bid}","B":"4.77471000","a":"{ask}","A":"11.33198000"}}'
    return f'{{"stream":"btcusdt@bookTicker","data":{ticker}}}'.encode()


def coinbase(bid: str, ask: str, *, kind: str = "update", number: int = 2) -> bytes:
    ticker = (
        '{"type":"ticker","product_id":"BTC-USD","price":"63320.73","volume_24_h":"6629.927726",'
        '"low_24_h":"63235.88","high_24_h":"64416.3","low_52_w":"57717.55","high_52_w":"126296",'
        f'"price_percent_chg_24_h":"0.03813791548644","best_bid":"{bid}","best_ask":"{ask}",'
        '"best_bid_quantity":"0.2275291","best_ask_quantity":"0.49990114"}'
    )
    return (
        f'{{"channel":"ticker","timestamp":"2026-08-13T09:26:14.873058895Z","sequence_num":{number},'
        f'"events":[{{"type":"{kind}","tickers":[{ticker}]}}]}}'
    ).encode()


def kraken(bid: str, ask: str, *, kind: str = "update") -> bytes:
    ticker = (
        f'{{"symbol":"BTC/USD","bid":{bid},"bid_qty":5.75119051,"ask":{ask},"ask_qty":0.36977971,"last":63297.8,'
        '"volume":1020.88387727,"vwap":63685.7,"low":63250,"high":64409.2,"change":0.7,"change_pct":0,"trades":47535,'
        '"timestamp":"2026-08-13T09:26:14.873195Z"}'
    )
    return f'{{"channel":"ticker","type":"{kind}","data":[{ticker}]}}'.encode()


def bitstamp(bid: str, ask: str) -> bytes:
    sides = f'"bids":[["{bid}","0.12636254"],["{bid}","1"]],"asks":[["{ask}","0.5"],["{ask}","1"]]'
    data = f'{{"timestamp":"1786613174","microtimestamp":"1786613174873195",{sides}}}'
    return f'{{"data":{data},"channel":"order_book_btcusd","event":"data"}}'.encode()


def okx(bid: str, ask: str) -> bytes:
    ticker = (
        '{"instType":"SPOT","instId":"BTC-USDT","last":"63707.3","lastSz":"0.00164251",'
        f'"askPx":"{ask}","askSz":"0.15455902","bidPx":"{bid}","bidSz":"1.70080521","open24h":"63958.9",'
        '"high24h":"64496.9","low24h":"63309.4","sodUtc0":"63484.7","sodUtc8":"63445.9",'
        f'"volCcy24h":"229576048.730317321","vol24h":"3601.1585121","ts":"{AT_MS}"}}'
    )
    return f'{{"arg":{{"channel":"tickers","instId":"BTC-USDT"}},"data":[{ticker}]}}'.encode()


def bybit(bid: str, ask: str, *, kind: str = "snapshot") -> bytes:
    """An empty text leaves a side out, as a delta does."""
    bids, asks = (f'[["{price}","2.045546"]]' if price else "[]" for price in (bid, ask))
    data = f'{{"s":"BTCUSDT","b":{bids},"a":{asks},"u":72212457,"seq":112603120278}}'
    return f'{{"topic":"orderbook.1.BTCUSDT","ts":{AT_MS},"type":"{kind}","data":{data},"cts":{AT_MS - 1}}}'.encode()


def gemini(bid: str, ask: str) -> bytes:
    return (
        f'{{"u":1751505576085,"E":{AT_MS}195809,"s":"btcusd","b":"{bid}","B":"1.25000000",'
        f'"a":"{ask}","A":"0.75000000"}}'
    ).encode()


def bitfinex(bid: str, ask: str) -> bytes:
    sizes = "89.39691507", "95.67402604"
    return f"[104,[{bid},{sizes[0]},{ask},{sizes[1]},13.5,0.00541864,2504.9,22581.92240769,2533.2,2461.4]]".encode()


BOOKS: dict[str, Callable[[str, str], bytes]] = {
    "binance": binance,
    "coinbase": coinbase,
    "kraken": kraken,
    "bitstamp": bitstamp,
    "okx": okx,
    "bybit": bybit,
    "gemini": gemini,
    "bitfinex": bitfinex,
}
