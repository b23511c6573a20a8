"""Admission decides who may open a stream, by limits on all streams, on one address, on the rate, and by origin.

A refusal says when to try again. The rate limit exists because a thousand clients that were cut together come back
together; each costs a handshake and a replay, and connected clients should not notice. The limit for an address exists
so that no single client can take all places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cotacoes.adapters.http_server.accepting import client_of
from cotacoes.config import Settings
from cotacoes.errors import ForbiddenError, OverloadedError, ProblemError
from cotacoes.observability.metrics import StreamMetrics
from cotacoes.patterns.resilience.token_bucket import TokenBucket

RETRY_S = 2.0  # after a refusal because all places are taken
MESSAGE_BURST_S = 2.0  # seconds' worth of messages that may come at once


class Admission:
    """The limits on streams. `places` is the maximum number of open connections."""

    def __init__(self, settings: Settings, metrics: StreamMetrics, clock: Callable[[], float], places: int) -> None:
        self._metrics = metrics
        self._clock = clock
        self._places = places
        self._per_address_max = settings.streams_per_address_max
        self._accepts_per_s = settings.stream_accepts_per_s
        self._accepts = TokenBucket(settings.stream_accepts_per_s, settings.stream_accepts_per_s, clock())
        self._origins = settings.origins
        self._taken = 0
        self._by_client: Counter[str] = Counter()

    def refusal(self, origin: str | None, host: str | None, address: str) -> ProblemError | None:
        """Why this address may not open a stream now; None if it may."""
        if origin is not None and not self._is_ours(origin, host):
            self._metrics.streams_refused.labels(reason="origin").inc()
            return ForbiddenError("pages of this origin may not read the stream: add it to COTACOES_ALLOWED_ORIGINS")
        if self._taken >= self._places:
            self._metrics.streams_refused.labels(reason="full").inc()
            return OverloadedError(f"the limit of {self._places} open streams is reached", retry_after_s=RETRY_S)
        if self._by_client[client_of(address)] >= self._per_address_max:
            self._metrics.streams_refused.labels(reason="address").inc()
            return OverloadedError(
                f"your address has {self._per_address_max} open streams, the limit (COTACOES_STREAMS_PER_ADDRESS_MAX)",
                retry_after_s=RETRY_S,
            )
        if wait_s := self._accepts.take(self._clock()):
            self._metrics.streams_refused.labels(reason="rate").inc()
            return OverloadedError("too many streams are being opened at once", retry_after_s=wait_s)
        return None

    def enter(self, wire: str, address: str) -> None:
        """Count a stream that was opened from this address."""
        self._taken += 1
        self._by_client[client_of(address)] += 1
        self._metrics.streams_open.labels(wire=wire).inc()

    def leave(self, wire: str, address: str) -> None:
        """Count a stream from this address that has ended."""
        client = client_of(address)
        self._taken -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
        self._metrics.streams_open.labels(wire=wire).dec()

    def note_ended(self, wire: str, reason: str) -> None:
        """Count a stream that we, or the kernel, ended."""
        self._metrics.streams_ended.labels(wire=wire, reason=reason).inc()

    @property
    def reopening_s(self) -> float:
        """How long it takes, by the limit on the rate, until all streams that are open were opened again."""
        return self._taken / self._accepts_per_s

    def is_listed(self, origin: str) -> bool:
        """Whether pages of this other origin may read the stream; the answer must say so to the browser."""
        return origin in self._origins

    def _is_ours(self, origin: str, host: str | None) -> bool:
        return origin in self._origins or (host is not None and origin.lower().partition("://")[2] == host.lower())
