"""The pure parts of the `fanout` figures: what is counted, late or refused, and what stands in the rows."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from benchmarks import fanout_wire as wire
from benchmarks.fanout import FANOUT, WIDE, in_turn, rows_of
from benchmarks.fanout_history import COIN, EPOCH, History, beat_after, make_quotes
from benchmarks.fanout_intake import batched
from benchmarks.fanout_intake_listener import Account
from benchmarks.fanout_program import MissingPeerError, Server, find_program
from benchmarks.fanout_receiver import Counter, Order, ReceiverReport, Sampler, pong_for, retry_after_s, spread
from benchmarks.fanout_round import (
    LATE_NS,
    LATE_SHARE_MAX,
    Batch,
    Load,
    Round,
    late_share,
    publish,
    read_round,
    require_whole,
)
from benchmarks.figure import MeasureError
from benchmarks.peers.broadcasters import NODE_FOLDER

from cotacoes.model.live_message import decode_message, encode_quote
from cotacoes.model.quote import Position

LINES = [encode_quote(quote) for quote in make_quotes(1, 3, 1000)]
SUBSCRIBED = b'{"type":"subscribed","id":null,"mode":"every","coins":{"bitcoin":{"recovered":true,"position":"1-9"}}}'
HEARTBEAT = b'{"type":"heartbeat","sent_at":"2026-11-24T12:00:00.000000Z","coins":{"bitcoin":"1-9"},"silent":[]}'


def served(payload: bytes) -> bytes:
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


STREAMS = {
    "WebSocket": b"".join(map(served, [SUBSCRIBED, LINES[0], HEARTBEAT, LINES[1], LINES[2]])),
    "SSE": b"retry: 1000\n\n" + b"".join(b"id: bitcoin:1-1\nevent: quote\ndata: %s\n\n" % line for line in LINES),
    "nats": served(b"".join(b"MSG quotes 1 %d\r\n%s\r\n" % (len(line), line) for line in LINES)),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_each_quote_is_counted_once_wherever_a_read_ends(stream: bytes) -> None:
    for size in (1, 2, 7, 13, 14, 15, 64, 200, len(stream)):
        counter, sampler = Counter(), Sampler()
        for number, start in enumerate(range(0, len(stream), size)):
            counter.take(stream[start : start + size], number)
            sampler.take(stream[start : start + size], number)
        assert counter.quotes == 3
        assert [seq for seq, _ in sampler.arrivals] == [1, 2, 3]


def test_a_quote_that_came_in_two_reads_arrived_with_the_second() -> None:
    sampler = Sampler()
    sampler.take(STREAMS["SSE"][:-150], 5)
    sampler.take(STREAMS["SSE"][-150:], 9)
    assert sampler.arrivals == [(1, 5), (2, 5), (3, 9)]


def test_a_ping_is_answered_with_what_it_carried_and_half_a_ping_is_not() -> None:
    assert pong_for(served(LINES[0]) + b"\x89\x02hi" + served(LINES[1])) == wire.frame(wire.PONG, b"hi")
    assert [pong_for(data) for data in (served(LINES[0]), b"\x89", b"\x89\x02h", b"\x89\x7e" + bytes(200))] == [
        None
    ] * 4


@pytest.mark.parametrize("length", [0, 125, 126, 65_535])
def test_a_frame_of_a_client_tells_its_length_and_is_masked(length: int) -> None:
    framed = wire.frame(wire.TEXT, b"x" * length)
    assert framed[0] == 0x81
    assert framed[1] & 0x80
    declared = framed[1] & 0x7F if length < 126 else int.from_bytes(framed[2:4], "big")
    assert (declared, framed.count(b"x")) == (length, length)
    assert len(framed) == length + (6 if length < 126 else 8)


def test_a_client_of_ours_asks_for_what_follows_a_position_where_there_is_one() -> None:
    since = Position(EPOCH, 7)
    resumed, fresh = (wire.from_gateway(1).steps(position)[1][0] for position in (since, None))
    assert json.loads(resumed[resumed.index(b"{") :])["since"] == {"bitcoin": f"{EPOCH}-7"}
    assert "since" not in json.loads(fresh[fresh.index(b"{") :])
    assert f"&since=bitcoin:{EPOCH}-7 ".encode() in wire.from_gateway_events(1).steps(since)[0][0]
    assert b"since" not in wire.from_gateway_events(1).steps(None)[0][0]


def test_every_server_is_given_the_bytes_of_the_message_as_they_are() -> None:
    assert wire.into_redis(1, "ab").wrap(b"xyz") == b"*3\r\n$7\r\nPUBLISH\r\n$2\r\nab\r\n$3\r\nxyz\r\n"
    assert wire.into_nats(1).wrap(b"xyz") == b"PUB quotes 3\r\nxyz\r\n"
    assert wire.into_nchan(1).wrap(b"xyz") == wire.frame(wire.TEXT, b"xyz")


def test_an_order_survives_its_way_to_the_clients() -> None:
    steps = wire.from_gateway(1).steps(Position(EPOCH, 7))
    order = Order.of(1, steps, clients=2, sampled=1, stalled=0, quotes=3, deadline_s=1.0)
    again = Order(**json.loads(order.as_json()))
    assert [(sent.encode("latin-1"), awaited.encode("latin-1")) for sent, awaited in again.steps] == steps


def test_the_sampled_clients_lie_between_the_first_and_the_last() -> None:
    assert sorted(spread(5, 100)) == [0, 24, 49, 74, 99]
    assert (spread(1, 100), spread(2, 2)) == ({0}, {0, 1})


def test_a_refused_client_waits_as_long_as_the_answer_says() -> None:
    assert retry_after_s(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n") == 2.0
    assert retry_after_s(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") == 1.0


def test_a_publisher_that_is_slow_now_and_then_catches_up_and_is_late_by_the_schedule() -> None:
    now_ns, costs_ns, sent = 0, iter([100, 2500, 100, 100, 100]), list[tuple[int, bytes]]()

    def sleep(seconds: float) -> None:
        nonlocal now_ns
        now_ns += round(seconds * 1e9)

    def send(message: bytes) -> None:
        nonlocal now_ns
        sent.append((now_ns, message))
        now_ns += next(costs_ns)

    messages = [b"1", b"2", b"3", b"4", b"5"]
    late_ns = publish(send, messages, start_ns=1000, rate=1e6, clock_ns=lambda: now_ns, sleep=sleep)
    assert sent == [(1000, b"1"), (2000, b"2"), (4500, b"3"), (4600, b"4"), (5000, b"5")]
    assert late_ns == [100, 2500, 1600, 700, 100]


def test_a_message_is_late_beyond_its_bound() -> None:
    assert late_share([LATE_NS + 1, LATE_NS, 0, 0]) == 0.25


BATCH = Batch.make(first_seq=11, seconds=0.003, rate=1000)
LOAD = Load(clients=4, rate=1000, stalled=1)
REPORT = ReceiverReport(
    quotes=9, most=3, closed=0, ended_ns=14_500_000, busy=0.5, arrivals=[[(11, 11_000_000), (12, 11_500_000)]]
)


def test_latency_counts_from_the_due_time_of_each_quote() -> None:
    done = read_round(REPORT, "ours", LOAD, BATCH, start_ns=10_000_000, cpu_s=0.000_018, late=0.01)
    assert done.latencies == pytest.approx([1.0, 0.5])
    assert (done.deliveries, done.meant) == (9, 9)
    assert (done.micros, done.rate, done.busy, done.late) == pytest.approx((2.0, 2000.0, 50.0, 0.01))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arrivals": [[(11, 1), (11, 2)]]}, "twice or out of order"),
        ({"arrivals": [[(12, 1), (11, 2)]]}, "twice or out of order"),
        ({"arrivals": [[]]}, "no client of ours had a quote"),
        ({"most": 4}, "more quotes than were published"),
    ],
)
def test_a_round_whose_quotes_are_not_those_published_is_no_round(change: dict[str, object], reason: str) -> None:
    report = dataclasses.replace(REPORT, **change)  # type: ignore[arg-type]
    with pytest.raises(MeasureError, match=reason):
        read_round(report, "ours", LOAD, BATCH, start_ns=0, cpu_s=1.0, late=0.0)


def test_a_client_has_everything_before_the_first_quote_of_a_round() -> None:
    assert BATCH.before == Position(EPOCH, 10)
    assert Batch.make(1, 0.003, 1000).before is None


def test_a_round_that_lacks_a_delivery_or_lost_the_pace_is_no_figure() -> None:
    require_whole(dataclasses.replace(a_round(2.0), late=LATE_SHARE_MAX))
    with pytest.raises(MeasureError, match="9 of 10 deliveries arrived, 1 clients were closed"):
        require_whole(dataclasses.replace(a_round(2.0), deliveries=9, closed=1))
    with pytest.raises(MeasureError, match="10 % of the messages were sent more than 10 ms late"):
        require_whole(dataclasses.replace(a_round(2.0), late=0.1))


def test_the_ratios_are_taken_round_by_round_and_a_peer_that_is_not_here_has_no_rows() -> None:
    rounds = {"ours": [a_round(2.0), a_round(3.0)], "nats": [a_round(4.0), a_round(5.0, busy=90.0)]}
    rows = {row.name: row for row in rows_of(FANOUT, rounds)}
    assert rows["fanout CPU beside nats"].values == pytest.approx([0.5, 0.6])
    assert rows["fanout CPU beside nats"].aim is not None
    assert rows["fanout clients, at most"].values == [40.0, 90.0]
    assert not [name for name in rows if "nchan" in name or "Node" in name]


def test_the_rate_is_held_against_all_deliveries_and_p99_against_its_own_aim() -> None:
    rows = {row.name: row for row in rows_of(WIDE, {"ours": [a_round(2.0)]})}
    rate, p99 = rows["fanout-wide rate"].aim, rows["fanout-wide p99"].aim
    assert rate is not None
    assert (rate.bound, rate.is_floor) == (99_000, True)
    assert p99 is not None
    assert p99.bound == 60.0


def test_each_round_begins_with_another_server() -> None:
    found = [Server(name, 0, wire.into_nats(1), wire.from_nats(1)) for name in "abc"]
    assert ["".join(one.name for one in in_turn(found, number)) for number in range(-1, 3)] == [
        "cab",
        "abc",
        "bca",
        "cab",
    ]


def test_the_stand_in_tells_what_was_due_until_now_and_nothing_later() -> None:
    history = History()
    assert history.answer("/v1/positions", 10**18)[1]["coins"][COIN]["position"] is None
    history.add(make_quotes(1, 5, 1000), start_ns=1_000_000, rate=1000)
    assert history.answer("/v1/positions", 999_999)[1]["coins"][COIN]["position"] is None
    assert history.answer("/v1/positions", 3_000_000)[1]["coins"][COIN]["position"] == f"{EPOCH}-3"


def test_the_stand_in_pages_through_the_history_as_quote_service_does() -> None:
    history = History()
    history.add(make_quotes(1, 5, 1000), start_ns=0, rate=1000)
    status, page = history.answer(f"/v1/quotes/{COIN}?after={EPOCH}-1&limit=2", 10**9)
    assert (status, [quote["seq"] for quote in page["quotes"]]) == (200, [2, 3])
    assert (page["next"], page["more"], page["floor"]) == (f"{EPOCH}-3", True, f"{EPOCH}-1")
    _, page = history.answer(f"/v1/quotes/{COIN}?after={page['next']}&limit=2", 10**9)
    assert ([quote["seq"] for quote in page["quotes"]], page["more"]) == ([4, 5], False)
    _, page = history.answer(f"/v1/quotes/{COIN}?last=1", 10**9)
    assert [quote["price"] for quote in page["quotes"]] == [
        json.loads(encode_quote(make_quotes(5, 1, 1000)[0]))["price"]
    ]
    assert history.answer(f"/v1/quotes/{COIN}?after={EPOCH}-6", 10**9)[0] == 409
    assert history.answer("/v1/candles/bitcoin", 10**9)[0] == 404


def test_a_heartbeat_tells_the_position_of_the_quote_before_it() -> None:
    (quote,) = make_quotes(4, 1, 1000)
    assert [line.position for line in decode_message(beat_after(quote))] == [quote.position]


def test_a_subscriber_has_taken_in_all_with_the_last_quote_and_stops_at_a_gap() -> None:
    messages = batched(LINES, 2)
    assert [message.count(b"\n") for message in messages] == [1, 0]
    account = Account(3)
    assert [account.take(message) for message in messages] == [False, True]
    account = Account(3)
    account.take(LINES[0])
    with pytest.raises(ValueError, match="lost"):
        account.take(LINES[2])


def test_a_peer_that_is_not_here_is_named_with_what_to_install() -> None:
    with pytest.raises(MissingPeerError, match="there is no no-such-server: apt-get install it"):
        find_program("no-such-server", "apt-get install it")


def test_the_lock_of_node_carries_digests_and_names_no_registry() -> None:
    text = (NODE_FOLDER / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    wanted = json.loads(Path(NODE_FOLDER, "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert packages[""]["dependencies"] == wanted
    assert "://" not in text
    assert [
        name for name, facts in packages.items() if name and not re.match("sha512-", facts.get("integrity", ""))
    ] == []


def a_round(micros: float, busy: float = 40.0) -> Round:
    return Round(10, 10, 0, micros, latencies=[1.0, 2.0], rate=1000.0, busy=busy, late=0.0)
