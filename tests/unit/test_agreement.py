"""How venues agreed on a price is the same on every wire; an invalid one is refused; without one nothing changes."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import example, given
from tests.harness_agreements import AGREEMENTS, agreements
from tests.harness_asyncapi import check_frame, check_line
from tests.unit.harness_quote_service import COIN, QuoteServiceCore

from cotacoes.cli.export import COLUMNS, ExportRequest
from cotacoes.cli.output import AGREEMENT_COLUMNS, history_line, quote_line
from cotacoes.client.answers import read_current
from cotacoes.client.frames import QuoteFrame, read_frame
from cotacoes.client_subscriber.lines import LineFormatter, as_json_line
from cotacoes.errors import SourceMalformedError, StreamMalformedError
from cotacoes.external_service.faults import render
from cotacoes.external_service.recording_formats import PAIRS, recognise
from cotacoes.gateway_service.ring import StreamEntry
from cotacoes.model.live_message import HeartbeatLine, decode_lines, encode_quote
from cotacoes.model.payloads import CurrentJson, SourcePageJson, SourcePriceJson, SourceQuoteJson
from cotacoes.model.quote import (
    Agreement,
    Observation,
    Position,
    Quote,
    QuoteJson,
    agreement_fields,
    format_price,
    format_time,
)
from cotacoes.patterns.pub_sub.recovery_events import QuoteReceived
from cotacoes.quote_service.source_pages import TapePage, read_page
from cotacoes.quote_service.source_quote import Fetched, read_quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAIN = Quote("bitcoin", "USD", Decimal("67012.3400"), 5, 2, NOON, NOON, "consensus")
AGREED = msgspec.structs.replace(PLAIN, agreement=AGREEMENTS[0])
OTHER = Quote("ethereum", "USD", Decimal("3512.10"), 5, 2, NOON, NOON, "consensus")
FIELDS: dict[str, Any] = {"state": "agreed", "confidence": "12.34", "used": 5, "of": 6}
WRONG: list[dict[str, Any]] = [
    {"state": "disputed"},
    {"state": ""},
    {"confidence": "-1"},
    {"confidence": "NaN"},
    {"confidence": "1e3"},
    {"confidence": "012"},
    {"confidence": "12.34\n"},
    {"confidence": "1" * 31},
    {"used": 0},
    {"used": 7},
    {"used": 101, "of": 101},
    {"of": 0},
    {"of": 10**30},
    *({name: ...} for name in FIELDS),
]
WRONG_TYPES: list[dict[str, Any]] = [
    {"state": None},
    {"state": 1},
    {"confidence": 12.34},
    {"confidence": None},
    {"used": "5"},
    {"used": 5.5},
    {"used": True},
    {"of": None},
]


def with_fields(message: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (message | FIELDS | changed).items() if value is not ...}


@given(agreements)
def test_an_agreement_survives_the_text_as_which_it_is_stored(agreement: Agreement) -> None:
    read = Agreement.parse(str(agreement))
    assert read == agreement
    assert format_price(read.confidence) == format_price(agreement.confidence)


def test_the_stored_text_is_short_and_readable() -> None:
    assert [str(one) for one in AGREEMENTS[:2]] == ["5/6 12.34", "1/6~167.5"]


@pytest.mark.parametrize(
    "text",
    ["", "5/6", "5/6 ", "5/6  1", "6/5 1", "0/6 1", "05/6 1", "5/101 1", "5/6 -1", "5/6 NaN", "5/6 1\n", "5/6+1"],
)
def test_a_text_that_is_no_agreement_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Agreement.parse(text)


def test_without_an_agreement_every_wire_is_byte_for_byte_as_before() -> None:
    line = (
        b'{"v":1,"type":"quote","coin":"bitcoin","currency":"USD","price":"67012.3400","epoch":5,"seq":2,'
        b'"observed_at":"2026-11-24T12:00:00.000000Z","at":"2026-11-24T12:00:00.000000Z","origin":"consensus","prev":null}'
    )
    assert encode_quote(PLAIN) == line
    assert msgspec.json.encode(QuoteJson.from_quote(PLAIN)) == line.replace(b'"v":1,"type":"quote",', b"")
    assert as_json_line(QuoteReceived(PLAIN)) == line.replace(b'"v":1,', b"") + b"\n"
    observation = Observation("bitcoin", "USD", Decimal(5), NOON, "sim")
    assert b"consensus" not in render({"bitcoin": observation}, "sim")
    priced = SourcePriceJson(1, "bitcoin", "USD", "5", format_time(NOON))
    assert set(json.loads(msgspec.json.encode(priced))) == {"index", "coin", "currency", "price", "observed_at"}


@given(agreements)
@example(AGREEMENTS[4])
def test_a_live_line_carries_the_agreement_and_is_passed_on_as_it_came(agreement: Agreement) -> None:
    quote = msgspec.structs.replace(PLAIN, agreement=agreement)
    line = encode_quote(quote)
    check_line(line)
    check_frame(line)
    assert decode_lines(line) == [(quote, line)]
    assert read_frame(line.decode()) == QuoteFrame(quote)
    conflated = StreamEntry.of_quote(quote, line).standing_for(Position(5, 1)).text
    check_frame(conflated)
    assert read_frame(conflated.decode()) == QuoteFrame(quote, is_newest=True, after=Position(5, 1))


@given(agreements)
def test_the_json_of_an_answer_carries_the_agreement(agreement: Agreement) -> None:
    quote = msgspec.structs.replace(PLAIN, agreement=agreement)
    fields = msgspec.json.encode(QuoteJson.from_quote(quote))
    assert msgspec.json.decode(fields, type=QuoteJson).quote() == quote
    current = msgspec.json.decode(fields, type=dict[str, Any]) | {"age_ms": 7, "status": "fresh", "source": "live"}
    assert msgspec.convert(current, CurrentJson).checked("bitcoin").agreement() == agreement
    assert read_current(msgspec.convert(current, CurrentJson), 0.0).quote == quote


@given(agreements)
def test_the_poll_of_a_source_gives_each_coin_its_agreement(agreement: Agreement) -> None:
    prices = {one.coin: Observation(one.coin, "USD", one.price, NOON, "consensus") for one in (PLAIN, OTHER)}
    prices["bitcoin"] = msgspec.structs.replace(prices["bitcoin"], agreement=agreement)
    answer = render(prices, "consensus")
    msgspec.json.decode(answer, type=SourceQuoteJson)
    assert asyncio.run(read_quote(answer, prices)) == Fetched(list(prices.values()), [])


@given(agreements)
def test_the_tape_of_a_source_gives_each_price_its_agreement(agreement: Agreement) -> None:
    prices = [
        SourcePriceJson(
            1, "bitcoin", "USD", "5.10", format_time(NOON), low="5", high="6", **agreement_fields(agreement)
        ),
        SourcePriceJson(2, "bitcoin", "USD", "5.20", format_time(NOON)),
    ]
    page = asyncio.run(
        read_page(msgspec.json.encode(SourcePageJson("run", "consensus", prices, "run-2")), {"bitcoin"}, 9)
    )
    assert [observation.agreement for _, observation in page.entries] == [agreement, None]


@given(agreements)
def test_a_recording_keeps_the_agreement_for_its_replay(agreement: Agreement) -> None:
    line = encode_quote(msgspec.structs.replace(PLAIN, agreement=agreement))
    recorded = recognise(line, "mid", PAIRS)(line)
    assert recorded is not None
    assert (recorded.price, recorded.agreement) == (PLAIN.price, agreement)


class LineOfTheLastRelease(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="quote"):
    """`QuoteLine` as release 0.2.0 has it."""

    v: int
    coin: str
    currency: str
    price: str
    epoch: int
    seq: int
    observed_at: str
    at: str
    origin: str
    prev: str | None = None


def test_a_program_of_the_last_release_reads_a_line_with_an_agreement() -> None:
    decoder = msgspec.json.Decoder(LineOfTheLastRelease | HeartbeatLine)
    assert decoder.decode(encode_quote(AGREED)) == decoder.decode(encode_quote(PLAIN))


@pytest.mark.parametrize("changed", [*WRONG, *WRONG_TYPES])
def test_a_line_with_an_invalid_agreement_is_refused(changed: dict[str, Any]) -> None:
    line = msgspec.json.encode(with_fields(json.loads(encode_quote(PLAIN)), changed))
    with pytest.raises(ValueError):
        decode_lines(line)
    with pytest.raises(StreamMalformedError):
        read_frame(line.decode())
    with pytest.raises(ValueError):
        msgspec.json.decode(line, type=QuoteJson).quote()


def polled(changed: object) -> Fetched:
    answer = {
        "bitcoin": "67012.34",
        "ethereum": "3512.10",
        "observed_at": format_time(NOON),
        "currency": {"bitcoin": "USD", "ethereum": "USD"},
        "origin": "consensus",
        "consensus": {"bitcoin": changed, "ethereum": FIELDS | {"low": "no price", "high": None}},
    }
    return asyncio.run(read_quote(json.dumps(answer).encode(), {"bitcoin", "ethereum"}))


@pytest.mark.parametrize(
    "wrong", [*(with_fields({}, changed) for changed in (*WRONG, *WRONG_TYPES)), {}, [], 1, None, "agreed", [[[[]]]]]
)
def test_an_invalid_agreement_in_a_poll_rejects_its_coin_alone(wrong: object) -> None:
    fetched = polled(wrong)
    assert fetched.unreadable == [("bitcoin", "malformed")]
    assert [(one.coin, one.agreement) for one in fetched.observations] == [("ethereum", AGREEMENTS[0])]


@pytest.mark.parametrize("consensus", [[], 1, None, "bitcoin"])
def test_a_consensus_that_is_no_object_rejects_the_answer(consensus: object) -> None:
    answer = json.dumps({"bitcoin": "5", "origin": "x", "consensus": consensus}).encode()
    with pytest.raises(SourceMalformedError, match="consensus is not a JSON object"):
        asyncio.run(read_quote(answer, {"bitcoin"}))


def taped(changed: dict[str, Any]) -> TapePage:
    price = {"coin": "bitcoin", "currency": "USD", "price": "5", "observed_at": format_time(NOON)}
    quotes = [with_fields(price | {"index": 1}, changed), price | {"index": 2}]
    page = {"run": "run", "origin": "consensus", "next": "run-2", "quotes": quotes}
    return asyncio.run(read_page(json.dumps(page).encode(), {"bitcoin"}, 9))


@pytest.mark.parametrize("changed", WRONG[:-5] + WRONG[-4:])
def test_an_invalid_agreement_on_a_tape_rejects_its_price_alone(changed: dict[str, Any]) -> None:
    page = taped(changed)
    assert page.unreadable == [("bitcoin", "malformed")]
    assert [index for index, _ in page.entries] == [2]


@pytest.mark.parametrize("changed", WRONG_TYPES)
def test_a_tape_with_another_type_in_an_agreement_is_no_tape(changed: dict[str, Any]) -> None:
    with pytest.raises(SourceMalformedError, match="not a page of a tape"):
        taped(changed)


@pytest.mark.anyio
async def test_quote_service_records_the_agreement_and_counts_an_invalid_one(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    price = {"coin": COIN, "currency": "USD", "price": "5", "observed_at": format_time(core.wall)}
    quotes = [
        with_fields(price | {"index": 1}, {}),
        with_fields(price | {"index": 2}, {"used": 9}),
        price | {"index": 3},
    ]
    body = json.dumps({"run": "run", "origin": "sim", "next": "run-3", "quotes": quotes}).encode()
    core.pages = [await read_page(body, {COIN}, 9)]
    await core.tape_reader.read_page()
    assert [quote.agreement for quote in await core.recorder.log.after(COIN, None, 9)] == [AGREEMENTS[0], None]
    labels = {"coin": COIN, "reason": "malformed"}
    assert core.metrics.registry.get_sample_value("cotacoes_prices_rejected_total", labels) == 1
    await core.recorder.close()


Form = Literal["csv", "ndjson"]


def exported(form: Form, *quotes: Quote, has_agreement: bool = False) -> list[str]:
    request = ExportRequest("bitcoin", None, None, form, has_agreement=has_agreement)
    lines = [request.line(QuoteJson.from_quote(quote)) for quote in quotes]
    for line in lines:
        assert request.read(line) == ("5-2", format_time(NOON))
    return [request.head, *lines]


def test_a_csv_keeps_its_columns_unless_more_are_requested() -> None:
    assert exported("csv", AGREED) == exported("csv", PLAIN)
    head, agreed, plain = exported("csv", AGREED, PLAIN, has_agreement=True)
    assert head == f"{','.join([*COLUMNS, *AGREEMENT_COLUMNS])}\n"
    assert agreed.endswith(",consensus,agreed,12.34,5,6\n")
    assert plain.endswith(",consensus,,,,\n")


def test_a_line_of_ndjson_has_the_fields_of_an_agreement_if_there_is_one() -> None:
    _, agreed, plain = exported("ndjson", AGREED, PLAIN)
    assert tuple(json.loads(plain)) == COLUMNS
    assert json.loads(agreed) == json.loads(plain) | FIELDS


def test_people_are_shown_how_venues_agreed() -> None:
    fields = msgspec.to_builtins(QuoteJson.from_quote(AGREED))
    current = msgspec.convert(fields | {"age_ms": 400, "status": "fresh", "source": "live"}, CurrentJson)
    assert quote_line(current) == "bitcoin 67012.3400 USD fresh 0.4 s old consensus 5-2 agreed 12.34 5/6"
    assert history_line(QuoteJson.from_quote(AGREED)).endswith(" consensus 5-2 agreed 12.34 5/6")
    assert history_line(QuoteJson.from_quote(PLAIN)).endswith(" consensus 5-2")
    thin = msgspec.structs.replace(PLAIN, agreement=AGREEMENTS[1])
    shown = LineFormatter(8, coloured=False).line(QuoteReceived(thin), NOON)
    assert shown.endswith("  5-2  0.0 s  consensus  thin 1/6 within 167.5\n")
