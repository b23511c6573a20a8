"""The history in memory, under the contract of `client.history.History`, with faults: see `HistoryTwin`."""

import asyncio
from collections import Counter
from itertools import pairwise

from cotacoes.client.history import PAGE_QUOTES, Page
from cotacoes.errors import PositionBeyondEndError, PositionGoneError, ServiceUnavailableError
from cotacoes.patterns.recovery import Wanted
from cotacoes.quote import Position, Quote


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

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> Page:
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

    def page(self, coin: str, wanted: Wanted, limit: int) -> Page:
        """The answer of a history that is there."""
        ever = [quote for quote in self.written if quote.coin == coin]
        held = ever[self.floor.get(coin, 0) :]
        if wanted.last is not None:
            return Page(held[-wanted.last :], more=False)
        if wanted.after is not None:
            if wanted.after not in {quote.position for quote in ever}:
                raise PositionBeyondEndError(f"{wanted.after} was never given")
            following = next((quote for quote in ever if quote.before == wanted.after), None)
            if following is not None and following not in held:
                raise PositionGoneError(f"what follows {wanted.after} is no longer held")
        later = [quote for quote in held if wanted.after is None or quote.position > wanted.after]
        return Page(later[:limit], more=len(later) > limit)


def breaches(
    written: list[Quote], shown: list[Position], gone: list[tuple[Position | None, Position]], start: Position | None
) -> list[str]:
    """What is wrong with what was shown of a coin and told gone, after the position `start`; none where nothing is.

    Each quote that was written is shown or told gone, once; what is shown comes in order.
    """
    told = Counter(
        quote.position for after, through in gone for quote in written
        if (after is None or quote.position > after) and quote.position <= through
    )  # fmt: skip
    owed = {quote.position for quote in written if start is None or quote.position > start}
    return [
        *(f"{later} after {earlier}" for earlier, later in pairwise(shown) if later <= earlier),
        *(f"{position} is missing" for position in sorted(owed - told.keys() - set(shown))),
        *(f"{position} is shown and told gone" for position in sorted(told.keys() & set(shown))),
        *(f"{position} is told gone twice" for position, count in told.items() if count > 1),
        *(f"{position} was never written" for position in sorted(set(shown) - owed)),
    ]
