"""The tape: the newest prices by their index, in order; the answer of `GET /quotes`.

They are the consensus prices, and those of single venues if these are recorded.

A live tape begins at now: without a cursor a reader gets what comes from then on. It holds the newest `ENTRIES_MAX`
prices, some twenty minutes of two coins. A reader whose cursor lies before them gets the oldest that is held, and sees
by the indices what it has missed. Each start of the service is a run of its own, with its own indices; the cursor of
another run gets a 410 that names the beginning of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import msgspec

from cotacoes.errors import BadRequestError, CursorGoneError
from cotacoes.feed_service.venue_prices import VenuePrice
from cotacoes.model.payloads import SourcePriceJson
from cotacoes.model.quote import agreement_fields, format_price, format_time
from cotacoes.patterns.consensus import USD, ConsensusPrice

ORIGIN = "consensus"
ENTRIES_MAX = 50_000
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class PricedCoin:
    """The newest consensus price of a coin, and the time that it is from."""

    consensus: ConsensusPrice
    observed_at: datetime


class ConsensusTape:
    """See the head of this file. `run` names this start of the service."""

    def __init__(self, run: str, *, entries_max: int = ENTRIES_MAX) -> None:
        self._run = run
        self._entries: deque[bytes] = deque(maxlen=entries_max)  # as they are sent
        self._count = 0  # the index of the newest
        self._grown = asyncio.Event()
        self._newest: dict[str, PricedCoin] = {}
        self._newest_of_venues: dict[str, SourcePriceJson] = {}
        self._reasons: dict[str, str] = {}

    @property
    def newest(self) -> Mapping[str, PricedCoin]:
        """The newest price of each coin."""
        return self._newest

    @property
    def newest_of_venues(self) -> Mapping[str, SourcePriceJson]:
        """The newest price of each series of a venue, by its name."""
        return self._newest_of_venues

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why a coin has no price now, by coin."""
        return self._reasons

    def note_reason(self, coin: str, reason: str | None) -> None:
        """Why the coin has no price now; None if it has one."""
        if reason is None:
            self._reasons.pop(coin, None)
        else:
            self._reasons[coin] = reason

    def append(self, coin: str, priced: PricedCoin) -> None:
        """Add the next price."""
        self._newest[coin] = priced
        self._append(entry_of(self._count + 1, coin, priced))

    def append_of_venue(self, price: VenuePrice, observed_at: datetime) -> None:
        """Add the next price of a single venue, which is its own origin."""
        series = price.series
        entry = SourcePriceJson(
            index=self._count + 1,
            coin=series.name,
            currency=series.currency,
            price=format_price(price.price),
            observed_at=format_time(observed_at),
            origin=series.venue,
        )
        self._newest_of_venues[series.name] = entry
        self._append(entry)

    def _append(self, entry: SourcePriceJson) -> None:
        self._count = entry.index
        self._entries.append(_encode(entry))
        self._grown.set()
        self._grown = asyncio.Event()

    async def page(self, after: str | None, limit: int, wait_s: float) -> bytes:
        """The prices after a cursor, as JSON; waits up to `wait_s` for one if there is none yet."""
        index = self._count if after is None else self._index(after)
        if index >= self._count and wait_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._grown.wait()
        first = max(index, self._count - len(self._entries))  # what lies before is no longer held
        begin = first - (self._count - len(self._entries))
        found = list(islice(self._entries, begin, begin + limit))
        following = first + len(found) if found else index
        return b'{"run":"%b","origin":"%b","quotes":[%b],"next":"%b","reasons":%b}' % (
            self._run.encode(),
            ORIGIN.encode(),
            b",".join(found),
            self._cursor(following).encode(),
            _encode(self._reasons),
        )

    def _index(self, cursor: str) -> int:
        run, _, text = cursor.rpartition("-")
        if not (run and text.isascii() and text.isdigit() and len(text) < 20):
            raise BadRequestError("after: a cursor is written RUN-INDEX, as in `next` of a page")
        if run != self._run or int(text) > self._count:
            beginning = self._count - len(self._entries)
            raise CursorGoneError(
                "the cursor belongs to another run", first=beginning + 1, next=self._cursor(beginning)
            )
        return int(text)

    def _cursor(self, index: int) -> str:
        return f"{self._run}-{index}"


def entry_of(index: int, coin: str, priced: PricedCoin) -> SourcePriceJson:
    """The entry of a price on the tape."""
    consensus = priced.consensus
    return SourcePriceJson(
        index=index,
        coin=coin,
        currency=USD,
        price=format_price(consensus.price),
        observed_at=format_time(priced.observed_at),
        low=format_price(consensus.low),
        high=format_price(consensus.high),
        **agreement_fields(consensus.agreement),
    )
