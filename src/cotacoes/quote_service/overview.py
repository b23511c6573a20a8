"""The overview: current quotes, means and positions of many coins in one answer, instead of a request for each.

    current, position    from memory, at once
    mean                 may need the log or a shard: gathered, so that a coin that has to wait delays no other

A part that is not available is in `problems` under its name, `bitcoin.mean`, as the coin's own route would answer it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cotacoes.errors import DeadlineExceededError, InternalError, ProblemError, UnknownCoinError
from cotacoes.errors.problem_json import problem_of
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.resilience.deadline import current_deadline
from cotacoes.patterns.scatter_gather.gather import scatter_gather
from cotacoes.patterns.scatter_gather.gather_result import Branch
from cotacoes.quote_service.answers import Answers
from cotacoes.quote_service.history import CoinHistory

PARTS = ("current", "mean", "position")
NAMED_COINS_MAX = 500  # as many as our own client names
DEADLINE_S = 5.0  # if the request has none
RESERVE_SHARE = 0.1  # of the time, to write the answer
_encode = msgspec.json.Encoder().encode


class OverviewAnswer:
    """See the head of this file."""

    def __init__(
        self, answers: Answers, histories: Mapping[str, CoinHistory], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._answers = answers
        self._histories = histories
        self._clock = clock

    async def answer(self, coins: Sequence[str], parts: Sequence[str]) -> bytes:
        """The parts of these coins; an error of one of them is a problem in the answer."""
        found: dict[str, dict[str, Any]] = {part: {} for part in parts}
        problems: dict[str, dict[str, object]] = {}
        known, unknown = [], _problem(UnknownCoinError("it is not quoted here"))
        for coin in coins:
            if coin in self._histories:
                known.append(coin)
            else:  # without suggestions of similar names, which take milliseconds each
                problems |= {f"{coin}.{part}": unknown for part in parts}
        if "mean" in parts:
            for branch in await self._means(known):
                if branch.status.is_good:
                    found["mean"][branch.name] = msgspec.Raw(branch.value or b"")
                else:
                    problems[f"{branch.name}.mean"] = _problem(_error_of(branch))
        for coin in known:  # last, so that their ages are right
            if "current" in parts:
                try:
                    found["current"][coin] = msgspec.Raw(self._answers.current(coin))
                except ProblemError as error:
                    problems[f"{coin}.current"] = _problem(error)
            if "position" in parts:
                found["position"][coin] = self._answers.progress(coin)
        return _encode({**found, "problems": problems})

    async def _means(self, coins: Sequence[str]) -> list[Branch[bytes]]:
        deadline = current_deadline()
        left_s = DEADLINE_S if deadline is None else deadline.remaining()
        result = await scatter_gather(
            {coin: functools.partial(self._answers.mean, coin) for coin in coins},
            deadline=left_s,
            reserve=left_s * RESERVE_SHARE,
            clock=self._clock,
        )
        return list(result.branches.values())


def _error_of(branch: Branch[bytes]) -> ProblemError:
    if isinstance(branch.error, ProblemError):
        return branch.error
    if branch.error is not None and not isinstance(branch.error, TimeoutError):
        get_logger().error("mean.crashed", coin=branch.name, exc_info=branch.error)
        return InternalError("internal error; see the service log")
    return DeadlineExceededError(branch.reason or "not ready in time")


def _problem(error: ProblemError) -> dict[str, object]:
    return {**problem_of(error), "retry_after_s": error.retry_after_s}
