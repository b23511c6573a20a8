"""This process as the writer of its coins, until another process takes one of them over."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from cotacoes.errors import WriterSupersededError
from cotacoes.observability.logs import get_logger


class Writer:
    """`name` stands in the shards' fences. `on_stand_down` is called when another writer has taken over."""

    def __init__(self, on_stand_down: Callable[[], None]) -> None:
        self.name = secrets.token_hex(8)
        self.is_superseded = False  # another writer has taken over: nothing more is recorded or published
        self._on_stand_down = on_stand_down

    def stand_down(self, coin: str, error: WriterSupersededError) -> None:
        """A shard has refused this writer, because a newer one has the coin."""
        get_logger().error("writer.superseded", coin=coin, reason=str(error))
        self.is_superseded = True
        self._on_stand_down()
