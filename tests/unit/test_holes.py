"""Every read of a history names its holes with their bounds, and everything behind them comes."""

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.unit.harness_gateway_scenarios import run as run_streams
from tests.unit.harness_gateway_scenarios import since as since_text
from tests.unit.harness_gateway_stream import StreamRig
from tests.unit.harness_history_seam import Seam
from tests.unit.harness_quote_service import COIN, NOON

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.cli import export as exporting
from cotacoes.cli import queries
from cotacoes.cli.export import Export, ExportRequest
from cotacoes.client import Client
from cotacoes.errors import HistoryUnavailableError, PositionBeyondEndError, PositionGoneError
from cotacoes.feed.history import HistoryPage, ServiceHistory
from cotacoes.model.quote import Position, Quote, format_time
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.pub_sub import recovery_events as events
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery import Recovery
from cotacoes.patterns.pub_sub.recovery_events import HistoryHoleError
from cotacoes.quote_service.routes import routes
from cotacoes.web.app import build_app
from cotacoes.web.service_client import Addresses, ServiceClient

pytestmark = pytest.mark.anyio

HELD = [1, 2, 3, 4, 9, 10, 11, 12]


@pytest.fixture
async def seam(tmp_path: Path) -> AsyncIterator[Seam]:
    """A shard that was put back to its fourth quote when the log had no more than the ninth."""
    one = await Seam(tmp_path).start()
    await one.record(*range(4))
    await one.deliver(4)
    backup = copy.deepcopy(one.shard.copies)
    await one.record(*range(4, 10))
    await one.deliver(6)
    await one.trim(2)
    one.shard.copies = backup
    history = one.core.history
    assert history.epoch is not None
    fence = await one.shard.become_writer(COIN, history.epoch, one.core.recorder.writer.name)
    async with history.turn:
        await one.core.recorder.note_writer(history, fence)
    yield one
    await one.close()


@pytest.fixture
async def holed(seam: Seam) -> Seam:
    await seam.deliver(10)
    await seam.record(10, 11)
    return seam


def at(holed: Seam, number: int) -> Position:
    return holed.quotes[number - 1].position


def gap(holed: Seam, after: int, through: int = 8) -> dict[str, str]:
    return {"after": str(at(holed, after)), "through": str(at(holed, through)), "reason": "hole"}


async def read(answer: Any) -> tuple[list[int], list[dict[str, str]]]:
    page = json.loads(await answer)
    return [quote["seq"] for quote in page["quotes"]], page["gaps"]


async def test_a_gap_may_be_filled_until_the_shard_has_recorded_it_as_a_hole(seam: Seam) -> None:
    with pytest.raises(HistoryUnavailableError):
        await seam.core.answers.after(COIN, at(seam, 4), 100)
    with pytest.raises(HistoryUnavailableError):
        await seam.core.answers.after(COIN, at(seam, 6), 100)


async def test_a_page_names_the_hole_and_goes_on_behind_it(holed: Seam) -> None:
    answers = holed.core.answers
    assert await read(answers.after(COIN, None, 100)) == (HELD, [gap(holed, 4)])
    assert await read(answers.after(COIN, at(holed, 4), 100)) == ([9, 10, 11, 12], [gap(holed, 4)])
    assert await read(answers.after(COIN, at(holed, 9), 100)) == ([10, 11, 12], [])
    assert await read(answers.last(COIN, 6)) == ([3, 4, 9, 10, 11, 12], [gap(holed, 4)])
    assert json.loads(await answers.mean(COIN))["count"] == 8


@pytest.mark.parametrize(("number", "gaps"), [(5, 1), (7, 1), (8, 0)])
async def test_a_position_inside_the_hole_gets_the_rest_of_the_hole_and_then_everything(
    holed: Seam, number: int, gaps: int
) -> None:
    found = await read(holed.core.answers.after(COIN, at(holed, number), 100))
    assert found == ([9, 10, 11, 12], [gap(holed, number)] * gaps)


async def test_a_time_range_names_the_holes_in_it_and_no_others(holed: Seam) -> None:
    def between(start: float | None, end: float | None, after: Position | None = None, limit: int = 100) -> Any:
        times = [None if one is None else NOON + timedelta(seconds=one) for one in (start, end)]
        return read(holed.core.answers.between(COIN, *times, after=after, limit=limit))

    assert await between(1, 100) == (HELD[1:], [gap(holed, 4)])
    assert await between(None, 100) == (HELD, [gap(holed, 4)])
    assert await between(8, 100) == ([9, 10, 11, 12], [])
    assert await between(1, 100, limit=3) == ([2, 3, 4], [])
    assert await between(1, 100, at(holed, 4), limit=3) == ([9, 10, 11], [gap(holed, 4)])
    assert await between(1, 100, at(holed, 6)) == ([9, 10, 11, 12], [gap(holed, 6)])
    assert await between(9, 100, at(holed, 3)) == ([10, 11, 12], [])


async def test_a_position_that_never_existed_is_not_part_of_the_hole(holed: Seam) -> None:
    with pytest.raises(PositionBeyondEndError):
        await holed.core.answers.after(COIN, Position(at(holed, 4).epoch, 99), 100)
    with pytest.raises(PositionGoneError):
        await holed.core.answers.after(COIN, Position(1, 1), 100)


@pytest.fixture
async def http(holed: Seam) -> HttpClient:
    """A network with this quote_service."""
    app = build_app(
        "quote_service", config.load({}), Metrics(), routes(holed.core.answers, holed.core.recorder.histories)
    )
    return HttpClient(5.0, 10**7, transport=httpx2.ASGITransport(app, raise_app_exceptions=True))


@pytest.fixture
async def service(http: HttpClient) -> AsyncIterator[ServiceClient]:
    async with ServiceClient(Addresses(quote_service="http://quotes"), http=http) as client:
        yield client


@pytest.mark.parametrize("since", [2, 4, 6])
async def test_a_subscriber_learns_what_is_lost_and_why_and_goes_on(
    holed: Seam, service: ServiceClient, since: int
) -> None:
    recovery = Recovery(COIN, at(holed, since))
    wanted = recovery.wanted
    assert wanted is not None
    page = await ServiceHistory(service).read(COIN, wanted)
    found = recovery.recover(wanted, page.quotes, more=page.more, gaps=page.gaps)
    lost = events.GapLost(Gap(COIN, at(holed, max(since, 4)), at(holed, 8), Reason.HOLE))
    before = [events.QuoteReceived(holed.quotes[seq - 1]) for seq in HELD if since < seq <= 4]
    assert found == [*before, lost, *(events.QuoteReceived(holed.quotes[seq - 1]) for seq in (9, 10, 11, 12))]
    assert recovery.wanted is None


async def test_a_start_with_the_newest_quotes_names_the_hole_among_them(holed: Seam, service: ServiceClient) -> None:
    recovery = Recovery(COIN, start_quotes=6)
    wanted = recovery.wanted
    assert wanted is not None
    page = await ServiceHistory(service).read(COIN, wanted)
    found = recovery.recover(wanted, page.quotes, more=page.more, gaps=page.gaps)
    assert [isinstance(event, events.GapLost) for event in found] == [False, False, True, False, False, False, False]


async def test_a_hole_that_the_history_does_not_name_is_not_believed(holed: Seam) -> None:
    recovery = Recovery(COIN, at(holed, 4))
    wanted = recovery.wanted
    assert wanted is not None
    with pytest.raises(HistoryHoleError):
        recovery.recover(wanted, holed.quotes[8:], more=False)


async def test_the_client_yields_the_hole_in_its_place(holed: Seam, http: HttpClient) -> None:
    async with Client("http://gateway", http=http) as client:
        found = [one async for one in client.history(COIN)]
        inside = [one async for one in client.history(COIN, after=at(holed, 6))]
    hole = Gap(COIN, at(holed, 4), at(holed, 8), Reason.HOLE)
    quotes: list[Quote | Gap] = [holed.quotes[seq - 1] for seq in HELD]
    assert found == [*quotes[:4], hole, *quotes[4:]]
    assert inside == [Gap(COIN, at(holed, 6), at(holed, 8), Reason.HOLE), *quotes[4:]]


async def test_the_console_prints_the_hole_in_its_place(
    holed: Seam, service: ServiceClient, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"last": None, "after": None, "start": format_time(NOON), "end": None}
    await queries.history(service, COIN, **asked, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[4] == f"- bitcoin - - hole {at(holed, 4)}..{at(holed, 8)}"
    await queries.history(service, COIN, **asked, as_json=True)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert shown[4] == {"type": "gap", "coin": COIN, **gap(holed, 4)}
    assert [one["seq"] for one in shown if "seq" in one] == HELD


@pytest.mark.parametrize("form", ["csv", "ndjson"])
@pytest.mark.parametrize("page_quotes", [2, 4, 100])
@pytest.mark.slow
async def test_an_export_writes_the_hole_and_is_the_same_wherever_it_was_interrupted(
    holed: Seam, service: ServiceClient, tmp_path: Path, form: Any, page_quotes: int
) -> None:
    wanted = ExportRequest(COIN, format_time(NOON), None, form)

    async def export(file: Path) -> None:
        progress = exporting.ExportProgress(into_file=True)
        run = Export(service, wanted, progress, sleep=asyncio.sleep, dice=random.Random(1), page_quotes=page_quotes)
        await run.to_file(file)

    await export(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    lines = whole.splitlines(keepends=True)
    bounds = f"{at(holed, 4)}..{at(holed, 8)}".encode()
    assert sum(bounds in line and b"hole" in line for line in lines) == 1
    assert len(lines) == 9 + (form == "csv")
    for end in range(len(lines[0]) + 1, len(whole), 37):
        (tmp_path / "again.part").write_bytes(whole[:end])
        await export(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == whole
        (tmp_path / "again").unlink()


def test_a_gateway_stream_sends_the_hole_and_then_everything() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish(count=2_000)
        read = rig.history.page

        def with_a_hole(coin: str, wanted: events.Wanted, limit: int) -> HistoryPage:
            page = read(coin, wanted, limit)
            kept = [quote for quote in page.quotes if not 20 < quote.seq <= 90]
            is_cut = len(kept) < len(page.quotes) and wanted.after is not None
            after = max([Position(5, 20), *([wanted.after] if wanted.after else [])])
            return HistoryPage(kept, page.more, [Gap(coin, after, Position(5, 90), Reason.HOLE)] if is_cut else [])

        rig.history.page = with_a_hole  # type: ignore[method-assign]
        client = rig.client(room=10_000_000)
        client.subscribe("bitcoin", **since_text("5-10"))
        await asyncio.sleep(1.0)
        client.read()
        assert client.quotes() == [(5, seq) for seq in range(11, 2_001) if not 20 < seq <= 90]
        gaps = [frame for frame in client.frames if frame["type"] == "gap"]
        assert gaps == [{"type": "gap", "coin": "bitcoin", "after": "5-20", "through": "5-90", "reason": "hole"}]

    run_streams(scenario, stream_ring_bytes=65_536)
