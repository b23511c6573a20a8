"""What feed_service shows of itself: its feeds, the books of the venues, and the consensus on each coin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

from cotacoes.feed_service.books import Books, HeldBook
from cotacoes.feed_service.pricing import Pricing
from cotacoes.feed_service.venue_feed import VenueFeed
from cotacoes.model.quote import format_price, format_time
from cotacoes.model.venues import ConsensusJson, FeedJson, VenueBookJson
from cotacoes.patterns.consensus import Consensus, ConsensusPrice, VenueVerdict


class Describing:
    """Turns the state of the feeds into JSON. `clock` gives monotonic seconds, `now` the wall time."""

    def __init__(
        self, books: Books, pricing: Pricing, *, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._books = books
        self._pricing = pricing
        self._clock = clock
        self._now = now

    def consensus(self, coin: str, result: Consensus) -> ConsensusJson:
        """The consensus on a coin, with each venue's part in it."""
        held = self._books.of(coin)
        found = result if isinstance(result, ConsensusPrice) else None
        return ConsensusJson(
            coin=coin,
            state=result.state.value,
            reason=None if isinstance(result, ConsensusPrice) else result.reason,
            used=0 if found is None else found.used,
            of=result.of,
            price=None if found is None else format_price(found.price),
            confidence=None if found is None else format_price(found.confidence),
            low=None if found is None else format_price(found.low),
            high=None if found is None else format_price(found.high),
            as_of=None if found is None else self._time(found.as_of_s),
            age_ms=None if found is None else self._age_ms(found.as_of_s),
            venues=[self._book(verdict, held.get(verdict.book.venue)) for verdict in result.verdicts],
        )

    def feed(self, feed: VenueFeed, *, breaker: str, coins: list[str]) -> FeedJson:
        """The connection to a venue."""
        status = feed.status
        closing, skew_s = status.last_closing, feed.venue_clock.skew_s
        return FeedJson(
            venue=feed.venue.name,
            url=feed.url,
            state=status.state,
            since=self._time(status.since_s),
            breaker=breaker,
            coins=coins,
            absent={coin: absence.reason for coin, absence in status.absent.items()},
            skew_ms=None if skew_s is None else round(skew_s * 1000),
            frames=status.counts.frames,
            books=status.counts.books,
            malformed=status.counts.malformed,
            gaps=status.counts.gaps,
            openings=status.counts.openings,
            closed_reason=None if closing is None else closing.reason,
            closed_text=None if closing is None else closing.text,
            closed_at=None if status.closed_s is None else self._time(status.closed_s),
        )

    def _book(self, verdict: VenueVerdict, held: HeldBook | None) -> VenueBookJson:
        book = verdict.book
        reason = None if verdict.reason is None else verdict.reason.value
        if held is None:
            return VenueBookJson(venue=book.venue, currency=book.currency, used=False, reason=reason)
        return VenueBookJson(
            venue=book.venue,
            currency=book.currency,
            used=verdict.used,
            reason=reason,
            bid=format_price(book.bid),
            ask=format_price(book.ask),
            mid=_text(verdict.mid),
            mid_usd=_text(verdict.mid_usd),
            rate=_text(verdict.rate),
            as_of=self._time(book.as_of_s),
            age_ms=self._age_ms(book.as_of_s),
            delay_ms=max(0, round(held.delay_s * 1000)),
        )

    def _time(self, at_s: float) -> str:
        return format_time(self._now() - timedelta(seconds=self._clock() - at_s))

    def _age_ms(self, at_s: float) -> int:
        return max(0, round((self._clock() - at_s) * 1000))


def _text(number: Decimal | None) -> str | None:
    return None if number is None else format_price(number)
