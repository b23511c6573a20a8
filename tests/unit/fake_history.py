"""The history in memory, under the contract of `client.history.History`, with faults: see `HistoryTwin`."""

import asyncio
import bisect
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from cotacoes.errors import PositionBeyondEndError, PositionGoneError, ServiceUnavailableError
from cotacoes.feed.history import PAGE_QUOTES, HistoryPage
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.recovery_events import Wanted


class HistoryTwin:
    """`written` are all quotes there ever were, of every coin; the first `floor` ones of a coin are dropped.

    It may be `away`, or hang, or take `delay_s` to say what it knew when it was asked. `asked` is what was asked, with
    the time of the loop.
    """

    def __init__(self) -> None:
        self.written: list[Quote] = []
        self.away = False
        self.hangs = False
        self.delay_s = 0.0
        self.floor: dict[str, int] = {}
        self.asked: list[tuple[float, str, Wanted]] = []
        self.at_once = 0
        self.at_once_most = 0
        self._ever: defaultdict[str, list[Quote]] = defaultdict(list)
        self._by_position: defaultdict[str, dict[Position, Quote]] = defaultdict(dict)
        self._sorted = 0  # so many of `written` are in these two

    def of(self, coin: str) -> list[Quote]:
        """All quotes that there ever were of a coin."""
        return self._sort()._ever[coin]

    def at(self, coin: str, position: Position) -> Quote | None:
        """The coin's quote of this position, None where it was never given."""
        return self._sort()._by_position[coin].get(position)

    def made_anew(self) -> None:
        """Another history, without a quote yet, takes its place."""
        self.written.clear()
        self._ever.clear()
        self._by_position.clear()
        self._sorted = 0

    def _sort(self) -> "HistoryTwin":
        for quote in self.written[self._sorted :]:
            self._ever[quote.coin].append(quote)
            self._by_position[quote.coin][quote.position] = quote
        self._sorted = len(self.written)
        return self

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> HistoryPage:
        self.asked.append((asyncio.get_running_loop().time(), coin, wanted))
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.away:
                raise ServiceUnavailableError("the history is away")
            return self.page(coin, wanted, limit)
        finally:
            await asyncio.sleep(self.delay_s)  # on the way back: what it says is not the newest any more
            self.at_once -= 1

    def page(self, coin: str, wanted: Wanted, limit: int) -> HistoryPage:
        """The answer of a history that is there."""
        ever, floor = self.of(coin), self.floor.get(coin, 0)
        if wanted.last is not None:
            return HistoryPage(ever[floor:][-wanted.last :], more=False)
        first = floor
        if wanted.after is not None:
            first = bisect.bisect_right(ever, wanted.after, key=lambda quote: quote.position)
            is_given = self.at(coin, wanted.after) is not None
            if first < min(floor, len(ever)) or (first == floor < len(ever) and not is_given):
                raise PositionGoneError(f"what follows {wanted.after} is no longer held")
            if not is_given:
                before = ever[first].before if first < len(ever) else None
                later: dict[str, Any] = {}
                if first < len(ever):
                    later["resume"] = None if before is None else str(before)
                raise PositionBeyondEndError(f"{wanted.after} was never given", **later)
        return HistoryPage(ever[first : first + limit], more=len(ever) > first + limit)


def breaches(
    written: list[Quote], shown: list[Position], gone: list[tuple[Position | None, Position]], start: Position | None
) -> list[str]:
    """What is wrong with what was shown of a coin and reported as gone, after the position `start`; none if nothing is.

    Each quote that was written is shown or reported as gone, once; what is shown comes in order.
    """
    reported = Counter(
        quote.position for after, through in gone for quote in written
        if (after is None or quote.position > after) and quote.position <= through
    )  # fmt: skip
    owed = {quote.position for quote in written if start is None or quote.position > start}
    return [
        *(f"{later} after {earlier}" for earlier, later in pairwise(shown) if later <= earlier),
        *(f"{position} is missing" for position in sorted(owed - reported.keys() - set(shown))),
        *(f"{position} is shown and reported as gone" for position in sorted(reported.keys() & set(shown))),
        *(f"{position} is reported as gone twice" for position, count in reported.items() if count > 1),
        *(f"{position} was never written" for position in sorted(set(shown) - owed)),
    ]
