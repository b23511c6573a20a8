"""Facts about the machine and its ports. Blocks; writes nothing and opens no connection."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from cotacoes.config import PORT_OFFSETS
from cotacoes.doctor.facts import Machine, Port
from cotacoes.errors import SettingError
from cotacoes.up import embedded_servers
from cotacoes.up.topology import why_not_bound

NAMESPACE_DEADLINE_S = 1.5
PORT_BASE_STEP = 100
PORT_BASES_TRIED = 20
PORT_BASE_MAX = 65_000
_ANY = frozenset({"127.0.0.1", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"})  # noqa: S104  # compared, not bound


def inspect_machine(folder: Path) -> Machine:
    """The facts about this computer, and the disk of the folder."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return Machine(
        python=sys.version_info[:3],
        platform=f"{platform.system()} {platform.machine()}",
        no_servers=_why_no_servers(),
        no_namespaces=_why_no_namespaces(),
        disk_free_bytes=shutil.disk_usage(there).free,
        memory_free_bytes=psutil.virtual_memory().available,
    )


def _why_no_servers() -> str | None:
    try:
        programs = [embedded_servers.postgres_folder() / "postgres", embedded_servers.valkey_server()]
    except SettingError as error:
        return str(error)
    closed = [str(program) for program in programs if not os.access(program, os.X_OK)]
    return f"{closed[0]} may not be executed" if closed else None


def _why_no_namespaces() -> str | None:
    """Why there is no user namespace, in which PostgreSQL runs for root; None if there is, or it is not needed."""
    if os.geteuid() != 0:
        return None
    refusal = "PostgreSQL refuses to run as root, and this machine permits no user namespace: run as an ordinary user"
    unshare = shutil.which("unshare")
    if unshare is None:
        return refusal
    command = [
        unshare,
        "--user",
        f"--map-user={embedded_servers.NOBODY}",
        f"--map-group={embedded_servers.NOBODY}",
        "true",
    ]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run(command, capture_output=True, timeout=NAMESPACE_DEADLINE_S, check=False).returncode == 0:
            return None
    return refusal


class Listeners:
    """The processes that listen on loopback, by port; a pid is None if the system does not show it to us."""

    def __init__(self) -> None:
        self._by_port: defaultdict[int, set[int | None]] = defaultdict(set)
        with contextlib.suppress(psutil.Error):  # macOS shows it to root only; then a bind must do
            for one in psutil.net_connections(kind="tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.ip in _ANY:
                    self._by_port[one.laddr.port].add(one.pid)

    def check(self, ports: Mapping[str, int], ours: Collection[int]) -> list[Port]:
        """The port of each service, with the process that has it if that is not one of `ours`."""
        return [Port(service, number, self._taker(number, ours)) for service, number in ports.items()]

    def free_base(self, above: int) -> int | None:
        """The next port base on which everything is free."""
        for base in range(above + PORT_BASE_STEP, above + PORT_BASE_STEP * PORT_BASES_TRIED, PORT_BASE_STEP):
            if base <= PORT_BASE_MAX and not any(self._taker(base + offset, ()) for offset in PORT_OFFSETS.values()):
                return base
        return None

    def _taker(self, port: int, ours: Collection[int]) -> str | None:
        pids = self._by_port.get(port)
        if pids is None:
            reason = why_not_bound(port)
            return None if reason is None else f"an unknown process ({reason})"
        strangers = pids.difference(ours)
        return _in_words(next(iter(strangers))) if strangers else None


def _in_words(pid: int | None) -> str:
    with contextlib.suppress(psutil.Error):
        if pid is not None:
            return f"{psutil.Process(pid).name()} (pid {pid})"
    return "a process of another user"
