"""A circuit breaker that is slow and plainly right: lists of all that happened, every rule computed anew each time.

It has no ring, no bucket and no running total. What is certain half-open is found by trying every way in which the
probes that are left could end.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

from cotacoes.patterns.resilience import CallVerdict, CircuitBreakerConfig

BY_A_PERSON = {"reset": "closed", "force_open": "forced_open", "disable": "disabled", "metrics_only": "metrics_only"}


@dataclass
class Call:
    """One that was let through."""

    started: float
    era: int
    is_settled: bool = False


@dataclass(frozen=True)
class Ended:
    """One that ended and counted."""

    at: float
    failed: bool
    slow: bool


def rows(failed: list[bool]) -> list[int]:
    """After each call: how many have failed in a row."""
    found = [0]
    for has_failed in failed:
        found.append(found[-1] + 1 if has_failed else 0)
    return found


class Model:
    def __init__(self, config: CircuitBreakerConfig, seed: int) -> None:
        self.config = config
        self.dice = random.Random(seed)
        self.now = 1000.0
        self.era = 0
        self.state = self.gathered_in = config.initial_state.value
        self.ended: list[Ended] = []
        self.out: list[Call] = []
        self.changes: list[tuple[str, str, float]] = []
        self.wait = config.wait_duration_in_open
        self.open_until = self.now + self.drawn_wait()
        self.half_open_since = self.now
        self.not_permitted = self.ignored = self.late = 0
        self.last_error: str | None = None

    # what changes the state

    def go(self, state: str, at: float) -> None:
        self.changes.append((self.state, state, at))
        self.state, self.era, self.out = state, self.era + 1, []
        if state not in {"open", "forced_open"}:
            self.ended, self.gathered_in = [], state
        if state == "half_open":
            self.half_open_since = at
        if state == "closed":
            self.wait = self.config.wait_duration_in_open

    def open(self, at: float) -> None:
        self.open_until = at + self.drawn_wait()
        self.go("open", at)

    def fail_half_open(self, at: float) -> None:
        most = self.config.max_wait_duration_in_open
        self.wait *= self.config.wait_duration_multiplier
        self.wait = self.wait if most is None else min(self.wait, most)
        self.open(at)

    def drawn_wait(self) -> float:
        jitter, most = self.config.wait_duration_jitter, self.config.max_wait_duration_in_open
        drawn = self.wait * self.dice.uniform(1.0 - jitter, 1.0 + jitter)
        return drawn if most is None else min(drawn, most)

    def half_open_ends(self) -> float:
        limit = self.config.max_wait_duration_in_half_open
        return math.inf if limit is None else self.half_open_since + limit

    def is_timed_out(self) -> bool:
        return self.state == "half_open" and self.now >= self.half_open_ends()

    def pass_time(self) -> None:
        if self.is_timed_out():
            (self.fail_half_open if self.out else self.open)(self.half_open_ends())

    def say(self, word: str) -> None:
        self.go(BY_A_PERSON[word], self.now)

    def rest(self, seconds: float) -> None:
        self.pass_time()
        until = self.now + seconds
        if self.state == "open":
            self.open_until = max(self.open_until, until)
        elif self.state in {"closed", "half_open"}:
            self.open_until = until
            self.go("open", self.now)

    # calls

    def acquire(self) -> Call | None:
        self.pass_time()
        if self.state == "open" and self.now >= self.open_until:
            self.go("half_open", self.now)
        elif self.overdue():
            self.judge()
        if self.state in {"open", "forced_open"} or (self.state == "half_open" and not self.has_free_probe()):
            self.not_permitted += 1
            return None
        call = Call(self.now, self.era)
        self.out.append(call)
        return call

    def settle(self, call: Call, verdict: CallVerdict, error: Exception | None) -> bool:
        if call.is_settled:
            return False
        call.is_settled = True
        self.pass_time()
        if verdict is CallVerdict.FAILURE and error is not None:
            self.last_error = f"{type(error).__name__}: {error}"
        if call.era != self.era:
            self.late += 1
            return False
        self.out.remove(call)
        if verdict is CallVerdict.IGNORED or self.state == "disabled":
            self.ignored += 1
            return False
        slow = self.config.slow_call_duration_threshold
        is_slow = slow is not None and self.now - call.started > slow
        self.ended.append(Ended(self.now, verdict is CallVerdict.FAILURE, is_slow))
        self.judge()
        return True

    def has_free_probe(self) -> bool:
        permitted = self.config.permitted_calls_in_half_open
        at_once = self.config.max_concurrent_calls_in_half_open or permitted
        return len(self.out) < at_once and len(self.out) + len(self.ended) < permitted

    # what was seen

    def window(self) -> list[Ended]:
        size = self.config.sliding_window_size
        if self.gathered_in == "half_open":
            return self.ended
        if self.config.sliding_window_type == "count":
            return self.ended[-size:]
        return [call for call in self.ended if int(call.at) > int(self.now) - size]

    def calls_needed(self) -> int:
        config = self.config
        if self.gathered_in == "half_open":
            return config.permitted_calls_in_half_open
        is_count = config.sliding_window_type == "count"
        return min(config.minimum_number_of_calls, config.sliding_window_size if is_count else 10**9)

    def overdue(self) -> int:
        slow = self.config.slow_call_duration_threshold
        if slow is None or self.state == "disabled":
            return 0
        return sum(self.now - call.started > slow for call in self.out)

    def in_a_row(self) -> int:
        return rows([call.failed for call in self.ended])[-1]

    def failure_rate(self) -> float | None:
        window = self.window()
        return sum(call.failed for call in window) / len(window) if len(window) >= self.calls_needed() else None

    def slow_call_rate(self) -> float | None:
        judged = len(self.window()) + self.overdue()
        slow = sum(call.slow for call in self.window()) + self.overdue()
        return slow / judged if judged >= self.calls_needed() else None

    def retry_after(self) -> float | None:
        if self.state == "forced_open":
            return math.inf
        if self.state == "open":
            return self.open_until - self.now if self.now < self.open_until else None
        if self.state == "half_open" and not self.has_free_probe():
            return min(max(self.half_open_ends() - self.now, 0.0), self.config.wait_duration_in_open)
        return None

    # the judgements

    def judge(self) -> None:
        if self.state == "closed":
            self.judge_closed()
        elif self.state == "half_open":
            self.judge_probes()

    def is_row_too_long(self, failed: list[bool]) -> bool:
        """Whether the row rule is or was met somewhere."""
        limit = self.config.consecutive_failures_threshold
        return limit is not None and max(rows(failed)) >= limit

    def judge_closed(self) -> None:
        failing, slow, config = self.failure_rate(), self.slow_call_rate(), self.config
        is_failing = failing is not None and failing >= (config.failure_rate_threshold or math.inf)
        is_slow = slow is not None and slow >= config.slow_call_rate_threshold
        if is_failing or is_slow or self.is_row_too_long([call.failed for call in self.ended]):
            self.open(self.now)

    def judge_probes(self) -> None:
        """Certain is what all ends agree on: those that are left may fail in any order, the overdue are slow."""
        left = self.config.permitted_calls_in_half_open - len(self.ended)
        most_slow = 0 if self.config.slow_call_duration_threshold is None else left
        ends = {
            self.is_bad(list(failed), slow)
            for failed in itertools.product([False, True], repeat=left)
            for slow in range(self.overdue(), most_slow + 1)
        }
        if ends == {True}:
            self.fail_half_open(self.now)
        elif ends == {False}:
            self.go("closed", self.now)

    def is_bad(self, coming: list[bool], slow: int) -> bool:
        """Whether half-open fails if those that are left fail like this, and so many more are slow."""
        permitted, rate = self.config.permitted_calls_in_half_open, self.config.failure_rate_threshold
        failed = [call.failed for call in self.ended] + coming
        is_failing = any(failed) if rate is None else sum(failed) / permitted >= rate
        slow += sum(call.slow for call in self.ended)
        return is_failing or slow / permitted >= self.config.slow_call_rate_threshold or self.is_row_too_long(failed)
