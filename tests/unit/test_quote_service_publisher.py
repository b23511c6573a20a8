"""A quote is published once, in order, when the shard has answered or the wait is over."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import fake_event_loop

from cotacoes.errors import BusTimedOutError, BusUnavailableError
from cotacoes.model.live_message import Heartbeat, channel, decode_message
from cotacoes.model.quote import Position, Quote
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.publisher import QUEUE_QUOTES_MAX, Publisher, PublishQueue
from cotacoes.quote_service.writer import Writer
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.web.background import background

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WAIT_S = 0.05


def quotes(first: int, count: int = 1) -> list[Quote]:
    return [Quote("bitcoin", "USD", Decimal(1), 5, seq, NOON, NOON, "sim") for seq in range(first, first + count)]


def test_a_quote_waits_for_its_shard() -> None:
    queue = PublishQueue(WAIT_S)
    queue.add(quotes(1, 2), 0.0)
    assert queue.pop_ready(0.01, None, caught_up=False) == []
    assert queue.pop_ready(0.02, Position(5, 1), caught_up=False) == quotes(1)
    assert queue.pop_ready(0.03, Position(5, 2), caught_up=True) == quotes(2)
    assert not queue.degraded


def test_a_late_shard_delays_a_quote_by_the_wait_at_most_and_later_ones_not_at_all() -> None:
    queue = PublishQueue(WAIT_S)
    queue.add(quotes(1), 0.0)
    assert queue.next_due() == WAIT_S
    assert queue.pop_ready(WAIT_S, None, caught_up=False) == quotes(1)
    queue.add(quotes(2), 1.0)
    assert queue.pop_ready(1.0, None, caught_up=False) == quotes(2)
    assert queue.degraded
    assert queue.pop_ready(2.0, Position(5, 2), caught_up=True) == []
    queue.add(quotes(3), 3.0)
    assert queue.pop_ready(3.0, Position(5, 2), caught_up=False) == []


def test_a_full_queue_drops_the_oldest_quotes_and_returns_how_many() -> None:
    queue = PublishQueue(WAIT_S)
    assert queue.add(quotes(1, QUEUE_QUOTES_MAX), 0.0) == 0
    assert queue.add(quotes(QUEUE_QUOTES_MAX + 1, 3), 0.0) == 3
    assert queue.pop_ready(1.0, None, caught_up=False)[0].seq == 4


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.floats(0, 0.1)), max_size=30))
def test_each_quote_is_published_once_in_order_whatever_shard_and_clock_do(
    steps: list[tuple[int, int, float]],
) -> None:
    queue = PublishQueue(WAIT_S)
    now, recorded, delivered = 0.0, 0, 0
    published: list[int] = []
    for count, through, elapsed in steps:
        queue.add(quotes(recorded + 1, count), now)
        recorded += count
        delivered = max(delivered, min(through, recorded))
        now += elapsed
        position = Position(5, delivered) if delivered else None
        published += [quote.seq for quote in queue.pop_ready(now, position, caught_up=delivered == recorded)]
        assert published == list(range(1, len(published) + 1))
        assert len(published) >= delivered
    published += [quote.seq for quote in queue.pop_ready(now + WAIT_S, None, caught_up=False)]
    assert published == list(range(1, recorded + 1))


def test_quotes_and_heartbeats_are_published_only_on_channels_with_the_prefix() -> None:
    async def run() -> list[tuple[str, type[Quote | Heartbeat]]]:
        clock = asyncio.get_running_loop().time
        histories = {"bitcoin": CoinHistory("bitcoin", "shard1", now=lambda: NOON, clock=clock)}
        async with MemoryBus() as bus:
            publisher = Publisher(
                histories,
                bus,
                writer=Writer(lambda: None),
                metrics=QuoteMetrics(Metrics()),
                wait_s=WAIT_S,
                now=lambda: NOON,
                clock=clock,
                prefix="blue",
            )
            channels = [channel("bitcoin"), channel("bitcoin", "blue")]
            async with bus.subscribe(channels) as messages, background(publisher.run()):
                publisher.on_recorded(quotes(1))
                heard = [await anext(messages) for _ in range(2)]
        return [(name, type(line)) for name, message in heard for line in decode_message(message)]

    assert set(fake_event_loop.run(run())) == {("blue:bitcoin", Quote), ("blue:bitcoin", Heartbeat)}


class FailingBus(MemoryBus):
    """Fails each publish in the same way, and notes its time."""

    def __init__(self, error: BusUnavailableError) -> None:
        super().__init__()
        self.error = error
        self.asked: list[float] = []

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        self.asked.append(asyncio.get_running_loop().time())
        raise self.error


@pytest.mark.parametrize(
    ("error", "late"), [(BusTimedOutError("not within 250 ms"), 3), (BusUnavailableError("not reachable"), 0)]
)
def test_quotes_that_redis_did_not_acknowledge_in_time_are_counted_separately(
    error: BusUnavailableError, late: int
) -> None:
    metrics = Metrics()

    async def run() -> None:
        clock = asyncio.get_running_loop().time
        histories = {"bitcoin": CoinHistory("bitcoin", "shard1", now=lambda: NOON, clock=clock)}
        bus = FailingBus(error)
        writer, counted = Writer(lambda: None), QuoteMetrics(metrics)
        publisher = Publisher(
            histories, bus, writer=writer, metrics=counted, wait_s=WAIT_S, now=lambda: NOON, clock=clock
        )
        async with background(publisher.run()):
            publisher.on_recorded(quotes(1, 3))
            await asyncio.sleep(0.5)

    fake_event_loop.run(run())

    def counted(name: str) -> float:
        return metrics.registry.get_sample_value(f"cotacoes_{name}_total", {"coin": "bitcoin"}) or 0.0

    assert (counted("publish_failures"), counted("publish_timeouts")) == (3, late)
