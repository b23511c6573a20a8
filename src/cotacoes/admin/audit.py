"""`cotacoes audit`: prove that nothing is lost and nothing is doubled, or name what is. It reads; it never mends.

Each coin is told as soon as it is audited. What looks wrong, or could not be reached, is told last, after a second look
at it, with new snapshots: what was under way during the first one has ended, or is no accident.

    wrong      a fact that contradicts another one: the verdict is WRONG, whatever else could not be reached
    away       a shard that does not answer: what it holds is unproven, the verdict is INCOMPLETE
    pending    recorded, and not on the shard yet: nothing is wrong
    noted      conflicts kept aside, copies of moves, holes and orphans that somebody has accepted: nothing is wrong
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from cotacoes.admin.audit_snapshot import AuditSnapshot, CoinAudit, Tell, open_audit_snapshot
from cotacoes.config import Settings
from cotacoes.errors import ShardUnavailableError
from cotacoes.model.coins import require_coin

SECOND_LOOK_AFTER_S = 2.0  # the close of a move is a matter of a second


class AuditVerdict(enum.StrEnum):
    """What the audit comes to, the worst first."""

    WRONG = "wrong"
    INCOMPLETE = "incomplete"
    RIGHT = "right"


@dataclass
class Audit:
    """The sum over all coins. `away` is each shard that did not answer, and why; `unknown` coins have no pending."""

    coins: int = 0
    shards: int = 0
    quotes: int = 0
    candles: int = 0
    pending: int = 0
    wrong: int = 0
    wrong_in: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    unknown: int = 0
    away: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> AuditVerdict:
        """See the head of this file."""
        if self.wrong:
            return AuditVerdict.WRONG
        return AuditVerdict.INCOMPLETE if self.away or self.unproven else AuditVerdict.RIGHT

    def add(self, one: CoinAudit) -> None:
        """Count one audit in."""
        is_coin = not one.is_survey
        self.coins += is_coin
        self.quotes += one.quotes
        self.candles += one.candles
        self.pending += one.pending or 0
        self.unknown += is_coin and one.pending is None
        self.wrong += one.wrong
        if one.wrong:
            self.wrong_in.append(one.coin if is_coin else str(one.shard))
        if one.away is not None:
            self.unproven.append(one.coin)


async def main(
    settings: Settings,
    *,
    coin: str | None = None,
    tell: Callable[[CoinAudit], None],
    say: Tell,
    second_look_after_s: float = SECOND_LOOK_AFTER_S,
) -> Audit:
    """Audit every coin, or one. `tell` is given each coin as it is done, `say` what is being read just now.

    UnknownCoinError, SettingError.
    """
    audit = Audit()

    def put(one: CoinAudit) -> None:
        audit.add(one)
        tell(one)

    async with open_audit_snapshot(settings, say) as look:
        surveys = await _surveys(look)
        doubtful = {}
        for name in _chosen(look, coin):
            one = await look.audit(name)
            if one.wrong or one.away is not None:
                doubtful[name] = one
            else:
                put(one)
        audit.away = look.away
        audit.shards = len(surveys)
    if doubtful or any(one.wrong for one in surveys) or audit.away:
        await asyncio.sleep(second_look_after_s)
        async with open_audit_snapshot(settings, say) as look:
            surveys = await _surveys(look)
            for name, first in doubtful.items():
                put(await look.audit(name) if name in look.coins else first)
            audit.away = look.away
            audit.shards = len(surveys)
    for one in surveys if coin is None else ():
        if one.wrong:
            put(one)
    return audit


async def _surveys(look: AuditSnapshot) -> list[CoinAudit]:
    return [await look.survey(shard) for shard in list(look.snapshots)]


def _chosen(look: AuditSnapshot, coin: str | None) -> list[str]:
    if coin is None:
        return look.coins
    if look.away and coin not in look.coins:
        raise ShardUnavailableError(next(iter(look.away.values())))
    return [require_coin(coin, look.coins)]
