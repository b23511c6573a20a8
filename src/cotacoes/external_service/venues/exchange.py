"""Exchange: one simulated venue, with its symbols, clock, faults and connections; and the Exchanges of the market.

Books are not queued: each is made when it is due and written to those who read. A client that does not read misses
books. A symbol is due at random moments around its rate, and all books of a venue together stay below a limit.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any, Protocol

from cotacoes.external_service.timed import InForce
from cotacoes.external_service.venues.connection import Connection, Outlet
from cotacoes.external_service.venues.faults import MarketShock, VenueFaults
from cotacoes.external_service.venues.prices import Bent, Pair, Ticks, best, mid_at
from cotacoes.external_service.venues.session import Decision, Session, Top
from cotacoes.model.venue_symbols import BASES, base_of, spell, symbol_at
from cotacoes.observability.logs import get_logger

CONNECTIONS_MAX = 64
FRAMES_PER_S_MAX = 1_000.0  # of one venue, over all its connections
CHECK_S = 0.1
PAUSE_S_MIN = 0.001
JUMP_S = 1.3  # of a jumping clock, each JUMP_EVERY_S
JUMP_EVERY_S = 3.0
OUTSIDE_SHARE = 0.1  # of the last prices lie outside the book of the same frame
NANOSECONDS = 1_000_000_000


class Listed(Ticks, Protocol):
    """The market: its walks, and the coins that it has now."""

    coins: list[str]


class Exchange:
    """A venue; implements `session.Floor`. `clock` gives monotonic seconds, `wall_ns` nanoseconds since 1970."""

    def __init__(
        self,
        kind: type[Session],
        market: Listed,
        shock: InForce[MarketShock],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.kind = kind
        self.name = kind.name
        self.random = Random(f"{market.seed}/{kind.name}")  # noqa: S311  # dice, not a secret
        self.faults = InForce(VenueFaults(), clock=clock, on_end=self._faults_ended)
        self.connections: list[Connection] = []
        self._market = market
        self._shock = shock
        self._clock = clock
        self._wall_ns = wall_ns
        self._count = count
        self._occupied = asyncio.Event()
        self._pairs: dict[str, Pair] = {}
        self._listed = 0
        self._frozen: dict[str, tuple[Decimal, Decimal, Decimal]] = {}
        self._stood_ns: int | None = None
        self._number = self.random.randrange(10**9, 10**11)
        self._due: list[tuple[float, str]] = []
        self._scheduled: set[str] = set()
        self._subscriptions = 0
        self._check_at = 0.0

    # The floor

    @property
    def pairs(self) -> dict[str, Pair]:
        """The listed pairs by symbol."""
        if len(self._market.coins) != self._listed:
            self._listed = len(self._market.coins)
            self._pairs = listed_pairs(self.kind, self._market.coins)
        return self._pairs

    def decide(self, symbol: str) -> Decision:
        faults = self.faults.current()
        if faults.sub_ignore:
            return Decision.IGNORED
        if faults.sub_error:
            return Decision.REFUSED
        return Decision.OPEN if symbol in self.pairs else Decision.UNKNOWN

    def now_ns(self) -> int:
        faults = self.faults.current()
        if faults.clock == "frozen":
            if self._stood_ns is None:
                self._stood_ns = self._wall_ns()
            return self._stood_ns
        ahead_s = self.kind.character.clock_ahead_s + faults.skew_s
        if faults.clock == "jumping":
            ahead_s += JUMP_S if int(self._clock() // JUMP_EVERY_S) % 2 else -JUMP_S
        return self._wall_ns() + round(ahead_s * NANOSECONDS)

    def top(self, symbol: str, *, late_s: float = 0.0) -> Top:
        faults, pair = self.faults.current(), self.pairs[symbol]
        is_hit = faults.hits(pair.coin)
        late_s += faults.late_s if is_hit else 0.0
        if is_hit and faults.freeze:
            if symbol not in self._frozen:
                self._frozen[symbol] = self._best(pair, faults.lie, late_s)
            bid, ask, unit = self._frozen[symbol]
        else:
            bid, ask, unit = self._best(pair, faults.lie if is_hit else Decimal(0), late_s)
        self._number += 1
        draw = self.random.random()
        last = bid if draw < 0.5 else ask
        half = faults.half if is_hit else None
        return Top(
            symbol,
            bid=None if half == "ask" else bid,
            ask=None if half == "bid" else ask,
            bid_size=self._size(),
            ask_size=self._size(),
            last=last + 3 * unit if draw > 1 - OUTSIDE_SHARE else last,
            unit=unit,
            at_ns=self.now_ns() - round(late_s * NANOSECONDS),
            number=self._number,
        )

    def _best(self, pair: Pair, lie: Decimal, late_s: float) -> tuple[Decimal, Decimal, Decimal]:
        shock, character = self._shock.current(), self.kind.character
        bent = Bent(shock.shock, tuple(shock.peg.items()), lie)
        mid = mid_at(self._market, self.name, pair, bent, ago_s=character.lag_s + late_s)
        return best(mid, character)

    def _size(self) -> Decimal:
        return Decimal(self.random.randrange(1, 5 * 10**8)).scaleb(-8)

    # The faults

    def set_faults(self, faults: VenueFaults) -> None:
        """Replace the faults in force; they reach open connections at once."""
        self._forget()
        self.faults.set(faults)
        self._check(self._clock())

    def _faults_ended(self, ended: VenueFaults) -> None:
        self._forget()
        _log_ended(self.name, ended)

    def _forget(self) -> None:
        self._frozen.clear()
        self._stood_ns = None

    # The connections

    @property
    def is_crowded(self) -> bool:
        """Whether it takes no further connection."""
        return len(self.connections) >= CONNECTIONS_MAX

    def connect(self, outlet: Outlet, query: str) -> Connection:
        """A connection whose handshake has been accepted."""
        now = self._clock()
        connection = Connection(
            self.kind(self, query), outlet, now, changed=self._schedule, left=self._leave, count=self._count
        )
        self.connections.append(connection)
        self._occupied.set()
        if self.faults.current().accept_then_drop:
            outlet.abort()
            return connection
        connection.send(connection.session.welcome())
        self._schedule(connection)
        return connection

    def _leave(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._subscriptions -= connection.subscriptions
        if not self.connections:
            self._occupied.clear()

    def _schedule(self, connection: Connection) -> None:
        """Note what the connection has subscribed now."""
        self._subscriptions += connection.count_subscriptions()
        for symbol in connection.session.symbols.keys() - self._scheduled:
            self._scheduled.add(symbol)
            heapq.heappush(self._due, (self._clock() + self._gap_s() * self.random.random(), symbol))

    @property
    def subscriptions(self) -> int:
        """The books that are subscribed, over all connections."""
        return self._subscriptions

    # What time brings

    async def run(self) -> None:
        """Send what is due, for as long as there are connections."""
        while True:
            await self._occupied.wait()
            await asyncio.sleep(self.beat(self._clock()))

    def beat(self, now: float) -> float:
        """Send what is due at `now`, and return in how many seconds to do it again."""
        if now >= self._check_at:
            self._check(now)
        if not self.faults.current().dead:
            while self._due and self._due[0][0] <= now:
                self._publish(heapq.heappop(self._due)[1], now)
        next_at = min(self._check_at, self._due[0][0]) if self._due else self._check_at
        return max(PAUSE_S_MIN, next_at - now)

    def _check(self, now: float) -> None:
        self._check_at = now + CHECK_S
        faults = self.faults.current()
        for connection in list(self.connections):
            connection.check(now, faults)

    def _publish(self, symbol: str, now: float) -> None:
        subscribers = [connection for connection in self.connections if symbol in connection.session.symbols]
        if not subscribers or symbol not in self.pairs:
            self._scheduled.discard(symbol)
            return
        heapq.heappush(self._due, (now + self._gap_s(), symbol))
        faults = self.faults.current()
        is_stalled = faults.stall and faults.hits(self.pairs[symbol].coin)
        top = self.top(symbol)
        for connection in subscribers:
            if not is_stalled:
                late_s = connection.late_s(symbol)
                connection.send_book(self.top(symbol, late_s=late_s) if late_s else top, now, faults, self.random)
            connection.send_beside(top)

    def _gap_s(self) -> float:
        """A random time until the next book of a symbol."""
        rate = self.kind.character.frames_per_s * self._shock.current().pace / self.faults.current().slow
        rate = min(rate, FRAMES_PER_S_MAX / max(1, self._subscriptions))
        return min(3.0, max(0.2, self.random.expovariate(1.0))) / rate


def listed_pairs(kind: type[Session], coins: Sequence[str]) -> dict[str, Pair]:
    """The pairs that a venue lists, by its symbols: those of the table and of the market's other coins, spelled out."""
    pairs: dict[str, Pair] = {}
    for coin in dict.fromkeys([*BASES, *coins]):
        base = base_of(coin)
        if base is not None and symbol_at(kind.name, coin, {}) is None:
            continue  # the venue does not have it
        base = base or coin.upper().replace("-", "")
        for currency in kind.currencies:
            if base != currency:
                pairs[spell(kind.name, base, currency)] = Pair(coin, currency)
    return pairs


@dataclass(frozen=True)
class Exchanges:
    """The venues of a market by name, none for a replay, and the shocks that they share."""

    by_name: Mapping[str, Exchange]
    shock: InForce[MarketShock]

    @property
    def tasks(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs beside the requests."""
        return [exchange.run for exchange in self.by_name.values()]


def open_exchanges(
    kinds: Sequence[type[Session]],
    market: Listed | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_ns: Callable[[], int] = time.time_ns,
    count: Callable[[str, str], None] = lambda _, __: None,
) -> Exchanges:
    """The venues of these kinds; `count` is called with the venue and what became of a book."""
    shock = InForce(MarketShock(), clock=clock, on_end=lambda ended: _log_ended("market", ended))
    if market is None:
        return Exchanges({}, shock)
    exchanges = [
        Exchange(kind, market, shock, clock=clock, wall_ns=wall_ns, count=functools.partial(count, kind.name))
        for kind in kinds
    ]
    return Exchanges({exchange.name: exchange for exchange in exchanges}, shock)


def _log_ended(venue: str, ended: VenueFaults | MarketShock) -> None:
    get_logger().info("faults.ended", venue=venue, **ended.model_dump(mode="json", exclude_defaults=True))
