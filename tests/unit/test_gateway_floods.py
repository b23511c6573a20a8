"""A WebSocket client that sends more than it may, of any kind: it gets an error, and what it sent is not parsed."""

import asyncio

import pytest
from tests.unit.harness_gateway_scenarios import run, settle
from tests.unit.harness_gateway_stream import MemoryClient, StreamRig
from websockets.frames import Frame, Opcode

from cotacoes.adapters.http_server.connection import CLOSE_S
from cotacoes.adapters.http_server.context import READ_BYTES_MAX
from cotacoes.adapters.websocket_server import FRAGMENTS_MAX


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


EMPTY = frame(Opcode.CONT, fin=False)
FLOODS = {
    "empty continuations": frame(Opcode.TEXT, fin=False) + EMPTY * 43_690,
    "pongs": frame(Opcode.PONG) * 43_690,
    "pongs with data": frame(Opcode.PONG, b"x" * 125) * 10_000,
    "empty messages in pieces": (frame(Opcode.TEXT, fin=False) + frame(Opcode.CONT)) * 20_000,
}


def parsed_bytes(client: MemoryClient) -> list[int]:
    """How much each call of the library's parser got, from now on."""
    counted: list[int] = []
    receive = client.connection._protocol.receive_data

    def counting(data: bytes | bytearray) -> None:
        counted.append(len(data))
        receive(data)

    client.connection._protocol.receive_data = counting  # type: ignore[method-assign]
    return counted


def pour(client: MemoryClient, flood: bytes) -> None:
    """As the event loop reads it, for as long as it may."""
    for start in range(0, len(flood), READ_BYTES_MAX):
        if not client.transport.reads or client.transport.is_closed:
            return
        client.connection.feed(flood[start : start + READ_BYTES_MAX])


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_frames_is_parsed_only_in_part_and_ends_with_its_own_code(flood: bytes) -> None:
    async def scenario(rig: StreamRig) -> None:
        client, other = rig.client(), rig.client()
        client.subscribe("bitcoin")
        other.subscribe("bitcoin")
        counted = parsed_bytes(client)
        pour(client, flood)
        assert max(counted) <= 1_024  # 170 of the smallest frames
        assert sum(counted) <= READ_BYTES_MAX
        client.answers_pings = False
        client.read()
        assert client.close in {(1008, "flood"), (4002, "rate")}
        reason = client.close[1]
        assert rig.metrics.streams_ended.labels(wire="websocket", reason=reason)._value.get() == 1
        await rig.publish()
        await settle()
        other.read()
        assert len(other.quotes()) == 1

    run(scenario)


@pytest.mark.parametrize("flood", [FLOODS["pongs"], FLOODS["empty continuations"]], ids=["pongs", "continuations"])
def test_after_a_flood_the_connection_is_cut_in_time_even_if_the_client_does_not_answer(flood: bytes) -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.answers_pings = False
        pour(client, flood)
        was_closed = client.transport.is_closed
        client.read()
        await asyncio.sleep(CLOSE_S + 1)
        assert (was_closed, client.transport.is_closed) == (False, True)
        assert not rig.hub.connections

    run(scenario)


def test_the_fragments_of_a_message_are_limited_however_slowly_they_come() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.connection.feed(frame(Opcode.TEXT, b"{", fin=False))
        for _ in range(FRAGMENTS_MAX + 1):
            await asyncio.sleep(0.05)
            client.connection.feed(EMPTY)
        client.read()
        assert client.close == (1008, "flood")

    run(scenario)


def test_a_message_in_a_few_fragments_and_the_pongs_of_a_slow_client_are_accepted() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.connection.feed(frame(Opcode.TEXT, b'{"op":', fin=False) + frame(Opcode.PONG) * 20)
        client.connection.feed(EMPTY * 10 + frame(Opcode.CONT, b'"ping"}'))
        assert [answer["type"] for answer in client.read()] == ["pong"]
        assert client.close is None

    run(scenario)


@pytest.mark.parametrize(("error", "count"), [(TimeoutError("timed out"), 1), (ConnectionResetError(), 0), (None, 0)])
def test_a_client_that_the_kernel_gave_up_on_is_counted_as_ended(error: Exception | None, count: int) -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.subscribe("bitcoin")
        client.connection.connection_lost(error)
        assert rig.metrics.streams_ended.labels(wire="websocket", reason="unanswered")._value.get() == count
        assert not rig.hub.connections

    run(scenario)
