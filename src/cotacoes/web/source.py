"""What every source of prices has: the route that gives its tape, and the coins that were added to it."""

# no `from __future__ import annotations`: those of the route below name its function's arguments

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from cotacoes.errors import BadRequestError, CursorGoneError
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS, SourcePageJson
from cotacoes.model.quote import COIN_PATTERN
from cotacoes.observability.logs import get_logger
from cotacoes.observability.whole_file import replace_file
from cotacoes.web.document import answering

PAGE_QUOTES_MAX = 10_000
WAIT_MS_MAX = 4_000  # below the deadline of a request
WAITS_MAX = 64  # requests that may wait at once; far fewer than a service takes, so strangers cannot fill it by waiting


def add_tape(
    router: APIRouter,
    page: Callable[[str | None, int, float], Awaitable[Response]],
    *,
    first: str,
    cursor_rule: str,
    wait_s_max: float,
    also: dict[str, str] | None = None,
) -> None:
    """Add `GET /quotes`. `page` gets the cursor, how many prices at most, and how many seconds it may wait for one.

    `first` says where a reader without a cursor begins, `also` describes further answers by status.
    """
    waits = 0

    @router.get(
        "/quotes",
        summary="Every price after a cursor, in order",
        **answering(SourcePageJson, BadRequestError, CursorGoneError, also=also),
    )
    async def quotes(
        after: Annotated[
            str | None,
            Query(
                description=f"`next` of the page before; absent: from {first}",
                json_schema_extra={"pattern": cursor_rule},
            ),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_QUOTES_MAX)] = 1000,
        wait_ms: Annotated[
            int, Query(ge=0, le=WAIT_MS_MAX, description="how long to wait for a price if there is no new one")
        ] = 0,
    ) -> Response:
        """A cursor of another run gets a 410 with the cursor to begin with, `next`.

        If too many requests wait already, the page is empty at once.
        """
        nonlocal waits
        wait_s = min(wait_ms / 1000, wait_s_max) if waits < WAITS_MAX else 0.0
        waits += wait_s > 0
        try:
            return await page(after, limit, wait_s)
        finally:
            waits -= wait_s > 0


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
