"""A coin whose venues disagree has no price, and every answer about it says so, in the source's own word."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.harness_quote_service import COIN, NOON, QuoteServiceCore, seen

from cotacoes.errors import NoQuoteError, SourceError, SourceMalformedError
from cotacoes.model.quote import AgeLimits
from cotacoes.quote_service.answers import Answers
from cotacoes.quote_service.source_pages import TapePage, read_page
from cotacoes.quote_service.source_quote import Fetched, read_quote

pytestmark = pytest.mark.anyio

LATER = timedelta(seconds=310)
DISPUTED = {COIN: "disputed"}


def quote_of(reasons: object) -> Fetched:
    body = {COIN: "5", "observed_at": "2026-11-24T12:00:00Z", "currency": {COIN: "USD"}, "origin": "consensus"}
    return asyncio.run(read_quote(json.dumps(body | {"reasons": reasons}).encode(), {COIN}))


def page_of(reasons: object) -> TapePage:
    body = {"run": "feed.1", "origin": "consensus", "quotes": [], "next": "feed.1-0", "reasons": reasons}
    return asyncio.run(read_page(json.dumps(body).encode(), {COIN}, 9))


def current(answers: Answers) -> dict[str, Any]:
    return json.loads(answers.current(COIN))  # type: ignore[no-any-return]


@pytest.mark.parametrize("read", [quote_of, page_of])
def test_the_reasons_of_our_coins_are_read(read: Any) -> None:
    assert read({COIN: "no_venue", "dogecoin": "disputed"}).reasons == {COIN: "no_venue"}


@pytest.mark.parametrize("read", [quote_of, page_of])
@pytest.mark.parametrize("reasons", [[], {COIN: 5}, {COIN: "a sentence"}, {COIN: "x" * 41}, {COIN: "a\n"}, None])
def test_reasons_that_are_not_words_refuse_the_answer(read: Any, reasons: object) -> None:
    with pytest.raises(SourceMalformedError):
        read(reasons)


async def test_the_problem_of_a_polled_coin_without_a_price_names_the_sources_reason(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.reasons = DISPUTED
    core.said = []
    await core.poll.poll_once()
    with pytest.raises(NoQuoteError) as none_yet:
        core.answers.current(COIN)
    assert none_yet.value.detail == f"no quote of {COIN} yet: the source has no price of it now (disputed)"
    assert none_yet.value.extra["reason"] == "none_yet"
    await core.recorder.close()


async def test_a_price_from_before_a_dispute_comes_from_the_cache_until_it_is_too_old(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.said = [seen("5", NOON)]
    await core.poll.poll_once()
    assert current(core.answers)["source"] == "live"
    core.reasons = DISPUTED
    await core.poll.poll_once()
    assert current(core.answers)["source"] == "cache"
    core.wall += LATER
    core.seconds += LATER.total_seconds()
    await core.poll.poll_once()
    with pytest.raises(NoQuoteError) as too_old:
        core.answers.current(COIN)
    assert (
        too_old.value.detail == f"the newest quote of {COIN} is 310 s old: the source has no price of it now (disputed)"
    )
    core.reasons = {}
    core.said = [seen("6", core.wall)]
    await core.poll.poll_once()
    assert current(core.answers)["source"] == "live"
    await core.recorder.close()


async def test_the_problem_of_a_coin_on_a_tape_without_a_price_names_the_sources_reason(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    answers = Answers(core.recorder, core.directory, core.tape_intake, AgeLimits(5000, 300_000))
    await core.recorder.start()
    priced = TapePage("feed.1", "feed.1-1", 1, 1, [(1, seen("5", NOON))], [])
    silent = replace(priced, first=0, count=0, entries=[], reasons=DISPUTED)
    core.pages = [priced, silent, SourceError("away")]
    await core.tape_reader.read_page()
    assert current(answers)["source"] == "live"
    await core.tape_reader.read_page()
    assert current(answers)["source"] == "cache"
    core.wall += LATER
    core.seconds += LATER.total_seconds()
    with pytest.raises(NoQuoteError, match=r"is 310 s old: the source has no price of it now \(disputed\)"):
        answers.current(COIN)
    reader = asyncio.create_task(core.tape_reader.run())
    while core.pages:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(NoQuoteError, match=r"is 310 s old$"):  # what a source said is forgotten when it fails
        answers.current(COIN)
    await core.recorder.close()
