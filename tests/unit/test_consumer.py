"""Whatever the bus and the history do, the follower hands on one sequence per coin, and says when it was broken."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from itertools import pairwise

import pytest
import structlog.testing
from tests.unit import fake_event_loop
from tests.unit.harness_feed_consumer import COIN, EPOCH, NOON, FeedSystem, LoggedBus, following

from cotacoes.feed.consumer import (
    BUS_QUIET_S,
    JOIN_INTERVAL_S,
    PARDON_S,
    RECONNECT_MOST_S,
    START_S,
    WATCH_INTERVAL_S,
    Emit,
    FeedConsumer,
    log_change,
)
from cotacoes.feed.feeds import SILENT_AFTER_S, Back, FeedEvent, Feeds, Silent
from cotacoes.feed.filler import FILL_MOST_S, FILLS_MAX, QUIET_S, UNREACHED_S
from cotacoes.model.live_message import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import GapDetected, GapFilled, GapLost, QuoteReceived, Retracted


def at(seq: int, epoch: int = EPOCH) -> Position:
    return Position(epoch, seq)


def logging(take: Emit) -> Emit:
    """Say changes in the log, too."""

    async def both(events: Sequence[FeedEvent]) -> None:
        for event in events:
            log_change(event)
        await take(events)

    return both


def without_history(world: FeedSystem) -> None:
    world.history.away = True


def hanging_history(world: FeedSystem) -> None:
    world.history.hangs = True


def three_recorded(world: FeedSystem) -> None:
    world.record(3)


# the start


def test_the_last_quote_comes_at_once_and_then_each_new_one_once() -> None:
    async def scenario(world: FeedSystem) -> None:
        assert world.seqs() == [3]
        await world.publish()
        await world.beat()
        await world.publish(2)

    assert following(scenario, prepare=three_recorded).emitted() == [3, 4, 5, 6]


def test_quotes_published_during_the_start_are_not_reported_as_missed() -> None:
    """The history is asked when the link is there: what comes between its answer and the first thing heard is owed."""

    class SlowBus(LoggedBus):
        @contextlib.asynccontextmanager
        async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
            await asyncio.sleep(0.5)
            async with super().subscribe(channels) as messages:
                yield messages

    def prepare(world: FeedSystem) -> None:
        world.record(3)
        world.bus = SlowBus()

    async def scenario(world: FeedSystem) -> None:
        for _ in range(10):
            await world.publish()
            await asyncio.sleep(0.1)

    received = following(scenario, prepare=prepare).emitted()
    assert GapDetected not in received
    assert received[-1] == 13


@pytest.mark.parametrize(("how", "wait_s"), [("away", 0.0), ("hangs", START_S + WATCH_INTERVAL_S)])
def test_the_last_quote_does_not_wait_for_a_bus_that_does_not_answer(how: str, wait_s: float) -> None:
    def prepare(world: FeedSystem) -> None:
        world.record(3)
        setattr(world.bus, how, True)

    async def scenario(world: FeedSystem) -> None:
        await asyncio.sleep(wait_s)
        assert world.emitted() == [3]

    following(scenario, prepare=prepare)


def test_after_a_position_everything_after_it_comes_first() -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish()

    world = following(scenario, prepare=lambda world: world.record(2500), since={COIN: at(1)})
    assert world.emitted() == list(range(2, 2502))


@pytest.mark.parametrize("prepare", [without_history, hanging_history])
def test_a_live_price_does_not_wait_for_a_history_that_does_not_answer(prepare: Callable[[FeedSystem], None]) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish(2)
        await asyncio.sleep(START_S + 2 * WATCH_INTERVAL_S)
        assert world.seqs() == [1, 2]
        await world.publish()

    assert following(scenario, prepare=prepare).emitted() == [1, 2, 3]


def test_a_live_price_waits_for_a_history_that_answers_within_a_second() -> None:
    def prepare(world: FeedSystem) -> None:
        world.record(3)
        world.history.delay_s = START_S - 0.2

    async def scenario(world: FeedSystem) -> None:
        await world.publish()
        await asyncio.sleep(START_S)

    assert following(scenario, prepare=prepare).emitted() == [3, 4]


def test_a_live_price_does_not_wait_while_the_history_is_busy_with_other_coins() -> None:
    coins = [f"coin-{number}" for number in range(3 * FILLS_MAX)]

    async def scenario(world: FeedSystem) -> None:
        for coin in coins:
            await world.publish(1, coin)
        await asyncio.sleep(START_S + 2 * WATCH_INTERVAL_S)
        assert [world.seqs(coin) for coin in coins] == [[1]] * len(coins)
        assert world.history.at_once_most == FILLS_MAX

    following(scenario, prepare=hanging_history, coins=coins)


def test_a_coin_that_is_added_later_is_followed_once() -> None:
    async def scenario(world: FeedSystem) -> None:
        for _ in range(3):
            await asyncio.sleep(JOIN_INTERVAL_S)
            await world.publish(1, "solana")
        assert len(world.bus.subscribed_at) == 2
        await world.publish()

    world = following(scenario, newcomers=[COIN, "solana"])
    assert (world.seqs("solana"), world.seqs()) == ([1, 2, 3], [1])


# what is missed


def test_the_next_heartbeat_reveals_what_a_dead_link_missed_and_it_is_fetched() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.bus.cut()
        world.bus.away = True
        await asyncio.sleep(3)
        world.record(3)
        world.bus.away = False
        await asyncio.sleep(RECONNECT_MOST_S + 0.1)
        await world.beat()
        await asyncio.sleep(0.1)
        assert [one for one in world.emitted() if one not in {Silent, Back}] == [3, GapDetected, 4, 5, 6, GapFilled]
        await world.publish()

    world = following(scenario, prepare=three_recorded)
    assert world.seqs() == [3, 4, 5, 6, 7]
    assert GapDetected(Gap(COIN, at(3), at(6), Reason.LOST)) in world.events
    assert GapFilled(COIN, at(3), at(6), 3) in world.events


def test_a_message_lost_on_a_living_link_is_fetched_in_its_place() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.record(2)
        await world.publish(2)

    world = following(scenario, prepare=three_recorded)
    assert world.seqs() == [3, 4, 5, 6, 7]
    assert [one for one in world.emitted() if not isinstance(one, int)] == [GapDetected, GapFilled]


def test_a_series_of_invalid_messages_is_logged_once_and_changes_nothing() -> None:
    async def scenario(world: FeedSystem) -> None:
        for _ in range(3):
            await world.bus.publish([(channel(COIN), b"nonsense")] * 2)
            await world.publish()

    with structlog.testing.capture_logs() as logs:
        world = following(scenario, prepare=three_recorded)
    assert world.emitted() == [3, 4, 5, 6]
    assert [entry["event"] for entry in logs] == ["message.refused"] * 3


def test_at_the_end_everything_that_the_history_has_beyond_the_last_message_can_be_fetched() -> None:
    async def run() -> FeedSystem:
        world = FeedSystem()
        world.record(2500)
        world.history.away = True
        feeds = Feeds([COIN], 0.0, since={COIN: at(1)})
        clock = asyncio.get_running_loop().time
        follower = FeedConsumer(feeds, world.bus, world.history, world.take, clock=clock, random=random.Random(1))
        async with asyncio.TaskGroup() as group:
            catching_up = group.create_task(follower.catch_up(COIN))
            await asyncio.sleep(10)
            assert not catching_up.done()
            world.history.away = False
        return world

    assert fake_event_loop.run(run()).seqs() == list(range(2, 2501))


def test_a_history_that_is_away_is_asked_again_at_a_bounded_pace_and_nothing_is_skipped_meanwhile() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.history.away = True
        world.record(1)
        await world.publish()
        asked = len(world.history.asked)
        for _ in range(60):
            await asyncio.sleep(1)
            await world.publish()
        assert world.seqs() == [3]
        times = [when for when, _, _ in world.history.asked[asked:]]
        assert 30 <= len(times) < 100
        assert max(later - earlier for earlier, later in pairwise(times)) <= FILL_MOST_S
        world.history.away = False
        await asyncio.sleep(FILL_MOST_S)

    with structlog.testing.capture_logs() as logs:
        world = following(scenario, prepare=three_recorded)
    assert world.seqs() == list(range(3, 66))
    assert [entry["event"] for entry in logs] == ["history.away", "history.back"]


def test_a_history_that_lags_behind_the_bus_is_asked_again_until_it_has_come_as_far() -> None:
    async def scenario(world: FeedSystem) -> None:
        ahead = encode_heartbeat(Heartbeat(COIN, at(4), None, NOON))
        await world.bus.publish([(channel(COIN), ahead)])
        await asyncio.sleep(UNREACHED_S - 1)
        assert len(world.history.asked) < 20
        world.record(1)
        await asyncio.sleep(FILL_MOST_S)

    assert [one for one in following(scenario, prepare=three_recorded).emitted() if one is not Silent] == [
        3,
        GapDetected,
        4,
        GapFilled,
    ]


# what anyone can publish


async def stray(world: FeedSystem, position: Position, price: str | None = None) -> None:
    """Someone else publishes: a heartbeat, or a quote if there is a price."""
    line = encode_heartbeat(Heartbeat(COIN, position, None, NOON))
    if price is not None:
        line = encode_quote(Quote(COIN, "USD", Decimal(price), *position, NOON, NOON, "sim"))
    await world.bus.publish([(channel(COIN), line)])


@pytest.mark.parametrize("position", [at(5, EPOCH + 1_000_000), at(999_999)], ids=["another era", "the same era"])
def test_one_stray_message_costs_a_few_questions_and_delays_no_price(position: Position) -> None:
    async def scenario(world: FeedSystem) -> None:
        await stray(world, position)
        for _ in range(100):
            await world.publish()
            await asyncio.sleep(0.01)
            assert world.seqs()[-1] == world.history.written[-1].seq, "shown at once"
            await asyncio.sleep(0.09)
        asked = len(world.history.asked)
        assert asked < 20
        for _ in range(600):
            await world.publish()
            await asyncio.sleep(0.1)
        assert len(world.history.asked) == asked, "and then it is forgotten"

    with structlog.testing.capture_logs() as logs:
        world = following(scenario, prepare=three_recorded, take=lambda world: logging(world.take))
    assert world.breaches(at(2)) == []
    assert [entry["event"] for entry in logs].count("position.dismissed") == 1


def test_a_second_system_on_the_same_bus_is_counted_and_checked_but_never_shown() -> None:
    counted: Counter[str] = Counter()

    async def scenario(world: FeedSystem) -> None:
        for second in range(1, 301):
            await world.publish()
            await stray(world, at(second, EPOCH + 9), "1.00")
            await stray(world, at(second, EPOCH + 9))
            await stray(world, at(second, EPOCH - 1), "2.00")
            await stray(world, at(second, EPOCH - 1))
            await asyncio.sleep(1)
        assert len(world.history.asked) < 2 + 300 / PARDON_S * 20

    with structlog.testing.capture_logs() as logs:
        world = following(
            scenario,
            prepare=three_recorded,
            take=lambda world: logging(world.take),
            count_ignored=lambda coin, reason, count: counted.update({reason: count}),
        )
    assert world.breaches(at(2)) == []
    assert world.seqs() == list(range(3, 304))
    assert counted["foreign"] > 400
    assert counted["old"] == 600
    events = [entry["event"] for entry in logs]
    assert events.count("position.dismissed") == 1, "said once"
    assert 4 <= events.count("messages.ignored") <= 6


def test_a_false_price_under_the_next_position_is_retracted_within_a_second_and_the_true_one_shown() -> None:
    async def scenario(world: FeedSystem) -> None:
        await stray(world, at(4), "1.00")
        await asyncio.sleep(0.5)
        await world.publish()
        await asyncio.sleep(0.5)
        assert Retracted(Gap(COIN, at(3), at(4), Reason.RETRACTED)) in world.events
        await stray(world, at(5), "1.00")
        await world.beat()
        await asyncio.sleep(0.5)
        assert Retracted(Gap(COIN, at(4), at(5), Reason.RETRACTED)) in world.events

    world = following(scenario, prepare=three_recorded)
    assert world.emitted() == [3, 4, Retracted, 4, 5, Retracted]
    assert world.events[3] == QuoteReceived(world.history.at(COIN, at(4)))  # type: ignore[arg-type]


def test_a_flood_of_false_prices_costs_at_most_one_question_for_each_quote() -> None:
    async def scenario(world: FeedSystem) -> None:
        for _ in range(10):
            await world.publish()
            for price in range(1, 51):
                await stray(world, world.history.written[-1].position, f"{price}.00")
                await asyncio.sleep(0.01)
        assert len(world.history.asked) < 20

    assert following(scenario, prepare=three_recorded).emitted() == list(range(3, 14))


def test_messages_of_a_stranger_are_no_sign_of_life_of_our_own_writer() -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.beat()
        for second in range(1, 31):
            await stray(world, at(second, EPOCH + 9))
            await asyncio.sleep(1)

    assert Silent in following(scenario, prepare=three_recorded).emitted()


def test_what_the_history_no_longer_holds_is_reported_as_gone_and_the_rest_comes() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.record(5)
        world.history.floor[COIN] = 6
        await world.beat()

    world = following(scenario, prepare=three_recorded)
    assert GapLost(Gap(COIN, at(3), at(6), Reason.GONE)) in world.events
    assert world.seqs() == [3, 7, 8]
    assert world.breaches(at(2)) == []


def test_after_a_position_that_never_existed_the_newest_quote_begins_anew() -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish()

    world = following(scenario, prepare=three_recorded, since={COIN: at(90)})
    assert world.emitted() == [GapLost, 3, 4]


@pytest.mark.parametrize(
    ("since", "comes"), [(at(1, 1), [1, 2, 3, 1, 2]), (at(9), [1, 2])], ids=["before the first", "in between"]
)
def test_a_position_of_another_history_is_reported_and_all_later_quotes_come(since: Position, comes: list[int]) -> None:
    def prepare(world: FeedSystem) -> None:
        world.record(3)
        world.record(1, epoch=EPOCH + 1)

    async def scenario(world: FeedSystem) -> None:
        await world.publish(1, epoch=EPOCH + 1)

    world = following(scenario, prepare=prepare, since={COIN: since})
    assert world.emitted()[0] is GapLost
    assert world.seqs() == comes


def test_a_replaced_history_is_reported_and_shown_from_its_first_quote() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.bus.cut()
        world.bus.away = True
        world.history.made_anew()
        world.record(3, epoch=EPOCH + 1)
        world.bus.away = False
        await asyncio.sleep(RECONNECT_MOST_S + 0.1)
        await world.beat()
        await asyncio.sleep(1)
        asked = len(world.history.asked)
        await world.publish(1, epoch=EPOCH + 1)
        await asyncio.sleep(60)
        assert len(world.history.asked) == asked

    world = following(scenario, prepare=three_recorded)
    assert [one for one in world.emitted() if one is not Silent] == [3, GapDetected, GapLost, 1, 2, 3, 4]
    assert GapLost(Gap(COIN, at(3), at(3), Reason.REWRITTEN)) in world.events


def test_a_new_epoch_of_the_writer_is_followed_without_a_hole() -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish(1, epoch=8)
        world.record(1, epoch=8)
        world.record(1, epoch=9)
        await world.beat()

    world = following(scenario, prepare=three_recorded)
    assert world.breaches(at(2)) == []
    assert len(world.seqs()) == 4


# the link


def test_a_dead_link_is_made_again_within_two_seconds_of_the_bus_being_back() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.bus.cut()
        world.bus.away = True
        await asyncio.sleep(600)
        pauses = [later - earlier for earlier, later in pairwise(world.bus.subscribed_at)]
        assert max(pauses[:2]) <= 0.3
        assert 1.5 < max(pauses) <= RECONNECT_MOST_S
        world.bus.away = False
        await asyncio.sleep(RECONNECT_MOST_S + 0.01)
        assert await world.bus.publish([(channel(COIN), b"x")]) == [1]

    following(scenario)


@pytest.mark.parametrize(("away_s", "said"), [(BUS_QUIET_S - 1, []), (BUS_QUIET_S + 3, ["bus.away", "bus.back"])])
def test_a_bus_that_is_late_at_the_start_is_only_logged_if_it_stays_away(away_s: float, said: list[str]) -> None:
    def prepare(world: FeedSystem) -> None:
        world.bus.away = True

    async def scenario(world: FeedSystem) -> None:
        await asyncio.sleep(away_s)
        world.bus.away = False
        await asyncio.sleep(RECONNECT_MOST_S)

    with structlog.testing.capture_logs() as logs:
        following(scenario, prepare=prepare, bus_quiet_s=BUS_QUIET_S)
    assert [entry["event"] for entry in logs] == said


def test_without_a_quiet_time_a_missing_bus_is_logged_at_once() -> None:
    def prepare(world: FeedSystem) -> None:
        world.bus.away = True

    async def scenario(world: FeedSystem) -> None:
        await asyncio.sleep(0.1)

    with structlog.testing.capture_logs() as logs:
        following(scenario, prepare=prepare)
    assert [entry["event"] for entry in logs] == ["bus.away"]


def test_a_bus_that_accepts_and_hangs_up_is_not_hammered() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.bus.hangs_up = True
        world.bus.cut()
        await asyncio.sleep(60)
        assert len(world.bus.subscribed_at) < 100

    following(scenario)


def test_after_good_data_the_first_pause_is_short_again() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.bus.cut()
        world.bus.away = True
        await asyncio.sleep(60)
        world.bus.away = False
        await asyncio.sleep(RECONNECT_MOST_S + 0.01)
        await world.publish()
        await asyncio.sleep(1)
        world.bus.cut()
        await asyncio.sleep(0.11)
        assert await world.bus.publish([(channel(COIN), b"x")]) == [1]

    following(scenario)


# silence


def test_a_feed_without_heartbeats_is_silent_once_and_back_with_its_next_message() -> None:
    async def scenario(world: FeedSystem) -> None:
        await asyncio.sleep(60)
        assert world.emitted() == [3, Silent]
        await world.beat()

    assert following(scenario, prepare=three_recorded).emitted() == [3, Silent, Back]


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "filled"])
def test_a_feed_is_not_silent_because_its_reader_was_slow(heard: bool) -> None:
    """Whether what waits to be taken came from the bus or from the history."""

    async def scenario(world: FeedSystem) -> None:
        await world.beat()
        world.reading.clear()
        for _ in range(60):
            if heard:
                await world.publish()
            else:
                world.record(1)
                await world.beat()
            await asyncio.sleep(1)
        world.bus.cut()  # as Redis does to a listener that does not listen
        world.reading.set()
        await asyncio.sleep(2)
        await world.beat()

    world = following(scenario, prepare=three_recorded)
    assert not {Silent, Back} & set(world.emitted())
    assert world.seqs() == list(range(3, 64))


def test_a_feed_that_fell_silent_while_its_reader_was_slow_is_reported_afterwards() -> None:
    async def scenario(world: FeedSystem) -> None:
        world.reading.clear()
        await world.publish()
        await asyncio.sleep(60)
        world.reading.set()
        await asyncio.sleep(SILENT_AFTER_S + 2 * WATCH_INTERVAL_S)

    assert following(scenario, prepare=three_recorded).emitted() == [3, 4, Silent]


# whatever happens


@pytest.mark.parametrize("number", range(20))
def test_whatever_happens_emitted_quotes_and_lost_gaps_are_everything(seeded: random.Random, number: int) -> None:
    dice = random.Random(seeded.random() + number)

    async def scenario(world: FeedSystem) -> None:
        epoch = EPOCH
        for _ in range(60):
            match dice.choice(["publish", "publish", "lose", "cut", "away", "history", "era", "drop", "slow", "wait"]):
                case "publish":
                    await _publish(world, epoch)
                case "lose":
                    world.record(dice.randint(1, 30), epoch=epoch)
                case "cut":
                    world.bus.cut()
                case "away":
                    world.bus.away = not world.bus.away
                    world.bus.cut()
                case "history":
                    world.history.away = not world.history.away
                case "era":
                    epoch += 1
                case "drop":
                    world.history.floor[COIN] = dice.randint(0, len(world.history.written) - 1)
                case "slow":
                    (world.reading.clear if world.reading.is_set() else world.reading.set)()
                case "wait":
                    await asyncio.sleep(dice.uniform(0.0, 10.0))
            await asyncio.sleep(dice.uniform(0.0, 0.2))
        world.bus.away = world.history.away = False
        world.reading.set()
        for _ in range(20):
            await asyncio.sleep(1)
            await world.beat()
        assert world.seqs()[-1:] == [world.history.written[-1].seq]

    async def _publish(world: FeedSystem, epoch: int) -> None:
        if world.bus.away:
            world.record(1, epoch=epoch)
        else:
            await world.publish(dice.randint(1, 5), epoch=epoch)

    world = following(scenario, prepare=three_recorded)
    assert world.breaches(at(2)) == []


@pytest.mark.parametrize(("away_s", "logged"), [(QUIET_S - 3, []), (QUIET_S + 3, ["history.away", "history.back"])])
def test_a_history_that_is_late_at_the_start_is_only_logged_if_it_stays_away(away_s: float, logged: list[str]) -> None:
    def prepare(world: FeedSystem) -> None:
        three_recorded(world)
        world.history.away = True

    async def scenario(world: FeedSystem) -> None:
        await asyncio.sleep(away_s)
        world.history.away = False
        await asyncio.sleep(FILL_MOST_S)

    with structlog.testing.capture_logs() as logs:
        world = following(scenario, prepare=prepare)
    assert world.seqs() == [3]
    assert [entry["event"] for entry in logs] == logged
