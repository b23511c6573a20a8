"""What a circuit breaker does while it is open, as data: see `harness_breaker_scenarios.py` for the words."""

from __future__ import annotations

from tests.unit.harness_breaker_scenarios import RATE, Differs, Lacks, Scenario

NO_FORECAST = "half-open and forced open it gives no time, and 0 once the wait is over"
JITTER_LACKS = Lacks("wait_duration_jitter")
REST_LACKS = Lacks("open_for")

PROBES = {**RATE, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 4}
ONE_PROBE = {**PROBES, "permitted_calls_in_half_open": 1}
GROWING = {**ONE_PROBE, "wait_duration_multiplier": 2.0, "max_wait_duration_in_open": 15.0}

OPEN = [
    Scenario("an open circuit refuses", PROBES, "fail 4, state open, refused, refused, retry_after 5"),
    Scenario("the wait runs down", PROBES, "fail 4, wait 3, retry_after 2, refused, wait 1.75, refused, state open"),
    Scenario(
        "time alone changes no state",
        PROBES,
        "fail 4, wait 1000, state open, retry_after none",
        Differs("retry_after none", NO_FORECAST),
    ),
    Scenario("the next one after the wait is a probe", PROBES, "fail 4, wait 5, take a, state half_open"),
    Scenario(
        "refusals are counted", PROBES, "fail 4, refused, refused, refused, not_permitted 3", Lacks("not_permitted")
    ),
    Scenario("an earlier call that fails late adds nothing", PROBES, "take a, fail 4, late a fail, state open"),
    Scenario("what opened it stays to be looked at", PROBES, "ok 3, fail 3, state open, calls 6, failures 3"),
    Scenario(
        "a change is reported once",
        PROBES,
        "fail 4, changes 1, refused, wait 5, changes 1, take a, changes 2, reason wait_over, at 5",
        Lacks("changes"),
    ),
]

WAIT = [
    Scenario(
        "the wait grows with each half-open that fails, up to the most",
        GROWING,
        "fail 4, retry_after 5, wait 5, fail 1, retry_after 10, wait 10, fail 1, retry_after 15, wait 15, fail 1, "
        "retry_after 15",
    ),
    Scenario(
        "a close brings the first wait back",
        GROWING,
        "fail 4, wait 5, fail 1, wait 10, fail 1, retry_after 15, wait 15, ok 1, state closed, fail 4, retry_after 5",
    ),
    Scenario("a reset does too", GROWING, "fail 4, wait 5, fail 1, retry_after 10, reset, fail 4, retry_after 5"),
    Scenario("without a multiplier it stays", ONE_PROBE, "fail 4, wait 5, fail 1, wait 5, fail 1, retry_after 5"),
    Scenario(
        "jitter shortens a wait by its share at most",
        {**ONE_PROBE, "wait_duration_jitter": 0.5},
        "fail 4, retry_after 2.5",
        JITTER_LACKS,
        (0.5, 0.0),
    ),
    Scenario(
        "jitter lengthens a wait by its share at most",
        {**ONE_PROBE, "wait_duration_jitter": 0.5},
        "fail 4, retry_after 7.5",
        JITTER_LACKS,
        (0.5, 1.0),
    ),
    Scenario(
        "jitter does not add up: the next wait grows from the one without it",
        {**GROWING, "wait_duration_jitter": 0.2},
        "fail 4, retry_after 6, wait 6, fail 1, retry_after 8",
        JITTER_LACKS,
        (0.5, 1.0, 0.0),
    ),
    Scenario(
        "jitter never passes the most",
        {**GROWING, "max_wait_duration_in_open": 5.5, "wait_duration_jitter": 0.2},
        "fail 4, retry_after 5.5",
        JITTER_LACKS,
        (0.5, 1.0),
    ),
]

REST = [
    Scenario(
        "it opens for as long as it is asked to",
        PROBES,
        "open_for 30, state open, retry_after 30, refused, reason retry_after",
        REST_LACKS,
    ),
    Scenario(
        "what is under way when it is asked for a rest is late", PROBES, "take a, open_for 30, late a ok", REST_LACKS
    ),
    Scenario(
        "a longer pause extends the wait",
        PROBES,
        "fail 4, open_for 30, retry_after 30, state open, changes 1, generation 1",
        REST_LACKS,
    ),
    Scenario("a shorter rest does not cut it", PROBES, "fail 4, open_for 1, retry_after 5", REST_LACKS),
    Scenario(
        "a pause that comes after the wait is obeyed",
        PROBES,
        "fail 4, wait 9, open_for 3, retry_after 3, refused",
        REST_LACKS,
    ),
    Scenario(
        "a pause ends a half-open", PROBES, "fail 4, wait 5, take a, open_for 30, state open, late a ok", REST_LACKS
    ),
    Scenario(
        "a pause is no failed half-open: the wait does not grow",
        GROWING,
        "fail 4, wait 5, take a, open_for 30, wait 30, fail 1, retry_after 10",
        REST_LACKS,
    ),
    Scenario(
        "a pause of no time changes nothing",
        PROBES,
        "open_for 0, state closed, fail 4, wait 5, take a, open_for 0, state half_open",
        REST_LACKS,
    ),
    Scenario(
        "a pause does not close what an operator disabled",
        PROBES,
        "disable, open_for 30, state disabled, take a",
        REST_LACKS,
    ),
    Scenario(
        "a pause does not open what only counts",
        PROBES,
        "metrics_only, open_for 30, state metrics_only, take a",
        REST_LACKS,
    ),
    Scenario(
        "a pause does not limit what an operator opened",
        PROBES,
        "force_open, open_for 1, wait 2, refused, retry_after never",
        REST_LACKS,
    ),
]
