"""The live stream: one way in without a seam, nothing lost and nothing twice, whatever is slow and whatever happens."""

import asyncio
import random

import pytest
from tests.unit.harness_gateway_scenarios import anything, race, run, settle, since
from tests.unit.harness_gateway_stream import FakeFeeds, StreamRig, assert_tiles, quote

from cotacoes.gateway_service.ring import Kind, StreamEntry
from cotacoes.model.quote import Position
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import GapLost, QuoteReceived, Retracted


def test_a_stream_begins_with_the_newest_quote_and_says_where() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=3)
        client = rig.client()
        client.subscribe("bitcoin", id="one")
        await rig.publish()
        await settle()
        begun, *rest = client.read()
        assert begun == {
            "type": "subscribed",
            "id": "one",
            "mode": "every",
            "coins": {"bitcoin": {"recovered": False, "position": "5-2"}},
        }
        assert [frame["seq"] for frame in rest] == [3, 4]

    run(scenario)


def test_before_the_first_quote_ever_a_stream_begins_with_nothing_and_misses_nothing() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin")
        await rig.publish(count=2)
        await settle()
        client.read()
        assert client.frames[0]["coins"]["bitcoin"]["position"] is None
        assert client.quotes() == [(5, 1), (5, 2)]

    run(scenario)


@pytest.mark.parametrize("mode", ["every", "conflate"])
def test_a_subscription_is_answered_once_the_position_of_the_feed_is_known(mode: str) -> None:
    async def scenario(rig: StreamRig) -> None:
        rig.hub.follow(FakeFeeds(has_begun=lambda coin: bool(rig.history.of(coin))))
        client = rig.client()
        client.subscribe("bitcoin", "ethereum", mode=mode)
        await rig.publish("ethereum", 2)
        await settle()
        assert client.read() == []
        rig.record("bitcoin", 7)  # before the gateway began
        await rig.publish("bitcoin")
        await settle()
        client.read()
        assert {coin: received["position"] for coin, received in client.frames[0]["coins"].items()} == {
            "bitcoin": "5-7",
            "ethereum": "5-1",
        }
        for coin in ("bitcoin", "ethereum"):
            assert_tiles(client.frames, rig.history, coin, through=rig.history.of(coin)[-1].position)

    run(scenario, "bitcoin", "ethereum")


def test_a_client_that_leaves_before_the_answer_is_forgotten() -> None:
    async def scenario(rig: StreamRig) -> None:
        rig.hub.follow(FakeFeeds(has_begun=lambda _: False))
        for _ in range(3):
            client = rig.client()
            client.subscribe("bitcoin")
            client.cut()
        assert not rig.hub._awaiting
        assert not rig.hub.connections

    run(scenario)


def test_a_flush_of_many_coins_is_written_in_bounded_pieces() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client(room=100_000_000)
        client.subscribe(*rig.coins)
        written: list[int] = []
        write = client.connection.write

        def counted(data: bytes | bytearray | memoryview) -> None:
            written.append(len(data))
            write(data)

        client.connection.write = counted
        for coin in rig.coins:
            await rig.publish(coin, 300)
        await settle()
        client.read()
        assert max(written) < 2 * 65_536
        assert len(client.quotes()) == 300 * len(rig.coins)

    run(scenario, *(f"coin-{number}" for number in range(10)))


def test_after_a_position_in_the_ring_all_that_follows_comes_without_the_history() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=5)
        await rig.publish(new_era=True)
        client = rig.client()
        client.subscribe("bitcoin", **since("5-2"))
        client.read()
        assert client.frames[0]["coins"]["bitcoin"] == {"recovered": True, "position": "5-2"}
        assert client.quotes() == [(5, 3), (5, 4), (5, 5), (6, 1)]
        assert rig.history.asked == []

    run(scenario)


def test_before_the_ring_the_history_is_sent_first_and_joins_it_exactly() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=3_000)
        client = rig.client(room=10_000_000)
        client.subscribe("bitcoin", **since("5-10"))
        await rig.publish(count=3)
        await asyncio.sleep(1.0)
        client.read()
        assert len(rig.history.asked) > 3
        assert client.frames[0]["coins"]["bitcoin"] == {"recovered": True, "position": "5-10"}
        assert client.quotes() == [(5, seq) for seq in range(11, 3_004)]

    run(scenario, stream_ring_bytes=200_000)


def test_below_the_floor_of_the_history_a_gap_reports_what_is_gone() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=2_000)
        rig.history.floor["bitcoin"] = 1_000
        client = rig.client(room=10_000_000)
        client.subscribe("bitcoin", **since("5-10"))
        await asyncio.sleep(1.0)
        client.read()
        assert client.frames[0]["coins"]["bitcoin"] == {"recovered": False, "position": "5-10"}
        assert client.frames[1] == {
            "type": "gap",
            "coin": "bitcoin",
            "after": "5-10",
            "through": "5-1000",
            "reason": "gone",
        }
        assert_tiles(client.frames, rig.history, "bitcoin", through=Position(5, 2_000))

    run(scenario, stream_ring_bytes=65_536)


def test_after_a_position_that_never_existed_the_stream_begins_with_the_newest_quote() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=3)
        client = rig.client()
        client.subscribe("bitcoin", **since("9-9"))
        await settle()
        client.read()
        assert client.frames[0]["coins"]["bitcoin"]["recovered"] is False
        assert (client.frames[1]["type"], client.frames[1]["reason"]) == ("gap", "rewritten")
        assert client.quotes() == [(5, 3)]
        await rig.publish()
        await settle()
        client.read()
        assert client.quotes() == [(5, 3), (5, 4)]

    run(scenario)


@pytest.mark.parametrize("ring_bytes", [1_000_000, 65_536], ids=["in the ring", "further back"])
def test_a_position_before_the_first_quote_ever_is_reported_and_everything_comes(ring_bytes: int) -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=600)
        await rig.publish(new_era=True)
        client = rig.client(room=10_000_000)
        client.subscribe("bitcoin", **since("1-1"))
        await asyncio.sleep(1.0)
        client.read()
        assert client.frames[0]["coins"]["bitcoin"] == {"recovered": False, "position": "1-1"}
        assert client.frames[1] == {
            "type": "gap",
            "coin": "bitcoin",
            "after": "1-1",
            "through": "1-1",
            "reason": "rewritten",
        }
        assert client.quotes() == [*((5, seq) for seq in range(1, 601)), (6, 1)]
        await rig.publish()
        await settle()
        client.read()
        assert client.quotes()[-1] == (6, 2)
        asked = len(rig.history.asked)
        await asyncio.sleep(60)
        assert len(rig.history.asked) == asked, "it costs the history nothing from then on"

    run(scenario, stream_ring_bytes=ring_bytes)


def test_on_a_stream_a_position_of_another_history_is_reported_and_all_later_quotes_come() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=3)
        await rig.publish(new_era=True, count=2)
        client = rig.client()
        client.subscribe("bitcoin", **since("5-9"))
        await asyncio.sleep(1.0)
        client.read()
        gap = client.frames[1]
        assert (gap["type"], gap["after"], gap["through"], gap["reason"]) == ("gap", "5-9", "5-9", "rewritten")
        assert client.quotes() == [(6, 1), (6, 2)]

    run(scenario)


def test_a_position_of_another_history_is_reported_even_before_any_quote() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin", **since("1-1"))
        await settle()
        assert [frame["type"] for frame in client.read()] == ["subscribed", "gap"]
        await rig.publish(count=2)
        await settle()
        client.read()
        assert client.quotes() == [(5, 1), (5, 2)]

    run(scenario)


def test_a_position_that_redis_never_reaches_costs_the_history_less_and_less() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=3)
        rig.record("bitcoin", 2)
        client = rig.client(room=10_000_000)
        client.subscribe("bitcoin", **since("5-5"))
        await asyncio.sleep(3_600)
        client.read()
        assert len(rig.history.asked) < 20 + 3_600 / 15
        assert not client.quotes()

    run(scenario)


def test_a_position_that_redis_has_not_reached_yet_waits_for_it() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=3)
        late = rig.record("bitcoin", 2)
        client = rig.client()
        client.subscribe("bitcoin", **since("5-5"))
        await settle()
        client.read()
        assert client.frames[0]["coins"]["bitcoin"] == {"recovered": True, "position": "5-5"}
        assert client.quotes() == []
        await rig.hub.apply([QuoteReceived(each) for each in late])
        await rig.publish()
        await asyncio.sleep(1.0)
        client.read()
        assert client.quotes() == [(5, 6)]

    run(scenario)


def test_while_the_history_is_away_nothing_is_skipped_and_heartbeats_go_on() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=1_000)
        rig.history.away = True
        client = rig.client(room=10_000_000)
        client.subscribe("bitcoin", **since("5-1"))
        for _ in range(20):
            await asyncio.sleep(1.0)
            client.read()
        assert client.quotes() == []
        rig.history.away = False
        await asyncio.sleep(10)
        client.read()
        assert client.quotes() == [(5, seq) for seq in range(2, 1_001)]
        assert sum(frame["type"] == "heartbeat" for frame in client.frames) >= 5

    run(scenario, stream_ring_bytes=65_536)


def test_a_gap_that_will_not_be_filled_is_sent_to_everyone_in_its_place() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=2)
        client = rig.client()
        client.subscribe("bitcoin")
        rig.record("bitcoin", 3)
        await rig.hub.apply([GapLost(Gap("bitcoin", Position(5, 2), Position(5, 5), Reason.GONE))])
        await rig.publish()
        await settle()
        client.read()
        assert_tiles(client.frames, rig.history, "bitcoin", through=Position(5, 6))

    run(scenario)


async def retract(rig: StreamRig) -> None:
    """Two false quotes after 5-3, taken back, and the true ones."""
    await rig.publish(count=3)
    await rig.hub.apply([QuoteReceived(false) for false in (quote("bitcoin", 4), quote("bitcoin", 5))])
    await settle()


RETRACTION = {"type": "gap", "coin": "bitcoin", "after": "5-3", "through": "5-5", "reason": "retracted"}
RETRACTED = Retracted(Gap("bitcoin", Position(5, 3), Position(5, 5), Reason.RETRACTED))


def test_false_quotes_are_retracted_on_every_stream_and_the_true_ones_follow() -> None:
    async def scenario(rig: StreamRig) -> None:
        client, late = rig.client(), rig.client()
        client.subscribe("bitcoin")
        await retract(rig)
        await rig.hub.apply([RETRACTED])
        await rig.publish(count=3)
        late.subscribe("bitcoin", **since("5-4"))
        await settle()
        client.read()
        assert client.quotes() == [(5, seq) for seq in (1, 2, 3, 4, 5, 4, 5, 6)]
        assert RETRACTION in client.frames
        late.read()
        assert late.frames[1] == RETRACTION, "a client that resumes after a false quote gets the retraction too"
        assert late.quotes() == [(5, 4), (5, 5), (5, 6)]

    run(scenario)


def test_a_slow_client_gets_the_retraction_and_no_false_quote_after_it() -> None:
    async def scenario(rig: StreamRig) -> None:
        slow, fresh = rig.client(), rig.client(room=100_000)
        slow.subscribe("bitcoin")
        await rig.publish(count=1_000)
        await settle()
        rig.history.made_anew()
        rig.record("bitcoin", 3)
        await rig.hub.apply([Retracted(Gap("bitcoin", Position(5, 3), Position(5, 1_000), Reason.RETRACTED))])
        fresh.subscribe("bitcoin", **since("5-1"))
        for _ in range(100):
            slow.read(20_000)
            await asyncio.sleep(0.01)
        slow.read()
        (taken_back,) = [frame for frame in slow.frames if frame["type"] == "gap"]
        assert (taken_back["after"], taken_back["through"], taken_back["reason"]) == ("5-3", "5-1000", "retracted")
        assert len(slow.quotes()) < 1_000
        fresh.read()
        assert fresh.quotes() == [(5, 2), (5, 3)]

    run(scenario)


def test_a_false_first_quote_ever_is_retracted() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin")
        await rig.hub.apply([QuoteReceived(quote("bitcoin", 1, 9))])
        await settle()
        await rig.hub.apply([Retracted(Gap("bitcoin", None, Position(9, 1), Reason.RETRACTED))])
        await rig.publish(count=2)
        await settle()
        client.read()
        assert client.quotes() == [(9, 1), (5, 1), (5, 2)]
        assert client.frames[2]["after"] is None

    run(scenario)


def test_the_newest_quote_does_not_stand_for_retracted_ones() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin", mode="conflate")
        await retract(rig)
        await rig.hub.apply([RETRACTED])
        await settle()
        other = rig.client()
        other.subscribe("bitcoin", mode="conflate")
        await settle()
        assert [frame["type"] for frame in other.read()] == ["subscribed"]
        await rig.publish()
        await settle()
        client.read()
        other.read()
        assert client.quotes()[-1] == other.quotes()[-1] == (5, 4)

    run(scenario)


def test_conflate_sends_the_newest_quote_and_the_range_that_it_stands_for() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=2)
        client = rig.client()
        client.subscribe("bitcoin", mode="conflate")
        await rig.publish(count=50)
        await settle()
        await rig.publish(count=1)
        await settle()
        _, *quotes = client.read()
        assert [(frame["seq"], frame["after"]) for frame in quotes] == [(2, "5-1"), (52, "5-2"), (53, "5-52")]

    run(scenario)


def test_an_interval_sends_the_newest_quote_at_most_once_in_its_time() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin", mode="interval:1000")
        for _ in range(100):
            await rig.publish()
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        client.read()
        quotes = [frame for frame in client.frames if frame["type"] == "quote"]
        assert 5 <= len(quotes) <= 7
        assert_tiles(client.frames, rig.history, "bitcoin", through=Position(5, 100))

    run(scenario)


def test_an_interval_is_not_shortened_by_others_who_join() -> None:
    async def scenario(rig: StreamRig) -> None:
        first = rig.client()
        first.subscribe("bitcoin", mode="interval:1000")
        await rig.publish()
        await settle()
        for _ in range(5):
            await rig.publish()
            rig.client().subscribe("bitcoin", mode="interval:1000")
            await settle()
        first.read()
        assert first.quotes() == [(5, 1)]

    run(scenario)


@pytest.mark.slow
def test_a_client_that_does_not_read_costs_a_bounded_buffer_and_later_gets_everything() -> None:
    async def scenario(rig: StreamRig) -> None:
        slow, quick = rig.client(), rig.client()
        for client in (slow, quick):
            client.subscribe("bitcoin")
        for _ in range(100):
            await rig.publish(count=100)
            await asyncio.sleep(0.05)
            quick.read()
            assert len(slow.transport.unread) < 3 * 65_536
        assert len(quick.quotes()) == 10_000
        for _ in range(400):
            slow.read(20_000)
            await asyncio.sleep(0.01)
        assert slow.quotes() == quick.quotes()

    run(scenario)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_closed_in_time_with_its_own_code() -> None:
    async def scenario(rig: StreamRig) -> None:
        slow, quick = rig.client(), rig.client(room=10_000_000)
        for client in (slow, quick):
            client.subscribe("bitcoin")
        for second in range(18):
            await rig.publish(count=1_000)
            await asyncio.sleep(1.0)
            quick.read()
            assert len(rig.hub.connections) == (2 if second < 14 else 1 if second > 16 else len(rig.hub.connections))
        slow.read()
        assert slow.close == (4003, "slow")
        assert slow.frames[-1]["type"] == "bye"
        assert quick.close is None
        assert len(quick.quotes()) == 18_000

    run(scenario)


def test_a_client_that_answers_no_ping_is_closed_even_on_a_quiet_stream() -> None:
    async def scenario(rig: StreamRig) -> None:
        dead, alive = rig.client(room=10_000_000), rig.client()
        for client in (dead, alive):
            client.subscribe("bitcoin")
        dead.answers_pings = False
        for _ in range(40):
            await asyncio.sleep(1.0)
            alive.read()
            dead.read()
        assert alive.close is None
        assert alive.pings >= 3
        assert dead.close == (4003, "slow")

    run(scenario)


def test_a_connection_without_a_subscription_is_ended_in_time() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        await asyncio.sleep(9.0)
        client.read()
        assert client.close is None
        await asyncio.sleep(3.0)
        client.read()
        assert client.close == (4001, "unsubscribed")

    run(scenario)


def test_a_connection_has_a_maximum_age_and_its_end_says_when_to_come_back() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin")
        for _ in range(60):
            await asyncio.sleep(1.0)
            client.read()
        assert client.close == (4000, "age")
        bye = client.frames[-1]
        assert bye["reason"] == "age"
        assert 500 <= bye["retry_ms"] <= 5_000

    run(scenario, stream_age_max_s=60)


@pytest.mark.parametrize(("count", "most"), [(1, 510), (10, 600), (60, 1_100)])
def test_few_clients_come_back_soon_and_many_are_spread_as_far_as_they_can_be_taken(count: int, most: int) -> None:
    async def scenario(rig: StreamRig) -> None:
        clients = [rig.client() for _ in range(count)]
        for client in clients:
            client.subscribe("bitcoin")
            client.read()
            client.connection.shutdown()
        waits = []
        for client in clients:
            client.read()
            waits.append(client.frames[-1]["retry_ms"])
        assert 500 <= min(waits) <= max(waits) <= most
        if count > 50:
            assert max(waits) - min(waits) > 400

    run(scenario, stream_accepts_per_s=100)


def test_too_many_messages_end_a_connection_and_a_burst_does_not() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        for _ in range(20):
            client.send({"op": "ping"})
        client.read()
        assert [frame["type"] for frame in client.frames] == ["pong"] * 20
        for _ in range(20):
            client.send({"op": "ping"})
        client.read()
        assert client.close == (4002, "rate")

    run(scenario)


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("{", "invalid message"),
        ("[" * 5_000, "invalid message"),
        ({"op": "jump"}, "subscribe, unsubscribe or ping"),
        ({"op": "subscribe", "coins": []}, "at least one"),
        ({"op": "subscribe", "coins": ["bitcoi"]}, "not quoted"),
        ({"op": "subscribe", "coins": ["bitcoin"], "mode": "interval:1"}, "interval"),
        ({"op": "subscribe", "coins": ["bitcoin"], "since": {"bitcoin": "5"}}, "EPOCH-SEQ"),
        ({"op": "subscribe", "coins": ["bitcoin"], "since": {"ethereum": "5-1"}}, "ethereum"),
        ({"op": "subscribe", "coins": ["bitcoin"], "limit": 3}, "limit"),
        ({"op": "ping", "id": "x" * 65}, "64"),
        ({"op": "subscribe", "coins": ["bitcoin", "ethereum", "solana"]}, "STREAM_COINS_MAX"),
    ],
)
def test_a_failed_operation_is_answered_and_the_connection_stays(op: object, said: str) -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.send(op)
        client.send({"op": "ping", "id": "still here"})
        error, pong = client.read()
        assert error["type"] == "error"
        assert said in error["problem"]["detail"]
        assert pong == {"type": "pong", "id": "still here"}

    run(scenario, "bitcoin", "ethereum", "solana", stream_coins_max=2)


def test_coins_come_and_go_without_a_seam_in_those_that_stay() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin")
        for step in range(30):
            await rig.publish("bitcoin", count=3)
            await rig.publish("ethereum", count=2)
            if step % 5 == 0:
                client.subscribe("ethereum", mode="conflate" if step % 2 else "every")
            if step % 5 == 3:
                client.send({"op": "unsubscribe", "coins": ["ethereum"]})
            await asyncio.sleep(0.5)
            client.read()
        assert_tiles(client.frames, rig.history, "bitcoin", through=Position(5, 90))
        assert {"type": "unsubscribed", "id": None, "coins": ["ethereum"]} in client.frames

    run(scenario, "bitcoin", "ethereum")


def test_heartbeats_say_how_far_the_stream_is_and_which_feeds_are_silent() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin", "ethereum")
        await rig.publish()
        rig.hub.follow(FakeFeeds(silent=["ethereum"]))
        await asyncio.sleep(5.5)
        client.read()
        beat = client.frames[-1]
        assert (beat["coins"], beat["silent"]) == ({"bitcoin": "5-1", "ethereum": None}, ["ethereum"])

    run(scenario, "bitcoin", "ethereum")


def test_more_connections_than_places_are_refused_with_when_to_try_again() -> None:
    async def scenario(rig: StreamRig) -> None:
        first = rig.client()
        second = rig.client()
        assert second.response is not None
        assert second.response.status_code == 503
        assert second.response.headers["retry-after"] == "2"
        first.cut()
        assert rig.client().response.status_code == 101  # type: ignore[union-attr]

    run(scenario, streams_max=1)


def test_many_clients_at_once_are_admitted_at_a_rate() -> None:
    async def scenario(rig: StreamRig) -> None:
        let_in = [rig.client().response.status_code for _ in range(15)]  # type: ignore[union-attr]
        assert let_in == [101] * 10 + [503] * 5
        await asyncio.sleep(1.0)
        assert rig.client().response.status_code == 101  # type: ignore[union-attr]

    run(scenario, stream_accepts_per_s=10)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://gateway", 101),
        ("https://page.example", 101),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_pages_of_other_origins_may_not_read_unless_they_are_listed(origin: str, status: int) -> None:
    async def scenario(rig: StreamRig) -> None:
        response = rig.client(headers={"Origin": origin}).response
        assert response is not None
        assert response.status_code == status

    run(scenario, allowed_origins="https://page.example")


def test_another_path_is_not_found() -> None:
    async def scenario(rig: StreamRig) -> None:
        response = rig.client(path="/elsewhere").response
        assert response is not None
        assert response.status_code == 404

    run(scenario)


def test_a_channel_ends_with_its_last_member() -> None:
    async def scenario(rig: StreamRig) -> None:
        clients = [rig.client() for _ in range(3)]
        for client in clients:
            client.subscribe("bitcoin")
        assert len(rig.hub._channels) == 1
        for client in clients:
            client.cut()
        assert not rig.hub._channels
        assert not rig.hub.connections
        assert not rig.connections
        await rig.publish()
        await settle()

    run(scenario)


def test_subscribing_in_the_middle_of_publishing_has_no_seam(seeded: random.Random) -> None:
    race(seeded, subscriptions=1_000)


@pytest.mark.slow
@pytest.mark.parametrize("ring_bytes", [65_536, 2**25])
def test_whatever_clients_and_history_do_each_stream_covers_the_history(ring_bytes: int, seeded: random.Random) -> None:
    anything(seeded, steps=150, ring_bytes=ring_bytes)


def test_an_entry_stands_for_a_range_without_another_field_changing() -> None:
    entry = StreamEntry(Kind.QUOTE, "bitcoin", 5, 1, b'{"a":1}')
    assert entry.standing_for(None).text == b'{"a":1,"after":null}'
    assert entry.standing_for(Position(4, 2)).text == b'{"a":1,"after":"4-2"}'
