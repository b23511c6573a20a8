"""What a circuit breaker does after an operator has set it, and in its first state; and all scenarios together.

See `harness_breaker_scenarios.py` for the words.
"""

from __future__ import annotations

from tests.unit.harness_breaker_scenarios import CLOSED_SCENARIOS, REASON_LACKS, SLOW, Differs, Lacks, Scenario
from tests.unit.harness_breaker_scenarios_half_open import HALF_OPEN, LATE, LIMIT, LIMITED, SLOW_HALF_OPEN
from tests.unit.harness_breaker_scenarios_open import JITTER_LACKS, NO_FORECAST, ONE_PROBE, OPEN, PROBES, REST, WAIT

KEEPS_FORCED = "it keeps the window's calls when a person changes the state; here each state begins its own"
INITIAL_LACKS = Lacks("initial_state")

SET = [
    Scenario("forced open refuses for good", PROBES, "force_open, wait 100000, refused, state forced_open"),
    Scenario("forced open is left by a reset", PROBES, "force_open, refused, reset, state closed, ok 1"),
    Scenario(
        "only a person says when",
        PROBES,
        "force_open, retry_after never",
        Differs("retry_after never", NO_FORECAST),
    ),
    Scenario(
        "a probe that ends after an operator's change is late",
        ONE_PROBE,
        "fail 4, wait 5, take a, force_open, late a ok, state forced_open",
    ),
    Scenario(
        "a half-open that an operator ended does not time out",
        LIMITED,
        "fail 4, wait 5, take a, disable, wait 100, take b, state disabled",
    ),
    Scenario(
        "what was under way when a person opened it does not become overdue",
        SLOW,
        "take a, force_open, wait 5, refused, overdue 0, late a ok, overdue 0",
        Lacks("overdue"),
    ),
    Scenario("disabled lets all through", PROBES, "disable, uncounted fail 50, state disabled, calls 0"),
    Scenario(
        "disabled lets through what was open", PROBES, "fail 4, refused, disable, uncounted ok 1, retry_after none"
    ),
    Scenario("metrics only counts and never opens", PROBES, "metrics_only, fail 50, state metrics_only, failures 10"),
    Scenario(
        "metrics only lets hanging calls be",
        SLOW,
        "metrics_only, take a, take b, take c, take d, wait 9, take e, state metrics_only",
    ),
    Scenario(
        "a forced state begins its own count",
        PROBES,
        "fail 3, metrics_only, calls 0",
        Differs("calls 0", KEEPS_FORCED),
    ),
    Scenario("after metrics only it begins anew", PROBES, "metrics_only, fail 9, reset, calls 0, fail 3, state closed"),
    Scenario("a reset forgets what was seen", PROBES, "fail 3, reset, calls 0, fail 3, state closed"),
    Scenario(
        "a reset closes at once what was open", PROBES, "fail 4, refused, reset, state closed, retry_after none, ok 1"
    ),
    Scenario(
        "each change by an operator begins a generation",
        PROBES,
        "reset, generation 1, force_open, force_open, "
        "generation 3, disable, metrics_only, generation 5, reset, generation 6",
    ),
    Scenario(
        "each change begins a generation",
        ONE_PROBE,
        "fail 4, generation 1, wait 5, take a, generation 2, settle a ok, generation 3",
    ),
    Scenario(
        "an operator's change has its own reason",
        PROBES,
        "force_open, reason forced, disable, reason disabled, "
        "metrics_only, reason metrics_only, wait 2, reset, reason reset, at 2, changes 4",
        REASON_LACKS,
    ),
    Scenario(
        "the outcome of the probes is the reason",
        ONE_PROBE,
        "fail 4, wait 5, fail 1, reason probes_failed, wait 5, ok 1, reason probes_succeeded, at 10, changes 5",
        REASON_LACKS,
    ),
]

INITIAL = [
    Scenario(
        "it can begin open",
        {**PROBES, "initial_state": "open"},
        "state open, generation 0, retry_after 5, refused, wait 5, take a, state half_open",
        INITIAL_LACKS,
    ),
    Scenario(
        "the wait in which it begins has its jitter",
        {**PROBES, "initial_state": "open", "wait_duration_jitter": 0.5},
        "retry_after 7.5",
        JITTER_LACKS,
        (1.0,),
    ),
    Scenario(
        "it can begin half-open",
        {**ONE_PROBE, "initial_state": "half_open"},
        "take a, refused, settle a ok, state closed",
        INITIAL_LACKS,
    ),
    Scenario(
        "a circuit that begins half-open has its time limit",
        {**LIMITED, "initial_state": "half_open"},
        "take a, wait 10, refused, state open, retry_after 10",
        INITIAL_LACKS,
    ),
    Scenario(
        "it can begin disabled",
        {**PROBES, "initial_state": "disabled"},
        "uncounted fail 9, state disabled, reset, state closed",
    ),
    Scenario(
        "it can begin forced open",
        {**PROBES, "initial_state": "forced_open"},
        "wait 100, refused, state forced_open, reset, ok 1",
    ),
    Scenario(
        "it can begin by counting only",
        {**PROBES, "initial_state": "metrics_only"},
        "fail 9, state metrics_only, failures 9, reset, calls 0, fail 4, state open",
    ),
    Scenario(
        "a reset closes what began open",
        {**PROBES, "initial_state": "open"},
        "reset, state closed, ok 1",
        INITIAL_LACKS,
    ),
]

SCENARIOS = CLOSED_SCENARIOS + OPEN + HALF_OPEN + SLOW_HALF_OPEN + LATE + LIMIT + WAIT + REST + SET + INITIAL
