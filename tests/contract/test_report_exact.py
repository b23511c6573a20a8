"""Every figure of the report is the one that all recorded prices give when they are in one place."""

import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any

import httpx2
from tests.conftest import SEED
from tests.contract.conftest import Placed
from tests.harness_recordings import RecordedMarket, each_market, recorded_mids
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.harness_directory import directory_over

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.aggregator_service import app
from cotacoes.model.quote import Position, Quote, parse_time
from cotacoes.patterns.sharding.shard import BATCH_QUOTES_MAX

QUOTES_MAX = 20_000  # of each coin
DAYS = 8
LENGTHS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}


def recorded(coin: str, file: Path, now: datetime) -> list[Quote]:
    """The recording's first prices, at times of our own from eight days ago until now, in a few epochs."""
    dice = random.Random(f"{SEED} {coin}")
    prices = list(itertools.islice(recorded_mids(file), QUOTES_MAX))
    moments = sorted(dice.random() for _ in prices)
    quotes: list[Quote] = []
    epoch, seq, prev = 5, 0, None
    for price, moment in zip(prices, moments, strict=True):
        if dice.random() < 0.0005:
            epoch, seq, prev = epoch + 1, 0, Position(epoch, seq)
        seq += 1
        at = now - timedelta(days=DAYS) * (1 - moment)
        quotes.append(Quote(coin, "USD", Decimal(price), epoch, seq, at, at, "replay:x", prev if seq == 1 else None))
    return quotes


def brute_force(quotes: Sequence[Quote], start: datetime, end: datetime) -> dict[str, Any]:
    """The figure without a candle, a partial sum or a line of the product."""
    prices = [quote.price for quote in quotes if start <= quote.at < end]
    with localcontext(prec=400):
        places = Decimal(1).scaleb(-18)
        mean = (sum(prices) / Decimal(len(prices))).quantize(places, ROUND_HALF_EVEN)
        change = ((prices[-1] - prices[0]) * 100 / prices[0]).quantize(places, ROUND_HALF_EVEN)
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "mean": mean,
        "change_percent": change,
        "count": len(prices),
        "holes": 0,
        "minutes": len({quote.at.replace(second=0, microsecond=0) for quote in quotes if start <= quote.at < end}),
    }


@each_market
async def test_the_report_over_a_recorded_market_is_exact(placed: Placed, market: RecordedMarket) -> None:
    coins = "bitcoin:shard1,ethereum:shard2"
    first, second = placed(coins)
    settings = config.load(
        {}, shard1_dsn=first, shard2_dsn=second, report_deadline_s=20, request_deadline_s=30, coins=coins
    )
    shards = {name: PostgresShard(name, settings.dsn(name), deadline_s=20.0) for name in config.SHARDS}
    held = {coin: recorded(coin, file, datetime.now(UTC)) for coin, file in market.files.items()}
    async with shards["shard1"], shards["shard2"], QuoteServiceTwin(held).client(deadline_s=20.0) as client:
        for coin, name in settings.seed_placement.items():
            for _, era in itertools.groupby(held[coin], key=lambda quote: quote.epoch):
                quotes = list(era)
                fence = await shards[name].become_writer(coin, quotes[0].epoch, "writer")
                for begin in range(0, len(quotes), BATCH_QUOTES_MAX):
                    page = quotes[begin : begin + BATCH_QUOTES_MAX]
                    await shards[name].append(coin, fence.placement, fence.writer_epoch, page)
        served = app.wire(settings, client, directory_over(shards, settings.seed_placement)).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://aggregator") as asking:
            for name, length in LENGTHS.items():
                report = (await asking.get(f"/report/full?window={name}&last=100")).json()
                assert report["complete"], report["missing"]
                end = parse_time(report["window"]["to"])
                assert parse_time(report["window"]["from"]) == end - length
                for coin, quotes in held.items():
                    its = report["coins"][coin]
                    within = [quote.at for quote in quotes if end - length <= quote.at < end]
                    beginning = within[0].replace(second=0, microsecond=0)
                    until = within[-1].replace(second=0, microsecond=0) + timedelta(minutes=1)
                    assert (parse_time(its["window"]["from"]), parse_time(its["window"]["to"])) == (beginning, until)
                    assert its["window"]["complete"] == ((beginning, until) == (end - length, end))
                    expected = brute_force(quotes, end - length, end)
                    figures = {key: Decimal(its["window"][key]) for key in expected}
                    assert figures == expected, (coin, name)
                    assert [log["price"] for log in its["last_logs"]] == [format(q.price, "f") for q in quotes[-100:]]
                    assert its["through"] == str(quotes[-1].position)
                    step = timedelta(minutes=report["window"]["step_minutes"])
                    begins = parse_time(report["window"]["closes_from"])
                    for number, close in enumerate(its["window"]["closes"]):
                        starts = max(begins + number * step, end - length)
                        ends = min(begins + (number + 1) * step, end)
                        closing = [quote.price for quote in quotes if starts <= quote.at < ends][-1:]
                        assert ([] if close is None else [Decimal(close)]) == closing
