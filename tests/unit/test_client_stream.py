"""A stream does not end by itself, tells nothing twice, and nothing is missing in it that it did not tell."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import fake_event_loop
from tests.unit import fake_gateway as twins
from tests.unit.fake_gateway import CUT, NOON, Fault, GatewayTwin, Script, TwinLink, closed, era, quote, refused

from cotacoes.client import Client, Gap, NewestQuote, Position, Quote, Reason, StaleQuote, Stream
from cotacoes.client.continuity import Continuity
from cotacoes.client.frames import CoinBegun, QuoteFrame
from cotacoes.client.stream import ASKED_S_MAX, SILENT_S
from cotacoes.errors import (
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    StreamClosedError,
    StreamMalformedError,
    UnauthorizedError,
    UnknownCoinError,
)
from cotacoes.patterns.pub_sub.bus import FeedPosition
from cotacoes.patterns.resilience.backoff import FIRST_S, MOST_S

Event = Quote | Gap
LIMIT_S = 3600.0  # of virtual time, which never ends by itself
FIVE = era(5, 5)
TWO_ERAS = [*FIVE, *era(6, 5, prev=Position(5, 5))]


def now_s() -> float:
    """Virtual seconds since NOON."""
    return asyncio.get_running_loop().time()


def follow(twin: GatewayTwin, use: Callable[[Stream], Awaitable[Any]], *coins: str, seed: int = 1, **asked: Any) -> Any:
    """What `use` makes of a stream of the twin."""

    async def scenario() -> Any:
        clock = asyncio.get_running_loop().time
        client = Client(
            "http://gateway",
            connect=twin.connect,
            clock=clock,
            now=lambda: NOON + timedelta(seconds=clock()),
            random=random.Random(seed),
        )
        async with asyncio.timeout(LIMIT_S), client.stream(*(coins or ("bitcoin",)), **asked) as stream:
            return await use(stream)

    return fake_event_loop.run(scenario())


def take(count: int) -> Callable[[Stream], Awaitable[list[Event]]]:
    """The next so many events."""

    async def use(stream: Stream) -> list[Event]:
        return [await anext(stream) for _ in range(count)]

    return use


def until(position: Position) -> Callable[[Stream], Awaitable[list[Event]]]:
    """All events up to this position."""

    async def use(stream: Stream) -> list[Event]:
        events: list[Event] = []
        async for event in stream:
            events.append(event)
            if end_of(event) == position:
                break
        return events

    return use


async def to_the_error(stream: Stream) -> tuple[list[Event], Exception, float]:
    """What came before an error, the error, and when it came."""
    events: list[Event] = []
    try:
        while True:
            events.append(await anext(stream))
    except Exception as error:
        return events, error, now_s()


def end_of(event: Event) -> Position:
    return event.position if isinstance(event, Quote) else event.through


def before(event: Event) -> Position | None:
    return event.before if isinstance(event, Quote) else event.after


def gap(after: tuple[int, int] | None, through: tuple[int, int], reason: Reason) -> Gap:
    return Gap("bitcoin", None if after is None else Position(*after), Position(*through), reason)


# --- one connection


def test_without_a_position_a_stream_begins_with_the_newest_quote() -> None:
    twin = GatewayTwin({"bitcoin": FIVE})
    twin.scripts.append(Script(during=lambda: twin.publish(quote(5, 6))))
    assert follow(twin, take(2)) == [quote(5, 5), quote(5, 6)]


@pytest.mark.parametrize("since", [Position(5, 2), "5-2", {"bitcoin": "5-2"}, {"bitcoin": Position(5, 2)}])
def test_with_a_position_a_stream_begins_after_it(since: Any) -> None:
    events = follow(GatewayTwin({"bitcoin": FIVE}), take(3), since=since)
    assert events == FIVE[2:]
    assert str(events[0].price) == "67012.3400"


def test_several_coins_come_over_one_connection_each_from_its_own_position() -> None:
    ether = [quote(5, seq, coin="ethereum") for seq in (1, 2)]
    twin = GatewayTwin({"bitcoin": FIVE, "ethereum": ether})
    events = follow(twin, take(3), "bitcoin", "ethereum", "bitcoin", since={"bitcoin": "5-3"})
    assert events == [*FIVE[3:], ether[1]]
    assert len(twin.connections) == 1


@pytest.mark.parametrize(
    ("coins", "asked"),
    [
        ([], {}),
        (["bitcoin"], {"since": "5"}),
        (["bitcoin"], {"since": {"ethereum": "5-1"}}),
        (["bitcoin"], {"mode": "all"}),
        (["bitcoin"], {"mode": "interval:49"}),
        (["bitcoin"], {"mode": "interval:3600001"}),
        (["bitcoin"], {"max_age": 0.0}),
    ],
)
def test_an_impossible_stream_is_refused_before_any_request(coins: list[str], asked: Any) -> None:
    with pytest.raises(ValueError):
        Client("http://gateway").stream(*coins, **asked)


@pytest.mark.parametrize("url", ["gateway:8000", "ftp://gateway", "http://", "http://gateway/?a=b"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the address of a gateway"):
        Client(url)


def test_only_one_message_is_read_when_the_caller_asks() -> None:
    twin = GatewayTwin({"bitcoin": FIVE})

    async def use(stream: Stream) -> list[int]:
        received = []
        for _ in range(3):
            await anext(stream)
            await asyncio.sleep(1)
            received.append(sum(link.received for link in twin.links))
        return received

    assert follow(twin, use, since="5-1") == [2, 3, 4]  # the first of them answered the subscription


# --- the modes that let quotes out


def newest_link(twin: GatewayTwin, *sent: tuple[Quote, Position | None]) -> Callable[[], None]:
    """Tells each of these quotes as standing for all after the position beside it."""

    def tell() -> None:
        (link,) = twin.links
        for one, after in sent:
            link.positions["bitcoin"] = one.position
            link.put(twins.quote_frame(one, after=twins.text(after)))

    return tell


def conflating(*connections: Sequence[tuple[Quote, Position | None]]) -> GatewayTwin:
    twin = GatewayTwin({"bitcoin": [*FIVE, quote(5, 6)]})
    twin.tells_history = False
    for number, sent in enumerate(connections, start=1):
        end = CUT if number < len(connections) else None
        twin.scripts.append(Script(during=newest_link(twin, *sent), end=end))
    return twin


@pytest.mark.parametrize("mode", ["conflate", "interval:250"])
def test_in_a_mode_that_skips_quotes_each_says_what_it_stands_for(mode: str) -> None:
    sent = [(quote(5, 6), Position(5, 5)), (quote(5, 9), Position(5, 6))]
    events = follow(conflating(sent), take(2), mode=mode)
    assert [(type(event), msgspec.structs.asdict(event)) for event in events] == [
        (NewestQuote, msgspec.structs.asdict(one) | {"after": after}) for one, after in sent
    ]
    assert isinstance(events[0], Quote)


def test_in_a_mode_that_skips_quotes_one_without_its_range_ends_the_connection() -> None:
    twin = conflating([], [(quote(5, 9), Position(5, 5))])
    twin.scripts[0].during = lambda: next(iter(twin.links)).send_quote(quote(5, 6))
    assert follow(twin, take(1), mode="conflate")[0].after == (5, 5)
    assert len(twin.connections) == 2


def test_in_a_mode_that_skips_quotes_a_lost_one_is_requested_again() -> None:
    twin = conflating([(quote(5, 6), Position(5, 5)), (quote(5, 9), Position(5, 8))], [(quote(5, 9), Position(5, 6))])
    assert [(end_of(event), event.after) for event in follow(twin, take(2), mode="conflate")] == [
        ((5, 6), (5, 5)),
        ((5, 9), (5, 6)),
    ]


def test_in_a_mode_that_skips_quotes_one_behind_ours_reveals_a_rewritten_history() -> None:
    twin = conflating([(quote(4, 2), Position(5, 5))], [(quote(4, 2), Position(5, 5))])
    first, second = follow(twin, take(2), mode="conflate", since="5-5")
    assert first == gap((5, 5), (5, 5), Reason.REWRITTEN)
    assert end_of(second) == (4, 2)


# --- over connections


def test_after_a_cut_the_stream_continues_exactly() -> None:
    twin = GatewayTwin({"bitcoin": TWO_ERAS}, [Script({n: Fault.CUT}) for n in (3, 1, 2, 0)])
    assert follow(twin, until(Position(6, 5)), since="5-1") == TWO_ERAS[1:]


def test_quotes_published_without_a_link_come_too() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({2: Fault.CUT})])
    twin.scripts.append(Script(before=lambda: twin.publish(*TWO_ERAS[5:])))
    assert follow(twin, until(Position(6, 5))) == TWO_ERAS[4:]


def test_what_the_history_no_longer_holds_is_a_gap() -> None:
    twin = GatewayTwin({"bitcoin": TWO_ERAS})
    twin.dropped["bitcoin"] = 6
    events = follow(twin, until(Position(6, 5)), since="5-2")
    assert events == [gap((5, 2), (6, 1), Reason.GONE), *TWO_ERAS[6:]]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_quote_lost_on_the_way_is_fetched_without_a_gap(at: int) -> None:
    twin = GatewayTwin({"bitcoin": TWO_ERAS}, [Script({at: Fault.DROP})])
    assert follow(twin, until(Position(6, 5)), since="5-3") == TWO_ERAS[3:]
    assert len(twin.connections) == 2


def test_the_next_heartbeat_reveals_the_loss_of_the_very_last_quote() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({3: Fault.DROP})])
    assert follow(twin, until(Position(5, 5)), since="5-2") == FIVE[2:]


def test_a_hole_that_appears_again_is_reported_as_lost() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({2: Fault.DROP}), Script({1: Fault.DROP})])
    events = follow(twin, until(Position(5, 5)), since="5-1")
    assert events == [FIVE[1], gap((5, 2), (5, 3), Reason.LOST), *FIVE[3:]]
    assert len(twin.connections) == 2


def test_a_gap_lost_on_the_way_is_requested_again() -> None:
    twin = GatewayTwin({"bitcoin": TWO_ERAS}, [Script({1: Fault.DROP})])
    twin.dropped["bitcoin"] = 4
    assert follow(twin, until(Position(6, 5)), since="5-2")[:2] == [gap((5, 2), (5, 4), Reason.GONE), TWO_ERAS[4]]


FORKED = [*FIVE[:2], *era(6, 2, prev=Position(5, 2))]


@pytest.mark.parametrize(
    ("held", "begins_newest", "then"),
    [
        (FORKED, False, [*FORKED[2:], quote(6, 3)]),
        (FORKED, True, [gap((5, 5), (6, 2), Reason.LOST), quote(6, 3)]),
        (era(4, 2), False, [quote(4, 3)]),
        (era(4, 2), True, [quote(4, 3)]),
    ],
    ids=["forked", "forked, from the newest", "behind", "behind, from the newest"],
)
def test_a_history_without_the_position_is_reported_once_as_rewritten(
    held: list[Quote], begins_newest: bool, then: list[Event]
) -> None:
    twin = GatewayTwin({"bitcoin": held}, [Script({2: Fault.CUT}), Script({0: Fault.CUT}), Script({2: Fault.CUT})])
    twin.scripts.append(Script(before=lambda: twin.publish(then[-1])))  # type: ignore[arg-type]
    twin.begins_newest_after_rewriting = begins_newest
    events = follow(twin, until(end_of(then[-1])), since="5-5")
    assert events == [gap((5, 5), (5, 5), Reason.REWRITTEN), *then]


def test_a_rewriting_in_the_middle_of_a_connection_is_followed() -> None:
    fork = era(6, 2, prev=Position(5, 3))

    def rewrite() -> None:
        (link,) = twin.links
        twin.history["bitcoin"] = [*FIVE[:3], *fork]
        link.put(twins.gap_frame("bitcoin", Position(5, 5), Position(5, 5), "rewritten"))
        for one in fork:
            link.send_quote(one)

    twin = GatewayTwin({"bitcoin": FIVE}, [Script(during=rewrite)])
    assert follow(twin, take(4)) == [FIVE[4], gap((5, 5), (5, 5), Reason.REWRITTEN), *fork]
    assert len(twin.connections) == 1


def test_a_first_quote_ever_between_two_connections_is_reported_as_lost() -> None:
    twin = GatewayTwin({"bitcoin": []}, [Script(end=CUT)])
    twin.scripts.append(Script(before=lambda: twin.publish(*FIVE[:3])))
    assert follow(twin, take(2)) == [gap(None, (5, 2), Reason.LOST), FIVE[2]]


def test_an_event_before_the_answer_to_the_subscription_ends_the_connection() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({0: Fault.DROP, 1: Fault.DROP}), Script({0: Fault.DROP})])
    assert follow(twin, take(1)) == [FIVE[4]]
    assert [when for when, _ in twin.connections] == pytest.approx([0.0, 5.0, 5.0], abs=2 * FIRST_S)


def test_a_subscription_without_an_answer_for_half_a_minute_is_repeated() -> None:
    def beat() -> None:
        for link in twin.links:
            link.put(twins.beat_frame({}))
        asyncio.get_running_loop().call_later(5.0, beat)

    def speak() -> None:
        twin.is_mute = False

    twin = GatewayTwin({"bitcoin": FIVE}, [Script(during=beat), Script(before=speak)])
    twin.is_mute = True
    assert follow(twin, take(1)) == [FIVE[4]]
    assert 30.0 <= twin.connections[1][0] <= 36.0


def test_a_connection_that_claims_to_continue_elsewhere_is_not_believed() -> None:
    continuity = Continuity("bitcoin", Position(5, 2))
    assert continuity.ask() == (5, 2)
    with pytest.raises(StreamMalformedError):
        continuity.begin(CoinBegun(recovered=True, position=Position(5, 3)))


def test_a_repeated_gap_is_reported_once() -> None:
    continuity = Continuity("bitcoin", Position(5, 2))
    continuity.ask()
    continuity.begin(CoinBegun(recovered=False, position=Position(5, 2)))
    gone = gap((5, 2), (5, 4), Reason.GONE)
    assert continuity.miss(gone) == [gone]
    assert continuity.miss(gone) == []
    assert continuity.hear(QuoteFrame(FIVE[4])) == [FIVE[4]]
    assert continuity.miss(gone) == []


def test_quotes_of_a_history_behind_ours_are_not_old_if_a_gap_was_announced() -> None:
    continuity = Continuity("bitcoin", Position(5, 5))
    continuity.ask()
    continuity.begin(CoinBegun(recovered=False, position=Position(4, 1)))
    with pytest.raises(StreamMalformedError):
        continuity.hear(QuoteFrame(quote(4, 2)))
    continuity.ask()
    continuity.begin(CoinBegun(recovered=False, position=Position(4, 1)))
    assert continuity.hear(QuoteFrame(quote(4, 2))) == [gap((5, 5), (5, 5), Reason.REWRITTEN), quote(4, 2)]


# --- links that die


def test_a_dead_link_is_found_in_12_s() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({3: Fault.HANG}), Script({0: Fault.HANG})])
    assert follow(twin, until(Position(5, 5)), since="5-2") == FIVE[2:]
    opened = [when for when, _ in twin.connections]
    assert all(SILENT_S <= later - earlier <= 12 for earlier, later in pairwise(opened))
    assert not any(link.is_open for _, link in twin.connections[:2] if isinstance(link, TwinLink))


def test_heartbeats_keep_a_link_alive_on_which_nothing_else_comes() -> None:
    twin = GatewayTwin({"bitcoin": FIVE})

    async def use(stream: Stream) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await anext(stream)

    follow(twin, use, since="5-5")
    assert len(twin.connections) == 1


def test_the_time_of_the_caller_is_no_silence_of_the_link() -> None:
    twin = GatewayTwin({"bitcoin": FIVE})

    async def use(stream: Stream) -> list[Event]:
        events = []
        for _ in range(3):
            events.append(await anext(stream))
            await asyncio.sleep(60)
        return events

    assert follow(twin, use, since="5-2") == FIVE[2:]
    assert len(twin.connections) == 1


BAD_FRAMES: list[str | bytes] = [
    twins.quote_frame(quote(5, 6)).encode(),
    "",
    "nonsense",
    "[]",
    "{}",
    '{"type":"error","problem":' + '{"a":' * 100_000,
    '{"type":"quote"}',
    '{"type":"hello"}',
    twins.quote_frame(FIVE[4], price=67012.34),
    *(twins.quote_frame(FIVE[4], price=price) for price in ("NaN", "0", "-1", "1e3", "\uff11", "1" * 31, " 1", "")),
    twins.quote_frame(FIVE[4], v=2),
    twins.quote_frame(FIVE[4], seq=0),
    twins.quote_frame(FIVE[4], epoch=2**63),
    twins.quote_frame(FIVE[4], prev="4-1"),
    twins.quote_frame(FIVE[0], prev="5-1"),
    twins.quote_frame(FIVE[4], observed_at="2026-11-24T12:00:00"),
    twins.quote_frame(FIVE[4], currency="usd"),
    twins.quote_frame(FIVE[4], origin="\x1b[2J"),
    twins.quote_frame(FIVE[4], coin="ethereum"),
    twins.quote_frame(FIVE[4], after="5-4"),
    twins.gap_frame("ethereum", None, Position(5, 1), "gone"),
    twins.gap_frame("bitcoin", Position(5, 5), Position(5, 5), "gone"),
    twins.gap_frame("bitcoin", Position(5, 5), Position(5, 4), "gone"),
    twins.gap_frame("bitcoin", Position(5, 5), Position(5, 9), "because"),
    twins.gap_frame("bitcoin", None, Position(5, 9), "gone"),
    twins.beat_frame({}),
    twins.subscribed_frame({"ethereum": (False, None)}),
    twins.subscribed_frame({"bitcoin": (False, None)}, mode="conflate"),
    '{"type":"bye","reason":"shutdown","retry_ms":-1}',
    '{"type":"error","id":null,"op":null,"problem":[]}',
]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=range(len(BAD_FRAMES)))
def test_an_invalid_frame_ends_the_connection_and_nothing_else(frame: str | bytes) -> None:
    def spoil() -> None:
        (link,) = twin.links
        link.put(frame)  # type: ignore[arg-type]

    twin = GatewayTwin({"bitcoin": FIVE}, [Script(during=spoil)])
    twin.scripts.append(Script(before=lambda: twin.publish(quote(5, 6))))
    assert follow(twin, take(2)) == [quote(5, 5), quote(5, 6)]
    assert len(twin.connections) == 2


# --- how it comes back


def opened_after(twin: GatewayTwin, seed: int = 1) -> list[float]:
    """The pauses before the second connection, the third, …, where each ends at once."""
    follow(twin, take(1), seed=seed)
    return [later - earlier for (earlier, _), (later, _) in pairwise(twin.connections)]


def test_pauses_grow_with_full_jitter_up_to_a_bound() -> None:
    runs = [opened_after(GatewayTwin({"bitcoin": FIVE}, [Script(refusal=CUT)] * 12), seed) for seed in range(20)]
    for number in range(12):
        bound = min(MOST_S, FIRST_S * 2**number)
        pauses = [run[number] for run in runs]
        assert all(0 <= pause <= bound for pause in pauses)
        assert min(pauses) < bound / 3 < bound * 2 / 3 < max(pauses)


def test_a_gateway_that_accepts_and_sends_nothing_is_not_hammered() -> None:
    empty = GatewayTwin({"bitcoin": []}, [Script({1: Fault.CUT}, during=lambda: None, end=CUT)] * 12)
    empty.scripts.append(Script(before=lambda: empty.publish(*FIVE[:1])))
    pauses = opened_after(empty)
    assert sum(pauses[-4:]) > 2 * FIRST_S * 4


def test_an_event_makes_the_next_pause_short_again() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [*[Script(refusal=CUT)] * 8, Script({2: Fault.CUT})])
    follow(twin, until(Position(5, 5)), since="5-3")
    assert twin.connections[9][0] - twin.connections[8][0] <= FIRST_S


@pytest.mark.parametrize(("asked_s", "least_s"), [(7.0, 7.0), (100_000.0, ASKED_S_MAX)])
def test_the_wait_that_a_refusal_asks_for_is_obeyed_up_to_a_bound(asked_s: float, least_s: float) -> None:
    (pause,) = opened_after(GatewayTwin({"bitcoin": FIVE}, [Script(refusal=refused(503, asked_s))]))
    assert least_s <= pause <= least_s + FIRST_S


@pytest.mark.parametrize(("code", "reason"), [(1001, "shutdown"), (4000, "age"), (4003, "slow"), (None, "shutdown")])
def test_the_wait_that_a_bye_asks_for_is_obeyed_once(code: int | None, reason: str) -> None:
    def say_bye() -> None:
        (link,) = twin.links
        link.put(f'{{"type":"bye","reason":"{reason}","retry_ms":3000}}')
        if code is not None:
            link.put(closed(code, reason))

    twin = GatewayTwin({"bitcoin": FIVE}, [Script(during=say_bye), Script(refusal=CUT)])
    twin.scripts.append(Script(before=lambda: twin.publish(quote(5, 6))))
    assert follow(twin, take(2)) == [quote(5, 5), quote(5, 6)]
    first, second, third = [when for when, _ in twin.connections]
    assert 3.0 <= second - first <= 3.0 + FIRST_S + (1.0 if code is None else 0.0)
    assert third - second <= 2 * FIRST_S


HEALING: list[Script] = [
    Script(refusal=CUT),
    *(Script(refusal=refused(status)) for status in (408, 429, 500, 502, 503)),
    *(Script({1: Fault.DROP, 2: Fault.DROP}, end=closed(code)) for code in (1000, 1001, 1011, 4000, 4001, 4003)),
]


@pytest.mark.parametrize("script", HEALING, ids=range(len(HEALING)))
def test_a_temporary_refusal_is_tried_again(script: Script) -> None:
    assert follow(GatewayTwin({"bitcoin": FIVE}, [script]), take(1)) == [FIVE[4]]


PROBLEM = b'{"type":"/docs#forbidden","title":"Forbidden","status":403,"detail":"not from there"}'
FATAL: list[tuple[Exception, type[Exception]]] = [
    (refused(404), NotFoundError),
    (refused(403), ForbiddenError),
    (refused(403, body=PROBLEM), ForbiddenError),
    (refused(401), UnauthorizedError),
    (refused(400, body=b"[" * 100_000), BadRequestError),
    (refused(301), BadRequestError),
    *((closed(code, "so"), StreamClosedError) for code in (1002, 1003, 1007, 1009, 4002)),
]


@pytest.mark.parametrize(("failure", "kind"), FATAL, ids=range(len(FATAL)))
def test_a_permanent_refusal_is_raised_and_ends_the_stream(failure: Exception, kind: type[Exception]) -> None:
    script = Script(end=failure) if isinstance(failure, StreamClosedError) else Script(refusal=failure)
    twin = GatewayTwin({"bitcoin": FIVE}, [script])

    async def use(stream: Stream) -> Exception:
        _, error, _ = await to_the_error(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return error

    assert type(follow(twin, use)) is kind
    assert len(twin.connections) == 1
    assert not twin.links


def test_a_retraction_is_passed_on_and_each_true_quote_comes_once() -> None:
    false = [msgspec.structs.replace(one, price=Decimal("1.00")) for one in (quote(5, 6), quote(5, 7))]

    def falsify() -> None:
        (link,) = twin.links
        for one in false:
            link.put(twins.quote_frame(one))
        link.put(twins.gap_frame("bitcoin", Position(5, 5), Position(5, 8), "retracted"))
        link.put(twins.gap_frame("bitcoin", Position(5, 5), Position(5, 8), "retracted"))
        twin.publish(quote(5, 6), quote(5, 7))

    twin = GatewayTwin({"bitcoin": FIVE}, [Script(during=falsify)])
    events = follow(twin, take(6))
    assert events == [FIVE[4], *false, gap((5, 5), (5, 7), Reason.RETRACTED), quote(5, 6), quote(5, 7)]
    assert len(twin.connections) == 1


def test_an_announced_gap_that_does_not_come_is_requested_again() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({1: Fault.DROP})])
    events = follow(twin, take(1), since="9-9")
    assert events == [gap((9, 9), (9, 9), Reason.REWRITTEN)]
    assert len(twin.connections) == 2
    assert twin.connections[1][0] < 60


def problem_sent(slug: str, status: int, **more: Any) -> Callable[[GatewayTwin], None]:
    def send(twin: GatewayTwin) -> None:
        problem = {"type": f"/docs#{slug}", "title": "", "status": status, "detail": "as sent", **more}
        (link,) = twin.links
        link.put(json.dumps({"type": "error", "id": None, "op": "subscribe", "problem": problem}))

    return send


def test_a_coin_that_does_not_exist_is_raised_as_such() -> None:
    send = problem_sent("unknown-coin", 404, did_you_mean=["bitcoin"])
    twin = GatewayTwin({"bitcon": []}, [Script(during=lambda: send(twin))])
    twin.is_mute = True
    _, error, _ = follow(twin, to_the_error, "bitcon")
    assert isinstance(error, UnknownCoinError)
    assert (error.detail, error.extra) == ("as sent", {"did_you_mean": ["bitcoin"]})


@pytest.mark.parametrize(("slug", "status"), [("history-unavailable", 503), ("internal", 500), ("new", 503)])
def test_a_temporary_problem_is_tried_again(slug: str, status: int) -> None:
    send = problem_sent(slug, status)
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({1: Fault.DROP}, during=lambda: send(twin))])
    assert follow(twin, take(1)) == [FIVE[4]]
    assert len(twin.connections) == 2


# --- the caller


def test_cancelling_one_wait_loses_nothing() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script({2: Fault.CUT}), *[Script(refusal=CUT)] * 4])

    async def use(stream: Stream) -> list[Event]:
        events: list[Event] = []
        while len(events) < 3:
            try:
                async with asyncio.timeout(0.01):
                    events.append(await anext(stream))
            except TimeoutError:
                if len(twin.history["bitcoin"]) < 5 + len(events):
                    twin.publish(quote(5, 5 + len(events)))
        return events

    assert follow(twin, use) == [quote(5, seq) for seq in (5, 6, 7)]


def test_two_tasks_cannot_wait_for_the_same_stream() -> None:
    async def use(stream: Stream) -> None:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(anext_of(stream))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
            assert await waiting == FIVE[4]

    follow(GatewayTwin({"bitcoin": FIVE}), use)


async def anext_of(stream: Stream) -> Event:
    return await anext(stream)


async def leave_by_break(client: Client) -> None:
    async for _ in client.stream("bitcoin"):
        break


async def leave_the_context(client: Client) -> None:
    async with client.stream("bitcoin") as stream:
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def leave_by_cancellation(client: Client) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            async for _ in client.stream("bitcoin"):
                pass


@pytest.mark.parametrize("leave", [leave_by_break, leave_the_context, leave_by_cancellation])
@pytest.mark.slow
def test_leaving_a_stream_leaves_nothing_behind(leave: Callable[[Client], Awaitable[None]]) -> None:
    twin = GatewayTwin({"bitcoin": FIVE})

    async def scenario() -> None:
        async with Client("http://gateway", connect=twin.connect) as client:
            await leave(client)
            await asyncio.sleep(0)  # until then the loop holds what was cancelled
            gc.collect()
            assert not twin.links
            assert asyncio.all_tasks() == {asyncio.current_task()}

    fake_event_loop.run(scenario())


def test_closing_a_client_closes_its_streams() -> None:
    twin = GatewayTwin({"bitcoin": FIVE})

    async def scenario() -> None:
        async with Client("http://gateway", connect=twin.connect) as client:
            stream = client.stream("bitcoin")
            await anext(stream)
        assert not twin.links
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    fake_event_loop.run(scenario())


# --- what is too old


def old(seconds: float, *seqs: int, coin: str = "bitcoin") -> list[Quote]:
    return [quote(5, seq, at=twins.aged(seconds), coin=coin) for seq in seqs]


def test_a_coin_without_any_quote_becomes_stale_at_max_age() -> None:
    mute = GatewayTwin({"bitcoin": FIVE}, [Script({0: Fault.HANG})])
    away = GatewayTwin({"bitcoin": FIVE}, [Script(refusal=CUT)] * 100)
    for twin in (mute, away, GatewayTwin({"bitcoin": []})):
        events, error, when = follow(twin, to_the_error, max_age=5.0)
        assert (events, type(error), when) == ([], StaleQuote, 5.0)
        assert isinstance(error, StaleQuote)
        assert (error.coin, error.age) == ("bitcoin", 5.0)


def test_the_newest_quote_is_stale_by_its_own_age_and_the_time_since() -> None:
    twin = GatewayTwin({"bitcoin": old(1.5, 1, 2)})
    events, error, when = follow(twin, to_the_error, max_age=5.0)
    assert len(events) == 1
    assert (when, str(error)) == (3.5, "bitcoin: the newest quote is 5.000 s old")
    assert len(twin.connections) == 1


def test_a_newer_quote_in_time_postpones_staleness() -> None:
    async def use(stream: Stream) -> float:
        asyncio.get_running_loop().call_later(4.0, twin.publish, quote(5, 6, at=NOON + timedelta(seconds=3)))
        return (await to_the_error(stream))[2]

    twin = GatewayTwin({"bitcoin": FIVE})
    assert follow(twin, use, max_age=5.0) == 8.0


def test_another_coin_does_not_hide_a_stale_one() -> None:
    def publish(seq: int) -> None:
        twin.publish(quote(5, seq, coin="ethereum", at=NOON + timedelta(seconds=now_s())))
        asyncio.get_running_loop().call_later(0.01, publish, seq + 1)

    twin = GatewayTwin({"bitcoin": FIVE, "ethereum": []}, [Script(during=lambda: publish(1))])
    _, error, when = follow(twin, to_the_error, "bitcoin", "ethereum", max_age=5.0)
    assert isinstance(error, StaleQuote)
    assert (error.coin, when) == ("bitcoin", pytest.approx(5.0, abs=0.02))


def test_a_newest_quote_that_is_too_old_is_passed_on_and_then_stale() -> None:
    events, error, when = follow(GatewayTwin({"bitcoin": old(60, 1, 2)}), to_the_error, max_age=5.0)
    assert (len(events), type(error), when) == (1, StaleQuote, 0.0)
    assert isinstance(error, StaleQuote)
    assert error.age == 60.0


@pytest.mark.parametrize("beats_say", [{}, {"behind": ["bitcoin"]}])
def test_old_quotes_with_successors_on_their_way_are_not_stale(beats_say: dict[str, Any]) -> None:
    held = [*old(3600, 1, 2), *old(1800, 3, 4)]

    def recover_slowly() -> None:
        (link,) = twin.links
        for pause_s, one in zip((4, 8, 12, 16), [*held[1:], quote(5, 5, at=NOON + timedelta(seconds=16))], strict=True):
            asyncio.get_running_loop().call_later(pause_s, link.send_quote, one)

    twin = GatewayTwin({"bitcoin": held}, [Script(during=recover_slowly)])
    twin.tells_history, twin.beats_say = False, beats_say
    events, error, when = follow(twin, to_the_error, since="5-1", max_age=2.0)
    assert [end_of(event).seq for event in events] == [2, 3, 4, 5]
    assert (type(error), when) == (StaleQuote, 18.0)


@pytest.mark.parametrize(("beats_say", "at_s"), [({}, 10.0), ({"behind": []}, 5.0)])
def test_old_quotes_without_a_successor_are_stale_at_the_next_heartbeat(beats_say: dict[str, Any], at_s: float) -> None:
    twin = GatewayTwin({"bitcoin": old(3600, 1, 2, 3)})
    twin.beats_say = beats_say
    events, error, when = follow(twin, to_the_error, since="5-1", max_age=2.0)
    assert (len(events), type(error), when) == (2, StaleQuote, at_s)
    assert isinstance(error, StaleQuote)
    assert error.age == 3600 + at_s


def test_a_link_lost_while_old_quotes_come_leaves_time_for_the_next_one() -> None:
    twin = GatewayTwin({"bitcoin": old(3600, 1, 2, 3)}, [Script({2: Fault.CUT}), *[Script(refusal=CUT)] * 3])
    events, error, _ = follow(twin, to_the_error, since="5-1", max_age=2.0)
    assert [end_of(event).seq for event in events] == [2, 3]
    away = GatewayTwin({"bitcoin": old(3600, 1, 2, 3)}, [Script({2: Fault.CUT}), *[Script(refusal=CUT)] * 99])
    events, error, when = follow(away, to_the_error, since="5-1", max_age=2.0)
    assert (len(events), type(error), when) == (1, StaleQuote, 2.0)


def test_quotes_that_came_while_the_caller_was_busy_count_before_the_time() -> None:
    twin = GatewayTwin({"bitcoin": FIVE}, [Script()])

    async def use(stream: Stream) -> tuple[int, float]:
        await anext(stream)
        for seq in range(6, 10):
            await asyncio.sleep(4)
            twin.publish(quote(5, seq, at=NOON + timedelta(seconds=now_s())))
        events, _, when = await to_the_error(stream)
        return len(events), when

    assert follow(twin, use, max_age=5.0) == (4, 21.0)


# --- all of it, with whatever goes wrong


@st.composite
def histories(draw: st.DrawFn) -> list[Quote]:
    quotes: list[Quote] = []
    for epoch in sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=4))):
        quotes += era(epoch, draw(st.integers(1, 6)), quotes[-1].position if quotes else None)
    return quotes


faults = st.dictionaries(st.integers(0, 8), st.sampled_from(Fault), max_size=4)


@pytest.mark.slow
@given(quotes=histories(), data=st.data())
def test_whatever_goes_wrong_quotes_and_gaps_cover_the_history(quotes: list[Quote], data: st.DataObject) -> None:
    steps = sorted(data.draw(st.lists(st.integers(1, len(quotes)), min_size=1, max_size=10)))
    floors = sorted(data.draw(st.lists(st.integers(0, steps[0]), max_size=len(steps))))
    begin = steps.pop(0)
    since = data.draw(st.sampled_from([None, *(one.position for one in quotes[:begin] if one is not quotes[-1])]))
    twin = GatewayTwin({"bitcoin": quotes[:begin]})

    def publish(count: int) -> None:
        twin.publish(*quotes[len(twin.history["bitcoin"]) : count])

    def grow(number: int, count: int) -> None:
        publish(count)
        twin.dropped["bitcoin"] = floors[number] if number < len(floors) else twin.dropped["bitcoin"]

    for number, (before_it, during) in enumerate(zip(steps[::2], steps[1::2], strict=False)):
        change = functools.partial(grow, number, before_it)
        script = Script(data.draw(faults), before=change, during=functools.partial(publish, during), end=CUT)
        twin.scripts.append(script)
    twin.scripts.append(Script(data.draw(faults), end=CUT))
    twin.scripts.append(Script(before=functools.partial(publish, len(quotes))))

    events = follow(twin, until(quotes[-1].position), since={} if since is None else {"bitcoin": since})

    start = since or before(events[0])
    assert since or start in twin.starts
    assert [before(event) for event in events] == [start, *map(end_of, events[:-1])], "each goes on where one ended"
    owed = [one for one in quotes if start is None or one.position > start]
    gaps = [event for event in events if isinstance(event, Gap)]
    sent = [one for one in owed for found in gaps if before_in(one, found)]
    received = [event for event in events if isinstance(event, Quote)]
    assert sorted([*received, *sent], key=end_of) == owed
    gone = quotes[: twin.dropped["bitcoin"]]
    assert all(one in gone for one in owed for found in gaps if found.reason is Reason.GONE and before_in(one, found))
    assert {found.reason for found in gaps} <= {Reason.GONE, Reason.LOST}


def before_in(one: Quote, found: Gap) -> bool:
    return (found.after is None or found.after < one.position) and one.position <= found.through


@pytest.mark.slow
@given(quotes=histories(), data=st.data())
def test_if_only_links_are_cut_nothing_is_missing(quotes: list[Quote], data: st.DataObject) -> None:
    since = data.draw(st.sampled_from([one.position for one in quotes]))
    harmless = st.sampled_from([Fault.CUT, Fault.DOUBLE, Fault.HANG])
    scripts = [Script(data.draw(st.dictionaries(st.integers(0, 8), harmless)), end=CUT) for _ in range(4)]
    twin = GatewayTwin({"bitcoin": quotes}, scripts)
    if since != quotes[-1].position:
        assert follow(twin, until(quotes[-1].position), since=since) == [q for q in quotes if q.position > since]


@given(quotes=histories(), data=st.data())
def test_what_follows_is_decided_by_the_rules_of_the_feed(quotes: list[Quote], data: st.DataObject) -> None:
    known = data.draw(st.sampled_from([one.position for one in quotes]))
    one = data.draw(st.sampled_from([*quotes, quote(41, 1), quote(41, 1, Position(40, 9)), quote(41, 7)]))
    heard = FeedPosition("bitcoin", known).receive(one)
    continuity = Continuity("bitcoin", known)
    continuity.ask()
    continuity.begin(CoinBegun(recovered=True, position=known))
    if heard.gap is None:
        assert continuity.hear(QuoteFrame(one)) == ([one] if heard.is_new else [])
    else:
        with pytest.raises(StreamMalformedError):
            continuity.hear(QuoteFrame(one))
