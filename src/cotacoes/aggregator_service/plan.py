"""The plan of a report: who is asked for what, named before anyone is asked.

    branch           brings, for each coin          missing part if it failed
    quote_service    current, average, pending      quote_service; for one coin bitcoin.current and so on
    shard1           last_logs, through, window     shard1; for one coin bitcoin.last_logs and so on

Each source gets one question, however many coins there are.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from cotacoes.model.window import Window

LAST_LOGS = 10
PARTS = ("current", "average", "last_logs", "window", "pending")
QUOTE_SERVICE = "quote_service"
ASKED_AS = {"current": "current", "average": "mean", "pending": "position"}  # of quote_service


@dataclass(frozen=True)
class ReportPlan:
    """The coins with their shards (`placement`), and the `parts` that are asked for each of them.

    `last` is the number of the latest quotes of each coin, `window` the time that its figures cover. What follows from
    these is computed once, since the merge needs it for every coin.
    """

    placement: Mapping[str, str]
    window: Window
    parts: Sequence[str] = PARTS
    last: int = LAST_LOGS

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Equal for equal questions."""
        return (*self.placement.items(), *self.parts, self.last, self.window)

    @functools.cached_property
    def of_shards(self) -> list[str]:
        """The parts of a coin that its shard is asked for."""
        return [part for part in ("last_logs", "window") if part in self.parts]

    @functools.cached_property
    def shards(self) -> dict[str, list[str]]:
        """Each shard that is asked, with its coins."""
        coins: dict[str, list[str]] = {}
        if not self.of_shards:
            return coins
        for coin, shard in sorted(self.placement.items(), key=lambda item: item[1]):
            coins.setdefault(shard, []).append(coin)
        return coins

    @functools.cached_property
    def of_quote_service(self) -> list[str]:
        """The parts of a coin that quote_service is asked for."""
        return [part for part in ASKED_AS if part in self.parts]

    @property
    def sources(self) -> list[str]:
        """Everyone who is asked."""
        return [*([QUOTE_SERVICE] if self.of_quote_service else []), *self.shards]
