"""A live tape is recorded from now on and exactly over restarts; another run of feed_service is one gap."""

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from tests.unit.harness_quote_service import COIN, NOON, QuoteServiceCore

from cotacoes.errors import CursorGoneError, SourceGoneError
from cotacoes.feed_service.tape import ConsensusTape, PricedCoin
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.patterns.consensus import ConsensusPrice, ConsensusState, VenueBook, VenueVerdict
from cotacoes.quote_service.source_pages import TapePage, read_page
from cotacoes.quote_service.tape import TapeReader

pytestmark = pytest.mark.anyio


@dataclass
class LiveSource:
    """feed_service's tape, read as over HTTP. `run` is its start."""

    tape: ConsensusTape
    asked: list[str | None] = field(default_factory=list)

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        self.asked.append(cursor)
        try:
            return await read_page(await self.tape.page(cursor, limit, 0.0), {COIN}, limit)
        except CursorGoneError as gone:
            raise SourceGoneError("gone", cursor=str(gone.extra["next"])) from gone


def new_tape(number: int, *prices: int, held: int = 100) -> ConsensusTape:
    tape = ConsensusTape(f"feed.{number}", entries_max=held)
    tell(tape, *prices)
    return tape


def tell(tape: ConsensusTape, *prices: int) -> None:
    """These prices go on the tape."""
    for price in map(Decimal, prices):
        verdict = VenueVerdict(VenueBook("kraken", "USD", price, price, 0.0), Decimal(1), None)
        consensus = ConsensusPrice(ConsensusState.THIN, price, Decimal(1), price, price, 1, 1, 0.0, [verdict])
        tape.append(COIN, PricedCoin(consensus, NOON))


class Recording:
    """quote_service on this folder, from its start to its stop."""

    def __init__(self, folder: Path, source: LiveSource) -> None:
        self.core = QuoteServiceCore(folder)
        metrics = QuoteMetrics(Metrics())
        self.reader = TapeReader(source, self.core.tape_intake, metrics, interval_s=0.0, is_live=True)

    async def __aenter__(self) -> "Recording":
        await self.core.recorder.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.core.recorder.close()

    async def read(self, pages: int = 1) -> None:
        for _ in range(pages):
            await self.reader.read_page()

    async def prices(self) -> list[int]:
        return [int(quote.price) for quote in await self.core.recorder.log.after(COIN, None, 1000)]

    async def gaps(self) -> list[tuple[str, str]]:
        return [(after, following) for after, following, _ in await self.core.recorder.log.source_gaps()]


async def test_a_live_tape_begins_at_now(tmp_path: Path) -> None:
    source = LiveSource(new_tape(1, 1, 2, 3))
    async with Recording(tmp_path, source) as recording:
        await recording.read()
        tell(source.tape, 4, 5)
        await recording.read()
        assert await recording.prices() == [4, 5]
    assert source.asked == [None, "feed.1-3"]


async def test_after_a_restart_of_quote_service_every_price_since_is_recorded_once(tmp_path: Path) -> None:
    source = LiveSource(new_tape(1, 99))
    for number in range(4):
        async with Recording(tmp_path, source) as recording:
            await recording.read()
            tell(source.tape, 103 + 3 * number, 104 + 3 * number)
            await recording.read(2)
        tell(source.tape, 105 + 3 * number)
    async with Recording(tmp_path, source) as recording:
        await recording.read()
        assert await recording.prices() == list(range(103, 115))
        assert await recording.gaps() == []


async def test_another_run_of_feed_service_is_one_gap_and_no_price_is_doubled(tmp_path: Path) -> None:
    source = LiveSource(new_tape(1, 99))
    async with Recording(tmp_path, source) as recording:
        await recording.read()
        tell(source.tape, 1, 2)
        await recording.read()
        source.tape = new_tape(2, 3, 4)  # it was killed; the first prices of its next run came before we asked
        await recording.read(3)
        tell(source.tape, 5)
        await recording.read()
        assert await recording.prices() == [1, 2, 3, 4, 5]
        assert await recording.gaps() == [("feed.1-3", "feed.2-0")]


async def test_another_run_while_quote_service_was_away_is_one_gap_too(tmp_path: Path) -> None:
    source = LiveSource(new_tape(1, 99))
    async with Recording(tmp_path, source) as recording:
        await recording.read()
        tell(source.tape, 1)
        await recording.read()
    source.tape = new_tape(2, 2, 3)
    for _ in range(2):
        async with Recording(tmp_path, source) as recording:
            await recording.read(3)
            assert await recording.prices() == [1, 2, 3]
            assert await recording.gaps() == [("feed.1-2", "feed.2-0")]


async def test_a_reader_that_was_away_too_long_notes_what_the_tape_no_longer_holds(tmp_path: Path) -> None:
    source = LiveSource(new_tape(1, 99, held=3))
    async with Recording(tmp_path, source) as recording:
        await recording.read()
        tell(source.tape, 1)
        await recording.read()
        tell(source.tape, *range(2, 11))
        await recording.read(2)
        assert await recording.prices() == [1, 8, 9, 10]
        assert await recording.gaps() == [("feed.1-2", "feed.1-8")]
