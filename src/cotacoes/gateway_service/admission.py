"""Who may open a stream: the limits on streams in all and from one address, on how fast they come, and on whose page
they come from.

A refusal says when to try again. The rate exists because a thousand clients that were cut at once come back at once;
each costs a handshake and a replay, and those who are connected already are to notice nothing. The limit for an address
exists so that no single client can take all places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cotacoes.adapters.http_server.accepting import client_of
from cotacoes.config import Settings
from cotacoes.errors import ForbiddenError, OverloadedError, ProblemError
from cotacoes.observability.metrics import StreamMetrics
from cotacoes.patterns.resilience.token_bucket import TokenBucket

RETRY_S = 2.0  # of a refusal because all places are taken
MESSAGE_BURST_S = 2.0  # so many seconds' worth of messages may come at once


class Admission:
    """See the head of this file. `places` are the connections at once, at most."""

    def __init__(self, settings: Settings, metrics: StreamMetrics, clock: Callable[[], float], places: int) -> None:
        self._metrics = metrics
        self._clock = clock
        self._places = places
        self._per_address_max = settings.streams_per_address_max
        self._accepts = TokenBucket(settings.stream_accepts_per_s, settings.stream_accepts_per_s, clock())
        self._origins = settings.origins
        self._taken = 0
        self._by_client: Counter[str] = Counter()

    def refusal(self, origin: str | None, host: str | None, address: str) -> ProblemError | None:
        """Why a stream may not be opened now from this address; None if it may."""
        if origin is not None and not self._is_ours(origin, host):
            self._metrics.streams_refused.labels(reason="origin").inc()
            return ForbiddenError("pages of this origin may not read the stream: list it in COTACOES_ALLOWED_ORIGINS")
        if self._taken >= self._places:
            self._metrics.streams_refused.labels(reason="full").inc()
            return OverloadedError(f"{self._places} streams are open", retry_after_s=RETRY_S)
        if self._by_client[client_of(address)] >= self._per_address_max:
            self._metrics.streams_refused.labels(reason="address").inc()
            return OverloadedError(
                f"{self._per_address_max} streams of your address are open (COTACOES_STREAMS_PER_ADDRESS_MAX)",
                retry_after_s=RETRY_S,
            )
        if wait_s := self._accepts.take(self._clock()):
            self._metrics.streams_refused.labels(reason="rate").inc()
            return OverloadedError("more streams are being opened than are let in at once", retry_after_s=wait_s)
        return None

    def enter(self, wire: str, address: str) -> None:
        """One was opened from this address."""
        self._taken += 1
        self._by_client[client_of(address)] += 1
        self._metrics.streams_open.labels(wire=wire).inc()

    def leave(self, wire: str, address: str) -> None:
        """One from this address has ended."""
        client = client_of(address)
        self._taken -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
        self._metrics.streams_open.labels(wire=wire).dec()

    def note_ended(self, wire: str, reason: str) -> None:
        """One was ended by us, or by the kernel for us."""
        self._metrics.streams_ended.labels(wire=wire, reason=reason).inc()

    def is_listed(self, origin: str) -> bool:
        """Whether pages of another origin may read, so that the browser is told."""
        return origin in self._origins

    def _is_ours(self, origin: str, host: str | None) -> bool:
        return origin in self._origins or (host is not None and origin.lower().partition("://")[2] == host.lower())
