"""Broadcasters beside our gateway: nginx with nchan, nats-server, and Node's `ws`, each with its defaults.

    nginx nchan  one worker, fed by its WebSocket publisher: that costs it less than a POST a message
    nats         nats-server with its WebSocket listener, fed by PUB over TCP; its clients get MSG in binary frames
    Node ws      the broadcast of the documentation of `ws`, fed from the same Valkey by a reader of a few lines

nginx (with libnginx-mod-nchan) and nats-server are packages of Debian, Node's `ws` is installed by `npm ci` into a
folder that is removed at the end. MissingPeerError says what to install.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import fanout_wire as wire
from benchmarks.fanout_program import MissingPeerError, Server, find_program, running_program
from benchmarks.system import free_port_block

INSTALL_DEADLINE_S = 120.0
NODE_FOLDER = Path(__file__).parent / "node"
NODE_CHANNEL = "fanout"  # one of its own, so that ours and Node's are not fed by each other's rounds

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


@contextlib.contextmanager
def nchan(_: int) -> Iterator[Server]:
    program = find_program("nginx", "apt-get install nginx libnginx-mod-nchan")
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        port, config = free_port_block(), Path(place) / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""  # else its worker may not enter the folder
        config.write_text(_NGINX.format(folder=place, port=port, user=user))
        if subprocess.run([program, "-t", "-q", "-c", str(config)], capture_output=True, check=False).returncode:
            raise MissingPeerError("nginx has no nchan: apt-get install libnginx-mod-nchan")
        with running_program([program, "-c", str(config)], port) as pid:
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
        with running_program([program, "-c", str(config)], port + 1) as pid:
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
        with running_program(script, port) as pid:
            yield Server(
                "Node ws",
                pid,
                wire.into_redis(valkey, NODE_CHANNEL),
                wire.from_start(port, wire.upgrade("/")),
            )


PEERS = {"nginx nchan": nchan, "nats": nats, "Node ws": node}
