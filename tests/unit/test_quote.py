"""The message: prices, times, positions and live lines are read and written by one rule."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.model.live_message import Heartbeat, decode_lines, decode_message, encode_heartbeat, encode_quote
from cotacoes.model.quote import (
    PRICE_FRACTION_DIGITS_MAX,
    SEQ_MAX,
    Position,
    PositionText,
    PriceError,
    PriceText,
    Quote,
    TimeText,
    computed_price,
    exact_sum,
    first_gap,
    format_price,
    format_time,
    from_microseconds,
    parse_price,
    parse_time,
    to_microseconds,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
prices = st.decimals(min_value="0.000001", max_value="1e12", places=8).map(lambda price: format(price, "f"))
times = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001


def make_quote(epoch: int = 1, seq: int = 1, *, price: str = "1.50", prev: Position | None = None) -> Quote:
    return Quote("bitcoin", "USD", Decimal(price), epoch, seq, NOON, NOON, "sim", prev)


@given(prices)
def test_a_price_keeps_every_digit(text: str) -> None:
    assert format_price(parse_price(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NaN", "not_finite"),
        ("-inf", "not_finite"),
        ("Infinity", "not_finite"),
        ("0", "zero"),
        ("0.000", "zero"),
        ("-0", "zero"),
        ("-1.5", "negative"),
        ("1_000", "malformed"),
        ("١٢", "malformed"),
        ("１２", "malformed"),
        (" 12 ", "malformed"),
        ("12\n", "malformed"),
        ("1e3", "malformed"),
        ("+1", "malformed"),
        ("01", "malformed"),
        (".5", "malformed"),
        ("5.", "malformed"),
        ("", "malformed"),
        ("1," + "0" * 5, "malformed"),
        ("9" * 5000, "malformed"),
        ("0." + "1" * (PRICE_FRACTION_DIGITS_MAX + 1), "malformed"),
    ],
)
def test_an_invalid_price_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(PriceError) as refused:
        parse_price(text)
    assert refused.value.reason == reason


@given(st.text(max_size=80))
def test_no_text_breaks_the_price_rule(text: str) -> None:
    try:
        assert parse_price(text) > 0
    except PriceError as refused:
        assert refused.reason in {"malformed", "not_finite", "zero", "negative"}


def test_a_computed_price_is_rounded_half_even_to_18_places_without_trailing_zeros() -> None:
    assert format_price(computed_price(Decimal("61837.630") + Decimal("61837.640"), 2)) == "61837.635"
    assert format_price(computed_price(Decimal(1), 3)) == "0." + "3" * 18
    assert format_price(computed_price(Decimal("0.000000000000000005"), 10)) == "0"
    assert format_price(computed_price(Decimal("0.000000000000000015"), 10)) == "0.000000000000000002"
    assert format_price(computed_price(Decimal(3000), 3)) == "1000"


def test_a_sum_is_exact_even_if_the_default_context_would_round() -> None:
    assert format_price(exact_sum([Decimal("9" * 30), Decimal("0." + "1" * 30)])) == "9" * 30 + "." + "1" * 30


@given(times)
def test_a_time_survives_text_and_microseconds(time: datetime) -> None:
    assert parse_time(format_time(time)) == time
    assert from_microseconds(to_microseconds(time)) == time


@pytest.mark.parametrize(
    "text", ["", "2026-11-24", "2026-11-24T12:00:00", "2026-13-24T12:00:00Z", "2026-11-24 12:00:00Z", "1732449600"]
)
def test_a_time_without_an_offset_or_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


def test_a_time_with_an_offset_is_converted_to_utc() -> None:
    assert parse_time("2026-11-24T09:00:00-03:00") == NOON
    assert parse_time("2026-11-24T12:00:00.123456789Z") == NOON + timedelta(microseconds=123456)


@given(st.integers(0, 2**63 - 1), st.integers(1, SEQ_MAX))
def test_a_position_survives_text_and_orders_by_epoch_then_seq(epoch: int, seq: int) -> None:
    position = Position(epoch, seq)
    assert Position.parse(str(position)) == position
    assert position < Position(epoch + 1, 1)


@pytest.mark.parametrize("text", ["", "1", "1-0", "-1-1", "1-2-3", "a-b", f"1-{SEQ_MAX + 1}", "1-1\n", "１-1"])
def test_an_invalid_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="EPOCH-SEQ"):
        Position.parse(text)


def test_a_live_message_of_several_lines_is_read_as_it_was_written() -> None:
    quotes = [make_quote(2, 1, prev=Position(1, 9)), make_quote(2, 2, price="67012.3400")]
    beat = Heartbeat("bitcoin", Position(2, 2), Position(1, 9), NOON)
    message = b"\n".join([*map(encode_quote, quotes), encode_heartbeat(beat)])
    assert decode_message(message) == [*quotes, beat]
    assert b'"price":"67012.3400"' in message


@given(prices, times, times, st.sampled_from([None, Position(0, 3)]))
def test_a_line_that_encode_quote_wrote_is_passed_on_as_it_came(
    price: str, at: datetime, observed_at: datetime, prev: Position | None
) -> None:
    line = encode_quote(Quote("bitcoin", "USD", Decimal(price), 1, 1, observed_at, at, "sim", prev))
    assert decode_lines(line)[0][1] == line


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1,"type":"quote"', b'"type":"quote","v":1'),
        (b'{"v"', b'{ "v"'),
        (b'"coin":"bitcoin"', b'"coin": "bitcoin"'),
        (b'"coin":"bitcoin"', b'"coin":"bit\\u0063oin"'),
        (b'"prev":', b'"after":"1-1","prev":'),
        (b'"coin":"bitcoin","currency":"USD"', b'"currency":"USD","coin":"bitcoin"'),
        (b".000000Z", b".00000Z"),
        (b".000000Z", b".0000000Z"),
        (b".000000Z", b".000000z"),
        (b".000000Z", b".0+00:00"),
        (b"T12", b"t12"),
        (b'"0-3"', b'"00-3"'),
        (b"}", b"} "),
    ],
)
def test_a_line_in_another_notation_means_the_same_and_is_written_anew(old: bytes, new: bytes) -> None:
    quote = make_quote(prev=Position(0, 3))
    line = encode_quote(quote).replace(old, new)
    assert line != encode_quote(quote)
    assert decode_lines(line) == [(quote, None)]


@pytest.mark.parametrize(
    "message",
    [b"{}", b"[]", b"x", b'{"v":2,"type":"heartbeat","coin":"a"}', b'{"v":1,"type":"quote","coin":"a"}', b"\xff"],
)
def test_a_live_message_of_another_form_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        decode_message(message)


def test_a_hole_is_found_by_positions_within_and_between_epochs() -> None:
    whole = [make_quote(1, 1), make_quote(1, 2), make_quote(5, 1, prev=Position(1, 2)), make_quote(5, 2)]
    assert first_gap(whole, None) is None
    assert first_gap(whole, Position(0, 9)) == 0
    assert first_gap(whole[1:], Position(1, 1)) is None
    assert first_gap([whole[0], *whole[2:]], None) == 1
    assert first_gap([*whole[:3], make_quote(5, 3)], None) == 3


class Texts(msgspec.Struct):
    """The texts of a message, each optional."""

    price: PriceText | None = None
    time: TimeText | None = None
    position: PositionText | None = None


def is_taken(name: str, text: str) -> bool:
    try:
        msgspec.convert({name: text}, Texts)
    except msgspec.ValidationError:
        return False
    return True


def is_read(name: str, text: str) -> bool:
    read: dict[str, Callable[[str], object]] = {"price": parse_price, "time": parse_time, "position": Position.parse}
    try:
        read[name](text)
    except ValueError:
        return False
    return True


@given(st.text(st.sampled_from("0123456789.-+eE \n_٣"), max_size=12))
def test_a_message_accepts_a_price_if_and_only_if_it_can_be_parsed(text: str) -> None:
    assert is_taken("price", text) == is_read("price", text)


@given(st.text(st.sampled_from("0123456789-\n٣ "), max_size=24) | st.from_regex(r"[0-9]{1,19}-[0-9]{1,10}\n?"))
def test_a_message_accepts_every_position_that_can_be_parsed_and_no_other_shape(text: str) -> None:
    if is_read("position", text):
        assert is_taken("position", text)
    assert not is_taken("position", f"{text}\n")
    assert not is_taken("position", f"<{text}>")


@pytest.mark.parametrize("text", ["2026-11-24T12:00:00.123456Z", "2026-11-24T12:00:00+00:00", "2026-11-24t12:00:00z"])
def test_a_message_accepts_a_time_that_can_be_parsed(text: str) -> None:
    assert is_read("time", text)
    assert is_taken("time", text)
    assert not any(is_taken("time", spoilt) for spoilt in (f"{text}\n", f" {text}", text[:-1], f"<{text}>"))
