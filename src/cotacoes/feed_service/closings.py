"""Why a connection to a venue ended or could not be opened: a reason for programs, and plain words for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cotacoes.errors import (
    StreamClosedError,
    StreamError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
)
from cotacoes.feed_service.venues.venue import shorten
from cotacoes.feed_service.watch import Ending

BANNED_S = 120.0  # the wait after a 418 that names none

_STATUSES: Mapping[int, tuple[str, str]] = {
    403: ("blocked", "the venue refuses this address (403): it may not serve your country or network"),
    451: ("blocked", "the venue may not serve your country (451)"),
    429: ("rate_limited", "too many connections from this address (429)"),
    418: ("banned", "the venue has banned this address for a while (418)"),
}
_CAUSES: Mapping[str, tuple[str, str]] = {
    "name": ("no_name", "the host's name cannot be resolved: check DNS and the venue's URL"),
    "unreachable": ("unreachable", "no connection to the venue's address: check the network and any firewall"),
    "timeout": ("timed_out", "the venue did not answer in time"),
    "tls": ("tls_failed", "the venue's certificate is not trusted: name your own CA in SSL_CERT_FILE"),
    "proxy": ("proxy_failed", "the proxy of HTTPS_PROXY gave no connection: check its address and rights"),
    "handshake": ("no_websocket", "what answered at the venue's address does not speak WebSocket"),
    "cut": ("cut", "the connection was cut"),
}


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a connection: `retry_after_s` is the wait that the venue asked for, `coin` the coin that showed it."""

    reason: str
    text: str
    retry_after_s: float | None = None
    coin: str | None = None


PLANNED = Closing("planned", "renewed before the venue's own limit")


def closing_of(error: StreamError) -> Closing:
    """The closing that an error of a connection means."""
    match error:
        case StreamRefusedError(status=status, retry_after_s=wait_s):
            reason, text = _STATUSES.get(status, _unlisted(status))
            return Closing(reason, text, BANNED_S if status == 418 and wait_s is None else wait_s)
        case StreamClosedError(code=code, reason=words):
            said = f"{code} {shorten(words)}".rstrip()
            return Closing("closed", f"the venue closed the connection ({said})")
        case StreamMalformedError():
            return Closing("broken_protocol", "the venue broke the WebSocket protocol")
        case StreamUnavailableError():
            return Closing(*_CAUSES[error.cause])
    return Closing("cut", shorten(str(error)))


def closing_by(ending: Ending) -> Closing:
    """The closing that the watch decided on."""
    return Closing(ending.reason.value, ending.text, coin=ending.coin)


def _unlisted(status: int) -> tuple[str, str]:
    if status >= 500:
        return "unavailable", f"the venue is unavailable ({status})"
    return "refused", f"the venue refused the connection ({status})"
