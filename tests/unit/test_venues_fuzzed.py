"""A damaged frame is a FrameError at worst: no price that does not stand in the frame, and no growth."""

import contextlib
import random
import re
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from benchmarks import made_frames
from benchmarks.made_frames import BOOKS
from tests.harness_recordings import REAL
from tests.unit import harness_venue_frames as frames
from tests.unit.harness_venue_frames import books, session

from cotacoes.errors import FrameError
from cotacoes.model.quote import format_price, parse_number

EACH = sorted(BOOKS)
ROUNDS = 3_000
MEMORY_ROUNDS = 1_000  # as many as prices are cached
MEMORY_MAX = 262_144  # of cached prices that are longer than those before; kept for good they would be 800,000
TOKENS = (
    *(b"NaN", b"-1", b"1e5", b"1E-7", b"null", b'""', b"[]", b"{}", b"0", b"-0", b"true", b'"-1"', b'"NaN"', b'"1e5"'),
    *(b"\xff", b"\xc3\x28", b"\x00", b"\\u0031", b"9" * 400, b'"' + b"7" * 70 + b'"', b"[" * 2_000, b'{"a":' * 2_000),
    *(b'","', b'":"', b"],[", b"}", b"]", b'"', b",", b":", b"\\"),
)
NUMBER = re.compile(rb"(?<![0-9.eE+-])[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,3}(?![0-9.eE+-])")


def damaged(frame: bytes, random: random.Random) -> bytes:
    """The frame with one to three things done to it."""
    for _ in range(random.randint(1, 3)):
        at, end = sorted(random.choices(range(len(frame) + 1), k=2))
        kind = random.randrange(6)
        if kind == 0 and at < len(frame):
            frame = frame[:at] + bytes([frame[at] ^ 1 << random.randrange(8)]) + frame[at + 1 :]
        elif kind == 1:
            frame = frame[:at]
        elif kind == 2:
            frame = frame[:at] + frame[end:]
        elif kind == 3:
            frame = frame[:end] + frame[at:end] * random.randint(1, 3) + frame[end:]
        elif kind == 4:
            frame = frame[:at] + random.choice(TOKENS) + frame[at:]
        else:
            frame = frame[:at] + random.choice(TOKENS) + frame[end:]
    return frame


def originals(venue: str) -> list[bytes]:
    """Whole frames of the venue: ours, and the recorded ones if they are there."""
    written = [
        BOOKS[venue](bid, ask) for bid, ask in (("63704.10", "63704.20"), ("0.00001", "0.0000100"), ("7", "8.5"))
    ]
    if venue == "bybit":
        written += [made_frames.bybit("63704.15", "", kind="delta"), made_frames.bybit("", "63704.25", kind="delta")]
    if not REAL.is_dir():
        return written
    return [*written, *(frame for recorded, frame in frames.recorded_2026() if recorded == venue)]


def stands_in(text: str, frame: bytes) -> bool:
    """Whether the price stands there by itself, or a number with an exponent that is equal to it."""
    if re.search(rb"(?<![0-9.eE+-])" + re.escape(text.encode()) + rb"(?![0-9.eE+-])", frame):
        return True
    return any(format_price(parse_number(found.decode())) == text for found in NUMBER.findall(frame))


def storm(venue: str, random: random.Random, rounds: int) -> Iterator[bytes]:
    """Damaged frames, and now and then a whole one."""
    whole = originals(venue)
    for _ in range(rounds):
        frame = random.choice(whole)
        yield frame if random.random() < 0.1 else damaged(frame, random)


@pytest.mark.parametrize("venue", EACH)
@pytest.mark.slow
def test_a_damaged_frame_is_a_frame_error_or_gives_prices_that_stand_in_it(venue: str, seeded: random.Random) -> None:
    reader, read = session(venue), b""
    found = refused = 0
    for number, frame in enumerate(storm(venue, seeded, ROUNDS)):
        if number % 40 == 0:
            reader, read = session(venue), b""
        read = read + b"\n" + frame if venue == "bybit" else frame  # a delta of Bybit adds to frames before it
        try:
            events = reader.read(frame)
        except FrameError as error:
            refused += 1
            assert len(str(error)) < 200
            continue
        for book in books(events):
            found += 1
            assert stands_in(format_price(book.bid), read)
            assert stands_in(format_price(book.ask), read)
            assert book.bid > 0 < book.ask
    assert found > ROUNDS / 20
    assert refused > ROUNDS / 5


@pytest.mark.parametrize("venue", EACH)
def test_a_huge_frame_is_read_or_refused_at_once(venue: str) -> None:
    whole = BOOKS[venue]("63704.10", "63704.20")
    for token in (b'"' + b"7" * 4_000_000 + b'"', b"[" * 1_000_000, b"[" + b"1," * 1_000_000 + b"1]", b"9" * 1_000_000):
        for frame in (whole.replace(b'"63704.10"', token).replace(b"63704.10", token), token, whole + token):
            started = time.process_time()
            with contextlib.suppress(FrameError):
                assert books(session(venue).read(frame)) == []
            assert time.process_time() - started < 1.0  # ten milliseconds, as a rule


@pytest.mark.parametrize("venue", EACH)
@pytest.mark.slow
def test_memory_is_flat_over_many_damaged_frames(venue: str, seeded: random.Random) -> None:
    reader = session(venue)

    def read_many(first: int) -> None:
        for number, frame in enumerate(storm(venue, seeded, MEMORY_ROUNDS)):
            price = f"{first + number}.10"
            for sent in (frame, BOOKS[venue](price, price)):  # new prices, so that a cache would grow
                with contextlib.suppress(FrameError):
                    reader.read(sent)

    read_many(0)  # fills the cache of prices
    tracemalloc.start()
    try:
        read_many(MEMORY_ROUNDS)
        before, _ = tracemalloc.get_traced_memory()
        for turn in range(2, 6):
            read_many(turn * MEMORY_ROUNDS)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MEMORY_MAX
