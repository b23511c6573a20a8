"""Messages that are handed over as they come: all of them, in order, by turns with everything else."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from tests.contract.test_client_stream import HANG_S, Handler, endpoint, serving
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from cotacoes.adapters.websocket_client import TAKEN_AT_ONCE, RawLink, connect
from cotacoes.errors import StreamClosedError, StreamUnavailableError


@asynccontextmanager
async def linked(handler: Handler) -> AsyncIterator[RawLink]:
    """A link to a server that does this."""
    async with asyncio.timeout(HANG_S), serving(handler) as url:
        link = await connect(endpoint(url), deadline_s=HANG_S)
        try:
            yield link
        finally:
            link.abort()


def frames_of(message: bytes, dice: random.Random) -> Iterator[bytes]:
    """The message in one frame or several, with pings between them."""
    cuts = [0, *sorted(dice.choices(range(len(message) + 1), k=dice.choice([0, 0, 0, 1, 3]))), len(message)]
    for number, (start, end) in enumerate(pairwise(cuts)):
        opcode = Opcode.CONT if number else dice.choice([Opcode.TEXT, Opcode.BINARY])
        yield Frame(opcode, message[start:end], fin=end == len(message) and number == len(cuts) - 2).serialize(
            mask=False
        )
        if dice.random() < 0.1:
            yield Frame(Opcode.PING, b"?").serialize(mask=False)


async def taken_of(link: RawLink) -> list[bytes]:
    taken: list[bytes] = []
    with pytest.raises(StreamClosedError):
        await link.hand_over(taken.append)
    return taken


async def test_every_message_is_handed_over_once_and_in_order_however_it_is_cut(seeded: random.Random) -> None:
    messages = [f"{number} {'x' * seeded.choice([0, 9, 999])}".encode() for number in range(5_000)]
    stream = b"".join(frame for message in messages for frame in frames_of(message, seeded))

    async def handler(connection: ServerConnection) -> None:
        start = 0
        while start < len(stream):
            end = start + seeded.choice([1, 100, 10_000, 300_000])
            connection.transport.write(stream[start:end])
            await connection.drain()
            await asyncio.sleep(seeded.choice([0, 0.001]))
            start = end

    async with linked(handler) as link:
        assert await taken_of(link) == messages


async def test_messages_that_came_before_are_handed_over_first() -> None:
    go_on = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.send("1")
        await connection.send("2")
        await go_on.wait()
        await connection.send("3")

    async with linked(handler) as link:
        assert await link.receive() == "1"
        await asyncio.sleep(0.05)
        taking = asyncio.create_task(taken_of(link))
        await asyncio.sleep(0.05)
        go_on.set()
        assert await taking == [b"2", b"3"]


@pytest.mark.parametrize("parts", [[b"bad"], [b"b", b"ad"]], ids=["whole", "in parts"])
async def test_what_the_taker_raises_ends_the_connection_and_is_raised(parts: Sequence[bytes]) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("good")
        await asyncio.sleep(0.05)
        await connection.send(parts if len(parts) > 1 else parts[0])
        for _ in range(1_000):
            await connection.send("more")

    taken: list[bytes] = []

    def take(message: bytes) -> None:
        taken.append(message)
        if message == b"bad":
            raise ValueError("a bug")

    async with linked(handler) as link:
        with pytest.raises(ValueError, match="a bug"):
            await link.hand_over(take)
        link.abort()
        await asyncio.sleep(0.05)
    assert taken == [b"good", b"bad"]


async def test_a_flood_starves_no_other_task() -> None:
    count = 50_000
    frame = Frame(Opcode.TEXT, b"x").serialize(mask=False)

    async def handler(connection: ServerConnection) -> None:
        connection.transport.write(frame * count)
        await connection.wait_closed()

    taken = at_once = longest = 0

    def take(message: bytes) -> None:
        nonlocal taken, at_once, longest
        taken += 1
        at_once += 1
        longest = max(longest, at_once)

    async with linked(handler) as link:
        taking = asyncio.create_task(link.hand_over(take))
        while taken < count:
            at_once = 0
            await asyncio.sleep(0)
        link.abort()
        with pytest.raises(StreamUnavailableError):
            await taking
    assert longest <= 2 * TAKEN_AT_ONCE  # as they come, and from the queue
