"""`/v1/stream`: the live stream as server-sent events, for EventSource in a browser and for programs that read lines.

`?coins=bitcoin,ethereum&mode=every`; it resumes after `Last-Event-ID`, which a browser sends by itself, or after
`since=` in the same form. Every mistake in a request is answered before the stream begins: after that, a browser comes
back by itself, and losses are reported as gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from cotacoes.adapters.http_server.connection import HttpStream, Receive, Scope, Send, open_stream
from cotacoes.client.modes import Mode, parse_mode
from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, MethodNotAllowedError
from cotacoes.gateway_service.admission import Admission
from cotacoes.gateway_service.connection import Connection, Ending
from cotacoes.gateway_service.encoders import EVENT_STREAM, RETRY_MS, parse_cursor, retry
from cotacoes.gateway_service.hub import Hub
from cotacoes.model.quote import Position

PATH = "/v1/stream"
MEDIA_TYPE = "text/event-stream"
_KNOWN = {"coins", "mode", "since"}


class EventStreamConnection(Connection[HttpStream]):
    """One client; implements `adapters.http_server.exchange.StreamHandler`."""

    wire = EVENT_STREAM

    def _close(self, ending: Ending, retry_ms: int) -> None:
        self.outlet.write(retry(retry_ms))
        self.outlet.close()


class EventStreams:
    """The ASGI app of the route."""

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        settings: Settings,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._admission = admission
        self._settings = settings
        self._clock = clock

    async def __call__(self, scope: Scope, _: Receive, __: Send) -> None:
        if scope["method"] != "GET":
            raise MethodNotAllowedError("this route supports GET")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        address: str = scope["client"][0]
        if refusal := self._admission.refusal(origin, headers.get(b"host"), address):
            raise refusal
        coins, mode, since = self._read(scope["query_string"], headers.get(b"last-event-id", ""))
        answer_headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "x-accel-buffering": "no"}
        if origin is not None and self._admission.is_listed(origin):
            answer_headers |= {"access-control-allow-origin": origin, "vary": "origin"}

        def opened(stream: HttpStream) -> EventStreamConnection:
            stream.write(b": cotacoes\n" + retry(RETRY_MS))
            connection = EventStreamConnection(
                self._hub, self._admission, self._settings, outlet=stream, address=address, now=self._clock()
            )
            connection.open()
            # no answer precedes the first event, but the time of ours does
            connection.subscribe(
                coins, mode, since, lambda _, positions: stream.write(self._hub.heartbeat(EVENT_STREAM, positions))
            )
            return connection

        open_stream(scope, answer_headers, write_buffer_bytes=self._settings.stream_write_buffer_bytes, handler=opened)

    def _read(self, query: bytes, last_event_id: str) -> tuple[list[str], Mode, dict[str, Position]]:
        asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        given = dict(asked)
        if len(given) != len(asked) or not given.keys() <= _KNOWN:
            raise BadRequestError("the parameters are coins, mode and since, each at most once")
        coins = self._hub.choose(filter(None, given.get("coins", "").split(",")))
        most = self._settings.stream_coins_max
        if not 0 < len(coins) <= most:
            raise BadRequestError(f"coins: name 1 to {most} of them (COTACOES_STREAM_COINS_MAX)")
        cursor = last_event_id or given.get("since", "")
        try:
            since = parse_cursor(cursor) if cursor else {}
            return coins, parse_mode(given.get("mode", "every")), {c: p for c, p in since.items() if c in coins}
        except ValueError as error:
            raise BadRequestError(str(error)) from error
