"""Ten minutes of faults: the real external_service, called as quote_service calls it, in time that jumps.

The whole story: the circuit opens, is probed, closes, and the source is never hammered, however it fails.
"""

import asyncio
import contextlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.unit import fake_event_loop

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient, Response
from cotacoes.errors import SourceError
from cotacoes.external_service import app as external_service
from cotacoes.model.breakers import BreakerJson
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience import CircuitOpenError, ResiliencePolicy
from cotacoes.quote_service.source import HttpSource
from cotacoes.quote_service.source_policy import source_policy
from cotacoes.web.upstreams import Upstreams

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
UPSTREAM = "external_service.quote"
HEALED_WITHIN_S = 15.0  # the last wait, the probes, a poll


class Counted:
    """A client that notes when each of its calls starts."""

    def __init__(self, client: HttpClient, clock: Callable[[], float]) -> None:
        self.reached: list[float] = []
        self._client = client
        self._clock = clock

    async def get(self, url: str) -> Response:
        self.reached.append(self._clock())
        return await self._client.get(url)


@dataclass
class Story:
    """What happened: when the source was reached, and how each poll ended."""

    settings: config.Settings
    metrics: Metrics
    upstreams: Upstreams
    policy: ResiliencePolicy
    source: HttpSource
    faults: Callable[..., Any]
    reached: list[float]
    polls: list[tuple[float, str]] = field(default_factory=list)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def breaker(self) -> BreakerJson:
        return self.upstreams.described()[0]

    def changed(self, to_state: str, reason: str) -> float:
        """How often the circuit changed in this way."""
        return self._counted("breaker_transitions", to_state=to_state, reason=reason)

    async def poll_for(self, seconds: float) -> Counter[str]:
        """Poll once a second and return how the polls ended."""
        until, first = self.now + seconds, len(self.polls)
        while self.now < until:
            due = self.now + self.settings.poll_interval_s
            try:
                await self.policy.call(self.source.fetch, idempotent=True)
                ended = "ok"
            except CircuitOpenError:
                ended = "open"
            except (SourceError, TimeoutError) as error:
                ended = type(error).__name__
            self.polls.append((self.now, ended))
            await asyncio.sleep(max(0.0, due - self.now))
        return Counter(ended for _, ended in self.polls[first:])

    def calls_ended(self, outcome: str) -> float:
        return self._counted("outbound_calls", outcome=outcome)

    def _counted(self, name: str, **labels: str) -> float:
        named = {"upstream": UPSTREAM, **labels}
        return self.metrics.registry.get_sample_value(f"cotacoes_{name}_total", named) or 0.0

    def reached_since(self, moment: float) -> int:
        return sum(at >= moment for at in self.reached)


@contextlib.asynccontextmanager
async def running_story(**given: Any) -> AsyncIterator[Story]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        settings = config.load({}, admin_token="sesame", failure_rate=0.0, data=Path(folder), **given)
        service = external_service.build(settings, asyncio.Event())
        metrics, dice = Metrics(), random.Random(7)
        upstreams = Upstreams(metrics, random=dice, clock=loop.time, now=lambda: NOON + timedelta(seconds=loop.time()))
        policy = source_policy(settings, upstreams)
        transport = httpx2.ASGITransport(service.app)

        async def set_faults(**setting: Any) -> None:
            async with HttpClient(5.0, 65_536, transport=httpx2.ASGITransport(service.app)) as operator:
                body = json.dumps(setting).encode()
                answer = await operator.put("http://source/faults", body, {"authorization": "Bearer sesame"})
                assert answer.status == 200, answer.body

        async with service.resources(), HttpClient(settings.fetch_deadline_s, 65_536, transport=transport) as client:
            counted = Counted(client, loop.time)
            source = HttpSource(counted, "http://source", {"bitcoin", "ethereum"})
            yield Story(settings, metrics, upstreams, policy, source, set_faults, counted.reached)


def run(work: Callable[[Story], Any], **given: Any) -> None:
    async def whole() -> None:
        async with running_story(**given) as story:
            await work(story)

    fake_event_loop.run(whole())


def test_a_source_down_for_minutes_is_probed_ever_more_rarely_and_used_again_within_seconds() -> None:
    async def work(story: Story) -> None:
        assert set(await story.poll_for(60)) == {"ok"}
        await story.faults(error_rate=1.0)
        began = story.now
        ended = await story.poll_for(180)
        assert set(ended) == {"open", "SourceUnavailableError"}
        # five failures to open, two of them perhaps retried; then one probe a wait of 3, 6, 10, 10, ... seconds
        assert 15 <= story.reached_since(began) <= 7 + 2 + 180 / 9
        assert story.reached_since(began + 60) <= 1 + 120 / 9
        assert story.changed("open", "consecutive_failures") == 1
        assert story.changed("open", "probes_failed") >= 10
        await story.faults()
        healing = await story.poll_for(HEALED_WITHIN_S)
        assert healing["ok"] >= 3
        assert story.polls[-1][1] == "ok"
        assert story.changed("closed", "probes_succeeded") == 1
        assert set(await story.poll_for(60)) == {"ok"}

    run(work)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"kinds": {"hang": 1.0}}, "timed_out"),
        ({"latency_ms": 2000}, "timed_out"),
        ({"kinds": {"garbage": 1.0}}, "malformed"),
        ({"kinds": {"huge_body": 1.0}}, "oversized"),
        ({"kinds": {"redirect": 1.0}}, "redirected"),
        ({"kinds": {"html_200": 1.0}}, "malformed"),
        ({"error_rate": 1.0, "status": [500]}, "server_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.slow
def test_every_fault_of_the_source_opens_the_circuit_and_is_named(setting: dict[str, Any], error: str) -> None:
    async def work(story: Story) -> None:
        await story.poll_for(5)
        await story.faults(**setting)
        began = story.now
        ended = await story.poll_for(60)
        assert ended["open"] > 40
        assert story.reached_since(began) <= 20
        assert story.calls_ended(error) >= 5
        await story.faults()
        await story.poll_for(HEALED_WITHIN_S)
        assert story.breaker.state == "closed"

    run(work)


def test_a_wait_that_the_source_asks_for_is_obeyed_to_the_second() -> None:
    async def work(story: Story) -> None:
        await story.poll_for(5)
        await story.faults(kinds={"too_many_requests": 1.0}, retry_after_s=60)
        began = story.now
        await story.poll_for(59)
        assert story.reached_since(began) == 1
        assert story.changed("open", "retry_after") == 1
        await story.poll_for(120)
        assert story.reached_since(began) <= 4  # one a minute

    run(work)


def test_a_source_that_fails_more_often_than_not_is_left_alone_most_of_the_time() -> None:
    async def work(story: Story) -> None:
        await story.faults(error_rate=0.6, status=[500])
        await story.poll_for(300)
        assert story.changed("open", "failure_rate") + story.changed("open", "consecutive_failures") >= 1
        assert story.changed("open", "probes_failed") >= 1
        assert len(story.reached) < 200

    run(work)


@pytest.mark.slow
def test_a_source_that_fails_one_time_in_five_opens_no_circuit() -> None:
    async def work(story: Story) -> None:
        await story.faults(error_rate=0.2)
        ended = await story.poll_for(600)
        assert story.breaker.transitions == []
        assert ended["ok"] > 450
        assert len(story.reached) <= 600 * 1.1

    run(work)


def test_a_wrong_question_is_no_failure_of_the_source() -> None:
    async def work(story: Story) -> None:
        await story.faults(error_rate=1.0, status=[404])
        await story.poll_for(60)
        assert story.breaker.state == "closed"
        assert story.calls_ended("refused") == 60

    run(work)
