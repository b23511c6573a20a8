"""docs/asyncapi.yaml is a whole AsyncAPI 3 document, and what is written is what it says."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import check, check_frame, check_line, check_op, document

from cotacoes.gateway_service.connection import RETRY_MS_LEAST, RETRY_MS_MOST, Ending
from cotacoes.live import Heartbeat, encode_heartbeat, encode_quote
from cotacoes.quote import EPOCH_MAX, SEQ_MAX, Position, Quote

QUOTE: dict[str, Any] = document()["components"]["messages"]["quote"]["examples"][0]["payload"]


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


def test_each_operation_uses_messages_of_its_channel_and_each_message_is_used() -> None:
    used = set()
    for operation in document()["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")
            used.add(resolve(message["$ref"])["$ref"].rpartition("/")[2])
    assert used == document()["components"]["messages"].keys()


@pytest.mark.parametrize("name", sorted(document()["components"]["messages"]))
def test_each_message_has_an_example_that_is_one(name: str) -> None:
    message = document()["components"]["messages"][name]
    assert message["payload"]["$ref"] == f"#/components/schemas/{name}"
    assert message["examples"]
    for example in message["examples"]:
        check(name, example["payload"])


positions = st.builds(Position, st.integers(0, EPOCH_MAX), st.integers(1, SEQ_MAX))
times = st.integers(0, 10**10).map(lambda second: datetime(1971, 1, 1, tzinfo=UTC) + timedelta(seconds=second))
prices = st.decimals(Decimal("1e-18"), Decimal("1e12"), allow_nan=False, allow_infinity=False, places=18)
quotes = st.builds(
    lambda price, position, at, prev: Quote("bitcoin", "USD", price, *position, at, at, "sim", prev),
    prices,
    positions,
    times,
    st.none() | positions,
)


@given(quotes)
def test_every_quote_that_is_written_is_as_described(quote: Quote) -> None:
    check_line(encode_quote(quote))
    check_frame(encode_quote(quote))


@given(st.none() | positions, st.none() | positions, times)
def test_every_heartbeat_that_is_written_is_as_described(
    position: Position | None, prev: Position | None, at: datetime
) -> None:
    check_line(encode_heartbeat(Heartbeat("bitcoin", position, prev, at + timedelta(microseconds=1))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": 67012.34},
        {"price": "0.00"},
        {"price": "1e3"},
        {"price": "NaN"},
        {"price": "-1"},
        {"seq": 0},
        {"at": "2026-11-24T12:00:00Z"},
        {"prev": "42"},
        {"coin": "BTC"},
        {"status": "fresh"},
        {"after": "42"},
        {"type": "ticker"},
        {"v": 2},
    ],
    ids=str,
)
def test_what_is_not_as_described_is_found(wrong: dict[str, Any]) -> None:
    check_frame(QUOTE)
    with pytest.raises(AssertionError):
        check_frame(QUOTE | wrong)


@pytest.mark.parametrize("field", sorted(QUOTE))
def test_a_field_that_is_missing_is_found(field: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_frame({name: value for name, value in QUOTE.items() if name != field})


def test_an_op_that_is_none_is_found() -> None:
    check_op({"op": "ping"})
    for wrong in ({"op": "jump"}, {"op": "subscribe", "coins": []}, {"op": "ping", "coin": "bitcoin"}):
        with pytest.raises(AssertionError):
            check_op(wrong)


def test_every_way_in_which_we_end_a_stream_is_described() -> None:
    described = document()["channels"]["websocket"]["description"]
    for ending in Ending:
        check_frame({"type": "bye", "reason": ending.reason, "retry_ms": RETRY_MS_MOST})
        assert f"| {ending.code} |" in described
    assert 0 < RETRY_MS_LEAST < RETRY_MS_MOST
