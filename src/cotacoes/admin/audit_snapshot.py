"""One snapshot of everything that the audit compares: every shard, the directory and quote_service's positions.

What is compared across two places is read in the order in which it grows: quote_service's `through` comes first, so no
shard's snapshot may lie behind it. The snapshots are opened one right after the other but not at one moment, so what
ends in between, such as a move, can look wrong. The caller has to look a second time.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

from cotacoes.adapters.postgres.shard_session import open_answering
from cotacoes.adapters.postgres.shard_snapshot import HoleRow, OrphanCount, PostgresSnapshot
from cotacoes.admin import audit_rules, directory
from cotacoes.config import Settings
from cotacoes.errors import ProblemError, ShardUnavailableError
from cotacoes.model.payloads import Progress
from cotacoes.model.quote import Position, format_time
from cotacoes.patterns.sharding.ledger_chain import LedgerChain, content_breaches, total_breaches
from cotacoes.patterns.sharding.ledger_facts import NONE, Breach, CoinCopy
from cotacoes.patterns.sharding.shard import Directory
from cotacoes.web.service_client import Addresses, ServiceClient

BREACHES_MAX = 100  # of one coin that are listed, and as many of its candles; all are counted
ASK_DEADLINE_S = 6.0
NO_COIN = "-"

Say = Callable[[str], None]


@dataclass
class CoinAudit:
    """The result of auditing one coin. `wrong` counts all breaches, `breaches` are the first, each with its shard.

    `away` is the reason if the coin could not be audited. `pending` is None if quote_service does not say.
    """

    coin: str
    shard: str | None = None
    epochs: int = 0
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
        """Whether this is about a shard itself and not about a coin."""
        return self.coin == NO_COIN

    def add(self, shard: str, breaches: Sequence[Breach], total: int | None = None) -> None:
        """Add breaches of a shard; `total` is their number if not all are given."""
        self.wrong += len(breaches) if total is None else total
        self.breaches += [(shard, breach) for breach in breaches[: max(0, 2 * BREACHES_MAX - len(self.breaches))]]


@dataclass
class ShardSurvey:
    """What was read of a shard beyond its quotes; numbers and days are by the coin's id."""

    copies: dict[str, CoinCopy] = field(default_factory=dict)
    conflicts: dict[int, int] = field(default_factory=dict)
    orphans: dict[int, OrphanCount] = field(default_factory=dict)
    held_days: dict[int, list[date]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class AuditSnapshot:
    """The snapshots of all shards that answer; see the module's docstring. `open_audit_snapshot` makes it.

    `away` maps each shard that does not answer to the reason. `progress` is None if quote_service does not answer.
    """

    snapshots: dict[str, PostgresSnapshot]
    away: dict[str, str]
    directory: Directory
    progress: dict[str, Progress] | None
    say: Say
    surveys: dict[str, ShardSurvey] = field(default_factory=dict)

    @property
    def coins(self) -> list[str]:
        """Every coin of the directory or of a fence, in the order of the directory."""
        fenced = (coin for survey in self.surveys.values() for coin in survey.copies)
        return list(dict.fromkeys([*self.directory.homes, *fenced]))

    async def survey(self, shard: str) -> CoinAudit:
        """Read a shard's fences and partitions; returns what is wrong with the shard itself."""
        snapshot = self.snapshots[shard]
        survey = self.surveys[shard] = ShardSurvey()
        found = CoinAudit(NO_COIN, shard)
        try:
            survey.copies = await snapshot.copies()
            survey.conflicts = await snapshot.conflicts()
            survey.orphans = await snapshot.orphans()
            if (name := snapshot.identity) not in (None, shard):
                found.add(shard, [Breach("identity", "name of the database", str(name), shard)])
            for partition, (day, is_of_day) in (await snapshot.partitions()).items():
                self.say(f"{shard} {day}")
                if not is_of_day:
                    wanted = "those of one day"
                    found.add(shard, [Breach(partition, "bounds and name of the partition", "others", wanted)])
                for coin_id in await snapshot.coins_of_day(day):
                    survey.held_days[coin_id].append(day)
            fenced = {copy.coin_id for copy in survey.copies.values()}
            for coin_id in sorted((await snapshot.coins_beside() | set(survey.held_days)) - fenced):
                found.add(shard, [Breach(f"coin id {coin_id}", "fence of what is stored", NONE, "one")])
        except ShardUnavailableError as error:
            self._lose(shard, error)
        return found

    async def audit(self, coin: str) -> CoinAudit:
        """Audit one coin: its home in full, then its copies against the home."""
        copies = {
            shard: survey.copies[coin]
            for shard, survey in self.surveys.items()
            if coin in survey.copies and shard not in self.away
        }
        standing = audit_rules.standing(
            self.directory.homes.get(coin), copies, away=self.away, directory_shard=directory.DIRECTORY_SHARD
        )
        found = CoinAudit(coin, standing.home, notes=[*standing.notes])
        for shard, breach in standing.breaches:
            found.add(shard, [breach])
        if standing.home is None:
            found.away = None if standing.away is None else self.away[standing.away]
            return found
        shard, home = standing.home, copies[standing.home]
        try:
            await self._audit_home(found, shard, home)
            self._compare_positions(found, shard, home)
            for shard, copy in copies.items():
                if copy.state == "moved":
                    await self._compare_copy(found, shard, copy, home)
        except ShardUnavailableError as error:
            found.away = self._lose(shard, error)
        return found

    async def _audit_home(self, found: CoinAudit, shard: str, home: CoinCopy) -> None:
        snapshot, survey, coin_id = self.snapshots[shard], self.surveys[shard], home.coin_id
        rows = await snapshot.day_rows(coin_id)
        holes = await snapshot.holes(coin_id)
        chain = LedgerChain(await snapshot.predecessors(coin_id), {hole.behind: hole.after for hole in holes})
        days = {*rows, *survey.held_days.get(coin_id, ()), *await snapshot.candle_days(coin_id)}
        room, unerased = BREACHES_MAX, 0
        for number, day in enumerate(sorted(days), start=1):
            self.say(f"{found.coin} {shard} {day}, {number} of {len(days)}")
            row = rows.get(day)
            stored = await snapshot.day(coin_id, day, row, room)
            found.add(shard, chain.add(stored))
            found.add(shard, stored.candle_breaches, stored.candle_breach_count)
            room -= len(stored.candle_breaches)
            if row is not None and row.is_dropped:
                found.dropped_days += 1
                unerased += bool(stored.pieces)
                found.add(shard, [*total_breaches(row, stored.candle_totals)])
            found.candles += sum(total.candles for total in stored.candle_totals)
        if unerased:
            found.notes.append((shard, f"dropped days whose quotes are not erased yet: {unerased}"))
        found.add(shard, chain.end(home))
        found.epochs, found.days, found.quotes = len(chain.epochs), len(days), chain.quotes
        found.conflicts = survey.conflicts.get(coin_id, 0)
        self._audit_discrepancies(found, shard, holes, survey.orphans.get(coin_id, OrphanCount(0, 0)))

    def _audit_discrepancies(self, found: CoinAudit, shard: str, holes: list[HoleRow], orphans: OrphanCount) -> None:
        """A discrepancy is wrong until it is accepted."""
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
        found.notes += [(shard, f"accepted {name}: {count}") for name, count in accepted.items() if count]

    def _compare_positions(self, found: CoinAudit, shard: str, home: CoinCopy) -> None:
        """The home must hold what quote_service knows to be stored."""
        progress = None if self.progress is None else self.progress.get(found.coin)
        if progress is None:
            return
        found.pending = progress.pending
        if progress.through is not None:
            through = Position.parse(progress.through)
            self._require_end(found, shard, home, through, "last position, which quote_service knows to be stored")

    def _require_end(self, found: CoinAudit, shard: str, home: CoinCopy, least: Position, what: str) -> None:
        if home.last is None or home.last < least:
            found.add(shard, [Breach("fence", what, str(home.last or NONE), f"{least} or later")])

    async def _compare_copy(self, found: CoinAudit, shard: str, left: CoinCopy, home: CoinCopy) -> None:
        """What is left of a copy that moved must be the beginning of what the home holds or has dropped."""
        assert found.shard is not None
        if left.last is not None:
            self._require_end(found, found.shard, home, left.last, f"last position, which the copy on {shard} has")
        at_left, at_home = self.snapshots[shard], self.snapshots[found.shard]
        rows = await at_home.day_rows(home.coin_id)
        held = self.surveys[shard].held_days.get(left.coin_id, [])
        for day in held:
            self.say(f"{found.coin} {shard} {day}, a copy")
            pieces = await at_left.pieces(left.coin_id, day)
            ours = await at_left.content(left.coin_id, day, pieces)
            row = rows.get(day)
            if row is None or not row.is_dropped:
                theirs = await at_home.content(home.coin_id, day, pieces)
            else:
                is_whole = (pieces[0].first, pieces[-1].last) == (row.first, row.last)
                theirs = row.manifest if is_whole else ours
            if ours is not None:
                found.add(shard, [*content_breaches(str(day), f"the copy of {found.shard}", ours, theirs)])
        found.notes.append((shard, f"a copy that moved; days of it still held: {len(held)}"))

    def _lose(self, shard: str, error: ShardUnavailableError) -> str:
        return self.away.setdefault(shard, error.detail)


@contextlib.asynccontextmanager
async def open_audit_snapshot(settings: Settings, say: Say) -> AsyncIterator[AuditSnapshot]:
    """Ask quote_service, read the directory, and open a snapshot of every shard that answers. SettingError."""
    progress = await _progress(settings)
    away: dict[str, str] = {}
    known = Directory({})
    try:
        known = await directory.read(settings)
    except ShardUnavailableError as error:
        away[directory.DIRECTORY_SHARD] = error.detail
    async with contextlib.AsyncExitStack() as stack:
        dsns = directory.dsns(settings, known)
        snapshots = {shard: PostgresSnapshot(shard, dsn) for shard, dsn in dsns.items() if shard not in away}
        away |= await open_answering(stack, snapshots.values())
        answering = {shard: snapshot for shard, snapshot in snapshots.items() if shard not in away}
        yield AuditSnapshot(answering, away, known, progress, say)


async def _progress(settings: Settings) -> dict[str, Progress] | None:
    try:
        async with ServiceClient(Addresses.of(settings), deadline_s=ASK_DEADLINE_S) as client:
            return await client.positions(venues=True)
    except ProblemError:
        return None
