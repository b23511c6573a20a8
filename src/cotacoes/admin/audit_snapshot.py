"""One look at everything: a snapshot of each shard, the directory, what quote_service says, and each coin's audit.

What is compared over two places was read in the order in which it grows: quote_service's `through` first, so that no
shard's snapshot may lie behind it. The snapshots are taken one right after the other, but not in one moment: what ends
in between, such as a move, can look wrong. It is for the caller to look again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

from cotacoes.adapters.postgres.shard_snapshot import FenceRow, HoleRow, OrphanCount, PostgresSnapshot
from cotacoes.admin import audit_rules, directory
from cotacoes.client import Addresses, Progress, ServiceClient
from cotacoes.config import Settings
from cotacoes.errors import ProblemError, ShardUnavailableError
from cotacoes.model.quote import Position, format_time
from cotacoes.patterns.sharding.ledger_chain import LedgerChain, content_breaches, total_breaches
from cotacoes.patterns.sharding.ledger_facts import NONE, Breach
from cotacoes.patterns.sharding.shard import Directory

BREACHES_MAX = 100  # of one coin that are told one by one, and as many of its candles; all are counted
ASK_DEADLINE_S = 6.0
NO_COIN = "-"

Tell = Callable[[str], None]


@dataclass
class CoinAudit:
    """What the audit of one coin has found. `wrong` counts all breaches, `breaches` are the first, each with its shard.

    `away`: why the coin could not be audited. `pending` None: nobody could tell.
    """

    coin: str
    shard: str | None = None
    eras: int = 0
    days: int = 0
    dropped_days: int = 0
    quotes: int = 0
    candles: int = 0
    conflicts: int = 0
    orphans: int = 0
    holes: int = 0
    pending: int | None = None
    wrong: int = 0
    breaches: list[tuple[str, Breach]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    away: str | None = None

    @property
    def is_survey(self) -> bool:
        """Whether this is of a shard itself, and of no coin."""
        return self.coin == NO_COIN

    def add(self, shard: str, breaches: Sequence[Breach], total: int | None = None) -> None:
        """Breaches of which there are `total`, where that is more."""
        self.wrong += len(breaches) if total is None else total
        self.breaches += [(shard, breach) for breach in breaches[: max(0, 2 * BREACHES_MAX - len(self.breaches))]]


@dataclass
class AuditSnapshot:
    """See the head of this file; made by `open_look`."""

    snapshots: dict[str, PostgresSnapshot]
    away: dict[str, str]
    directory: Directory
    progress: dict[str, Progress] | None
    say: Tell
    fences: dict[str, dict[str, FenceRow]] = field(default_factory=dict)
    conflicts: dict[str, dict[int, int]] = field(default_factory=dict)
    orphans: dict[str, dict[int, OrphanCount]] = field(default_factory=dict)
    held_days: dict[str, dict[int, list[date]]] = field(default_factory=dict)

    @property
    def coins(self) -> list[str]:
        """Every coin that the directory or a fence knows, in the order of the directory."""
        return list(dict.fromkeys([*self.directory.homes, *(coin for held in self.fences.values() for coin in held)]))

    async def survey(self, shard: str) -> CoinAudit:
        """The shard's fences and days, and what is wrong with it beyond its coins."""
        snapshot = self.snapshots[shard]
        found = CoinAudit(NO_COIN, shard)
        try:
            self.fences[shard] = await snapshot.fences()
            self.conflicts[shard] = await snapshot.conflicts()
            self.orphans[shard] = await snapshot.orphans()
            if (name := snapshot.identity) not in (None, shard):
                found.add(shard, [Breach("identity", "name of the database", str(name), shard)])
            days: dict[int, list[date]] = defaultdict(list)
            for part, (day, is_of_day) in (await snapshot.partitions()).items():
                self.say(f"{shard} {day}")
                if not is_of_day:
                    found.add(shard, [Breach(part, "bounds and name of the partition", "others", "those of one day")])
                for coin_id in await snapshot.coins_of_day(day):
                    days[coin_id].append(day)
            self.held_days[shard] = days
            for coin_id in sorted((await snapshot.coins_beside() | set(days)) - self._ids(shard)):
                found.add(shard, [Breach(f"coin id {coin_id}", "fence of what is stored", NONE, "one")])
        except ShardUnavailableError as error:
            self._lose(shard, error)
        return found

    async def audit(self, coin: str) -> CoinAudit:
        """One coin: its home in full, its copies against it."""
        fences = {shard: held[coin] for shard, held in self.fences.items() if coin in held and shard not in self.away}
        standing = audit_rules.standing(
            self.directory.homes.get(coin), fences, away=self.away, directory_shard=directory.DIRECTORY_SHARD
        )
        found = CoinAudit(coin, standing.home, notes=[*standing.notes])
        for shard, breach in standing.breaches:
            found.add(shard, [breach])
        if standing.home is None:
            found.away = None if standing.away is None else self.away[standing.away]
            return found
        shard = standing.home
        try:
            await self._audit_home(found, shard, fences[shard])
            self._against_log(found, shard, fences[shard])
            for shard, fence in fences.items():
                if fence.state == "moved":
                    await self._compare_copy(found, shard, fence, fences[standing.home])
        except ShardUnavailableError as error:
            found.away = self._lose(shard, error)
        return found

    async def _audit_home(self, found: CoinAudit, shard: str, fence: FenceRow) -> None:
        snapshot = self.snapshots[shard]
        manifests = await snapshot.manifests(fence.coin_id)
        holes = await snapshot.holes(fence.coin_id)
        chain = LedgerChain(await snapshot.eras(fence.coin_id), {hole.behind: hole.after for hole in holes})
        days = {*manifests, *self.held_days[shard].get(fence.coin_id, ()), *await snapshot.candle_days(fence.coin_id)}
        room, unerased = BREACHES_MAX, 0
        for number, day in enumerate(sorted(days), start=1):
            self.say(f"{found.coin} {shard} {day}, {number} of {len(days)}")
            manifest = manifests.get(day)
            stored, totals, wrong, total = await snapshot.day(fence.coin_id, day, manifest, room)
            found.add(shard, chain.take(stored))
            found.add(shard, wrong, total)
            room -= len(wrong)
            if manifest is not None and manifest.is_dropped:
                found.dropped_days += 1
                unerased += bool(stored.pieces)
                found.add(shard, [*total_breaches(day, manifest, totals)])
            found.candles += sum(one.candles for one in totals)
        if unerased:
            found.notes.append((shard, f"dropped days whose quotes are not erased yet: {unerased}"))
        found.add(shard, chain.end(fence.ends))
        found.eras, found.days, found.quotes = len(chain.epochs), len(days), chain.quotes
        found.conflicts = self.conflicts[shard].get(fence.coin_id, 0)
        self._audit_discrepancies(found, shard, holes, self.orphans[shard].get(fence.coin_id, OrphanCount(0, 0)))

    def _audit_discrepancies(self, found: CoinAudit, shard: str, holes: list[HoleRow], orphans: OrphanCount) -> None:
        """What is noted is wrong until somebody accepts it."""
        found.holes, found.orphans = len(holes), orphans.orphans
        wanted = f"accepted (`cotacoes ledger accept {found.coin}`)"
        for hole in holes:
            if not hole.is_accepted:
                what = f"hole after {hole.after or NONE}, noted {format_time(hole.noted_at)[:19]}Z"
                found.add(shard, [Breach(str(hole.behind), what, "unaccepted", wanted)])
        if unaccepted := orphans.orphans - orphans.accepted:
            what = "quotes that were recorded and are not in the history"
            found.add(shard, [Breach("orphans", what, f"{unaccepted} unaccepted", wanted)])
        accepted = {"holes": sum(hole.is_accepted for hole in holes), "orphans": orphans.accepted}
        found.notes += [(shard, f"{name} that were accepted: {count}") for name, count in accepted.items() if count]

    def _against_log(self, found: CoinAudit, shard: str, fence: FenceRow) -> None:
        progress = None if self.progress is None else self.progress.get(found.coin)
        if progress is None:
            return
        found.pending = progress.pending
        through = None if progress.through is None else Position.parse(progress.through)
        if through is not None and (fence.ends.last is None or through > fence.ends.last):
            last = NONE if fence.ends.last is None else str(fence.ends.last)
            found.add(
                shard, [Breach("fence", "last position, of which quote_service knows", last, f"{through} or later")]
            )

    async def _compare_copy(self, found: CoinAudit, shard: str, fence: FenceRow, home_fence: FenceRow) -> None:
        """What is left of a copy that moved must be a beginning of what the home holds or has dropped."""
        assert found.shard is not None
        copy, home = self.snapshots[shard], self.snapshots[found.shard]
        last, home_last = fence.ends.last, home_fence.ends.last
        if last is not None and (home_last is None or home_last < last):
            breach = Breach(
                "fence", f"last position, of which {shard} has a copy", str(home_last or NONE), f"{last} or later"
            )
            found.add(found.shard, [breach])
        manifests = await home.manifests(home_fence.coin_id)
        held = self.held_days[shard].get(fence.coin_id, [])
        for day in held:
            self.say(f"{found.coin} {shard} {day}, a copy")
            pieces = await copy.pieces(fence.coin_id, day)
            mine = await copy.content(fence.coin_id, day, pieces)
            manifest = manifests.get(day)
            if manifest is not None and manifest.is_dropped:
                theirs = (
                    manifest.content if (pieces[0].first, pieces[-1].last) == (manifest.first, manifest.last) else mine
                )
            else:
                theirs = await home.content(home_fence.coin_id, day, pieces)
            if mine is not None:
                found.add(shard, [*content_breaches(str(day), f"the copy of {found.shard}", mine, theirs)])
        found.notes.append((shard, f"a copy that moved; days of it still held: {len(held)}"))

    def _ids(self, shard: str) -> set[int]:
        return {fence.coin_id for fence in self.fences[shard].values()}

    def _lose(self, shard: str, error: ShardUnavailableError) -> str:
        return self.away.setdefault(shard, error.detail)


@contextlib.asynccontextmanager
async def open_audit_snapshot(settings: Settings, say: Tell) -> AsyncIterator[AuditSnapshot]:
    """Ask quote_service, read the directory, take a snapshot of every shard that answers. SettingError."""
    progress = await _progress(settings)
    away: dict[str, str] = {}
    known = Directory({})
    try:
        known = await directory.read(settings)
    except ShardUnavailableError as error:
        away[directory.DIRECTORY_SHARD] = error.detail
    async with contextlib.AsyncExitStack() as stack:
        snapshots = {shard: PostgresSnapshot(shard, dsn) for shard, dsn in directory.dsns(settings, known).items()}

        async def enter(shard: str) -> None:
            try:
                await stack.enter_async_context(snapshots[shard])
            except ShardUnavailableError as error:
                away.setdefault(shard, error.detail)

        ends = await asyncio.gather(*(enter(shard) for shard in snapshots if shard not in away), return_exceptions=True)
        for end in filter(None, ends):
            raise end
        yield AuditSnapshot(
            {shard: one for shard, one in snapshots.items() if shard not in away}, away, known, progress, say
        )


async def _progress(settings: Settings) -> dict[str, Progress] | None:
    try:
        async with ServiceClient(Addresses.of(settings), deadline_s=ASK_DEADLINE_S) as client:
            return await client.positions()
    except ProblemError:
        return None
