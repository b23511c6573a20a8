"""`cotacoes audit`: prove that no quote is lost and none is doubled, or name those that are. It only reads.

Each coin is reported as soon as it is audited. Coins that look wrong or could not be reached come last, after a second
look with new snapshots: by then, what was under way during the first one has ended or is really wrong.

    wrong      two facts contradict each other: the verdict is WRONG, whatever else could not be reached
    away       a shard does not answer: what it holds is unproven, and the verdict is INCOMPLETE
    pending    recorded, but not stored on the shard yet: nothing is wrong
    noted      conflicts kept aside, copies of moves, accepted holes and orphans: nothing is wrong
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from cotacoes.admin.audit_snapshot import AuditSnapshot, CoinAudit, Say, open_audit_snapshot
from cotacoes.config import Settings
from cotacoes.errors import ShardUnavailableError
from cotacoes.model.coins import require_coin

SECOND_LOOK_AFTER_S = 2.0  # a move closes the fence for about a second


class AuditVerdict(enum.StrEnum):
    """The result of the audit, the worst first."""

    WRONG = "wrong"
    INCOMPLETE = "incomplete"
    RIGHT = "right"


@dataclass
class Audit:
    """The sums over all coins. `away` maps each shard that did not answer to the reason.

    `unknown` counts the coins of which quote_service did not say what is pending.
    """

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
        """The verdict; the module's docstring has the rules."""
        if self.wrong:
            return AuditVerdict.WRONG
        return AuditVerdict.INCOMPLETE if self.away or self.unproven else AuditVerdict.RIGHT

    def add(self, one: CoinAudit) -> None:
        """Add the audit of a coin or of a shard."""
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
    on_coin: Callable[[CoinAudit], None],
    say: Say,
    second_look_after_s: float = SECOND_LOOK_AFTER_S,
) -> Audit:
    """Audit every coin, or one. `on_coin` gets each coin once it is audited, `say` what is being read at the moment.

    UnknownCoinError, SettingError.
    """
    audit = Audit()

    def report(one: CoinAudit) -> None:
        audit.add(one)
        on_coin(one)

    async with open_audit_snapshot(settings, say) as snapshot:
        surveys = await _survey(snapshot, audit)
        doubtful = {}
        for name in _chosen(snapshot, coin):
            one = await snapshot.audit(name)
            if one.wrong or one.away is not None:
                doubtful[name] = one
            else:
                report(one)
    if doubtful or any(one.wrong for one in surveys) or audit.away:
        await asyncio.sleep(second_look_after_s)
        async with open_audit_snapshot(settings, say) as snapshot:
            surveys = await _survey(snapshot, audit)
            for name, first in doubtful.items():
                report(await snapshot.audit(name) if name in snapshot.coins else first)
    for one in surveys if coin is None else ():
        if one.wrong:
            report(one)
    return audit


async def _survey(snapshot: AuditSnapshot, audit: Audit) -> list[CoinAudit]:
    """Survey every shard of a snapshot, which from then on is the one that the audit is about."""
    audit.away, audit.shards = snapshot.away, len(snapshot.snapshots)
    return [await snapshot.survey(shard) for shard in snapshot.snapshots]


def _chosen(snapshot: AuditSnapshot, coin: str | None) -> list[str]:
    if coin is None:
        return snapshot.coins
    if snapshot.away and coin not in snapshot.coins:
        raise ShardUnavailableError(next(iter(snapshot.away.values())))
    return [require_coin(coin, snapshot.coins)]
