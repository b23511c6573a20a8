"""One service under supervision: a task that makes its process what is wanted.

    wanted    state
    run       waiting (for what it needs) → starting → running → (died) restarting → starting …
    stop      → stopped                     until it is wanted again
    pause     → paused                      every process of the service stands still

A service that ends with one of its `final_exit_codes` has `failed` and is not restarted automatically.
"""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotacoes.up.supervision import processes
from cotacoes.up.supervision.child import Child

READY_POLL_S = 0.02
READY_POLL_MAX_S = 0.25
WORDS_BYTES_MAX = 280  # of the last message of a service that ended: one sentence with its fix


class ServiceState(enum.StrEnum):
    """The state of a service."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    PAUSED = "frozen"  # the word that programs have read from the start
    FAILED = "failed"
    EXTERNAL = "external"

    @property
    def shown(self) -> str:
        """The word that people read."""
        return "paused" if self is ServiceState.PAUSED else self.value


@dataclass(frozen=True)
class ServiceSpec:
    """How one process of the system runs. If `command` is None, it runs elsewhere and is only shown.

    `prepare` blocks and runs before each start; `is_ready` gets the pid and blocks for well under a second. `needs`
    name services and steps that must have been ready before the first start. `grace_s` passes between `stop_signal` and
    SIGKILL.
    """

    name: str
    address: str | None
    command: Callable[[], Sequence[str]] | None
    is_ready: Callable[[int], bool] = lambda _: True
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 8.0
    final_exit_codes: frozenset[int] = frozenset()


@dataclass(frozen=True)
class StateChange:
    """A service entered a state, with the reason if there is one."""

    service: str
    state: ServiceState
    detail: str = ""


@dataclass(frozen=True)
class Pauses:
    """How long a service that died waits before it is started again, and a step before it is tried again.

    Each pause is twice the one before, up to a limit. After `steady_s` of running it is `restart_s` again.
    """

    restart_s: float = 0.5
    restart_max_s: float = 10.0
    steady_s: float = 20.0
    step_s: float = 0.5
    step_max_s: float = 5.0


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the supervision; all are called from the event loop."""

    on_change: Callable[[StateChange], None]
    on_line: Callable[[str, str, bytes], None]  # service, stream, line
    on_spawn: Callable[[], None]


class SupervisedService:
    """One service and its task. `needs` are set when what the service waits for has been ready once."""

    def __init__(
        self,
        service: ServiceSpec,
        needs: Sequence[asyncio.Event],
        hooks: Hooks,
        *,
        clock: Callable[[], float],
        pauses: Pauses = Pauses(),  # frozen
    ) -> None:
        self.service = service
        self.state = ServiceState.WAITING
        self.restarts = 0
        self.has_been_ready = asyncio.Event()
        self._needs = needs
        self._hooks = hooks
        self._clock = clock
        self._pauses = pauses
        self._wants_run = True
        self._skips_pause = False
        self._child: Child | None = None
        self._last_words = b""
        self._news = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The pid of its living process; None if there is none."""
        return self._child.pid if self._child is not None and self._child.code is None else None

    async def supervise(self) -> None:
        """Supervise until cancelled; then call `end`. SettingError if the service cannot be prepared."""
        if self.service.command is None:
            self._become(ServiceState.EXTERNAL)
            self.has_been_ready.set()
            return
        for need in self._needs:
            await self._until_needed(need)
        pause_s = self._pauses.restart_s
        while True:
            await self._until_wanted()
            started = self._clock()
            code = await self._run_once()
            if code is None:
                continue
            if code in self.service.final_exit_codes:
                self._wants_run = False
                self._become(ServiceState.FAILED, f"{self._cause(code)}; not started again")
                continue
            if self._clock() - started > self._pauses.steady_s:
                pause_s = self._pauses.restart_s
            self.restarts += 1
            self._become(ServiceState.RESTARTING, f"{self._cause(code)}; again in {pause_s:g} s")
            await self._pause(pause_s)
            pause_s = min(self._pauses.restart_max_s, 2 * pause_s)

    def want(self, *, run: bool) -> None:
        """Stop it, or start it at once: a paused one goes on, one that died does not wait for its restart."""
        self._wants_run = run
        self._skips_pause = run
        if run and self.state is ServiceState.PAUSED and self._child is not None:
            processes.resume(processes.family(self._child.pid))
            self._become(ServiceState.RUNNING)
        elif run and self.state in {ServiceState.STOPPED, ServiceState.FAILED, ServiceState.RESTARTING}:
            self._become(ServiceState.WAITING)
        self._news.set()

    def pause(self) -> None:
        """Make every process of it stand still; it must be running."""
        assert self._child is not None
        processes.suspend(processes.family(self._child.pid))
        self._become(ServiceState.PAUSED)

    async def reach(self, *states: ServiceState) -> ServiceState:
        """Return when it is in one of these states."""
        while self.state not in states:
            await self._changed.wait()
        return self.state

    async def end(self, hurry: asyncio.Event | None = None) -> None:
        """End its process: its stop signal, then SIGKILL after `grace_s`, or at once when `hurry` is set."""
        child = self._child
        if child is None or child.code is not None:
            return
        family = processes.family(child.pid)
        child.send_signal(self.service.stop_signal)
        processes.resume(family)  # a paused process hears the signal only when it goes on
        ended = asyncio.ensure_future(child.wait())
        hurried = asyncio.ensure_future((hurry or asyncio.Event()).wait())
        try:
            await asyncio.wait({ended, hurried}, timeout=self.service.grace_s, return_when=asyncio.FIRST_COMPLETED)
            processes.kill(family)
            await ended
        finally:
            ended.cancel()
            hurried.cancel()
        if self.state is not ServiceState.STOPPED:
            self._become(ServiceState.STOPPED)

    async def _until_needed(self, need: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(need.wait())
        try:
            while not waiting.done():
                self._become(ServiceState.WAITING if self._wants_run else ServiceState.STOPPED)
                await self._news_or(waiting)
        finally:
            waiting.cancel()

    async def _until_wanted(self) -> None:
        while not self._wants_run:
            if self.state is not ServiceState.FAILED:
                self._become(ServiceState.STOPPED)
            await self._news_or()

    async def _pause(self, pause_s: float) -> None:
        self._skips_pause = False
        due = asyncio.ensure_future(asyncio.sleep(pause_s))
        try:
            while not due.done() and self._wants_run and not self._skips_pause:
                await self._news_or(due)
        finally:
            due.cancel()

    async def _run_once(self) -> int | None:
        """Run the process once; returns its exit code, or None if it was ended on request."""
        service = self.service
        assert service.command is not None
        self._become(ServiceState.STARTING)
        self._last_words = b""
        if service.prepare is not None:
            await asyncio.to_thread(service.prepare)
        try:
            self._child = child = await Child.start(
                service.command(), service.environment, self._hear, death_signal=service.stop_signal
            )
        except OSError as error:  # no memory, or too many processes: later perhaps
            self._last_words = str(error).encode()
            return 1
        self._hooks.on_spawn()
        ended = asyncio.ensure_future(child.wait())
        try:
            async with asyncio.TaskGroup() as group:
                ready = group.create_task(self._become_ready(child))
                while not ended.done() and self._wants_run:
                    await self._news_or(ended)
                ready.cancel()
            if ended.done():
                return ended.result()
            await self.end()
            return None
        finally:
            ended.cancel()

    async def _become_ready(self, child: Child) -> None:
        poll_s = READY_POLL_S
        while not await asyncio.to_thread(self.service.is_ready, child.pid):
            await asyncio.sleep(poll_s)
            poll_s = min(READY_POLL_MAX_S, 1.2 * poll_s)
        if child.code is None:
            self._become(ServiceState.RUNNING)
            self.has_been_ready.set()

    async def _news_or(self, *others: asyncio.Future[Any]) -> None:
        """Return when another state is wanted or one of the others is done."""
        self._news.clear()
        news: asyncio.Future[Any] = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({news, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _hear(self, stream: str, line: bytes) -> None:
        if stream == "stderr" and line.strip():
            self._last_words = line
        self._hooks.on_line(self.service.name, stream, line)

    def _cause(self, code: int) -> str:
        words = self._last_words[:WORDS_BYTES_MAX].decode("utf-8", "replace").strip()
        # a line of the structured log is shown as such
        return processes.cause_of_end(code) + ("" if code < 0 or words[:1] in {"", "{"} else f" ({words})")

    def _become(self, state: ServiceState, detail: str = "") -> None:
        if self.state is state and not detail:
            return
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()
        self._hooks.on_change(StateChange(self.service.name, state, detail))
