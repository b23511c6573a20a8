"""The servers of the `fanout` figures: our gateway alone, and the peers, each with its defaults and its own way in.

    ours         one `cotacoes gateway-service`, fed by PUBLISH into a Valkey, quote_service a stand-in in this process
    nginx nchan  one worker, fed by its WebSocket publisher: that costs it less than a POST a message
    nats         nats-server with its WebSocket listener, fed by PUB over TCP; its clients get MSG in binary frames
    Node ws      the broadcast of the documentation of `ws`, fed from the same Valkey by a reader of a few lines

nginx (with libnginx-mod-nchan) and nats-server are packages of Debian, Node's `ws` is installed by `npm ci` into a
folder that is removed at the end. A peer that is not there is left out, and the run says so in a line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks import fanout_wire as wire
from benchmarks.fanout_history import COIN, History, quote_service
from benchmarks.figure import MeasureError
from benchmarks.servers import valkey_server
from benchmarks.system import free_port_block
from cotacoes.config import PREFIX
from cotacoes.model.live_message import channel
from cotacoes.supervision import die_with_parent, processes

READY_DEADLINE_S = 30.0
READY_POLL_S = 0.05
STOP_DEADLINE_S = 30.0
INSTALL_DEADLINE_S = 120.0
COMPLAINT_CHARS = 500
NODE_FOLDER = Path(__file__).parent / "node"
NODE_CHANNEL = "fanout"  # one of its own, so that ours and Node's are not fed by each other's rounds
HOLD_ALL = b'CONFIG SET client-output-buffer-limit "pubsub 0 0 0" maxmemory 0\r\n'  # for those who do not read

_NGINX = """\
load_module modules/ngx_nchan_module.so;
{user}daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location = /publish {{ nchan_publisher; nchan_channel_id quotes; }}
    location = /subscribe {{ nchan_subscriber; nchan_channel_id quotes; nchan_subscriber_first_message newest; }}
  }}
}}
"""
_NATS = """\
listen: "127.0.0.1:{port}"
websocket {{ listen: "127.0.0.1:{websocket}", no_tls: true }}
"""


class MissingPeerError(Exception):
    """The peer's program is not here; the message says what to install."""


@dataclass(frozen=True)
class Server:
    """A server under measure. `history` is of ours alone, whose stand-in answers from it."""

    name: str
    pid: int
    ingress: wire.Ingress
    websocket: wire.Egress
    events: wire.Egress | None = None
    history: History | None = None

    def cpu_s(self) -> float:
        """User and system time so far, its own and its workers'."""
        return sum(times.user + times.system for times in (one.cpu_times() for one in processes.family(self.pid)))


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
        with _running(command, port, environment=environment) as pid:
            yield Server(
                "ours",
                pid,
                wire.into_redis(valkey, channel(COIN)),
                wire.from_gateway(port),
                wire.from_gateway_events(port),
                history,
            )


@contextlib.contextmanager
def nchan(_: int) -> Iterator[Server]:
    program = find_program("nginx", "apt-get install nginx libnginx-mod-nchan")
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        port, config = free_port_block(), Path(place) / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""  # else its worker may not enter the folder
        config.write_text(_NGINX.format(folder=place, port=port, user=user))
        if subprocess.run([program, "-t", "-q", "-c", str(config)], capture_output=True, check=False).returncode:
            raise MissingPeerError("nginx has no nchan: apt-get install libnginx-mod-nchan")
        with _running([program, "-c", str(config)], port) as pid:
            yield Server(
                "nginx nchan",
                pid,
                wire.into_nchan(port),
                wire.from_start(port, wire.upgrade("/subscribe")),
                wire.from_start(port, wire.event_stream("/subscribe")),
            )


@contextlib.contextmanager
def nats(_: int) -> Iterator[Server]:
    program = find_program("nats-server", "apt-get install nats-server")
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        port, config = free_port_block(), Path(place) / "nats.conf"
        config.write_text(_NATS.format(port=port, websocket=port + 1))
        with _running([program, "-c", str(config)], port + 1) as pid:
            yield Server("nats", pid, wire.into_nats(port), wire.from_nats(port + 1))


@contextlib.contextmanager
def node(valkey: int) -> Iterator[Server]:
    program, npm = find_program("node", "Node.js"), find_program("npm", "npm")
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        folder, port = Path(place) / "node", free_port_block()
        shutil.copytree(NODE_FOLDER, folder)
        command = [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=INSTALL_DEADLINE_S, check=False)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode:
            raise MissingPeerError("`npm ci` does not get ws from the registry")
        script = [program, str(folder / "broadcast.js"), str(port), str(valkey), NODE_CHANNEL]
        with _running(script, port) as pid:
            yield Server(
                "Node ws",
                pid,
                wire.into_redis(valkey, NODE_CHANNEL),
                wire.from_start(port, wire.upgrade("/")),
            )


PEERS = {"nginx nchan": nchan, "nats": nats, "Node ws": node}


@contextlib.contextmanager
def servers(peers: Sequence[str]) -> Iterator[list[Server]]:
    """Ours and those of the peers that are here, all running, each idle while another has its turn."""
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        ask_valkey(valkey, HOLD_ALL)  # Node falls behind further than a subscriber of ours may
        found = [stack.enter_context(ours(valkey))]
        for name in peers:
            try:
                found.append(stack.enter_context(PEERS[name](valkey)))
            except MissingPeerError as error:
                sys.stderr.write(f"left out {name}: {error}\n")
        yield found


def ask_valkey(port: int, command: bytes) -> None:
    """One command that answers with OK or a number; MeasureError where it does not."""
    with socket.create_connection(("127.0.0.1", port), READY_DEADLINE_S) as link:
        link.sendall(command)
        if (said := link.recv(1024))[:1] not in (b"+", b":"):
            raise MeasureError(f"Valkey refused: {said.decode(errors='replace').strip()}")


def find_program(name: str, hint: str) -> str:
    """Its path; MissingPeerError where it is not there."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise MissingPeerError(f"there is no {name}: {hint}")
    return found


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, *, environment: dict[str, str] | None = None) -> Iterator[int]:
    """The number of the process of a program that listens on `port`; it does not outlive us."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*die_with_parent.launcher(signal.SIGTERM), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            due = time.monotonic() + READY_DEADLINE_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > due:
                    raise MeasureError(f"{command[0]} does not listen on port {port}: {_said(complaints)}")
                time.sleep(READY_POLL_S)
            yield process.pid
            if process.poll() is not None:
                raise MeasureError(f"{command[0]} ended by itself: {_said(complaints)}")
        finally:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                processes.kill(processes.family(process.pid))
                process.wait()


def _said(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    return complaints.read().decode(errors="replace")[-COMPLAINT_CHARS:].strip()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1.0).close()
        return True
    return False
