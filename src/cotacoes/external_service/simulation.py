"""The simulated market with its tape and the coins that were added to it.

The coins are part of the market's identity, so adding one begins a new session: every price starts its walk again, and
the tape of the session before is gone. Added coins are remembered, so that a restart goes on with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from cotacoes.config import Settings
from cotacoes.errors import SettingError
from cotacoes.external_service.market import ORIGIN, SimulatedMarket
from cotacoes.external_service.playback_session import PlaybackSession, digest_of, load_or_begin
from cotacoes.external_service.tape import TapePages
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS
from cotacoes.model.quote import Observation, utc_now
from cotacoes.web.source import AddableCoins

COINS_MAX = 10_000


class Simulation:
    """A `Market`. SettingError if a coin of the settings has a name that cannot be used."""

    origin = ORIGIN

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        seed = list(settings.seed_placement)
        refuse_reserved("COTACOES_COINS", seed)
        self._addable = AddableCoins(seed, folder / "coins.json", limit=COINS_MAX)
        self.coins = list(self._addable)
        self._session, self._market = self._play()

    @property
    def pages(self) -> TapePages:
        """The pages of the present session's tape."""
        return TapePages(self._session, self._market, self.origin)

    def played(self) -> PlaybackSession:
        """The session, with how far it has come."""
        return replace(self._session, played_s=self._market.elapsed_s())

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to its newest price."""
        return self._market.quotes()

    @property
    def seed(self) -> int:
        """The seed of all prices."""
        return self._settings.seed

    def tick(self, coin: str, ago_s: float) -> int:
        """The tick of the coin `ago_s` seconds ago."""
        return self._market.tick(coin, ago_s)

    def add(self, coin: str) -> None:
        """Quote this coin as well; BadRequestError if it has a name that cannot be used, or there are too many."""
        if coin not in self.coins:
            self._addable.add(coin)
            self.coins = list(self._addable)
            self._session, self._market = self._play()

    def _play(self) -> tuple[PlaybackSession, SimulatedMarket]:
        now, tick_s = utc_now(), self._settings.tick_ms / 1000 / self._settings.speed
        session = load_or_begin(
            self._folder,
            digest_of(self._settings.seed, self.coins, tick_s),
            now,
            lambda session: self._settings.source_mode == "latest" and session.started_at > now,
        )
        market = SimulatedMarket(
            self.coins,
            seed=self._settings.seed,
            tick_s=tick_s,
            started_at=session.started_at,
            elapsed_s=session.elapsed_s(now),
        )
        return session, market


def refuse_reserved(setting: str, coins: Collection[str]) -> None:
    """SettingError if one of these coins has the name of a field of `/quote`."""
    if reserved := sorted(SOURCE_QUOTE_FIELDS.intersection(coins)):
        raise SettingError(f"{setting} names the coin {reserved[0]}, which is a field of /quote: choose another name")
