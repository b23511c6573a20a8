"""What the gateway knows of the whole system, part by part, and what has changed since it was last sent.

The parts come from status_polls.py, which asks for them. A part that only was heard from again has not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from cotacoes.model.breakers import BreakerJson
from cotacoes.model.payloads import Progress
from cotacoes.model.quote import format_time
from cotacoes.model.status import (
    CoinJson,
    CoinStatusJson,
    FaultsStatusJson,
    LimitsJson,
    PartState,
    ReportStatusJson,
    ServiceStatusJson,
    ShardStatusJson,
    SourceKind,
    StatusJson,
    VenuesStatusJson,
)

ENCODED_FOR = timedelta(seconds=0.5)
_encode = msgspec.json.Encoder().encode

Part = VenuesStatusJson | FaultsStatusJson | ReportStatusJson
_Known = ServiceStatusJson | ShardStatusJson | CoinStatusJson | Part


class Status:
    """See the head of this file. `now` returns the time of day in UTC."""

    def __init__(
        self,
        services: Iterable[str],
        shards: Iterable[str],
        *,
        limits: LimitsJson,
        source: SourceKind,
        now: Callable[[], datetime],
    ) -> None:
        self._limits = limits
        self._source = source
        self._now = now
        began = format_time(now())
        self._services = {name: ServiceStatusJson("unknown", began, None, None, []) for name in services}
        self._shards = {name: ShardStatusJson("unknown", began, None, None) for name in shards}
        self._coins: dict[str, CoinStatusJson] = {}
        self._parts: dict[str, Part | None] = {"venues": None, "faults": None, "report": None}
        self._changes: dict[str, Any] = {}
        self._encoded: bytes | None = None  # the whole, until it changes
        self._encoded_at = now()

    @property
    def coins(self) -> Mapping[str, CoinStatusJson]:
        """The coins, by name."""
        return self._coins

    def is_up(self, shard: str | None) -> bool:
        """Whether quotes get to this shard."""
        return shard is not None and self._shards[shard].state == "up"

    def whole(self) -> StatusJson:
        """All that is known now."""
        return StatusJson(
            generated_at=format_time(self._now()),
            limits=self._limits,
            source=self._source,
            services=self._services,
            shards=self._shards,
            coins=self._coins,
            **self._parts,  # type: ignore[arg-type]  # each is of its own type
        )

    def encoded(self) -> bytes:
        """The whole as JSON, made anew when it has changed, or is `ENCODED_FOR` old: many may want it at once."""
        now = self._now()
        if self._encoded is None or not timedelta() <= now - self._encoded_at < ENCODED_FOR:
            self._encoded, self._encoded_at = _encode(self.whole()), now
        return self._encoded

    def pop_changes(self) -> dict[str, Any]:
        """What has changed since the last call, shaped like the whole; an entry that is gone is None."""
        changes, self._changes = self._changes, {}
        return {"generated_at": format_time(self._now()), **changes}

    def note_answer(self, service: str, breakers: Sequence[BreakerJson] | None = None) -> None:
        """The service has answered; None: it was not asked for its breakers, or has none."""
        shown = self._services[service].breakers if breakers is None else list(breakers)
        self._put_service(service, "up", format_time(self._now()), None, shown)

    def note_no_answer(self, service: str, reason: str) -> None:
        """The service has not answered."""
        before = self._services[service]
        self._put_service(service, "away", before.known_at, reason, before.breakers)

    def note_coins(self, coins: Mapping[str, CoinJson], progress: Mapping[str, Progress] | None) -> None:
        """These are the coins. `progress` is how far each has come; None: quote_service has not answered."""
        shown = {name: self._coin(name, coin, progress) for name, coin in coins.items()}
        for name in self._coins.keys() - shown.keys():
            self._change("coins", name, None)
        for name, coin in shown.items():
            if self._coins.get(name) != coin:
                self._change("coins", name, coin)
        self._coins = shown
        for shard, held in _held_by_shard(progress or {}).items():
            self._put_shard(shard, held)

    def put(self, name: str, part: Part) -> None:
        """Replace `venues`, `faults` or `report`."""
        if _without_age(self._parts[name]) != _without_age(part):
            self._changes[name] = part
            self._encoded = None
        self._parts[name] = part

    def _coin(self, name: str, coin: CoinJson, progress: Mapping[str, Progress] | None) -> CoinStatusJson:
        described = msgspec.structs.asdict(coin)
        if progress is None and (before := self._coins.get(name)) is not None:
            return msgspec.structs.replace(before, **described)
        one = (progress or {}).get(name)
        if one is None:
            return CoinStatusJson(
                **described, shard=None, position=None, through=None, pending=None, held=None, source=None
            )
        return CoinStatusJson(**described, **msgspec.structs.asdict(one))

    def _put_service(
        self, name: str, state: PartState, known_at: str | None, reason: str | None, breakers: list[BreakerJson]
    ) -> None:
        before = self._services[name]
        since = before.since if before.state == state else format_time(self._now())
        after = ServiceStatusJson(state, since, known_at, reason, breakers)
        self._services[name] = after
        if _without_age(before) != _without_age(after):
            self._change("services", name, after)

    def _put_shard(self, name: str, held: str | None) -> None:
        now = format_time(self._now())
        state: PartState = "up" if held is None else "away"
        before = self._shards.get(name)
        since = before.since if before is not None and before.state == state else now
        self._shards[name] = after = ShardStatusJson(state, since, now, held)
        if _without_age(before) != _without_age(after):
            self._change("shards", name, after)

    def _change(self, section: str, name: str, value: _Known | None) -> None:
        self._changes.setdefault(section, {})[name] = value
        self._encoded = None


def _held_by_shard(progress: Mapping[str, Progress]) -> dict[str, str | None]:
    """Each shard that has a coin, and why quotes of one of them do not get there; None if they do."""
    held: dict[str, str | None] = {}
    for one in progress.values():
        held[one.shard] = held.get(one.shard) or one.held
    return held


def _without_age(part: _Known | None) -> _Known | None:
    if part is None or isinstance(part, CoinStatusJson):
        return part
    return msgspec.structs.replace(part, known_at=None)
