"""The questions by which the gateway learns the state of the system: at most one a second to each service.

They are asked only while somebody wants the status, and each service has a task of its own, so that one that hangs
delays no other. A question that fails makes the next one a question whether the service answers at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cotacoes.client.quote_client import checked
from cotacoes.errors import DeadlineExceededError, InvalidAnswerError, NotFoundError, ProblemError
from cotacoes.gateway_service.hub import Hub
from cotacoes.gateway_service.status import Status
from cotacoes.model.breakers import BreakerJson, BreakersJson
from cotacoes.model.payloads import PageJson, Progress, ReportJson
from cotacoes.model.quote import format_time
from cotacoes.model.status import (
    CoinJson,
    FaultsStatusJson,
    FirstQuoteJson,
    ReportStatusJson,
    VenuesStatusJson,
)
from cotacoes.model.venue_series import venue_of
from cotacoes.model.venue_symbols import base_of, title_of
from cotacoes.web.background import Restarts
from cotacoes.web.service_client import ServiceClient

REDIS = "redis"
PERIOD_S = 1.0  # of the questions to one service
ASK_S = 0.9
REPORT_S = 5.0  # a report for all viewers
FIRST_S = 600.0  # the oldest quote changes only by retention
FIRST_RETRY_S = 5.0
COINS_A_S = 200  # most have moved when they are asked for again, and each viewer gets those that have
WANTED_S = 5.0  # after the last question for the status
FIRST_ANSWERS_S = 1.0


@dataclass(eq=False)
class _Question:
    """What is asked of a service every `every_s`, within `deadline_s`, if `is_needed`."""

    ask: Callable[[], Awaitable[None]]
    every_s: float = PERIOD_S
    deadline_s: float = ASK_S
    is_needed: Callable[[], bool] = lambda: True
    due_s: float = -math.inf


class StatusPolls:
    """See the head of this file. `client` knows the services, `services` are those that run.

    `own_breakers` gives the gateway's breakers. `ping_redis` raises a ProblemError if Redis does not answer. `report_s`
    is how long to wait for a report.
    """

    def __init__(
        self,
        status: Status,
        client: ServiceClient,
        hub: Hub,
        *,
        services: Sequence[str],
        own_breakers: Callable[[], list[BreakerJson]],
        ping_redis: Callable[[], Awaitable[None]],
        report_s: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._status = status
        self._client = client
        self._hub = hub
        self._clock = clock
        self._now = now
        self._own_breakers = own_breakers
        self._wanted = asyncio.Event()
        self._wanted_until_s = -math.inf
        self._first: dict[str, FirstQuoteJson] = {}
        self._first_due_s: dict[str, float] = {}
        self._decimals: dict[str, int] = {}
        self._positions = _Question(self._ask_positions)
        report = _Question(self._ask_report, REPORT_S, report_s)
        known = {
            "gateway_service": [_Question(self._note_own)],
            REDIS: [_Question(ping_redis)],
            "quote_service": [
                self._breakers_of("quote_service"),
                self._positions,
                _Question(self._ask_first, is_needed=lambda: self._without_first() is not None),
            ],
            "aggregator_service": [self._breakers_of("aggregator_service"), report],
            "feed_service": [self._breakers_of("feed_service"), _Question(self._ask_venues)],
            "external_service": [_Question(self._ask_venue_faults if "feed_service" in services else self._ask_faults)],
        }
        self._questions = {name: known[name] for name in services}
        self._asked = {name: asyncio.Event() for name in services}

    def want(self) -> None:
        """Somebody wants the status now."""
        if self._clock() >= self._wanted_until_s:  # what is known is old
            for event in self._asked.values():
                event.clear()
        self._wanted_until_s = self._clock() + WANTED_S
        self._wanted.set()

    async def first_answers(self) -> None:
        """Wait until each service was asked since somebody wants to know, but not long."""
        self.want()
        if not all(event.is_set() for event in self._asked.values()):
            waits = [asyncio.ensure_future(event.wait()) for event in self._asked.values()]
            try:
                await asyncio.wait(waits, timeout=FIRST_ANSWERS_S)
            finally:
                for wait in waits:
                    wait.cancel()

    async def run(self, restarts: Restarts) -> None:
        """Ask while somebody wants to know, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for service in self._questions:
                group.create_task(restarts.kept(f"status of {service}", functools.partial(self._poll, service)))

    async def _poll(self, service: str) -> None:
        questions = self._questions[service]
        while True:
            if self._clock() >= self._wanted_until_s:
                self._wanted.clear()
            await self._wanted.wait()
            began_s = self._clock()
            question = min((one for one in questions if one.is_needed()), key=lambda one: one.due_s)
            if question.due_s <= began_s:
                question.due_s = began_s + question.every_s
                await self._ask(service, question, is_first=question is questions[0])
                self._asked[service].set()
            await asyncio.sleep(max(0.05, PERIOD_S - (self._clock() - began_s)))

    async def _ask(self, service: str, question: _Question, *, is_first: bool) -> None:
        """Ask; the first question of a service decides whether it is away."""
        try:
            try:
                async with asyncio.timeout(question.deadline_s):
                    await question.ask()
            except TimeoutError as error:
                raise DeadlineExceededError(f"no answer within {question.deadline_s:g} s") from error
        except ProblemError as error:
            if is_first:
                self._status.note_no_answer(service, error.detail)
            else:
                self._questions[service][0].due_s = -math.inf
        else:
            self._status.note_answer(service)

    def _breakers_of(self, service: str) -> _Question:
        async def ask() -> None:
            answer = checked(service, await self._client.breakers(service), BreakersJson)
            self._status.note_answer(service, answer.breakers)

        return _Question(ask)

    async def _note_own(self) -> None:
        self._status.note_answer("gateway_service", self._own_breakers())

    async def _ask_positions(self) -> None:
        progress = await self._client.positions()
        self._positions.every_s = max(PERIOD_S, len(progress) / COINS_A_S)
        self.note_coins(progress)

    def _without_first(self) -> str | None:
        """A coin whose oldest quote is to be asked for; None if there is none, or its shard is away."""
        now_s = self._clock()
        due = (name for name in self._status.coins if self._first_due_s.get(name, -math.inf) <= now_s)
        return next((name for name in due if self._status.is_up(self._status.coins[name].shard)), None)

    async def _ask_first(self) -> None:
        name = self._without_first()
        assert name is not None
        self._first_due_s[name] = self._clock() + FIRST_RETRY_S
        page = checked("quote_service", await self._client.quotes(name, limit=1), PageJson)
        if page.quotes:
            oldest = page.quotes[0]
            self._first[name] = FirstQuoteJson(f"{oldest.epoch}-{oldest.seq}", oldest.observed_at)
            self._first_due_s[name] = self._clock() + FIRST_S

    async def _ask_report(self) -> None:
        report = checked("aggregator_service", await self._client.report(trace=True), ReportJson)
        shown = {name: getattr(report, name) for name in ("generated_at", "deadline_ms", "elapsed_ms", "complete")}
        self._status.put(
            "report",
            ReportStatusJson(
                known_at=format_time(self._now()), **shown, missing=report.missing, trace=report.trace or []
            ),
        )

    async def _ask_venues(self) -> None:
        venues = await self._client.venues()
        self._status.put("venues", VenuesStatusJson(format_time(self._now()), venues.feeds, venues.rates, venues.coins))

    async def _ask_faults(self) -> None:
        setting = None
        with contextlib.suppress(NotFoundError, InvalidAnswerError):  # a source of another program has none
            setting = await self._client.faults()
        self._status.put("faults", FaultsStatusJson(format_time(self._now()), setting, {}, {}))

    async def _ask_venue_faults(self) -> None:
        found = await self._client.simulated_venues()
        venues = {name: venue.faults for name, venue in found.venues.items()}
        self._status.put("faults", FaultsStatusJson(format_time(self._now()), None, venues, found.market))

    def note_coins(self, progress: Mapping[str, Progress] | None) -> None:
        """Note how far each coin has come; None: quote_service has not said so, and coins with a stream are shown."""
        names = self._hub.coins if progress is None else progress
        coins = {name: self._described(name) for name in names if venue_of(name, names) is None}
        self._status.note_coins(coins, progress)

    def _described(self, coin: str) -> CoinJson:
        newest = self._hub.newest(coin)
        currency = None
        if newest is not None:
            quote, _ = newest
            currency = quote.currency
            exponent = quote.price.as_tuple().exponent
            assert isinstance(exponent, int)
            self._decimals[coin] = max(self._decimals.get(coin, 0), -exponent)
        return CoinJson(
            base_of(coin) or coin.upper(),
            title_of(coin),
            currency,
            self._decimals.get(coin, 0),
            self._first.get(coin),
        )
