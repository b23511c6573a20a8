"""The servers of the `fanout` figures: one `cotacoes gateway-service`, fed by PUBLISH into a Valkey, and its peers.

quote_service is a stand-in in this process. A peer that is not installed is left out, and the run says so in a line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from benchmarks import fanout_wire as wire
from benchmarks.fanout_history import COIN, History, quote_service
from benchmarks.fanout_program import HOLD_ALL, MissingPeerError, Server, ask_valkey, running_program
from benchmarks.peers import broadcasters
from benchmarks.servers import valkey_server
from benchmarks.system import free_port_block
from cotacoes.config import PREFIX
from cotacoes.model.live_message import channel


@contextlib.contextmanager
def ours(valkey: int) -> Iterator[Server]:
    history, port = History(), free_port_block()
    with quote_service(history) as quote_port:
        settings = {
            "PORT_BASE": str(port),
            "REDIS_URL": f"redis://127.0.0.1:{valkey}",
            "QUOTE_URL": f"http://127.0.0.1:{quote_port}",
            "COINS": f"{COIN}:shard1",
            "STREAM_ACCEPTS_PER_S": "10000",  # all clients come at once, before anything is measured
        }
        environment = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {PREFIX + name: text for name, text in settings.items()}
        command = [sys.executable, "-m", "cotacoes", "gateway-service"]
        with running_program(command, port, environment=environment) as pid:
            yield Server(
                "ours",
                pid,
                wire.into_redis(valkey, channel(COIN)),
                wire.from_gateway(port),
                wire.from_gateway_events(port),
                history,
            )


@contextlib.contextmanager
def servers(peers: Sequence[str]) -> Iterator[list[Server]]:
    """Ours and those of the peers that are here, all running, each idle while another has its turn."""
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        ask_valkey(valkey, HOLD_ALL)  # Node falls behind further than a subscriber of ours may
        found = [stack.enter_context(ours(valkey))]
        for name in peers:
            try:
                found.append(stack.enter_context(broadcasters.PEERS[name](valkey)))
            except MissingPeerError as error:
                sys.stderr.write(f"left out {name}: {error}\n")
        yield found
