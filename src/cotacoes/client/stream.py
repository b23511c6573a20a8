"""Stream is endless: it connects, subscribes, yields what comes, and connects again when the link ends.

    `anext` ──▶ wait ──▶ connect ──▶ subscribe ──▶ receive ──▶ StreamState ──▶ a quote, or a gap
                 ▲                                    │
                 └──────── the link has failed ◀──────┘

Everything happens inside `anext`: there is no task and no queue. One message is taken from the link when the caller
asks for an event. A slow caller slows the gateway down, by TCP; if the gateway cuts the link, the stream resumes.

A link on which nothing comes for `SILENT_S` is dead, since heartbeats come every 5 s. Before the next link there is a
pause with full jitter, in addition to what the gateway asked for; it grows until an event comes, not only a connection.
Errors that another try would not cure are raised: an unknown coin, a refusal with 4xx, certain close codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from random import Random
from types import TracebackType
from typing import Any, Self

import msgspec

from cotacoes.adapters.websocket_client import Link
from cotacoes.client.continuity import StreamEvent
from cotacoes.client.frames import StreamHeartbeat, read_frame
from cotacoes.client.stream_state import StreamState
from cotacoes.errors import (
    BadRequestError,
    ForbiddenError,
    InternalError,
    NotFoundError,
    ProblemError,
    RequestError,
    StreamClosedError,
    StreamError,
    StreamRefusedError,
    StreamUnavailableError,
    UnauthorizedError,
    UnavailableError,
)
from cotacoes.errors.problem_json import read_problem
from cotacoes.patterns.resilience.backoff import Backoff

SILENT_S = 11.0  # two missing heartbeats
BYE_S = 1.0  # for the gateway to close after its `bye`
ASKED_S_MAX = 60.0  # of a pause that the gateway asks for
_OUR_FAULT = frozenset({1002, 1003, 1007, 1008, 1009, 4002})  # close codes after which another try would end the same
_TEMPORARY = frozenset({408, 425, 429})  # and all from 500 on
_BY_STATUS = {401: UnauthorizedError, 403: ForbiddenError, 404: NotFoundError}

Connect = Callable[[str], Awaitable[Link]]


class Stream:
    """An async iterator of quotes and gaps, and an async context manager that closes it.

    Cancelling a wait for the next event loses nothing. After an error the stream is closed. `failure` is why there is
    no link now, None if there is one.
    """

    def __init__(
        self,
        url: str,
        state: StreamState,
        connect: Connect,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        random: Random,
        silent_s: float = SILENT_S,
    ) -> None:
        self.failure: Exception | None = None
        self._url = url
        self._state = state
        self._connect = connect
        self._clock = clock
        self._now = now
        self._silent_s = silent_s
        self._backoff = Backoff(random)
        self._link: Link | None = None
        self._connect_at = clock()
        self._heard_at = 0.0
        self._is_asked = False
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        """The next quote or gap; StaleQuote, or RequestError and StreamClosedError if another try would not help."""
        if self._is_asked:
            raise RuntimeError("another task is waiting for the next event of this stream")
        self._is_asked = True
        try:
            while not self._is_closed:
                if self._state.events:
                    return self._state.events.popleft()
                await self._go_on()
            raise StopAsyncIteration
        except Exception:
            self._end()
            raise
        finally:
            self._is_asked = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the stream with a goodbye to the gateway."""
        self._is_closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # after a `break` out of the loop no connection stays open
            self._end()

    def _end(self) -> None:
        self._is_closed = True
        link, self._link = self._link, None
        if link is not None:
            link.abort()

    async def _go_on(self) -> None:
        """Make one step: open a link, or receive one message."""
        try:
            if self._link is None:
                await self._open()
            else:
                await self._receive(self._link)
        except StreamRefusedError as refusal:
            if refusal.status < 500 and refusal.status not in _TEMPORARY:
                raise _problem(refusal) from refusal
            self._lose(refusal, refusal.retry_after_s)
        except StreamClosedError as closing:
            if closing.code in _OUR_FAULT:
                raise
            self._lose(closing)
        except (UnavailableError, InternalError) as problem:
            self._lose(problem, problem.retry_after_s)
        except StreamError as error:
            self._lose(error)

    async def _open(self) -> None:
        """Wait until it is time, connect and subscribe."""
        try:
            async with asyncio.timeout(self._stale_in_s()):
                await asyncio.sleep(max(0.0, self._connect_at - self._clock()))
                link = await self._connect(self._url)
                try:
                    await link.send(self._state.subscribe())
                except BaseException:
                    link.abort()
                    raise
                self._link = link
        except TimeoutError:
            raise self._state.stale(self._clock()) from self.failure
        self._heard_at = self._clock()
        self.failure = None

    async def _receive(self, link: Link) -> None:
        """Receive one message, or the end of the link."""
        silent_s = self._silent_s if self._state.bye is None else BYE_S
        due = min(self._heard_at + silent_s, self._state.stale_due)
        if due <= self._clock():
            # the caller was busy: first take what came meanwhile, which needs one pass of the loop and one of the link
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(max(0.0, due - self._clock())):
                message = await link.receive()
        except TimeoutError:
            if self._state.stale_due <= due:
                raise self._state.stale(self._clock()) from None
            raise StreamUnavailableError(f"nothing came for {silent_s:g} s") from None
        self._heard_at = self._clock()
        frame = read_frame(message)
        self._state.apply(frame, self._heard_at, self._now())
        if self._state.events or isinstance(frame, StreamHeartbeat):
            self._backoff.reset()

    def _lose(self, why: Exception, asked_s: float | None = None) -> None:
        """Drop the link, and plan the next one."""
        link, self._link = self._link, None
        if link is not None:
            link.abort()
        if asked_s is None and self._state.bye is not None:
            asked_s = self._state.bye.retry_s
        self.failure = why
        self._connect_at = self._clock() + self._backoff.next_s() + min(asked_s or 0.0, ASKED_S_MAX)
        self._state.lose()

    def _stale_in_s(self) -> float | None:
        left_s = self._state.stale_due - self._clock()
        return None if math.isinf(left_s) else max(0.0, left_s)


def _problem(refusal: StreamRefusedError) -> ProblemError:
    """The error that a refused handshake describes."""
    try:
        fields: Any = msgspec.json.decode(refusal.body)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        return read_problem(fields, refusal.status, refusal.retry_after_s)
    kind: type[RequestError] = _BY_STATUS.get(refusal.status, BadRequestError)
    return kind(f"the gateway {refusal}")
