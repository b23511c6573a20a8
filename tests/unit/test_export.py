"""An export holds every quote of its range once, digit for digit, whatever interrupts it and however often."""

import asyncio
import csv
import io
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes.cli import export as exporting
from cotacoes.cli import export_file
from cotacoes.cli.export import COLUMNS, Export, ExportProgress, ExportRequest, Format
from cotacoes.cli.output import understood
from cotacoes.errors import (
    HistoryUnavailableError,
    HttpUnavailableError,
    OutputError,
    PositionGoneError,
    ServiceUnavailableError,
    SettingError,
)
from cotacoes.model.payloads import PageJson
from cotacoes.model.quote import Position, Quote, format_price, format_time
from cotacoes.web.service_client import ServiceClient

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PRICES = ["67012.3400", "0.000000000000000000000000000001", "999999999999999999999999999999", "1.10"]
ORIGINS = ["sim", 'replay:a,"b"', "replay:x", "=1+1"]


def quotes(count: int) -> list[Quote]:
    """A second apart, over two eras."""
    found: list[Quote] = []
    for number in range(count):
        at = NOON + timedelta(seconds=number)
        epoch, seq = (5, number + 1) if number < count // 2 else (7, number - count // 2 + 1)
        prev = found[-1].position if seq == 1 and found else None
        price, origin = Decimal(PRICES[number % 4]), ORIGINS[number % 3 if number % 4 else 3]
        found.append(Quote("bitcoin", "USD", price, epoch, seq, at - timedelta(microseconds=1), at, origin, prev))
    return found


def rows(some: list[Quote]) -> list[list[str]]:
    return [
        [
            one.coin,
            str(one.position),
            format_time(one.at),
            format_time(one.observed_at),
            format_price(one.price),
            one.currency,
            one.origin,
        ]
        for one in some
    ]


def wanted(
    form: Format = "csv", start: float | None = None, end: float | None = None, coin: str = "bitcoin"
) -> ExportRequest:
    def time(seconds: float | None) -> str | None:
        return None if seconds is None else format_time(NOON + timedelta(seconds=seconds))

    return ExportRequest(coin, time(start), time(end), form)


class Clock:
    """Time that passes by waiting only; `waits` are what was waited."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    async def sleep(self, wait_s: float) -> None:
        self.now += wait_s
        self.waits.append(wait_s)
        self.meanwhile()


def run(
    twin: QuoteServiceTwin,
    what: ExportRequest,
    file: Path | None,
    clock: Clock | None = None,
    kind: type[ServiceClient] = ServiceClient,
) -> None:
    clock = clock or Clock()

    async def scenario() -> None:
        async with twin.client(kind=kind) as client:
            progress = ExportProgress(into_file=file is not None)
            one = Export(client, what, progress, sleep=clock.sleep, clock=clock, dice=random.Random(1), page_quotes=7)
            await (one.to_stdout() if file is None else one.to_file(file))

    asyncio.run(scenario())


def parsed(text: str, form: Format) -> list[list[str]]:
    if form == "ndjson":
        rows = [json.loads(line) for line in text.splitlines()]
        assert all(tuple(line) == COLUMNS for line in rows)
        return [list(line.values()) for line in rows]
    head, *found = csv.reader(io.StringIO(text))
    assert tuple(head) == COLUMNS
    return found


FORMS: list[Format] = ["csv", "ndjson"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("start", "end"), [(None, None), (3, 20), (20, 20.5), (99, None)])
def test_every_quote_of_the_range_is_exported_once_with_every_digit(
    form: Format, start: float | None, end: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = quotes(30)
    run(QuoteServiceTwin({"bitcoin": held}), wanted(form, start, end), None)
    to_stdout = capsys.readouterr().out
    run(QuoteServiceTwin({"bitcoin": held}), wanted(form, start, end), tmp_path / "out")
    first, last = NOON + timedelta(seconds=start or 0), NOON + timedelta(seconds=end or 1000)
    assert parsed(to_stdout, form) == rows([one for one in held if first <= one.at < last])
    assert (tmp_path / "out").read_text() == to_stdout
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_an_export_cut_at_any_byte_is_completed_by_the_same_command(form: Format, tmp_path: Path) -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes(8)})
    run(twin, wanted(form), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for size in [*range(150), *range(150, len(whole), 13), len(whole) - 1, len(whole)]:
        (tmp_path / "out.part").write_bytes(whole[:size])
        run(twin, wanted(form), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == whole, size
        (tmp_path / "out").unlink()


def test_an_export_resumes_without_requesting_a_page_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = quotes(30)
    twin = QuoteServiceTwin({"bitcoin": held})
    clock = Clock()
    asked: list[Any] = []

    class AwayAfterTwoPages(ServiceClient):
        async def quotes(self, coin: str, **given: Any) -> dict[str, Any]:
            asked.append(given["after"])
            if len(asked) > 2:
                raise ServiceUnavailableError("away")
            return await super().quotes(coin, **given)

    with pytest.raises(ServiceUnavailableError, match="away"):
        run(twin, wanted(), tmp_path / "out", clock, AwayAfterTwoPages)
    assert parsed((tmp_path / "out.part").read_text(), "csv") == rows(held[:14])
    assert not (tmp_path / "out").exists()
    run(twin, wanted(), tmp_path / "out")
    assert f"resuming after {held[13].position}\n" in capsys.readouterr().err
    assert parsed((tmp_path / "out").read_text(), "csv") == rows(held)


@pytest.mark.parametrize(
    "other",
    [wanted("ndjson"), wanted(coin="ethereum"), wanted(start=1), wanted(end=5)],
    ids=["format", "coin", "start", "end"],
)
def test_the_partial_file_of_another_export_is_not_resumed(other: ExportRequest, tmp_path: Path) -> None:
    held = quotes(9)
    ethereum = [
        Quote("ethereum", *row)
        for row in [("USD", one.price, *one.position, one.at, one.at, "sim", one.prev) for one in held]
    ]
    twin = QuoteServiceTwin({"bitcoin": held, "ethereum": ethereum})
    run(twin, wanted(), tmp_path / "whole")
    part = (tmp_path / "whole").read_bytes()
    (tmp_path / "out.part").write_bytes(part)
    with pytest.raises(SettingError, match=r"out\.part"):
        run(twin, other, tmp_path / "out")
    assert (tmp_path / "out.part").read_bytes() == part
    again = [Quote(one.coin, "USD", Decimal(7), *one.position, one.at, one.at, "sim", one.prev) for one in held]
    with pytest.raises(SettingError, match="system"):
        run(QuoteServiceTwin({"bitcoin": again}), wanted(), tmp_path / "out")


@pytest.mark.parametrize("text", [b"something else\n", b"x" * 10_000, b"coin\n", b"\n", b"{}\n"])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_not_a_partial_export_is_left_unchanged(text: bytes, form: Format, tmp_path: Path) -> None:
    (tmp_path / "out.part").write_bytes(text)
    with pytest.raises(SettingError, match=r"out\.part"):
        run(QuoteServiceTwin({"bitcoin": quotes(3)}), wanted(form), tmp_path / "out")
    assert (tmp_path / "out.part").read_bytes() == text


def test_an_existing_file_and_a_locked_partial_file_are_refused(tmp_path: Path) -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes(3)})
    (tmp_path / "out").write_text("dear")
    with pytest.raises(SettingError, match="out exists already"):
        run(twin, wanted(), tmp_path / "out")
    with (
        export_file.PartialFile(tmp_path / "new", b"", b""),
        pytest.raises(SettingError, match="another export writes"),
    ):
        run(twin, wanted(), tmp_path / "new")
    with pytest.raises(SettingError, match="cannot write"):
        run(twin, wanted(), tmp_path / "nowhere" / "out")
    assert (tmp_path / "out").read_text() == "dear"


def test_a_full_disk_is_reported_and_the_export_can_be_resumed(tmp_path: Path) -> None:
    held = quotes(30)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out\.part"):
            run(QuoteServiceTwin({"bitcoin": held}), wanted(), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run(QuoteServiceTwin({"bitcoin": held}), wanted(), tmp_path / "out")
    assert parsed((tmp_path / "out").read_text(), "csv") == rows(held)


def test_a_partial_file_that_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.part").symlink_to("/dev/zero")
    with pytest.raises(SettingError, match=r"out\.part is not a regular file"):
        run(QuoteServiceTwin({"bitcoin": quotes(3)}), wanted(), tmp_path / "out")


def test_the_file_gets_its_name_only_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(sorted(os.listdir(tmp_path))))
    run(QuoteServiceTwin({"bitcoin": quotes(3)}), wanted(), tmp_path / "out")
    assert seen == [["out.part"], ["out"]]


def test_an_export_waits_for_a_service_that_is_away_at_least_as_long_as_it_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = quotes(9)
    twin = QuoteServiceTwin({"bitcoin": held})
    twin.faults["*"] = HistoryUnavailableError("shard1 is away", retry_after_s=7)
    clock = Clock()

    def come_back() -> None:
        if len(clock.waits) == 4:
            twin.faults.clear()

    clock.meanwhile = come_back
    run(twin, wanted(), tmp_path / "out", clock)
    assert parsed((tmp_path / "out").read_text(), "csv") == rows(held)
    assert all(7 <= wait_s <= 12 for wait_s in clock.waits)
    assert len(set(clock.waits)) == 4
    assert capsys.readouterr().err.count("waiting: shard1 is away\n") == 1


def test_an_export_gives_up_on_a_service_that_stays_away(tmp_path: Path) -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes(9)})
    twin.faults["*"] = HttpUnavailableError()
    clock = Clock()
    with pytest.raises(ServiceUnavailableError):
        run(twin, wanted(), tmp_path / "out", clock)
    assert 30 < clock.now <= exporting.PATIENCE_S


def test_a_final_refusal_is_not_retried(tmp_path: Path) -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes(9)})
    twin.faults["*"] = PositionGoneError("no longer held", floor="7-1")
    clock = Clock()
    with pytest.raises(PositionGoneError):
        run(twin, wanted(), tmp_path / "out", clock)
    assert clock.waits == []


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page["quotes"].pop(2),
        lambda page: page["quotes"][1].update(price="1e5"),
        lambda page: page["quotes"][1].update(coin="ethereum"),
        lambda page: page.pop("more"),
    ],
    ids=["hole", "price", "coin", "shape"],
)
def test_an_invalid_answer_is_not_exported(change: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    class ChangedAnswers(ServiceClient):
        async def quotes(self, coin: str, **given: Any) -> dict[str, Any]:
            answer = await super().quotes(coin, **given)
            change(answer)
            return answer

    with pytest.raises(ServiceUnavailableError):
        run(QuoteServiceTwin({"bitcoin": quotes(9)}), wanted(), tmp_path / "out", kind=ChangedAnswers)
    assert not (tmp_path / "out").exists()


def test_progress_goes_to_stderr_if_a_file_is_written_or_a_person_watches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes(9)})
    run(twin, wanted(), None)
    assert capsys.readouterr().err == ""
    run(twin, wanted(), tmp_path / "out")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"exported 9 quotes into {tmp_path / 'out'}, ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = ExportProgress(into_file=False, clock=lambda: 1.0)
    progress.advance(understood(page_of(9), PageJson, "x").quotes)
    progress.close()
    assert capsys.readouterr().err == "\r9 quotes, up to 2026-11-24T12:00:08.000000Z, 9000 quotes/s\x1b[K\n"


def page_of(count: int) -> dict[str, Any]:
    async def asked() -> dict[str, Any]:
        async with QuoteServiceTwin({"bitcoin": quotes(count)}).client() as client:
            return await client.quotes("bitcoin")

    return asyncio.run(asked())


def test_a_position_is_read_back_from_its_line() -> None:
    quotes = understood(page_of(4), PageJson, "x").quotes
    for form in FORMS:
        for quote in quotes:
            position, at = wanted(form).read(wanted(form).line(quote))
            assert (Position.parse(position), at) == (Position(quote.epoch, quote.seq), quote.at)


PIPED = """
import asyncio
from tests.unit.test_export import quotes, wanted
from tests.unit.fake_quote_service import QuoteServiceTwin
from cotacoes.cli.app import ended
from cotacoes.cli.export import export

async def endless():
    async with QuoteServiceTwin({"bitcoin": quotes(20000)}).client(deadline_s=20.0) as client:
        return await export(client, wanted(), None)

raise SystemExit(ended(lambda: asyncio.run(endless())))
"""


@pytest.mark.slow
def test_an_export_ends_quietly_when_its_reader_closes_the_pipe() -> None:
    with subprocess.Popen([sys.executable, "-c", PIPED], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == f"{','.join(COLUMNS)}\n".encode()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
