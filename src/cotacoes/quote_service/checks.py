"""What /readyz of quote_service asks: each check gives the reason in words, None if all is well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.backlog import Backlog
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import Recorder

Probe = Callable[[], Awaitable[str | None]]


def log_check(recorder: Recorder) -> Probe:
    """Why the log cannot be written."""

    async def probe() -> str | None:
        return recorder.failure

    return probe


def quotes_check(histories: Mapping[str, CoinHistory]) -> Probe:
    """Of which coins there is no quote yet, if that is all of them."""

    async def probe() -> str | None:
        without = [coin for coin, history in histories.items() if history.newest is None]
        return f"no quote yet of {', '.join(without[:5])}" if len(without) == len(histories) else None

    return probe


def shard_check(directory: ShardDirectory, backlog: Backlog, name: str) -> Probe:
    """Why a shard does not take what is recorded: away, refusing writes, or holding up a delivery."""

    async def probe() -> str | None:
        held = backlog.held_on(name)
        try:
            await directory.shards[name].check_writable()
        except ShardUnavailableError as error:
            if held is None or error.detail not in held:
                return "; ".join(filter(None, (error.detail, held)))
        return held

    return probe


def ping_check(ping: Callable[[], Awaitable[None]]) -> Probe:
    """Why something does not answer."""

    async def probe() -> str | None:
        await ping()  # an error's detail becomes the reason
        return None

    return probe
