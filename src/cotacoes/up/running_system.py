"""The running system from its first start to its last stop: supervision, control channel, live view and logs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, SettingError
from cotacoes.errors.exit_codes import INTERRUPTED
from cotacoes.up import embedded_servers
from cotacoes.up.control import SECRET, ControlServer
from cotacoes.up.data_folder import DataFolder, ServiceLogs
from cotacoes.up.live_view import LiveView
from cotacoes.up.supervision.service import Hooks, ServiceSpec
from cotacoes.up.supervision.supervisor import OneTimeTask, Supervisor

TABLE_DUE_S = 6.0  # the table is shown by then, even if some services still start


@dataclass(frozen=True)
class Topology:
    """The services, the steps between them, their settings, and the variables that `cotacoes env` prints."""

    settings: Settings
    services: Sequence[ServiceSpec]
    steps: Sequence[OneTimeTask]
    exports: Mapping[str, str]


class RunningSystem:
    """One run of the whole system: construct it, then await `run`."""

    def __init__(self, topology: Topology, folder: DataFolder, view: LiveView) -> None:
        self._topology = topology
        self._folder = folder
        self._view = view
        self._logs = ServiceLogs(folder.path / "logs")
        self._stopping = asyncio.Event()
        self._code = 0
        self._is_full = False
        hooks = Hooks(on_change=view.show_change, on_line=self._note_line, on_spawn=self._note_running)
        self._supervisor = Supervisor(topology.services, topology.steps, hooks)
        self._control = ControlServer(folder.secret(SECRET), self._answer)
        view.rows = self._supervisor.status

    def stop(self, code: int) -> None:
        """Begin to stop with this exit code. A second call stops waiting for services; the first code stands."""
        if self._stopping.is_set():
            self._supervisor.hurry()
        else:
            self._code = code
            self._stopping.set()

    async def run(self, source: str) -> int:
        """Run until stopped and everything is gone; returns the exit code. SettingError if something cannot be made.

        `source` is the first line shown: where the prices come from.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
                loop.add_signal_handler(number, self.stop, INTERRUPTED)
        self._view.show_source(source)
        async with self._control:
            self._note_running()
            table_due = loop.call_later(TABLE_DUE_S, self._view.show_table)
            running = asyncio.create_task(self._supervisor.run())
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._view.say("stopping")
            finally:
                table_due.cancel()
                stopping.cancel()
                await self._supervisor.stop_all()
                await asyncio.wait({running})
            running.result()
            return self._code

    async def _answer(self, command: str, service: str) -> dict[str, Any]:
        on_service: Mapping[str, Callable[[str], Any]] = {
            "stop": self._supervisor.stop,
            "start": self._supervisor.start,
            "freeze": self._supervisor.pause,  # the word of the channel, which older commands send
        }
        if command in on_service:
            return {"state": (await on_service[command](service)).value}
        if command == "status":
            return {"parts": self._supervisor.status()}
        if command == "env":
            return {"env": dict(self._topology.exports), "path": _programs()}
        if command == "down":
            self.stop(0)
            return {}
        raise BadRequestError(f"unknown command {command[:40]}: is the command of a newer version than this `up`?")

    def _note_line(self, service: str, stream: str, line: bytes) -> None:
        is_shown = self._view.show_line(service, stream, line)
        if not (is_shown and stream == "stdout"):  # quotes are shown, not logged
            self._logs.write(service, line)

    def _note_running(self) -> None:
        try:
            self._folder.note_running(self._control.port, self._supervisor.pids())
            self._is_full = False
        except OSError as error:
            if not self._is_full:
                self._view.say(f"cannot write {self._folder.path} ({error.strerror})")
            self._is_full = True


def _programs() -> str:
    """The folder of psql; empty if this platform has none, and all servers are external."""
    with contextlib.suppress(SettingError):
        return str(embedded_servers.postgres_folder())
    return ""
