"""QuoteClient asks a service over HTTP for quotes and candles; every failure comes out as one of our errors.

A refusal is raised as the error that the service raised (`UnknownCoinError`, `NoQuoteError`, …), recognised by the slug
in its problem type, with its detail, `retry_after_s` and extra fields. A service that does not answer in time, or gives
an invalid answer, is `ServiceUnavailableError`. Each call has one deadline and one bounded body, and is never retried.

Answers are decoded JSON; prices in it are strings, and stay strings. Each is checked against its type in `payloads.py`
before it is returned, so no text that is not a price, a position, a time or a name is passed on as one. A current quote
has the fields of its type and no other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from cotacoes.adapters.http_client import HttpClient, Response
from cotacoes.errors import HttpError, InvalidAnswerError, ServiceUnavailableError
from cotacoes.errors.problem_json import PROBLEM_JSON, read_problem
from cotacoes.model.payloads import CandlesJson, CurrentJson, PageJson

if TYPE_CHECKING:
    from cotacoes.feed.history import HistoryPage
    from cotacoes.model.quote import Position

ANSWER_BYTES_MAX = 16_777_216  # 10,000 quotes, or a report of 1,000 coins, have some 3 MB
DEADLINE_S = 6.0  # a service ends its own requests after 5 s
GATEWAY = "gateway_service"
T = TypeVar("T")


class QuoteClient:
    """The quotes and candles of one service, at `url`; an async context manager.

    `service` is the gateway, or quote_service, whose answers the gateway passes on. `deadline_s` applies to each call;
    `http` replaces the network.
    """

    def __init__(
        self, service: str, url: str, *, deadline_s: float = DEADLINE_S, http: HttpClient | None = None
    ) -> None:
        self._service = service
        self._url = url
        self._http = http or new_http_client([url], deadline_s)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._http.__aexit__(*error)

    async def current(self, coin: str) -> CurrentJson:
        """The current quote."""
        name = quote(coin, safe="")
        path = f"/v1/quotes/{name}/current" if self._service == GATEWAY else f"/cotacao_atual/{name}"
        answer = checked(self._service, await self._get_own(path), CurrentJson)
        try:
            return answer.checked(coin)
        except ValueError as error:
            raise ServiceUnavailableError(f"{self._service} gave an invalid answer: {error}") from error

    async def quotes(
        self,
        coin: str,
        *,
        after: str | None = None,
        last: int | None = None,
        limit: int | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> dict[str, Any]:
        """A page of the history, ascending: those after a position, of a time range (RFC 3339), or the last ones."""
        asked = query(after=after, last=last, limit=limit, **{"from": start, "to": end})
        answer = await self._get_own(f"/v1/quotes/{quote(coin, safe='')}?{asked}")
        if any(one.coin != coin for one in checked(self._service, answer, PageJson).quotes):
            raise ServiceUnavailableError(f"{self._service} answered for another coin")
        return answer

    async def pages(
        self,
        coin: str,
        *,
        after: Position | None = None,
        last: int | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> AsyncIterator[HistoryPage]:
        """All pages of the history, ascending, each checked to follow the one before.

        With a time range the first page need not follow `after`. After an UnavailableError all earlier pages are good,
        and `after` their last position continues.
        """
        # only here: a single question, such as a command's, starts without what pages need
        from cotacoes.client.answers import read_quotes
        from cotacoes.feed.history import PAGE_QUOTES

        previous = after if start is None else None
        more = True
        while more:
            position = None if after is None else str(after)
            answer = await self.quotes(coin, after=position, last=last, limit=PAGE_QUOTES, start=start, end=end)
            page = read_quotes(coin, answer, previous)
            if page.quotes:
                after = previous = page.quotes[-1].position
            more = page.more
            yield page

    async def candles(
        self,
        coin: str,
        interval: str,
        *,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        empty: bool = False,
        origin: str | None = None,
        currency: str | None = None,
    ) -> dict[str, Any]:
        """A page of candles, ascending; without `start` the last ones. `next` is the `start` of the next page."""
        asked = query(
            interval=interval,
            limit=limit,
            empty="true" if empty else None,
            origin=origin,
            currency=currency,
            **{"from": start, "to": end},
        )
        answer = await self._get_own(f"/v1/candles/{quote(coin, safe='')}?{asked}")
        checked(self._service, answer, CandlesJson)
        return answer

    async def _get_own(self, path: str) -> dict[str, Any]:
        return await self._call(self._service, "GET", self._url + path, b"", {})

    async def _call(
        self, service: str, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        try:
            if method == "PUT":
                response = await self._http.put(url, body, headers)
            else:
                response = await self._http.get(url, headers)
        except HttpError as error:
            reason = str(error).partition(":")[0]  # what follows names addresses, which the caller must not see
            raise ServiceUnavailableError(f"{service} is away ({reason})") from error
        return _answer(service, response)


def new_http_client(urls: Iterable[str], deadline_s: float) -> HttpClient:
    """The HTTP client for these addresses."""
    has_tls = any(url.lower().startswith("https:") for url in urls)
    return HttpClient(deadline_s=deadline_s, bytes_max=ANSWER_BYTES_MAX, has_tls=has_tls)


def query(**given: str | int | None) -> str:
    """The parameters that are given, as a query string."""
    return urlencode({name: value for name, value in given.items() if value is not None})


def checked(service: str, answer: Mapping[str, Any], kind: type[T]) -> T:
    """The answer as this type; ServiceUnavailableError if it is not valid."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ServiceUnavailableError(f"{service} gave an invalid answer") from error


def _answer(service: str, response: Response) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(response.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        if response.status == 200:
            return answer
        if response.headers.get("content-type", "").startswith(PROBLEM_JSON):
            raise read_problem(answer, response.status, _retry_after_s(response))
    raise InvalidAnswerError(
        f"{service} gave an invalid answer with status {response.status}",
        retry_after_s=_retry_after_s(response) or 1.0,
    )


def _retry_after_s(response: Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
