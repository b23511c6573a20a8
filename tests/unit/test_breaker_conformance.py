"""The conformance suite: every scenario on our breaker, and on interlock-cb if it has the features."""

import math
import random
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import pytest
from tests.unit.harness_breaker_scenarios import Differs, Lacks, Same, Scenario
from tests.unit.harness_breaker_scenarios_set import SCENARIOS
from tests.unit.harness_interlock import Interlock, LackingError

from cotacoes.patterns.resilience import (
    BreakerState,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    Permit,
    StateTransition,
)

START = 1000.0
VERDICTS = {"ok": CallVerdict.SUCCESS, "fail": CallVerdict.FAILURE, "ignored": CallVerdict.IGNORED}
TO_SAY = {"open_for", "reset", "force_open", "disable", "metrics_only"}


class Subject(Protocol):
    """A breaker under test; `take` returns a permit or None, `settle` whether it counted."""

    now: float

    def take(self) -> Any: ...
    def settle(self, permit: Any, verdict: str) -> bool: ...
    def say(self, word: str, *arguments: float) -> None: ...
    def look(self, what: str) -> Any: ...


class Dice(random.Random):
    """Random numbers that are given, one after another, and the middle after that."""

    def __init__(self, given: Sequence[float]) -> None:
        super().__init__(1)
        self.given = list(given)

    def random(self) -> float:
        return self.given.pop(0) if self.given else 0.5


class Ours:
    RENAMED: ClassVar = {
        "slow": "slow_calls",
        "in_a_row": "consecutive_failures",
        "ignored_calls": "ignored",
        "late_calls": "late",
    }

    def __init__(self, config: dict[str, Any], dice: Sequence[float] = ()) -> None:
        self.now = START
        self.changes: list[StateTransition] = []
        given = {"wait_duration_jitter": 0.0, **config}
        given["initial_state"] = BreakerState(given.get("initial_state", "closed"))
        self.breaker = CircuitBreaker(
            "subject",
            CircuitBreakerConfig(**given),
            clock=lambda: self.now,
            random=Dice(dice),
            on_event=lambda event: self.changes.append(event) if isinstance(event, StateTransition) else None,
        )

    def take(self) -> Permit | None:
        return self.breaker.try_acquire()

    def settle(self, permit: Permit, verdict: str) -> bool:
        return permit.settle(VERDICTS[verdict])

    def say(self, word: str, *arguments: float) -> None:
        getattr(self.breaker, word)(*arguments)

    def look(self, what: str) -> Any:
        if what == "changes":
            return len(self.changes)
        if what == "reason":
            return self.changes[-1].reason.value
        if what == "at":
            return self.changes[-1].at - START
        if what in {"state", "generation"}:  # without metrics(), which looks at the clock
            return self.breaker.state.value if what == "state" else self.breaker.generation
        return getattr(self.breaker.metrics(), self.RENAMED.get(what, what))


class OtherwiseError(AssertionError):
    """A step had another result."""

    def __init__(self, step: str, scenario: Scenario) -> None:
        super().__init__(f"at {step!r} of {scenario.steps!r}")
        self.step = step


class Player:
    """Runs steps on a subject; AssertionError if one has another result."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.permits: dict[str, Any] = {}

    def do(self, word: str, *rest: str) -> None:
        if word in VERDICTS:
            for _ in range(int(rest[0]) if rest else 1):
                self.call(word, counts=word != "ignored")
        elif word == "uncounted":
            for _ in range(int(rest[1])):
                self.call(rest[0], counts=False)
        elif word == "call":
            self.call(rest[1], counts=rest[1] != "ignored", takes=float(rest[0]))
        elif word == "take":
            self.permits[rest[0]] = self.subject.take()
            assert self.permits[rest[0]] is not None
        elif word == "refused":
            assert self.subject.take() is None
        elif word in {"settle", "late"}:
            counts = word == "settle" and rest[1] != "ignored"
            assert self.subject.settle(self.permits[rest[0]], rest[1]) is counts
        elif word == "wait":
            self.subject.now += float(rest[0])
        elif word in TO_SAY:
            self.subject.say(word, *map(float, rest))
        else:
            self.check(word, *rest)

    def call(self, verdict: str, *, counts: bool, takes: float = 0.0) -> None:
        permit = self.subject.take()
        assert permit is not None
        self.subject.now += takes
        assert self.subject.settle(permit, verdict) is counts

    def check(self, what: str, said: str) -> None:
        expected: Any = {"none": None, "never": math.inf}.get(said, said)
        if isinstance(expected, str) and what not in {"state", "reason"}:
            expected = pytest.approx(float(expected))
        assert self.subject.look(what) == expected


def play(scenario: Scenario, subject: Subject) -> None:
    """Run the steps; OtherwiseError if one has another result."""
    player = Player(subject)
    for step in scenario.steps.split(","):
        try:
            player.do(*step.split())
        except AssertionError as error:
            raise OtherwiseError(step.strip(), scenario) from error


def those(kind: type) -> pytest.MarkDecorator:
    found = [scenario for scenario in SCENARIOS if isinstance(scenario.peer, kind)]
    return pytest.mark.parametrize("scenario", found, ids=lambda scenario: scenario.promise)


@those(object)
def test_our_breaker_passes_every_scenario(scenario: Scenario) -> None:
    play(scenario, Ours(scenario.config, scenario.dice))


@those(Same)
def test_interlock_cb_behaves_the_same(scenario: Scenario) -> None:
    play(scenario, Interlock(scenario.config, START))


@those(Differs)
def test_interlock_cb_differs_as_explained(scenario: Scenario) -> None:
    assert isinstance(scenario.peer, Differs)
    with pytest.raises(OtherwiseError) as differs:
        play(scenario, Interlock(scenario.config, START))
    assert differs.value.step == scenario.peer.at


@those(Lacks)
def test_interlock_cb_lacks_the_feature_of_the_scenario(scenario: Scenario) -> None:
    assert isinstance(scenario.peer, Lacks)
    with pytest.raises(LackingError) as lacks:
        play(scenario, Interlock(scenario.config, START))
    assert lacks.value.feature == scenario.peer.feature


def test_there_are_at_least_sixty_different_scenarios() -> None:
    promises = [scenario.promise for scenario in SCENARIOS]
    assert len(set(promises)) == len(promises) >= 60
    assert sum(not isinstance(scenario.peer, Lacks) for scenario in SCENARIOS) >= 60
