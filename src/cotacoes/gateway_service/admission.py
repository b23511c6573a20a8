"""Who may open a stream: the limits on connections, on how fast they come, and on whose page they come from.

A refusal says when to try again. The rate exists because a thousand clients that were cut at once come back at once;
each costs a handshake and a replay, and those who are connected already are to notice nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from cotacoes.config import Settings
from cotacoes.errors import ForbiddenError, OverloadedError, ProblemError
from cotacoes.telemetry import StreamMetrics

RETRY_S = 2.0  # of a refusal because all places are taken
MESSAGE_BURST_S = 2.0  # so many seconds' worth of messages may come at once


class TokenBucket:
    """So many a second, and `burst` of them at once. Times are monotonic seconds, passed in."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take one: 0, or in how many seconds there will be one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return 0.0


class Admission:
    """See the head of this file. `places` are the connections at once, at most."""

    def __init__(self, settings: Settings, metrics: StreamMetrics, clock: Callable[[], float], places: int) -> None:
        self._metrics = metrics
        self._clock = clock
        self._places = places
        self._accepts = TokenBucket(settings.stream_accepts_per_s, settings.stream_accepts_per_s, clock())
        self._origins = settings.origins
        self._taken = 0

    def refusal(self, origin: str | None, host: str | None) -> ProblemError | None:
        """Why a stream may not be opened now; None where it may."""
        if origin is not None and not self._is_ours(origin, host):
            self._metrics.refused.labels(reason="origin").inc()
            return ForbiddenError("pages of this origin may not read the stream: list it in COTACOES_ALLOWED_ORIGINS")
        if self._taken >= self._places:
            self._metrics.refused.labels(reason="full").inc()
            return OverloadedError(f"{self._places} streams are open", retry_after_s=RETRY_S)
        if wait_s := self._accepts.take(self._clock()):
            self._metrics.refused.labels(reason="rate").inc()
            return OverloadedError("more streams are being opened than are let in at once", retry_after_s=wait_s)
        return None

    def enter(self, wire: str) -> None:
        """One was opened."""
        self._taken += 1
        self._metrics.open.labels(wire=wire).inc()

    def leave(self, wire: str) -> None:
        """One has ended."""
        self._taken -= 1
        self._metrics.open.labels(wire=wire).dec()

    def note_ended(self, wire: str, reason: str) -> None:
        """We ended one."""
        self._metrics.ended.labels(wire=wire, reason=reason).inc()

    def is_listed(self, origin: str) -> bool:
        """Whether pages of another origin may read, so that the browser is told."""
        return origin in self._origins

    def _is_ours(self, origin: str, host: str | None) -> bool:
        return origin in self._origins or (host is not None and urlsplit(origin).netloc.lower() == host.lower())
