"""The table of outcomes is the documented one, and every error has a row."""

import asyncio
import re
from typing import Any

import pytest

from cotacoes.errors import (
    HttpMalformedError,
    HttpUnavailableError,
    SourceGoneError,
    SourceMalformedError,
    SourceUnavailableError,
)
from cotacoes.patterns.resilience import (
    OUTCOMES,
    AttemptTimeoutError,
    CallDeadlineError,
    CallVerdict,
    Classification,
    Outcome,
    classification,
    classify,
    outcome_of_status,
)

ROW = re.compile(r"^    ([a-z_]+) {2,}.*? {2,}(success|failure|ignored)(?: +(no|yes).*)?$", re.MULTILINE)


def test_the_documented_table_is_the_table_that_decides() -> None:
    assert classification.__doc__ is not None
    documented = {
        Outcome(name): (CallVerdict(verdict), again == "yes")
        for name, verdict, again in ROW.findall(classification.__doc__)
    }
    assert documented == dict(OUTCOMES)
    assert set(OUTCOMES) == set(Outcome)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (100, "malformed"),
        (200, "ok"),
        (204, "ok"),
        (301, "redirected"),
        (307, "redirected"),
        (400, "refused"),
        (401, "refused"),
        (404, "refused"),
        (408, "unavailable"),
        (429, "throttled"),
        (499, "refused"),
        (500, "server_error"),
        (502, "server_error"),
        (503, "unavailable"),
        (504, "timed_out"),
        (599, "server_error"),
    ],
)
def test_a_status_has_one_outcome(status: int, outcome: str) -> None:
    assert outcome_of_status(status) == outcome


@pytest.mark.parametrize(
    ("error", "outcome", "verdict", "again"),
    [
        (HttpUnavailableError("no connection"), "unreachable", CallVerdict.FAILURE, True),
        (HttpMalformedError("huge", outcome="oversized"), "oversized", CallVerdict.FAILURE, False),
        (SourceUnavailableError("503"), "unavailable", CallVerdict.FAILURE, True),
        (SourceMalformedError("not JSON"), "malformed", CallVerdict.FAILURE, False),
        (SourceMalformedError("404", outcome="refused"), "refused", CallVerdict.IGNORED, False),
        (SourceGoneError("gone", cursor="a-1"), "gone", CallVerdict.SUCCESS, False),
        (AttemptTimeoutError(), "timed_out", CallVerdict.FAILURE, True),
        (TimeoutError(), "timed_out", CallVerdict.FAILURE, True),
        (CallDeadlineError(), "caller_deadline", CallVerdict.IGNORED, False),
        (ConnectionResetError(), "unreachable", CallVerdict.FAILURE, True),
        (asyncio.CancelledError(), "cancelled", CallVerdict.IGNORED, False),
        (KeyboardInterrupt(), "cancelled", CallVerdict.IGNORED, False),
        (ZeroDivisionError(), "ZeroDivisionError", CallVerdict.FAILURE, False),
    ],
)
def test_an_error_is_classified_by_its_outcome_or_its_type(
    error: BaseException, outcome: str, verdict: CallVerdict, again: bool
) -> None:
    seen = classify(error)
    assert (seen.outcome, seen.verdict, seen.retryable) == (outcome, verdict, again)


class ForeignError(OSError):
    """An error of a library that means something else by `outcome`."""

    def __init__(self, outcome: Any) -> None:
        super().__init__("no route")
        self.outcome = outcome


@pytest.mark.parametrize("foreign", ["lost", None, 7, [], {}, float("nan"), ""])
def test_a_foreign_attribute_named_outcome_is_ignored(foreign: Any) -> None:
    assert classify(ForeignError(foreign)) == Classification(CallVerdict.FAILURE, True, None, Outcome.UNREACHABLE)


def test_a_cancellation_is_cancelled_whatever_attributes_it_has() -> None:
    error: Any = asyncio.CancelledError()
    error.outcome = "unreachable"
    assert classify(error) == Classification(CallVerdict.IGNORED, False, None, Outcome.CANCELLED)


def test_the_requested_wait_is_part_of_the_classification() -> None:
    error: Any = SourceUnavailableError("503", retry_after_s=7.0)
    assert classify(error).retry_after == 7.0
    assert classify(OSError()).retry_after is None
