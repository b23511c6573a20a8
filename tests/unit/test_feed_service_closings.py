"""Each end of a connection has a reason of its own for programs, and words that say what to do."""

from typing import get_args

import pytest

from cotacoes.errors import (
    StreamCause,
    StreamClosedError,
    StreamError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
)
from cotacoes.feed_service.closings import PLANNED, Closing, closing_by, closing_of
from cotacoes.feed_service.watch import Ending, EndReason

STATUSES = {
    403: ("blocked", "country or network"),
    451: ("blocked", "may not serve your country"),
    429: ("rate_limited", "too many connections"),
    418: ("banned", "banned this address for a while"),
    400: ("refused", "refused the connection (400)"),
    404: ("refused", "refused the connection (404)"),
    500: ("unavailable", "unavailable (500)"),
    503: ("unavailable", "unavailable (503)"),
}
CAUSES = {
    "name": ("no_name", "cannot be resolved"),
    "unreachable": ("unreachable", "check the network"),
    "timeout": ("timed_out", "did not answer in time"),
    "tls": ("tls_failed", "SSL_CERT_FILE"),
    "proxy": ("proxy_failed", "proxy"),
    "handshake": ("no_websocket", "does not speak WebSocket"),
    "cut": ("cut", "the connection was cut"),
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_refused_handshake_is_named_by_its_status(status: int) -> None:
    closing = closing_of(StreamRefusedError(status, retry_after_s=7.0))
    reason, words = STATUSES[status]
    assert closing.reason == reason
    assert words in closing.text
    assert str(status) in closing.text
    assert closing.retry_after_s == 7.0


@pytest.mark.parametrize("cause", get_args(StreamCause))
def test_each_cause_of_a_failed_opening_has_its_own_reason(cause: StreamCause) -> None:
    closing = closing_of(StreamUnavailableError("raw words of a library", cause=cause))
    reason, words = CAUSES[cause]
    assert closing.reason == reason
    assert words in closing.text
    assert "raw words" not in closing.text


@pytest.mark.parametrize(
    ("error", "closing"),
    [
        (
            StreamClosedError(1012, "restart"),
            Closing("closed", "the venue closed the connection (1012 restart)"),
        ),
        (StreamClosedError(1000, ""), Closing("closed", "the venue closed the connection (1000)")),
        (StreamMalformedError("x"), Closing("broken_protocol", "the venue broke the WebSocket protocol")),
        (StreamError("anything else"), Closing("cut", "anything else")),
    ],
)
def test_the_end_of_an_open_connection_is_named(error: StreamError, closing: Closing) -> None:
    assert closing_of(error) == closing


def test_what_the_watch_ends_bears_its_reason_and_coin() -> None:
    closing = closing_by(Ending(EndReason.STALLED, "no book of bitcoin for 11 s", "bitcoin"))
    assert closing == Closing("stalled", "no book of bitcoin for 11 s", None, "bitcoin")


def test_no_two_ends_share_a_reason_but_the_two_of_a_blocked_country() -> None:
    errors: list[StreamError] = [StreamRefusedError(status) for status in (403, 429, 418, 404, 503)]
    errors += [StreamUnavailableError("", cause=cause) for cause in get_args(StreamCause)]
    errors += [StreamClosedError(1000, ""), StreamMalformedError("")]
    reasons = [closing_of(error).reason for error in errors]
    reasons += [reason.value for reason in EndReason]
    reasons.append(PLANNED.reason)
    assert len(set(reasons)) == len(reasons)


def test_a_venues_own_words_stay_short_and_printable() -> None:
    closing = closing_of(StreamClosedError(4000, "\x1b[31mred\nline\u202e" + "x" * 500))
    assert closing.text.isprintable()
    assert closing.text.isascii()
    assert len(closing.text) < 300
