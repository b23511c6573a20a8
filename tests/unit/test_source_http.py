"""Reading `/quote`: every digit counts, by one strict rule, and any body gives an answer or one of two errors."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cotacoes.adapters.http_client import Response
from cotacoes.errors import HttpMalformedError, HttpUnavailableError, SourceMalformedError, SourceUnavailableError
from cotacoes.model.quote import Observation, format_price
from cotacoes.quote_service.source import RETRY_AFTER_MAX_S, HttpSource, read_retry_after
from cotacoes.quote_service.source_quote import COINS_MAX, STEP_PRICES, Fetched, read_quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COINS = frozenset({"bitcoin", "ethereum", "doge", "a"})
GOOD: dict[str, Any] = {
    "bitcoin": "67012.34",
    "observed_at": "2026-11-24T12:00:00Z",
    "observed": {"bitcoin": "2026-11-24T12:00:00.5Z"},
    "currency": {"bitcoin": "USD"},
    "origin": "sim",
}


class OneAnswer:
    """A client with this answer or error."""

    def __init__(self, answer: Response | Exception) -> None:
        self._answer = answer
        self.asked: list[str] = []

    async def get(self, url: str) -> Response:
        self.asked.append(url)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def fetch(answer: Response | Exception) -> Fetched:
    return asyncio.run(HttpSource(OneAnswer(answer), "http://source", COINS, now=lambda: NOON).fetch())


def read(answer: bytes) -> Fetched:
    return asyncio.run(read_quote(answer, COINS))


def body(**changed: Any) -> bytes:
    return json.dumps({key: value for key, value in (GOOD | changed).items() if value is not ...}).encode()


def with_price(token: str) -> Fetched:
    """The good answer with the raw JSON `token` as Bitcoin's price."""
    return read(body().replace(b'"67012.34"', token.encode()))


def test_a_good_answer_gives_each_coins_price_time_currency_and_origin() -> None:
    client = OneAnswer(Response(200, {}, body()))
    fetched = asyncio.run(HttpSource(client, "http://source/", COINS).fetch())
    observed_at = NOON + timedelta(milliseconds=500)
    assert fetched == Fetched([Observation("bitcoin", "USD", Decimal("67012.34"), observed_at, "sim")], [])
    assert client.asked == ["http://source/quote"]


def test_a_coin_without_a_time_of_its_own_has_the_time_of_the_answer() -> None:
    assert read(body(observed={})).observations[0].observed_at == NOON
    assert read(body(observed=...)).observations[0].observed_at == NOON


@given(whole=st.integers(0, 10**29), places=st.text("0123456789", min_size=1, max_size=30), as_number=st.booleans())
def test_every_digit_arrives_whether_as_a_string_or_as_a_number(whole: int, places: str, as_number: bool) -> None:
    text = f"{whole}.{places}"
    fetched = with_price(text if as_number else f'"{text}"')
    if Decimal(text):
        assert format_price(fetched.observations[0].price) == text
    else:
        assert fetched.unreadable == [("bitcoin", "zero")]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ('"NaN"', "not_finite"),
        ('"Infinity"', "not_finite"),
        ('"0"', "zero"),
        ("0.000", "zero"),
        ("-0", "zero"),
        ('"-1"', "negative"),
        ("-67012.34", "negative"),
        ('"6.7e4"', "malformed"),
        ("1E999", "malformed"),
        ("1e30", "malformed"),
        ("1e-31", "malformed"),
        ("1e9999999999", "malformed"),
        ("-6.44e-06", "negative"),
        ("0e5", "zero"),
        ("9" * 5000, "malformed"),
        ("1." + "1" * 31, "malformed"),
        ('"1_000"', "malformed"),
        ('" 12 "', "malformed"),
        ('"+1"', "malformed"),
        ('"0x1f"', "malformed"),
        ('"\uff11\uff12"', "malformed"),
        ('"٣"', "malformed"),
        ('"12\\u0000"', "malformed"),
        ('""', "malformed"),
        ("null", "malformed"),
        ("true", "malformed"),
        ("[67012.34]", "malformed"),
        ('{"price":1}', "malformed"),
        ('"' + "1" * 100_000 + '"', "malformed"),
    ],
)
def test_an_invalid_price_rejects_its_coin_with_the_reason(token: str, reason: str) -> None:
    assert with_price(token) == Fetched([], [("bitcoin", reason)])


@pytest.mark.parametrize(
    ("token", "price"),
    [
        ("6.44e-06", "0.00000644"),
        ("6.7e4", "67000"),
        ("4.20E+1", "42.0"),
        ("1e29", f"1{'0' * 29}"),
        ("1e-30", f"0.{'0' * 29}1"),
    ],
)
def test_the_exponent_of_a_number_is_as_exact_as_its_digits(token: str, price: str) -> None:
    assert [format_price(one.price) for one in with_price(token).observations] == [price]


@pytest.mark.parametrize(
    "time",
    [
        None,
        5,
        "yesterday",
        "2026-11-24 12:00:00Z",
        "2026-11-24T12:00:00",
        "9999-99-99T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        [],
    ],
)
def test_an_invalid_time_rejects_its_coin(time: Any) -> None:
    assert read(body(observed={"bitcoin": time})).unreadable == [("bitcoin", "bad_time")]
    assert read(body(observed={}, observed_at=time)).unreadable == [("bitcoin", "bad_time")]


@pytest.mark.parametrize("currency", [{}, ..., {"bitcoin": "usd"}, {"bitcoin": 1}, {"bitcoin": "U" * 500}])
def test_a_price_without_a_valid_currency_is_rejected(currency: Any) -> None:
    assert read(body(currency=currency)).unreadable == [("bitcoin", "malformed")]


def test_a_coin_that_has_an_origin_of_its_own_bears_it() -> None:
    currency = {"bitcoin": "USD", "doge": "USDT"}
    fetched = read(body(doge="0.1", currency=currency, origins={"doge": "kraken"}))
    assert {one.coin: one.origin for one in fetched.observations} == {"bitcoin": "sim", "doge": "kraken"}


@pytest.mark.parametrize("origin", [None, "", 5, "a b", "é", "x" * 101, ["kraken"], {"name": "kraken"}])
def test_an_invalid_origin_of_a_coin_rejects_that_coin(origin: Any) -> None:
    currency = {"bitcoin": "USD", "doge": "USDT"}
    fetched = read(body(doge="0.1", currency=currency, origins={"doge": origin}))
    assert fetched.unreadable == [("doge", "malformed")]
    assert [one.coin for one in fetched.observations] == ["bitcoin"]


@pytest.mark.parametrize("origins", [None, "kraken", ["kraken"]])
def test_origins_that_are_no_object_reject_the_answer(origins: Any) -> None:
    with pytest.raises(SourceMalformedError, match="origins is not a JSON object"):
        read(body(origins=origins))


def test_one_bad_coin_leaves_the_others_whole() -> None:
    currency = dict.fromkeys(("bitcoin", "ethereum", "doge"), "USD")
    fetched = read(body(currency=currency, ethereum="NaN", doge="0.1", **{"Not A Coin": "1"}))
    assert [observation.coin for observation in fetched.observations] == ["bitcoin", "doge"]
    assert (fetched.unreadable, fetched.unknown) == ([("ethereum", "not_finite")], 1)


def test_unknown_coins_are_counted_and_not_read() -> None:
    others = {f"coin-{number}": "not a price" for number in range(COINS_MAX - 1)}
    fetched = read(body(**others))
    assert ([one.coin for one in fetched.observations], fetched.unreadable) == (["bitcoin"], [])
    assert fetched.unknown == COINS_MAX - 1


@pytest.mark.parametrize(
    "answer",
    [
        b'{"origin":"x",' + b",".join(b'"%x":1' % key for key in range(95_000)) + b"}",
        b'{"origin":"x","bitcoin":"1","currency":{' + b",".join(b'"%x":1' % key for key in range(95_000)) + b"}}",
        b'{"origin":"x","observed":{' + b'"a":1,' * 170_000 + b'"a":1}}',
    ],
    ids=["coins", "currencies", "times"],
)
def test_an_answer_with_too_many_keys_is_refused_before_it_is_decoded(answer: bytes) -> None:
    assert len(answer) < 1_100_000  # about as long as an answer may be
    with pytest.raises(SourceMalformedError, match="more than 10000 coins"):
        read(answer)


async def test_reading_a_large_answer_yields_to_other_tasks() -> None:
    names = [f"coin-{number}" for number in range(5_000)]
    answer = body(**dict.fromkeys(names, "1"), currency=dict.fromkeys(names, "USD"))
    turns = 0
    reading = asyncio.ensure_future(read_quote(answer, {*names}))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(reading.result().observations) == len(names)
    assert turns > len(names) / STEP_PRICES


def test_the_last_one_of_a_repeated_key_counts() -> None:
    twice = body().replace(b'"bitcoin": "67012.34"', b'"bitcoin": "1", "bitcoin": "2"', 1)
    assert [observation.price for observation in read(twice).observations] == [Decimal(2)]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        bytes(range(256)),
        b"\xef\xbb\xbf" + body(),
        body() + b"x",
        body()[:-1],
        body(origin=...),
        body(origin=""),
        body(origin="with space"),
        body(origin="x" * 101),
        body(origin=1),
        body(observed=[]),
        body(currency="USD"),
        body().replace(b'"67012.34"', b"NaN"),
        b'{"bitcoin":' + b"[" * 100_000,
        json.dumps({"origin": "sim"} | {f"c{number}": "1" for number in range(COINS_MAX + 1)}).encode(),
    ],
    ids=lambda answer: repr(answer[:24]),
)
def test_a_body_that_is_no_quote_object_is_malformed(answer: bytes) -> None:
    with pytest.raises(SourceMalformedError):
        fetch(Response(200, {}, answer))


def test_values_nested_too_deep_give_no_price() -> None:
    """How deep is too deep depends on the version of Python."""
    for depth in (1_000, 100_000, 1_000_000):
        answer = b'{"bitcoin":' + b"[" * depth + b"]" * depth + b',"origin":"sim"}'
        with contextlib.suppress(SourceMalformedError):
            assert fetch(Response(200, {}, answer)).observations == []


def read_or_refuse(answer: bytes) -> None:
    try:
        fetched = read(answer)
    except SourceMalformedError:
        return
    for observation in fetched.observations:
        assert observation.price > 0
        assert observation.price.is_finite()
        assert observation.observed_at.tzinfo is UTC


@given(st.binary(max_size=300))
@example(b'{"\xff":1,"origin":"s"}')
@example(b'{"a":"\xff","origin":"s"}')
@example(b'{"a":"\\ud800","origin":"s","currency":{"a":"USD"}}')
@example(b'{"\\ud800":1,"origin":"s"}')
def test_any_bytes_are_read_or_refused(answer: bytes) -> None:
    read_or_refuse(answer)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(["bitcoin", "ethereum", "observed_at", "observed", "currency", "origin"]) | st.text(max_size=8)


@pytest.mark.slow
@given(st.dictionaries(_KEYS, _JSON | st.sampled_from(list(GOOD.values())), max_size=8))
def test_any_object_is_read_or_refused(answer: dict[str, Any]) -> None:
    read_or_refuse(json.dumps(answer).encode())
    read_or_refuse(msgspec.json.encode({"origin": "sim"} | {key: answer[key] for key in answer if key.isascii()}))


@given(st.data())
def test_a_good_answer_with_any_bytes_put_into_it_is_read_or_refused(data: st.DataObject) -> None:
    good = body()
    place = data.draw(st.integers(0, len(good)))
    read_or_refuse(good[:place] + data.draw(st.binary(max_size=6)) + good[place + data.draw(st.integers(0, 6)) :])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
def test_a_source_that_cannot_answer_now_is_unavailable_and_its_wait_is_passed_on(status: int) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(Response(status, {"retry-after": "7"}, b""))
    assert caught.value.retry_after_s == 7.0
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(Response(status, {}, b""))
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("status", [201, 204, 206, 301, 302, 304, 400, 401, 404])
def test_any_other_status_is_no_quote_even_with_one_in_its_body(status: int) -> None:
    with pytest.raises(SourceMalformedError):
        fetch(Response(status, {}, body()))


def test_errors_of_the_client_keep_their_meaning_and_their_cause() -> None:
    with pytest.raises(SourceUnavailableError) as unavailable:
        fetch(HttpUnavailableError("cut"))
    with pytest.raises(SourceMalformedError) as malformed:
        fetch(HttpMalformedError("huge"))
    assert isinstance(unavailable.value.__cause__, HttpUnavailableError)
    assert isinstance(malformed.value.__cause__, HttpMalformedError)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\uff11\uff12", None),
        ("0", 0.0),
        ("120", 120.0),
        ("999999", RETRY_AFTER_MAX_S),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Fri, 24 Nov 2028 12:00:00 GMT", RETRY_AFTER_MAX_S),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date_within_its_bound(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, NOON) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_is_a_bounded_wait_or_ignored(value: str) -> None:
    wait_s = read_retry_after(value, NOON)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_MAX_S
