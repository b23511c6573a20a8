"""Supervision of all services: start in the order of their needs, as much as possible at once, and stop in reverse.

It does not know what the services are; `service.py` supervises one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cotacoes.errors import BadRequestError, UnavailableError, setting_error_in
from cotacoes.up.supervision.service import Hooks, Pauses, ServiceSpec, ServiceState, StateChange, SupervisedService

START_DEADLINE_S = 20.0


@dataclass(frozen=True)
class OneTimeTask:
    """A task that runs once after its `needs` have been ready, such as a migration; services can need it.

    `run` is tried again after an UnavailableError; a SettingError ends everything.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[], Awaitable[object]]


class Supervisor:
    """Runs services and steps, from `run` to `stop_all`."""

    def __init__(
        self,
        services: Sequence[ServiceSpec],
        steps: Sequence[OneTimeTask],
        hooks: Hooks,
        *,
        pauses: Pauses = Pauses(),  # noqa: B008  # frozen
    ) -> None:
        self._hooks = hooks
        self._pauses = pauses
        self._steps = steps
        self._done = {step.name: asyncio.Event() for step in steps}
        self._services: dict[str, SupervisedService] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._step_tasks: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()
        known = {**self._done}
        needs: dict[str, list[asyncio.Event]] = {service.name: [] for service in services}
        for service in services:
            one = SupervisedService(service, needs[service.name], hooks, clock=time.monotonic, pauses=pauses)
            self._services[service.name] = one
            known[service.name] = one.has_been_ready
        for service in services:
            needs[service.name] += [known[name] for name in service.needs]
        self._known = known

    def status(self) -> list[dict[str, object]]:
        """One row per service, in the order of starting."""
        return [
            {
                "name": name,
                "pid": one.pid,
                "address": one.service.address,
                "state": one.state.value,
                "restarts": one.restarts,
            }
            for name, one in self._services.items()
        ]

    def pids(self) -> dict[str, int]:
        """The living processes."""
        return {name: one.pid for name, one in self._services.items() if one.pid is not None}

    async def run(self) -> None:
        """Start everything and keep it running until cancelled; SettingError if something cannot be prepared."""
        try:
            async with asyncio.TaskGroup() as group:
                self._step_tasks = [group.create_task(self._run_step(step)) for step in self._steps]
                for name, one in self._services.items():
                    self._tasks[name] = group.create_task(one.supervise())
        except ExceptionGroup as several:
            raise setting_error_in(several) or several from None

    def hurry(self) -> None:
        """Stop waiting for services that are stopping: kill them."""
        self._hurry.set()

    async def stop_all(self) -> None:
        """Cancel the tasks and stop the services one after the other, the last started first."""
        for step in self._step_tasks:
            step.cancel()
        for name, one in reversed(self._services.items()):
            task = self._tasks.get(name)
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
            await one.end(self._hurry)

    async def stop(self, name: str) -> ServiceState:
        """Stop a service until it is started; its state then. BadRequestError if it is unknown or external."""
        one = self._ours(name, "stop")
        one.want(run=False)
        return await one.reach(ServiceState.STOPPED, ServiceState.FAILED)

    async def start(self, name: str) -> ServiceState:
        """Start a stopped service, or continue a paused one; its state then, or after `START_DEADLINE_S`."""
        one = self._ours(name, "start")
        one.want(run=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_DEADLINE_S):
                await one.reach(ServiceState.RUNNING, ServiceState.RESTARTING, ServiceState.FAILED)
        return one.state

    async def pause(self, name: str) -> ServiceState:
        """Make a running service stand still until it is started; its state then."""
        one = self._ours(name, "pause")
        if one.state is not ServiceState.RUNNING:
            raise BadRequestError(f"{name} is {one.state.shown}: only a running service can be paused")
        one.pause()
        return one.state

    def _ours(self, name: str, command: str) -> SupervisedService:
        one = self._services.get(name)
        if one is None:
            raise BadRequestError(f"unknown service {name}: the services are {', '.join(self._services)}")
        if one.service.command is None:
            raise BadRequestError(f"cannot {command} {name}: it runs outside of this system")
        return one

    async def _run_step(self, step: OneTimeTask) -> None:
        for need in step.needs:
            await self._known[need].wait()
        wait_s = self._pauses.step_s
        while True:
            try:
                await step.run()
                break
            except UnavailableError as error:
                self._hooks.on_change(
                    StateChange(step.name, ServiceState.WAITING, f"{error.detail}; next try in {wait_s:g} s")
                )
                await asyncio.sleep(wait_s)
                wait_s = min(self._pauses.step_max_s, 2 * wait_s)
        self._done[step.name].set()
