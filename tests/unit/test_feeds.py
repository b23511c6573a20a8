"""What a message means for each coin's feed: checked before it is believed, kept apart; and when one is silent."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cotacoes.feed.feeds import FIRST_WORD_S, SILENT_AFTER_S, Back, Feeds, Silent
from cotacoes.model.live_message import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import MESSAGE_BYTES_MAX
from cotacoes.patterns.pub_sub.recovery_events import QuoteReceived

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CHANNEL = channel("bitcoin")


def quote(seq: int, coin: str = "bitcoin") -> Quote:
    return Quote(coin, "USD", Decimal("67012.3400"), 5, seq, NOON, NOON, "sim")


def message(*seqs: int) -> bytes:
    return b"\n".join(encode_quote(quote(seq)) for seq in seqs)


def beat(seq: int) -> bytes:
    return encode_heartbeat(Heartbeat("bitcoin", Position(5, seq), None, NOON))


def emitted(feeds: Feeds) -> dict[str, Position | None]:
    return {coin: feeds[coin].last_emitted for coin in feeds.coins}


def begun(*coins: str) -> Feeds:
    """Feeds that wait for no history."""
    feeds = Feeds(coins or ["bitcoin"], 0.0)
    for coin in feeds.coins:
        feeds[coin].skip_start()
    return feeds


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense",
        encode_quote(quote(9, "ethereum")),
        encode_quote(quote(2)).replace(b'"USD"', b'"\\u001b[31m"'),
        encode_quote(quote(2)).replace(b'"sim"', b'"a\\u0007"'),
        b'{"v":1,"x":' + b"[" * 100_000,
        b"x" * MESSAGE_BYTES_MAX,
        b"\n" * (MESSAGE_BYTES_MAX + 1),
        message(2, 3) + b"\n{}",
    ],
    ids=["nonsense", "other coin", "currency", "origin", "nested", "large", "too large", "half"],
)
def test_an_invalid_message_is_refused_and_changes_nothing(bad: bytes) -> None:
    feeds = begun()
    feeds.receive(CHANNEL, message(1), 1.0)
    with pytest.raises(ValueError):
        feeds.receive(CHANNEL, bad, 9.0)
    assert emitted(feeds) == {"bitcoin": Position(5, 1)}
    assert feeds.fall_silent(9.0) == [Silent("bitcoin")], "it is no sign of life either"


@pytest.mark.parametrize(
    ("position", "prev"),
    [((5, 0), None), ((5, -3), None), ((5, 2**31), None), ((-1, 2), None), ((2**63, 2), None), ((6, 1), (6, 9))],
)
def test_a_line_with_impossible_positions_is_refused(position: tuple[int, int], prev: tuple[int, int] | None) -> None:
    before = None if prev is None else Position(*prev)
    bad = encode_heartbeat(Heartbeat("bitcoin", Position(*position), before, NOON))
    with pytest.raises(ValueError, match="position"):
        begun().receive(CHANNEL, bad, 1.0)


def test_feeds_of_several_coins_are_separate() -> None:
    feeds = begun("bitcoin", "ethereum")
    feeds.receive(CHANNEL, message(1), 1.0)
    coin, events = feeds.receive(channel("ethereum"), encode_quote(quote(9, "ethereum")), 1.0)
    assert (coin, events) == ("ethereum", [QuoteReceived(quote(9, "ethereum"))])
    assert feeds.fall_silent(SILENT_AFTER_S + 0.5) == []
    feeds.receive(CHANNEL, beat(1), 2.0)
    assert feeds.fall_silent(SILENT_AFTER_S + 1.5) == [Silent("ethereum")]
    assert feeds.silent == ["ethereum"]


def test_a_feed_is_silent_once_and_back_with_its_next_message() -> None:
    feeds = begun()
    feeds.receive(CHANNEL, message(1), 1.0)
    assert feeds.fall_silent(SILENT_AFTER_S + 0.9) == []
    assert feeds.fall_silent(SILENT_AFTER_S + 1.0) == [Silent("bitcoin")]
    assert feeds.fall_silent(30.0) == []
    _, events = feeds.receive(CHANNEL, message(2), 31.0)
    assert events == [Back("bitcoin"), QuoteReceived(quote(2))]


def test_a_feed_that_never_sent_anything_has_more_time_and_is_then_silent() -> None:
    feeds = begun()
    assert feeds.fall_silent(FIRST_WORD_S - 0.1) == [], "all parts start at once"
    assert feeds.fall_silent(FIRST_WORD_S) == [Silent("bitcoin")]
    _, events = feeds.receive(CHANNEL, message(1), 31.0)
    assert events == [Back("bitcoin"), QuoteReceived(quote(1))]


def test_a_known_coin_is_not_added_again() -> None:
    feeds = begun()
    feeds.receive(CHANNEL, message(1), 1.0)
    assert feeds.add(["bitcoin", "solana", "solana"], 2.0) == ["solana"]
    assert emitted(feeds)["bitcoin"] == Position(5, 1)


def test_each_coin_begins_after_its_given_position() -> None:
    feeds = Feeds(["bitcoin", "ethereum"], 0.0, since={"bitcoin": Position(5, 1)})
    assert emitted(feeds) == {"bitcoin": Position(5, 1), "ethereum": None}
