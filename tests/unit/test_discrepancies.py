"""How quote_service reports holes and orphans that are not accepted."""

import pytest
from tests.unit.harness_directory import directory_over
from tests.unit.harness_quote_service import COIN

from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.patterns.sharding.shard import Unaccepted
from cotacoes.quote_service.discrepancies import DiscrepancyWatch
from cotacoes.testing.memory_shard import MemoryShard

pytestmark = pytest.mark.anyio


class DoubtfulShard(MemoryShard):
    """A shard with the discrepancies that a test gives it."""

    counts: dict[str, Unaccepted]

    async def unaccepted(self) -> dict[str, Unaccepted]:
        await self.ping()
        return self.counts


async def test_ready_and_the_metrics_show_unaccepted_discrepancies_even_while_the_shard_is_away() -> None:
    shard = DoubtfulShard("shard1", [COIN])
    metrics = Metrics()
    watch = DiscrepancyWatch(directory_over({"shard1": shard}, {COIN: "shard1"}), QuoteMetrics(metrics))

    def gauge(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"cotacoes_{name}_unaccepted", {"coin": COIN})

    shard.counts = {COIN: Unaccepted(holes=1, orphans=51)}
    assert await watch.check() is None  # no shard was asked yet
    await watch.ask()
    assert await watch.check() == "not accepted: bitcoin 1 holes, 51 orphans (`cotacoes ledger list`)"
    assert (gauge("holes"), gauge("orphans")) == (1, 51)
    shard.away = True
    await watch.ask()
    assert (gauge("holes"), gauge("orphans")) == (1, 51)
    shard.away, shard.counts = False, {}
    await watch.ask()
    assert await watch.check() is None
    assert (gauge("holes"), gauge("orphans")) == (0, 0)


async def test_a_few_of_many_coins_are_named_and_the_others_counted() -> None:
    shard = DoubtfulShard("shard1", [COIN])
    shard.counts = {f"coin-{number}": Unaccepted(1, 0) for number in range(7)}
    watch = DiscrepancyWatch(directory_over({"shard1": shard}, {COIN: "shard1"}), QuoteMetrics(Metrics()))
    await watch.ask()
    text = await watch.check()
    assert text is not None
    assert "coin-4" in text
    assert "coin-5" not in text
    assert "and 2 more" in text
