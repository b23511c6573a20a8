"""What every source of prices has: the route that gives its tape, and the coins that were added to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Response

from cotacoes.adapters.http_server.connection import Receive, Scope, Send
from cotacoes.errors import BadRequestError, CursorGoneError
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS, SourcePageJson
from cotacoes.model.quote import COIN_PATTERN
from cotacoes.observability.logs import get_logger
from cotacoes.observability.whole_file import replace_file
from cotacoes.web.document import answering, query_parameters
from cotacoes.web.requests import whole_number

TAPE_PATH = "/quotes"
PAGE_QUOTES_MAX = 10_000
WAIT_MS_MAX = 4_000  # below the deadline of a request
WAITS_MAX = 64  # requests that may wait at once; far fewer than a service takes, so strangers cannot fill it by waiting


class TapeRoute:
    """The app of `GET /quotes`, without the framework, which would take longer than all else that a page costs.

    `page` gets the cursor, how many prices at most, and how many seconds it may wait for one.
    """

    def __init__(self, page: Callable[[str | None, int, float], Awaitable[Response]], *, wait_s_max: float) -> None:
        self._page = page
        self._wait_s_max = wait_s_max
        self._waits = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        limit = whole_number("limit", given.get("limit", "1000"), 1, PAGE_QUOTES_MAX)
        wait_ms = whole_number("wait_ms", given.get("wait_ms", "0"), 0, WAIT_MS_MAX)
        wait_s = min(wait_ms / 1000, self._wait_s_max) if self._waits < WAITS_MAX else 0.0
        self._waits += wait_s > 0
        try:
            response = await self._page(given.get("after"), limit, wait_s)
        finally:
            self._waits -= wait_s > 0
        await response(scope, receive, send)


def document_tape(router: APIRouter, *, first: str, cursor_rule: str, also: Mapping[str, str] | None = None) -> None:
    """Add the same route for `/docs` and `/openapi.json`.

    `first` says where a reader without a cursor begins, `also` describes further answers by status.
    """
    answers = answering(SourcePageJson, BadRequestError, CursorGoneError, also=also)
    described: dict[str, tuple[str, dict[str, object]]] = {
        "after": (
            f"`next` of the page before; absent: from {first}",
            {"type": "string", "pattern": cursor_rule},
        ),
        "limit": (
            "how many prices at most",
            {"type": "integer", "minimum": 1, "maximum": PAGE_QUOTES_MAX, "default": 1000},
        ),
        "wait_ms": (
            "how long to wait for a price if there is no new one",
            {"type": "integer", "minimum": 0, "maximum": WAIT_MS_MAX, "default": 0},
        ),
    }
    answers["openapi_extra"]["parameters"] = query_parameters(described)

    @router.get(TAPE_PATH, summary="Every price after a cursor, in order", **answers)
    async def quotes() -> None:
        """A cursor of another run gets a 410 with the cursor to begin with, `next`.

        If too many requests wait already, the page is empty at once.
        """
        raise AssertionError("the direct route answers it")


class AddableCoins:
    """The coins of a source: those of the settings, `seed`, and those that were added, which a restart remembers.

    `file` remembers them; None: none is remembered. No coin is added beyond `limit` in all.
    """

    def __init__(self, seed: Iterable[str], file: Path | None, *, limit: int) -> None:
        self._seed = dict.fromkeys(seed)
        self._file = file
        self._limit = limit
        self._coins = list(dict.fromkeys([*self._seed, *self._remembered()]))[: max(limit, len(self._seed))]

    def __iter__(self) -> Iterator[str]:
        return iter(self._coins)

    def __contains__(self, coin: object) -> bool:
        return coin in self._coins

    def check(self, coin: str) -> None:
        """BadRequestError if this coin, which is not among them, cannot be added."""
        if not _is_addable(coin):
            raise BadRequestError("coin: write 1 to 32 of a-z 0-9 -, and no field of /quote")
        if len(self._coins) >= self._limit:
            raise BadRequestError(f"coin: the limit of {self._limit:,} coins is reached")

    def add(self, coin: str, **logged: object) -> None:
        """Add a coin; BadRequestError as in `check`. `logged` goes into the log beside its name."""
        self.check(coin)
        self._coins.append(coin)
        added = [coin for coin in self._coins if coin not in self._seed]
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                replace_file(self._file, json.dumps(added).encode())
        except OSError as error:  # it is there all the same, until a restart
            get_logger().warning("coin.forgotten", reason=error.strerror)
        get_logger().info("coin.added", coin=coin, **logged)

    def _remembered(self) -> list[str]:
        if self._file is None:
            return []
        try:
            names = msgspec.json.decode(self._file.read_bytes(), type=list[str])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return []
        return list(filter(_is_addable, names))


def _is_addable(coin: str) -> bool:
    return COIN_PATTERN.match(coin) is not None and coin not in SOURCE_QUOTE_FIELDS
