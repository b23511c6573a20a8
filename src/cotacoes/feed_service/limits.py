"""The limits by which a feed follows its venue, in seconds; a test passes smaller ones."""

from __future__ import annotations

from dataclasses import dataclass

from cotacoes.feed_service.watch import WATCH_LIMITS, WatchLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLimits:
    """Names end in their unit."""

    steady_s: float = 10.0  # of good books, after which a connection counts as a success
    renewal_s: float = 20.0  # for the next connection to become live before the old one is closed
    renewal_retry_s: float = 60.0  # after a renewal that did not succeed
    absent_tries: int = 2  # connections on which a coin never came while others did
    absent_s: float = 600.0  # for which such a coin is then left out
    watch: WatchLimits = WATCH_LIMITS


FEED_LIMITS = FeedLimits()
