"""The simulation: the simulated market of a run, its pages, and the coins that were added to it.

Which coins there are decides what is played, so another coin begins another run: every price starts its walk anew, and
the tape of the run before is gone. The coins that were added are remembered, so that a restart goes on with them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, SettingError
from cotacoes.external_service.market import ORIGIN, SimulatedMarket
from cotacoes.external_service.playback_session import PlaybackSession, digest_of, load_or_begin
from cotacoes.external_service.tape import TapePages
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS, SourcePageJson
from cotacoes.model.quote import COIN_PATTERN, Observation
from cotacoes.observability.logs import get_logger
from cotacoes.observability.whole_file import replace_file

COINS_MAX = 10_000


class Simulation:
    """A `Market`, and the pages of its tape. SettingError where a coin of the settings is named as none can be."""

    origin = ORIGIN

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        seed = list(settings.seed_placement)
        taken = sorted(SOURCE_QUOTE_FIELDS.intersection(seed))
        if taken:
            raise SettingError(f"COTACOES_COINS names {taken[0]}, which is a field of /quote: call the coin otherwise")
        self.coins = list(dict.fromkeys([*seed, *_added(folder)]))
        self._run, self._market, self._pages = self._play()

    def played(self) -> PlaybackSession:
        """The run, with how far it has come."""
        return replace(self._run, played_s=self._market.elapsed_s())

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to its newest price."""
        return self._market.quotes()

    async def page(self, after: str | None, limit: int, wait_s: float) -> SourcePageJson:
        """See `TapePages.page`."""
        return await self._pages.page(after, limit, wait_s)

    def add(self, coin: str) -> None:
        """Quote this coin as well; BadRequestError where its name is none."""
        if not COIN_PATTERN.match(coin) or coin in SOURCE_QUOTE_FIELDS:
            raise BadRequestError("coin: write 1 to 32 of a-z 0-9 -, and no field of /quote")
        if coin in self.coins:
            return
        if len(self.coins) >= COINS_MAX:
            raise BadRequestError(f"coin: there are {COINS_MAX} already, which is the most")
        self.coins.append(coin)
        self._remember()
        self._run, self._market, self._pages = self._play()
        get_logger().info("coin.added", coin=coin)

    def _play(self) -> tuple[PlaybackSession, SimulatedMarket, TapePages]:
        now, tick_s = datetime.now(UTC), self._settings.tick_ms / 1000 / self._settings.speed
        run = load_or_begin(
            self._folder,
            digest_of(self._settings.seed, self.coins, tick_s),
            now,
            lambda run: self._settings.source_mode == "latest" and run.started_at > now,
        )
        market = SimulatedMarket(
            list(self.coins),
            seed=self._settings.seed,
            tick_s=tick_s,
            started_at=run.started_at,
            clock=time.monotonic,
            now=lambda: datetime.now(UTC),
            elapsed_s=run.elapsed_s(now),
        )
        return run, market, TapePages(run, market, market.origin)

    def _remember(self) -> None:
        added = [coin for coin in self.coins if coin not in self._settings.seed_placement]
        try:
            replace_file(self._folder / "coins.json", json.dumps(added).encode())
        except OSError as error:  # it is quoted all the same, until a restart
            get_logger().warning("coin.forgotten", reason=error.strerror)


def _added(folder: Path) -> list[str]:
    try:
        told = json.loads((folder / "coins.json").read_text())
        return [coin for coin in told if isinstance(coin, str) and COIN_PATTERN.match(coin)][:COINS_MAX]
    except (OSError, ValueError, TypeError):
        return []
