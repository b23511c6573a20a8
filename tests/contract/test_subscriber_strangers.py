"""What a stranger publishes, and a history made anew: the real subscriber shows what the history holds, and says so."""

import asyncio
import signal
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest
from tests.contract.conftest import Server
from tests.contract.harness_client_subscriber import COIN, SubscriberSystem, subscribing

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.model.live_message import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote

FALSE_PRICE = "1.00"


@pytest.fixture
async def world(valkey: Server) -> AsyncIterator[SubscriberSystem]:
    async with subscribing(valkey.port) as world:
        yield world


async def publish(valkey: Server, line: Quote | Heartbeat) -> None:
    text = encode_quote(line) if isinstance(line, Quote) else encode_heartbeat(line)
    async with RedisBus(f"redis://127.0.0.1:{valkey.port}", deadline_s=5.0) as bus:
        await bus.publish([(channel(COIN), text)])


def last_of(world: SubscriberSystem) -> Quote:
    assert world.writer.last is not None
    return world.writer.last


async def test_a_second_system_is_never_shown_and_dismissed_within_seconds(
    valkey: Server, world: SubscriberSystem
) -> None:
    last = last_of(world)
    foreign = msgspec.structs.replace(last, epoch=last.epoch + 1_000, seq=1, price=Decimal(FALSE_PRICE), prev=None)
    await publish(valkey, foreign)
    await publish(valkey, Heartbeat(COIN, Position(last.epoch + 1_000, 5), None, last.at))
    await world.until_line("dismissed")
    await world.until_whole()
    assert world.breaches() == []
    assert all(line.get("price") != FALSE_PRICE for _, line in world.lines)
    assert world.kinds().count("dismissed") == 1


async def test_a_false_price_is_retracted_and_the_true_one_shown(valkey: Server, world: SubscriberSystem) -> None:
    shown = len(world.shown())
    while "retracted" not in world.kinds():  # the next position may be taken by the true quote first
        last = last_of(world)
        false = msgspec.structs.replace(last, seq=last.seq + 1, price=Decimal(FALSE_PRICE), prev=None)
        await publish(valkey, false)
        await asyncio.sleep(0.5)
        assert len(world.shown()) > shown
    await world.until_whole()
    lines = [line for _, line in world.lines]
    taken_back = next(line for line in lines if line["type"] == "retracted")
    after = Position.parse(taken_back["after"])
    following = next(line for line in lines[lines.index(taken_back) :] if line["type"] == "quote")
    true = world.history.at(COIN, Position(following["epoch"], following["seq"]))
    assert true is not None
    assert true.before == after, "the quote after what still counts"
    assert following["price"] == str(true.price)


async def test_a_history_replaced_during_a_pause_is_reported_and_shown_from_its_first_quote(
    world: SubscriberSystem,
) -> None:
    world.process.send_signal(signal.SIGSTOP)
    old = last_of(world).position
    world.history.made_anew()
    world.writer.epoch += 1_000_000
    await world.writer.write(3)
    world.process.send_signal(signal.SIGCONT)
    await world.until_line("gone")
    await world.until_whole()
    gone = next(line for _, line in world.lines if line["type"] == "gone")
    assert (gone["reason"], Position.parse(gone["after"]) <= old) == ("rewritten", True)
    first = Position(world.writer.epoch, 1)
    new = [position for position in world.shown() if position >= first]
    assert new == [Position(first.epoch, seq) for seq in range(1, len(new) + 1)]
