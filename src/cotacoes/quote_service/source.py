"""The source over HTTP: asks for its newest prices, or for a page of its tape.

Hands on the body of a good answer to `source_quote.py` or `source_pages.py`, which read it, and turns every other
answer into a SourceError that says whether it helps to try again.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable, Container
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlencode

from cotacoes.adapters.http_client import Response
from cotacoes.errors import (
    HttpMalformedError,
    HttpUnavailableError,
    SourceGoneError,
    SourceMalformedError,
    SourceUnavailableError,
)
from cotacoes.model.quote import utc_now
from cotacoes.patterns.resilience.classification import Outcome, outcome_of_status
from cotacoes.quote_service.source_pages import TapePage, read_page, read_restart
from cotacoes.quote_service.source_quote import Fetched, read_quote

RETRY_AFTER_MAX_S = 300.0  # a source that asks for a longer pause is asked again all the same


class Get(Protocol):
    """The part of an HTTP client that is used here."""

    async def get(self, url: str) -> Response: ...


class HttpSource:
    """The source at the base address `url`, for `coins`, which may become more.

    `now` gives the wall time, to read a date in `Retry-After`. Every method raises SourceUnavailableError (with the
    pause that the source asks for) and SourceMalformedError.
    """

    def __init__(self, client: Get, url: str, coins: Container[str], *, now: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._coins = coins
        self._now = now

    async def fetch(self) -> Fetched:
        """The newest price of every coin."""
        response = await self._get("/quote")
        if response.status != 200:
            raise _unexpected(response.status)
        return await read_quote(response.body, self._coins)

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        """The prices after a cursor (None: from the first); an empty page if none comes within `wait_s`.

        SourceGoneError, with a cursor to begin with, if the source no longer knows this one.
        """
        query: dict[str, str | int] = {"limit": limit, "wait_ms": round(wait_s * 1000)}
        if cursor is not None:
            query["after"] = cursor
        response = await self._get(f"/quotes?{urlencode(query)}")
        if response.status == 410:
            raise SourceGoneError("the source no longer knows the cursor", cursor=read_restart(response.body))
        if response.status != 200:
            raise _unexpected(response.status)
        return await read_page(response.body, self._coins, limit)

    async def _get(self, path: str) -> Response:
        """The answer; an error if the source has none for now."""
        try:
            response = await self._client.get(self._url + path)
        except HttpUnavailableError as error:
            raise SourceUnavailableError(str(error), outcome=error.outcome) from error
        except HttpMalformedError as error:
            raise SourceMalformedError(str(error), outcome=error.outcome) from error
        if response.status == 429 or response.status >= 500:
            raise SourceUnavailableError(
                f"the source answered {response.status}",
                retry_after_s=read_retry_after(response.headers.get("retry-after"), self._now()),
                outcome=outcome_of_status(response.status),
            )
        return response


def _unexpected(status: int) -> SourceMalformedError:
    outcome = outcome_of_status(status)
    return SourceMalformedError(
        f"the source answered {status}", outcome=Outcome.MALFORMED if outcome is Outcome.OK else outcome
    )


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from 0 to `RETRY_AFTER_MAX_S`, from a number or an HTTP date; None if the value is absent or neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return RETRY_AFTER_MAX_S if len(value) > 6 else min(float(value), RETRY_AFTER_MAX_S)
    try:
        date = email.utils.parsedate_to_datetime(value)
        wait_s = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)
