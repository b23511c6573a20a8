"""`/v1/ws`: the operations of a client and their answers; docs/asyncapi.yaml has them in full.

    {"op":"subscribe","coins":[…],"mode":"every","since":{"bitcoin":"E-S"}}     ▶ subscribed, then quote, gap, heartbeat
    {"op":"unsubscribe","coins":[…]}                                            ▶ unsubscribed
    {"op":"subscribe","topics":["status"]}                                      ▶ subscribed, then status
    {"op":"ping"}                                                               ▶ pong

A failed operation is answered with `error`, and the connection stays open. Before the gateway closes it, `bye` says why
and when to come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cotacoes.adapters.http_server.accepting import Ended
from cotacoes.adapters.http_server.connection import Receive, Scope, Send
from cotacoes.adapters.http_server.context import Context
from cotacoes.adapters.websocket_server import PING, Handler, Handshake, Limits, ServerConnection, text_frame
from cotacoes.client.modes import Mode, parse_mode
from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, NotFoundError, ProblemError, UpgradeRequiredError
from cotacoes.errors.problem_json import problem_of, shortened
from cotacoes.errors.values import explain_message
from cotacoes.gateway_service.admission import MESSAGE_BURST_S, Admission
from cotacoes.gateway_service.connection import Connection, Ending
from cotacoes.gateway_service.encoders import WEBSOCKET, Positions
from cotacoes.gateway_service.hub import Hub
from cotacoes.gateway_service.status_topic import TOPIC, StatusTopic
from cotacoes.model.quote import Position
from cotacoes.patterns.resilience.token_bucket import TokenBucket

PATH = "/v1/ws"
PING_S = 10.0  # below the idle time after which common proxies cut a connection
ID_CHARACTERS_MAX = 64
FRAMES_PER_S = 50.0  # of any kind; answering our pings and sending its own takes a client less than one
FRAMES_A_MESSAGE = 4  # mean, if more messages than usual are allowed
_encode = msgspec.json.Encoder().encode


class _Op(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation, as a client sends it."""

    op: str
    id: str | None = None
    coins: list[str] = []
    topics: list[str] = []
    mode: str = "every"
    since: dict[str, str] = {}


_decode = msgspec.json.Decoder(_Op).decode


class WebSocketConnection(Connection[ServerConnection]):
    """One client; implements `adapters.websocket_server.Handler`."""

    wire = WEBSOCKET

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        settings: Settings,
        *,
        outlet: ServerConnection,
        address: str,
        now: float,
        ping_s: float,
        topic: StatusTopic,
    ) -> None:
        super().__init__(hub, admission, settings, outlet=outlet, address=address, now=now)
        self._topic = topic
        burst = max(1.0, settings.stream_messages_per_s * MESSAGE_BURST_S)
        self._messages = TokenBucket(settings.stream_messages_per_s, burst, now)
        self._ping_s = ping_s
        self._pinged_at: float | None = None

    def message(self, text: bytes, now: float) -> None:
        """Answer a text message; an empty one stands for any other frame that costs work."""
        if self._messages.take(now):
            self.end(Ending.RATE)
        elif text:
            self._answer(text)

    def flooded(self) -> None:
        """End the stream of a client that sends too many frames."""
        self.end(Ending.FLOOD)

    def serve(self) -> None:
        self._pinged_at = None  # nothing was read while it was full, not even an answer to a ping
        super().serve()

    def check(self, now: float) -> None:
        super().check(now)
        if self._has_ended or self.outlet.is_full:
            return
        is_answered = self._pinged_at is None or self.outlet.heard_at >= self._pinged_at
        if not is_answered and now - (self._pinged_at or now) >= self._settings.stream_stall_s:
            self.end(Ending.SLOW)
        elif is_answered and (self._pinged_at is None or now - self._pinged_at >= self._ping_s):
            self._pinged_at = now
            self.outlet.write(PING)

    def leave(self) -> None:
        self._topic.leave(self.outlet)
        super().leave()

    def _close(self, ending: Ending, retry_ms: int) -> None:
        bye = _encode({"type": "bye", "reason": ending.reason, "retry_ms": retry_ms})
        self.outlet.write(text_frame(bye))
        self.outlet.close(ending.code, ending.reason)

    def _answer(self, text: bytes) -> None:
        op = _Op(op="")
        try:
            op = _read(text)
            if op.op == "subscribe":
                self._subscribe(op)
            elif op.op == "unsubscribe":
                self._unsubscribe(op)
            elif op.op == "ping":
                self._send("pong", op.id)
            else:
                raise BadRequestError("op must be subscribe, unsubscribe or ping")
        except ProblemError as error:
            self._send("error", op.id, op=shortened(op.op, ID_CHARACTERS_MAX) or None, problem=problem_of(error))

    def _subscribe(self, op: _Op) -> None:
        coins, mode, since = self._chosen(op)
        topics = {"topics": _topics(op)} if op.topics else {}

        def subscribed(recovered: Mapping[str, bool], positions: Positions) -> None:
            begun = {
                coin: {"recovered": is_whole, "position": None if positions[coin] is None else str(positions[coin])}
                for coin, is_whole in recovered.items()
            }
            self._send("subscribed", op.id, mode=str(mode), coins=begun, **topics)
            self.outlet.write(self._hub.heartbeat(WEBSOCKET, self.positions() | positions))
            if topics:
                self._topic.join(self.outlet)

        self.subscribe(coins, mode, since, subscribed)

    def _chosen(self, op: _Op) -> tuple[list[str], Mode, dict[str, Position]]:
        coins = self._hub.choose(op.coins)
        if not coins and not op.topics:
            raise BadRequestError("coins: give at least one coin, or topics")
        most = self._settings.stream_coins_max
        if len(self.coins | set(coins)) > most:
            raise BadRequestError(f"coins: a connection may have at most {most} (COTACOES_STREAM_COINS_MAX)")
        try:
            mode = parse_mode(op.mode)
            since = {coin: Position.parse(text) for coin, text in op.since.items()}
        except ValueError as error:
            raise BadRequestError(str(error)) from error
        if strange := since.keys() - set(coins):
            raise BadRequestError(f"since: {min(strange)} is not among the coins")
        return coins, mode, since

    def _unsubscribe(self, op: _Op) -> None:
        asked = _topics(op) if op.topics else None
        coins = self.unsubscribe(op.coins)
        topics = {} if asked is None else {"topics": [topic for topic in asked if self._topic.leave(self.outlet)]}
        self._send("unsubscribed", op.id, coins=coins, **topics)

    def _send(self, kind: str, given_id: str | None, **fields: Any) -> None:
        self.outlet.write(text_frame(_encode({"type": kind, "id": given_id, **fields})))


def _topics(op: _Op) -> list[str]:
    if strange := [topic for topic in op.topics if topic != TOPIC]:
        raise BadRequestError(
            f"topics: {shortened(strange[0], ID_CHARACTERS_MAX)} is no topic: the only one is {TOPIC}"
        )
    return [TOPIC]


def _read(text: bytes) -> _Op:
    try:
        op = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"invalid message: {explain_message(error)}") from error
    if op.id is not None and len(op.id) > ID_CHARACTERS_MAX:
        raise BadRequestError(f"id: at most {ID_CHARACTERS_MAX} characters are allowed")
    return op


async def require_upgrade(_: Scope, __: Receive, ___: Send) -> None:
    """The ASGI app of the route, which gets the requests that are no handshakes."""
    raise UpgradeRequiredError(
        f"{PATH} is a WebSocket, and this request does not open one: a proxy in between must pass the headers "
        "Upgrade and Connection on"
    )


class WebSockets:
    """Accepts or refuses the handshakes of the route, and opens its connections."""

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        settings: Settings,
        *,
        clock: Callable[[], float],
        topic: StatusTopic,
        ping_s: float = PING_S,
    ) -> None:
        self._hub = hub
        self._topic = topic
        self._admission = admission
        self._settings = settings
        self._clock = clock
        self._ping_s = ping_s

    def admit(self, handshake: Handshake) -> ProblemError | Callable[[ServerConnection], Handler]:
        """Implements `adapters.websocket_server.Admit`."""
        if handshake.path.partition("?")[0] != PATH:
            return NotFoundError(f"the only WebSocket is at {PATH}")
        headers, address = handshake.headers, handshake.address
        if refusal := self._admission.refusal(headers.get("origin"), headers.get("host"), address):
            return refusal

        def opened(connection: ServerConnection) -> WebSocketConnection:
            handler = WebSocketConnection(
                self._hub,
                self._admission,
                self._settings,
                outlet=connection,
                address=address,
                now=self._clock(),
                ping_s=self._ping_s,
                topic=self._topic,
            )
            handler.open()
            return handler

        return opened

    def protocol(self, context: Context, ended: Ended) -> ServerConnection:
        """The protocol of a connection that becomes a WebSocket."""
        return ServerConnection(
            context,
            ended,
            admit=self.admit,
            limits=Limits(
                message_bytes_max=self._settings.stream_message_bytes_max,
                frames_per_s=max(FRAMES_PER_S, FRAMES_A_MESSAGE * self._settings.stream_messages_per_s),
                write_buffer_bytes=self._settings.stream_write_buffer_bytes,
            ),
        )
