"""The resilient client: the questions that services ask quote_service, each behind a policy and a breaker of its own.

A failure of quote_service is that it does not answer by itself: it is away, out of time, overloaded, or has crashed.
An unknown coin, a coin without a quote and a shard that is away are answers of a healthy service, whatever the status.
If quote_service cannot be called at all, that is a ServiceUnavailableError, as if it were away. If it gave up at the
deadline that we sent, and our own caller had left less time than an attempt takes, that is no failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from cotacoes.errors import (
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ProblemError,
    ServiceUnavailableError,
    TimedOutError,
)
from cotacoes.model.payloads import CurrentJson, Progress
from cotacoes.patterns.resilience import (
    Bulkhead,
    BulkheadFullError,
    CallDeadlineError,
    CallResult,
    CallVerdict,
    CircuitOpenError,
    Classification,
    FlightLostError,
    LastGood,
    ResiliencePolicy,
    SingleFlight,
    classify,
    current_deadline,
)
from cotacoes.web.overview import Overview
from cotacoes.web.service_client import ServiceClient
from cotacoes.web.upstreams import INTERNAL_BREAKER, WAIT_S_MAX, Upstreams, internal_policy

T = TypeVar("T")

SERVICE = "quote_service"
NO_ANSWER = (DeadlineExceededError, InternalError, OverloadedError, ServiceUnavailableError)
_NOT_MADE: dict[type[Exception], str] = {
    CircuitOpenError: "circuit open",
    BulkheadFullError: "too many calls under way",
    CallDeadlineError: "no time left",
    FlightLostError: "call given up",
}


def classify_answer(error: BaseException) -> Classification:
    """Classify by the problem that quote_service answered with, and anything else as any call over HTTP."""
    if not isinstance(error, ProblemError):
        return classify(error)
    if not isinstance(error, NO_ANSWER):
        return Classification(CallVerdict.SUCCESS, outcome=error.slug)
    asked_s = error.retry_after_s if isinstance(error, OverloadedError) else None
    is_away = isinstance(error, ServiceUnavailableError)
    return Classification(CallVerdict.FAILURE, is_away, asked_s, error.slug)


class ResilientClient:
    """The questions of `ServiceClient`, asked through a client that is open.

    `questions` are the ones in use; `deadline_s` applies to each call, in seconds, with at most `attempts` attempts.
    With `age_max_s`, the last good current quote replaces a missing one up to that age, and callers that ask for the
    same quote at the same time share one call.
    """

    def __init__(
        self,
        client: ServiceClient,
        upstreams: Upstreams,
        *,
        questions: Sequence[str],
        deadline_s: float,
        clock: Callable[[], float],
        attempts: int = 1,
        calls_max: int = 256,
        age_max_s: float | None = None,
    ) -> None:
        self._client = client
        config = internal_policy(deadline_s, attempts)
        self._attempt_s = config.attempt_timeout

        def policy(route: str, **companions: Any) -> ResiliencePolicy:
            name = f"{SERVICE}.{route}"
            bulkhead = Bulkhead(name, max_concurrent_calls=calls_max, max_wait_duration=deadline_s / 2)
            return upstreams.add(
                name, INTERNAL_BREAKER, config, classify=classify_answer, bulkhead=bulkhead, **companions
            )

        of_current: dict[str, Any] = {}
        if age_max_s is not None:
            of_current = {
                "single_flight": SingleFlight[Any](deadline=deadline_s, clock=clock),
                "fallback": LastGood[Any](max_age=age_max_s, clock=clock),
            }
        self._policies = {route: policy(route, **(of_current if route == "current" else {})) for route in questions}

    async def current(self, coin: str) -> CallResult[CurrentJson]:
        """The current quote."""
        return await self._ask("current", lambda: self._client.current(coin), key=coin)

    async def overview(self, coins: Sequence[str], parts: Sequence[str], *, venues: bool = False) -> Overview:
        """The parts (current, mean, position) of these coins; `venues` if series of venues are among them."""
        return (await self._ask("overview", lambda: self._client.overview(coins, parts, venues=venues))).value

    async def positions(self, *, venues: bool = False) -> dict[str, Progress]:
        """Each coin's progress, and with `venues` also that of the series of venues."""
        return (await self._ask("positions", lambda: self._client.positions(venues=venues))).value

    async def quotes(self, coin: str, **asked: Any) -> dict[str, Any]:
        """A page of the history, with the arguments of `ServiceClient.quotes`."""
        return (await self._ask("quotes", lambda: self._client.quotes(coin, **asked))).value

    async def candles(self, coin: str, interval: str, **asked: Any) -> dict[str, Any]:
        """A page of candles, with the arguments of `ServiceClient.candles`."""
        return (await self._ask("candles", lambda: self._client.candles(coin, interval, **asked))).value

    async def _ask(self, question: str, ask: Callable[[], Awaitable[T]], key: str | None = None) -> CallResult[T]:
        try:
            return await self._policies[question].call(lambda: self._attempt(ask), idempotent=True, key=key)
        except tuple(_NOT_MADE) as error:
            wait_s = error.retry_after if isinstance(error, CircuitOpenError) else 1.0
            raise ServiceUnavailableError(
                f"{SERVICE} is away ({_NOT_MADE[type(error)]})", retry_after_s=min(wait_s, WAIT_S_MAX)
            ) from error
        except TimeoutError as error:
            raise TimedOutError(f"{SERVICE} is away ({error})") from error

    async def _attempt(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Make one attempt; CallDeadlineError if it was out of time because our own caller is in a hurry.

        Otherwise a caller that sends `X-Deadline-Ms: 1` a few times would open the circuit for all.
        """
        deadline = current_deadline()
        is_hurried = deadline is not None and deadline.remaining() <= self._attempt_s
        try:
            return await ask()
        except DeadlineExceededError as error:
            if is_hurried:
                raise CallDeadlineError("the caller's deadline left no time for an answer") from error
            raise
