"""What a circuit breaker does half-open, as data: see `harness_breaker_scenarios.py` for the words."""

from __future__ import annotations

from tests.unit.harness_breaker_scenarios import REASON_LACKS, ROW, ROW_LACKS, SLOW, SLOW_ENDS, TIMED, Differs, Scenario
from tests.unit.harness_breaker_scenarios_open import GROWING, NO_FORECAST, ONE_PROBE, PROBES, REST_LACKS

DECIDES_LATE = "it waits for all permitted probes, also when the outcome is certain"
NO_LIMIT = "a probe that does not come back holds it half-open for ever"
COUNTS_TWICE = "its machine takes a second result of the same probe for another probe"

THREE_OF_FOUR = {**PROBES, "failure_rate_threshold": 0.75}
ONE_AT_A_TIME = {**THREE_OF_FOUR, "max_concurrent_calls_in_half_open": 1}
LIMITED = {**GROWING, "max_wait_duration_in_half_open": 10.0}
FOUR_LIMITED = {**LIMITED, "permitted_calls_in_half_open": 4}
SLOW_PROBES = {**SLOW, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 2, "slow_call_rate_threshold": 0.5}
FOUR_SLOW = {**PROBES, "failure_rate_threshold": 1.0, "slow_call_duration_threshold": 2.0}

HALF_OPEN = [
    Scenario("so many probes and no more", PROBES, "fail 4, wait 5, take a, take b, take c, take d, refused"),
    Scenario(
        "at most so many at once",
        {**PROBES, "max_concurrent_calls_in_half_open": 2},
        "fail 4, wait 5, take a, take b, refused, settle a ok, take c, refused",
    ),
    Scenario(
        "one at a time, and all of them in the end",
        ONE_AT_A_TIME,
        "fail 4, wait 5, take a, refused, settle a fail, take b, refused, settle b fail, take c, refused, "
        "settle c ok, state half_open, take d, refused, settle d fail, state open",
    ),
    Scenario(
        "an ignored probe gives its slot back",
        PROBES,
        "fail 4, wait 5, take a, take b, take c, take d, refused, settle a ignored, take e, refused, state half_open",
    ),
    Scenario(
        "an ignored probe gives back its slot among those at once",
        ONE_AT_A_TIME,
        "fail 4, wait 5, take a, refused, settle a ignored, take b, refused, settle b ok",
    ),
    Scenario(
        "ignored probes decide nothing", ONE_PROBE, "fail 4, wait 5, ignored 20, state half_open, ok 1, state closed"
    ),
    Scenario(
        "an ignored probe gives its slot back once",
        PROBES,
        "fail 4, wait 5, take a, take b, take c, take d, settle a ignored, late a ignored, take e, refused",
        Differs("refused", COUNTS_TWICE),
    ),
    Scenario(
        "a probe counts once however often it is settled",
        THREE_OF_FOUR,
        "fail 4, wait 5, take a, settle a fail, late a fail, late a fail, state half_open, calls 1",
        Differs("late a fail", COUNTS_TWICE),
    ),
    Scenario("the last good probe closes it", ONE_PROBE, "fail 4, wait 5, ok 1, state closed, calls 0"),
    Scenario("one probe that fails opens it", ONE_PROBE, "fail 4, wait 5, fail 1, state open, retry_after 5"),
    Scenario(
        "certain to open: half of four",
        PROBES,
        "fail 4, wait 5, fail 1, state half_open, fail 1, state open",
        Differs("state open", DECIDES_LATE),
    ),
    Scenario(
        "certain to close: three of four",
        PROBES,
        "fail 4, wait 5, ok 2, state half_open, ok 1, state closed",
        Differs("state closed", DECIDES_LATE),
    ),
    Scenario(
        "good and bad probes are weighed",
        THREE_OF_FOUR,
        "fail 4, wait 5, fail 2, state half_open, ok 1, state half_open, ok 1, state closed",
    ),
    Scenario(
        "the last probe decides where nothing was certain",
        THREE_OF_FOUR,
        "fail 4, wait 5, ok 1, fail 2, state half_open, fail 1, state open",
    ),
    Scenario(
        "probes that have ended count among the permitted",
        THREE_OF_FOUR,
        "fail 4, wait 5, fail 2, take a, take b, refused",
    ),
    Scenario(
        "without a rate every probe must succeed",
        {**ROW, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 2},
        "fail 3, wait 5, ok 1, state half_open, ok 1, state closed, fail 3, wait 5, fail 1, state open",
        ROW_LACKS,
    ),
    Scenario(
        "failures in a row open it half-open as well",
        {**PROBES, "failure_rate_threshold": 1.0, "consecutive_failures_threshold": 2},
        "fail 2, wait 5, fail 1, state half_open, fail 1, state open",
        ROW_LACKS,
    ),
    Scenario(
        "nothing is certain while the probes that are left could be a row",
        {**PROBES, "failure_rate_threshold": 1.0, "consecutive_failures_threshold": 2},
        "fail 2, wait 5, ok 1, state half_open, ok 1, state half_open, ok 1, state closed",
        ROW_LACKS,
    ),
    Scenario(
        "a row among the last probes opens it",
        {**PROBES, "failure_rate_threshold": 1.0, "consecutive_failures_threshold": 2},
        "fail 2, wait 5, ok 1, fail 1, state half_open, fail 1, state open",
        ROW_LACKS,
    ),
    Scenario(
        "a row that ended before the wait is no row of the probes",
        {**THREE_OF_FOUR, "consecutive_failures_threshold": 3},
        "fail 3, state open, wait 5, fail 2, state half_open, in_a_row 2",
        ROW_LACKS,
    ),
    Scenario(
        "probes do not age out of a time window",
        {**TIMED, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 4},
        "fail 4, wait 5, ok 2, wait 30, ok 1, state closed",
        Differs("state closed", DECIDES_LATE),
    ),
    Scenario(
        "probes have a window of their own size",
        {**THREE_OF_FOUR, "minimum_number_of_calls": 2, "sliding_window_size": 2},
        "fail 2, wait 5, fail 2, ok 1, state half_open, fail 1, state open",
    ),
    Scenario(
        "a closed circuit begins with an empty window",
        ONE_PROBE,
        "fail 4, wait 5, ok 1, calls 0, fail 3, state closed, fail 1, state open",
    ),
    Scenario(
        "half-open the time till a place is free is a guess",
        ONE_PROBE,
        "fail 4, wait 5, take a, retry_after 5, wait 58, retry_after 2",
        Differs("retry_after 5", NO_FORECAST),
    ),
    Scenario("half-open with a free place nobody has to wait", PROBES, "fail 4, wait 5, take a, retry_after none"),
]

SLOW_HALF_OPEN = [
    Scenario(
        "slow probes open it",
        SLOW_PROBES,
        "call 3 ok, call 3 ok, ok 2, state open, wait 5, call 3 ok, state open",
        Differs("state open", DECIDES_LATE),
    ),
    Scenario(
        "a slow probe that hangs opens it before its end",
        SLOW_PROBES,
        "call 3 ok, call 3 ok, ok 2, wait 5, take a, wait 3, refused, state open, late a ok",
        Differs("refused", SLOW_ENDS),
    ),
    Scenario(
        "slow probes that have ended and such as have not are counted together",
        {**FOUR_SLOW, "slow_call_rate_threshold": 0.5},
        "fail 4, wait 5, call 3 ok, take a, wait 3, refused, state open",
        Differs("refused", SLOW_ENDS),
    ),
    Scenario(
        "a probe that could still be slow is waited for",
        {**FOUR_SLOW, "slow_call_rate_threshold": 0.75},
        "fail 4, state open, wait 5, ok 1, state half_open, ok 1, state closed",
        Differs("state closed", DECIDES_LATE),
    ),
    Scenario(
        "quick probes do not close it while slow ones could open it",
        FOUR_SLOW,
        "fail 4, wait 5, call 3 ok, state half_open, call 3 ok, call 3 ok, state half_open, call 3 ok, state open",
    ),
    Scenario(
        "that probes were slow is named",
        SLOW_PROBES,
        "call 3 ok, call 3 ok, ok 2, wait 5, call 3 ok, reason probes_slow",
        REASON_LACKS,
    ),
]

LATE = [
    Scenario(
        "a result from before the fault closes nothing",
        ONE_PROBE,
        "take a, fail 4, wait 5, take b, late a ok, state half_open, settle b fail, state open",
    ),
    Scenario(
        "a result from before the fault opens nothing",
        ONE_PROBE,
        "take a, fail 4, wait 5, take b, late a fail, state half_open, settle b ok, state closed",
    ),
    Scenario(
        "an ignored call from before the fault frees no slot",
        ONE_PROBE,
        "take a, fail 4, wait 5, take b, late a ignored, refused, state half_open",
    ),
    Scenario(
        "a probe that comes back after the decision changes nothing",
        PROBES,
        "fail 4, wait 5, take a, ok 3, state closed, late a fail, failures 0, state closed",
        Differs("state closed", DECIDES_LATE),
    ),
    Scenario(
        "a probe of an earlier half-open does not count in the present one",
        {**PROBES, "failure_rate_threshold": 0.25},
        "fail 4, wait 5, take a, fail 1, state open, wait 5, take b, take c, late a ok, state half_open, calls 0",
        Differs("state open", DECIDES_LATE),
    ),
    Scenario("what was under way before a person's word is late", PROBES, "take a, disable, late a fail"),
    Scenario("what was under way before a reset is late", PROBES, "take a, reset, late a fail, failures 0"),
]

LIMIT = [
    Scenario(
        "a probe that never comes back does not hold it forever",
        LIMITED,
        "fail 4, wait 5, take a, wait 9.75, refused, state half_open, wait 0.25, refused, state open",
        Differs("state open", NO_LIMIT),
    ),
    Scenario(
        "a hung probe has failed: the wait grows from the moment the time was over",
        LIMITED,
        "fail 4, wait 5, take a, wait 12, refused, retry_after 8, wait 8, take b, state half_open, late a ok",
        Differs("retry_after 8", NO_LIMIT),
    ),
    Scenario(
        "one hung probe among good ones is enough for that",
        FOUR_LIMITED,
        "fail 4, wait 5, take a, ok 2, wait 10, refused, state open, retry_after 10",
        Differs("refused", NO_LIMIT),
    ),
    Scenario(
        "that nobody came is no evidence: the wait does not grow",
        FOUR_LIMITED,
        "fail 4, wait 5, ok 1, wait 12, refused, retry_after 3",
        Differs("refused", "it has no limit, so it waits for the other probes"),
    ),
    Scenario(
        "a rare caller is not made to wait for what passed while nobody called",
        FOUR_LIMITED,
        "fail 4, wait 5, ok 1, wait 100, ok 1, state half_open, calls 1",
        Differs("calls 1", "it has no limit, and shows the window from before the fault"),
    ),
    Scenario(
        "a hung probe and a long silence let the next caller through",
        LIMITED,
        "fail 4, wait 5, take a, wait 20, take b, state half_open, late a ok, settle b fail, retry_after 15",
        Differs("take b", NO_LIMIT),
    ),
    Scenario(
        "a result after the limit is late",
        LIMITED,
        "fail 4, wait 5, take a, wait 10, late a ok, state open",
        Differs("late a ok", NO_LIMIT),
    ),
    Scenario(
        "a result just before it is in time", LIMITED, "fail 4, wait 5, take a, wait 9.75, settle a ok, state closed"
    ),
    Scenario(
        "the end of the time is reported, and dated back",
        LIMITED,
        "fail 4, wait 5, take a, wait 12, refused, reason half_open_timed_out, at 15",
        REASON_LACKS,
    ),
    Scenario(
        "a short pause does not cut the wait after a hung probe",
        LIMITED,
        "fail 4, wait 5, take a, wait 11, open_for 0.5, retry_after 9",
        REST_LACKS,
    ),
    Scenario(
        "without a limit it waits",
        {**GROWING, "max_wait_duration_in_half_open": None},
        "fail 4, wait 5, take a, wait 100000, refused, state half_open, settle a ok, state closed",
    ),
]
