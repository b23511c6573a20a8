"""The checks of the exchanges that are followed: each connection, our clock against theirs, and the price of each coin.

They say nothing if exchanges are not the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cotacoes.doctor.facts import Facts
from cotacoes.doctor.finding import Judgement, error, ok, warning
from cotacoes.doctor.machine_checks import SET_CLOCK
from cotacoes.model.listing import listed
from cotacoes.model.venues import ConsensusJson, FeedJson, VenuesJson, short_price

FEED_SERVICE = "feed_service"
SKEW_CALM_MS = 1_000  # as much as an exchange's own clock was wrong by in a recording
CLOCKS_MIN = 2  # one venue alone may be the one that is wrong
NAMED_MAX = 10
SHOWN_MAX = 200  # characters of what a venue or a proxy said

# What to do about the end of a connection, if its own text does not say so.
_AGAIN = "a new connection is opened by itself"
_HELP: Mapping[str, str] = {
    "timed_out": f"check the network and any firewall; {_AGAIN}",
    "no_websocket": "check COTACOES_VENUE_URLS, and any proxy or captive portal on the way",
    "blocked": "leave it out with COTACOES_VENUES, or name another address in COTACOES_VENUE_URLS",
    "rate_limited": "it is tried again when the venue permits; other programs at this address count too",
    "banned": "it is tried again after that; other programs at this address count too",
    "refused": "check COTACOES_VENUE_URLS",
    "broken_protocol": f"check any proxy on the way; {_AGAIN}",
    "subscription_refused": "check COTACOES_VENUE_SYMBOLS",
    "never": "correct its symbol in COTACOES_VENUE_SYMBOLS, or leave it out there with an empty one",
    "gapped": f"the network loses frames, or this machine is too busy; {_AGAIN}",
}
REASONS: Mapping[str, str] = {
    "empty": "no book",
    "crossed": "bid above ask",
    "stale": "book too old",
    "future": "book from the future",
    "wide": "bid and ask too far apart",
    "no_rate": "no agreed rate to the dollar",
    "outlier": "far from the others",
    "disputed": "not confirmed by a majority",
    "held": "too far from the last agreed price",
    "alone": "nobody confirms it",
}


def venues(facts: Facts) -> Iterator[Judgement]:
    """Check the connection to each venue."""
    if facts.venues_problem is not None:
        yield error(f"what the venues say is not known: {facts.venues_problem}", facts.start_of(FEED_SERVICE))
    elif facts.venues is not None:
        judged = [*_away(facts.venues.feeds), *(one for feed in facts.venues.feeds for one in _feed(facts, feed))]
        yield from judged
        if not judged:
            yield ok(f"live: {listed([feed.venue for feed in facts.venues.feeds], NAMED_MAX)}")


def _away(feeds: Sequence[FeedJson]) -> Iterator[Judgement]:
    """The venues that are not live, together if their connections ended alike: then it may be the network."""
    away: dict[str, list[FeedJson]] = {}
    for feed in feeds:
        if feed.state != "live" and feed.breaker != "forced_open":
            away.setdefault(_last_end(feed), []).append(feed)
    for end, alike in away.items():
        if len(alike) == 1:
            (feed,) = alike
            yield warning(f"{feed.venue} is not live ({feed.state}, {feed.url}){end}")
        else:
            names = listed([feed.venue for feed in alike], NAMED_MAX)
            yield (error if len(alike) == len(feeds) else warning)(f"{names} are not live{end}")


def _feed(facts: Facts, feed: FeedJson) -> Iterator[Judgement]:
    if feed.breaker == "forced_open":
        breaker = f"{FEED_SERVICE}/{feed.venue}.connect"
        yield warning(
            f"{feed.venue} gets no new connection: its circuit was forced open",
            facts.command("breakers", breaker, "closed"),
        )
    for coin, reason in feed.absent.items():
        yield warning(
            f"{feed.venue} does not send {coin} ({reason[:SHOWN_MAX]}): correct its symbol with "
            f"COTACOES_VENUE_SYMBOLS={feed.venue}:{coin}:SYMBOL, or leave it out there without a symbol"
        )
    if feed.malformed and not feed.books:
        yield warning(f"no frame of {feed.venue} can be read ({feed.malformed} so far): install a newer cotacoes")


def _last_end(feed: FeedJson) -> str:
    if feed.closed_reason is None or feed.closed_text is None:
        return ""
    return f": {feed.closed_text[:SHOWN_MAX]}; {_HELP.get(feed.closed_reason, _AGAIN)}"


def venue_clock(facts: Facts) -> Iterator[Judgement]:
    """Compare the clock with those of the venues: if it differs from all of them alike, it is ours that is wrong."""
    if facts.venues is None:
        return
    skews = {feed.venue: feed.skew_ms for feed in facts.venues.feeds if feed.skew_ms is not None}
    if not skews:
        return
    ahead_ms, behind_ms = min(skews.values()), -max(skews.values())
    if len(skews) >= CLOCKS_MIN and max(ahead_ms, behind_ms) > SKEW_CALM_MS:
        side = "ahead of" if ahead_ms > 0 else "behind"
        yield warning(
            f"this machine's clock is {max(ahead_ms, behind_ms) / 1000:.1f} s or more {side} those of "
            f"{listed(list(skews), NAMED_MAX)}, so prices bear wrong times, and if it is far ahead, every book seems "
            "too old: set it",
            SET_CLOCK,
        )
    else:
        most = max(skews, key=lambda venue: abs(skews[venue]))
        yield ok(
            "the venues do not show the clock to be wrong: "
            f"that of {most} differs most, by {abs(skews[most]) / 1000:.1f} s"
        )


def consensus(facts: Facts) -> Iterator[Judgement]:
    """Check that the venues agree on a price of each coin."""
    if facts.venues is None:
        return
    troubles = [judgement for coin in facts.venues.coins for judgement in _coin(facts.venues, coin)]
    yield from troubles
    agreed = [coin for coin in facts.venues.coins if coin.state == "agreed"]
    if agreed and not troubles:
        yield ok(f"the venues agree on {', '.join(f'{coin.coin} ({_used(coin)})' for coin in agreed[:NAMED_MAX])}")


def _coin(venues: VenuesJson, coin: ConsensusJson) -> Iterator[Judgement]:
    reasons = "; ".join(_why_not(venues, coin))
    match coin.state:
        case "disputed":
            yield error(f"the venues disagree on {coin.coin}, so it gets no new price: {reasons}")
        case "none":
            yield error(f"no venue has a usable price of {coin.coin}: {reasons or 'none of them lists it'}")
        case "thin":
            yield warning(
                f"{coin.coin} has a price of only {_used(coin)} venues, which cannot outvote a wrong one: "
                f"{reasons or 'no other venue lists it'}"
            )


def _used(coin: ConsensusJson) -> str:
    return f"{coin.used} of {coin.of}"


def _why_not(venues: VenuesJson, coin: ConsensusJson) -> Iterator[str]:
    """Why each venue is not used for the price of the coin, and where the coin stands there."""
    not_live = {feed.venue: feed for feed in venues.feeds if feed.state != "live"}
    for book in coin.venues:
        if book.reason is not None:
            feed = not_live.get(book.venue)
            why = REASONS.get(book.reason, book.reason) if feed is None else f"not live ({feed.state})"
            yield f"{book.venue} {why}" + ("" if book.mid_usd is None else f" ({short_price(book.mid_usd)} USD)")
