"""`intake`: quotes a second that one subscriber process takes in from Redis, decoded, their positions accounted for.

Ours is `RedisBus.subscribe` with the messages of a publisher under load, 100 lines each; the peer is `listen()` of
redis-py with one quote a message, as one would write it. Both find a flood that waits in Valkey, published before they
begin, so that nothing but they limits; what Valkey may hold for a subscriber is unbounded for that.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence

from benchmarks import fanout_wire as wire
from benchmarks.fanout_history import COIN, make_quotes
from benchmarks.fanout_intake_listener import DEADLINE_S, GO, KINDS
from benchmarks.fanout_program import HOLD_ALL, ask_valkey
from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.helper_process import helper_process
from benchmarks.servers import valkey_server
from cotacoes.model.live_message import channel, encode_quote
from cotacoes.quote_service.publisher import MESSAGE_LINES_MAX

AIM = Aim(3.0, is_floor=True)
FLOOD_RATE = 50_000  # quotes of a run by its seconds: about what the peer takes in that time
PIPELINED_BYTES = 1_000_000
REPLY_BYTES = 65_536
LINES = {"ours": MESSAGE_LINES_MAX, "redis-py": 1}


def measure(effort: Effort) -> list[Row]:
    lines = [encode_quote(quote) for quote in make_quotes(1, max(1, int(effort.seconds * FLOOD_RATE)), FLOOD_RATE)]
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with valkey_server() as port:
        ask_valkey(port, HOLD_ALL)
        for number in range(effort.runs):
            for kind in KINDS if number % 2 else reversed(KINDS):
                rates[kind].append(_run(port, kind, lines))
    ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["redis-py"], strict=True)]
    return [
        Row("intake", "of redis-py's", ratios, AIM),
        *(Row(f"intake {kind}", "quotes/s", found) for kind, found in rates.items()),
    ]


def _run(port: int, kind: str, lines: Sequence[bytes]) -> float:
    with helper_process("benchmarks.fanout_intake_listener", kind, str(port), str(len(lines))) as listener:
        assert listener.stdout is not None
        if listener.stdout.readline() != "ready\n":
            raise MeasureError(f"{kind} did not subscribe")
        _flood(port, batched(lines, LINES[kind]))
        ask_valkey(port, f"LPUSH {GO} 1\r\n".encode())
        try:
            output, _ = listener.communicate(timeout=2 * DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"{kind} did not end") from error
    if listener.returncode:
        raise MeasureError(f"{kind} did not take in all of {len(lines)} quotes, in order, within {DEADLINE_S:g} s")
    return len(lines) / float(output)


def batched(lines: Sequence[bytes], size: int) -> list[bytes]:
    """Messages of so many lines."""
    return [b"\n".join(lines[start : start + size]) for start in range(0, len(lines), size)]


def _flood(port: int, messages: Sequence[bytes]) -> None:
    """Publish all, in few writes."""
    ingress = wire.into_redis(port, channel(COIN))
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as feed:
        size = max(1, PIPELINED_BYTES // len(messages[0]))
        for start in range(0, len(messages), size):
            part = messages[start : start + size]
            feed.sendall(b"".join(map(ingress.wrap, part)))
            replies = 0
            while replies < len(part):
                said = feed.recv(REPLY_BYTES)
                replies += said.count(b":1\r\n")
                if not said:
                    raise MeasureError("Valkey ended the flood")
