"""The topic `status` of the WebSocket: all that is known at once, then what changes, encoded once for all.

A connection that is full is left out; when it takes bytes again it gets the whole anew. A message without a change is
sent every `QUIET_S`, so that a client knows that the connection works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cotacoes.adapters.websocket_server import text_frame
from cotacoes.gateway_service.channel import Outlet
from cotacoes.gateway_service.status import Status

PUSH_S = 0.5
QUIET_S = 5.0
TOPIC = "status"
_encode = msgspec.json.Encoder().encode


class StatusTopic:
    """See the head of this file. `want` asks for the status to be kept up to date."""

    def __init__(self, status: Status, want: Callable[[], None]) -> None:
        self._status = status
        self._want = want
        self._members: dict[Outlet, bool] = {}  # whether it has all that was sent so far

    def join(self, outlet: Outlet) -> None:
        """Send the whole now, and its changes from now on."""
        self._want()
        self._members[outlet] = True
        outlet.write(self._whole())

    def leave(self, outlet: Outlet) -> bool:
        """Send no more; False if the outlet has not joined."""
        return self._members.pop(outlet, None) is not None

    async def run(self) -> None:
        """Push until cancelled."""
        quiet_s = 0.0
        while True:
            await asyncio.sleep(PUSH_S)
            quiet_s += PUSH_S
            changes = self._status.pop_changes()
            frame = None
            if len(changes) > 1 or quiet_s >= QUIET_S:  # besides the time that it is from
                quiet_s, frame = 0.0, _frame(changes)
            if self._members:
                self._want()
                self._push(frame)

    def _push(self, frame: bytes | None) -> None:
        whole: bytes | None = None
        for outlet, is_current in list(self._members.items()):
            if outlet.is_full:
                self._members[outlet] = is_current and frame is None
            elif not is_current:
                whole = whole or self._whole()
                self._members[outlet] = True
                outlet.write(whole)
            elif frame is not None:
                outlet.write(frame)

    def _whole(self) -> bytes:
        return text_frame(b'{"type":"status",%b' % self._status.encoded().removeprefix(b"{"))


def _frame(fields: dict[str, Any]) -> bytes:
    return text_frame(_encode({"type": "status", **fields}))
