"""What the `fanout` figures publish, made beforehand, and a stand-in for quote_service that answers for it.

A round has quotes at a steady pace, each with its due time. The stand-in says what quote_service would: a quote is in
the history from its due time on, that is before it is published, never after.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from cotacoes.model.live_message import Heartbeat, encode_heartbeat
from cotacoes.model.quote import Position, Quote, QuoteJson

COIN = "bitcoin"
EPOCH = 1_732_400_000_000
FIRST_CENTS = 6_701_234
PAGE_QUOTES = 1000
_FIRST = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_quotes(first_seq: int, count: int, rate: float) -> list[Quote]:
    """`count` quotes of the one era from `first_seq` on, `rate` a second."""
    times = [_FIRST + timedelta(microseconds=int(seq * 1e6 / rate)) for seq in range(first_seq, first_seq + count)]
    return [
        Quote(COIN, "USD", Decimal(FIRST_CENTS + seq * 37 % 4001).scaleb(-2), EPOCH, seq, at, at, "sim")
        for seq, at in enumerate(times, start=first_seq)
    ]


def beat_after(quote: Quote) -> bytes:
    """The heartbeat that follows it."""
    return encode_heartbeat(Heartbeat(COIN, quote.position, None, datetime.now(UTC)))


class History:
    """All rounds so far. Times are monotonic nanoseconds."""

    def __init__(self) -> None:
        self._quotes: list[Quote] = []
        self._dues: list[int] = []

    def add(self, quotes: Sequence[Quote], start_ns: int, rate: float) -> None:
        """A further round, which begins then."""
        self._quotes += quotes
        self._dues += [start_ns + int(number * 1e9 / rate) for number in range(len(quotes))]

    def until(self, now_ns: int) -> list[Quote]:
        """Those that are published by then, or about to be."""
        return self._quotes[: bisect.bisect_right(self._dues, now_ns)]

    def answer(self, target: str, now_ns: int) -> tuple[int, dict[str, Any]]:
        """Status and body for a GET of quote_service's; 404 for all but positions and history."""
        url, quotes = urlsplit(target), self.until(now_ns)
        newest = str(quotes[-1].position) if quotes else None
        if url.path == "/v1/positions":
            return 200, {"coins": {COIN: {"position": newest, "through": newest, "pending": 0, "shard": "shard1"}}}
        if url.path == f"/v1/quotes/{COIN}":
            return _page(quotes, dict(parse_qsl(url.query)))
        return 200 if url.path == "/livez" else 404, {"type": "/docs#not-found", "title": "Not found", "status": 404}


def _page(quotes: Sequence[Quote], asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
    after = asked.get("after")
    if "last" in asked:
        wanted, more = quotes[-int(asked["last"]) :], False
    else:
        position = None if after is None else Position.parse(after)
        if position is not None and (not quotes or position > quotes[-1].position):
            return 409, {"type": "/docs#position-beyond-end", "title": "Position beyond the end", "status": 409}
        begin = 0 if position is None else bisect.bisect_right(quotes, position, key=lambda quote: quote.position)
        end = begin + int(asked.get("limit", PAGE_QUOTES))
        wanted, more = quotes[begin:end], end < len(quotes)
    page = {
        "coin": COIN,
        "quotes": [msgspec.to_builtins(QuoteJson.from_quote(quote)) for quote in wanted],
        "next": str(wanted[-1].position) if wanted else after,
        "more": more,
        "floor": str(quotes[0].position) if quotes else None,
    }
    return 200, page


@contextlib.contextmanager
def quote_service(history: History) -> Iterator[int]:
    """The stand-in, in a thread of this process; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, told = history.answer(self.path, time.monotonic_ns())
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json" if status == 200 else "application/problem+json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="quote_service's stand-in", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
