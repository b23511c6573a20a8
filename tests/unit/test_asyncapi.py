"""docs/asyncapi.yaml is a whole AsyncAPI 3 document, and what is written is what it says."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.harness_agreements import agreements
from tests.harness_asyncapi import DOCUMENT, check, check_frame, check_line, check_op, document

from cotacoes.client import stream
from cotacoes.client.modes import parse_mode
from cotacoes.gateway_service.connection import RETRY_MS_LEAST, RETRY_MS_MOST, Ending
from cotacoes.model.live_message import Heartbeat, encode_heartbeat, encode_quote
from cotacoes.model.quote import EPOCH_MAX, SEQ_MAX, Position, Quote, from_microseconds, parse_price

EXAMPLES: dict[str, dict[str, Any]] = {
    name: message["examples"][0]["payload"] for name, message in document()["components"]["messages"].items()
}
QUOTE, LINE, SUBSCRIBED = EXAMPLES["quote"], EXAMPLES["heartbeatLine"], EXAMPLES["subscribed"]


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def resolve(reference: str) -> Any:
    node: Any = document()
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        node = node[part]
    return node


def test_it_is_an_asyncapi_document_whose_references_lead_somewhere() -> None:
    assert document()["asyncapi"] == "3.0.0"
    assert {"info", "servers", "channels", "operations", "components"} <= document().keys()
    assert document()["info"].keys() >= {"title", "version"}
    for reference in references(document()):
        assert resolve(reference)
    assert "<<" not in DOCUMENT.read_text(encoding="utf-8"), "YAML 1.2, which AsyncAPI asks for, merges nothing"


def test_each_operation_uses_messages_of_its_channel_and_each_message_is_used() -> None:
    used = set()
    for operation in document()["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")
            used.add(resolve(message["$ref"])["$ref"].rpartition("/")[2])
        for answer in operation.get("reply", {}).get("messages", []):
            assert answer["$ref"].startswith(f"{operation['reply']['channel']['$ref']}/messages/")
    assert used == document()["components"]["messages"].keys()


@pytest.mark.parametrize("name", sorted(document()["components"]["messages"]))
def test_each_message_has_a_valid_example(name: str) -> None:
    message = document()["components"]["messages"][name]
    assert message["payload"]["$ref"] == f"#/components/schemas/{name}"
    assert message["examples"]
    for example in message["examples"]:
        check(name, example["payload"])


def test_each_message_is_accepted_in_its_place() -> None:
    for look, operation in ((check_frame, "sendFrames"), (check_frame, "sendEvents"), (check_op, "receiveOps")):
        for message in document()["operations"][operation]["messages"]:
            look(EXAMPLES[message["$ref"].rpartition("/")[2]])
    for line in (QUOTE, LINE):
        check_line(json.dumps(line).encode())


sequences = st.just(1) | st.integers(1, SEQ_MAX)
positions = st.builds(Position, st.integers(0, EPOCH_MAX), sequences)
times = st.integers(0, 10**16).map(from_microseconds)
prices = st.decimals(Decimal("1e-18"), Decimal("1e12"), allow_nan=False, allow_infinity=False, places=18)
quotes = st.builds(
    lambda price, position, observed_at, at, prev, agreement: Quote(
        "bitcoin",
        "USD",
        price,
        position.epoch,
        position.seq,
        observed_at,
        at,
        "sim",
        prev if position.seq == 1 else None,
        agreement,
    ),
    prices,
    positions,
    times,
    times,
    st.none() | positions,
    st.none() | agreements,
)


@given(quotes)
def test_every_quote_that_is_written_is_as_described(quote: Quote) -> None:
    check_line(encode_quote(quote))
    check_frame(encode_quote(quote))


@given(st.none() | positions, st.none() | positions, times)
def test_every_heartbeat_that_is_written_is_as_described(
    position: Position | None, prev: Position | None, at: datetime
) -> None:
    check_line(encode_heartbeat(Heartbeat("bitcoin", position, prev, at)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": 67012.34},
        {"price": "0.00"},
        {"price": "1e3"},
        {"price": "NaN"},
        {"price": "-1"},
        {"price": "1\n"},
        {"seq": 0},
        {"seq": 42.0},
        {"seq": True},
        {"at": "2026-11-24T12:00:00Z"},
        {"at": "2026-13-24T12:00:00.123456Z"},
        {"at": "2026-11-24T24:00:00.123456Z"},
        {"seq": 1, "prev": "42"},
        {"seq": 1, "prev": "01-42"},
        {"seq": 42, "prev": "1-42"},
        {"seq": 42, "prev": "1-42", "after": None},
        {"coin": "BTC"},
        {"status": "fresh"},
        {"after": "42"},
        {"type": "ticker"},
        {"type": ["quote"]},
        {"v": 2},
        {"v": 1.0},
    ],
    ids=str,
)
def test_a_message_that_breaks_the_description_is_found(wrong: dict[str, Any]) -> None:
    check_frame(QUOTE)
    with pytest.raises(AssertionError):
        check_frame(QUOTE | wrong)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_field_that_is_missing_or_unknown_is_found(name: str) -> None:
    needed = document()["components"]["schemas"][name]["required"]
    for field in needed:
        with pytest.raises(AssertionError, match="required"):
            check(name, {given: value for given, value in EXAMPLES[name].items() if given != field})
    with pytest.raises(AssertionError, match="strange"):
        check(name, EXAMPLES[name] | {"strange": None})


@pytest.mark.parametrize(
    ("look", "wrong"),
    [
        (check_line, LINE | {"epoch": None}),
        (check_line, LINE | {"seq": None}),
        (check_line, EXAMPLES["conflatedQuote"]),
        (check_line, EXAMPLES["gap"]),
        (check_line, {"coin": "bitcoin"}),
        (check_frame, LINE),
        (check_frame, EXAMPLES["subscribe"]),
        (check_frame, SUBSCRIBED | {"coins": {"bitcoin": {"recovered": True, "position": None}}}),
        (check_frame, EXAMPLES["error"] | {"problem": EXAMPLES["error"]["problem"] | {"trace": "line 1"}}),
        (check_frame, EXAMPLES["bye"] | {"reason": "lunch"}),
        (check_frame, EXAMPLES["gap"] | {"reason": "lost"}),
    ],
    ids=lambda given: getattr(given, "__name__", None) or str(given),
)
def test_a_misplaced_or_contradictory_message_is_found(look: Callable[[bytes], None], wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        look(json.dumps(wrong).encode())


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        "1",
        b"\xff",
        '{"type":"pong","id":null,"id":"2"}',
        '{"type":"bye","reason":"age","retry_ms":NaN}',
        '{"type":"bye","reason":"age","retry_ms":1e3}',
        json.dumps(EXAMPLES["error"]).replace("404", "404.0"),
        json.dumps(LINE, indent=1).encode(),
    ],
)
def test_an_input_that_is_no_message_is_reported_like_any_other(text: str | bytes) -> None:
    with pytest.raises(AssertionError):
        check_frame(text)
    with pytest.raises(AssertionError):
        check_line(text if isinstance(text, bytes) else text.encode())


def test_an_invalid_operation_is_found() -> None:
    check_op({"op": "ping"})
    wrongs: list[object] = [
        *({"op": "jump"}, {"op": "subscribe", "coins": []}, {"op": "ping", "coin": "bitcoin"}),
        *({"op": "ping", "id": "x" * 65}, {"op": ["ping"]}, {}, [], "ping"),
    ]
    for wrong in wrongs:
        with pytest.raises(AssertionError):
            check_op(wrong)


def holds(look: Callable[[], object], refusal: type[Exception]) -> bool:
    with contextlib.suppress(refusal):
        look()
        return True
    return False


@given(st.text("019.-+e \n", max_size=6) | st.integers(0, 10**31).map(str) | prices.map(str))
def test_the_document_accepts_the_same_prices_as_the_code(text: str) -> None:
    assert holds(lambda: check("price", text), AssertionError) == holds(lambda: parse_price(text), ValueError)


@given(
    st.sampled_from(["every", "conflate", "every\n", "", "interval:", "interval:x", "interval:0100", "interval:1.5"])
    | (st.sampled_from([0, 49, 50, 99, 100, 999_999, 3_599_999, 3_600_000, 3_600_001]) | st.integers(-1, 10**8)).map(
        "interval:{}".format
    )
)
def test_the_document_accepts_the_same_modes_as_the_code(mode: str) -> None:
    assert holds(lambda: check("mode", mode), AssertionError) == holds(lambda: parse_mode(mode), ValueError)


def test_every_way_in_which_we_end_a_stream_is_described() -> None:
    described = document()["channels"]["websocket"]["description"]
    for ending in Ending:
        check_frame({"type": "bye", "reason": ending.reason, "retry_ms": RETRY_MS_MOST})
        assert f"| {ending.code} |" in described
    assert 0 < RETRY_MS_LEAST < RETRY_MS_MOST


def test_our_own_client_comes_back_where_the_document_says_so() -> None:
    rows = re.findall(
        r"^\| ([0-9, ]+) \|.*\| (.+) \|$", document()["channels"]["websocket"]["description"], re.MULTILINE
    )
    stays = {
        int(code) for codes, reconnect in rows if reconnect == "not without a change" for code in codes.split(", ")
    }
    assert stays == stream._OUR_FAULT
