"""Supervision of the whole: start in the order of need, with all overlap that it leaves, and stop in reverse.

Knows nothing of what the parts are; what becomes of one part is in `part.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cotacoes.errors import BadRequestError, UnavailableError, setting_error_in
from cotacoes.up.supervision.part import Change, Hooks, Part, State, SupervisedPart

STEP_WAIT_S = 0.5
STEP_WAIT_MAX_S = 5.0
START_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Step:
    """Something done once when its `needs` have been ready, such as a migration; parts can need it.

    `run` is tried again after an UnavailableError; a SettingError ends everything.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[], Awaitable[object]]


class Supervisor:
    """Runs parts and steps, from `run` to `stop_all`."""

    def __init__(self, parts: Sequence[Part], steps: Sequence[Step], hooks: Hooks) -> None:
        self._hooks = hooks
        self._steps = steps
        self._done = {step.name: asyncio.Event() for step in steps}
        self._parts: dict[str, SupervisedPart] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._step_tasks: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()
        known = {**self._done}
        needs: dict[str, list[asyncio.Event]] = {part.name: [] for part in parts}
        for part in parts:
            one = SupervisedPart(part, needs[part.name], hooks, clock=time.monotonic)
            self._parts[part.name] = one
            known[part.name] = one.has_been_ready
        for part in parts:
            needs[part.name] += [known[name] for name in part.needs]
        self._known = known

    def status(self) -> list[dict[str, object]]:
        """One row per part, in the order of starting."""
        return [
            {
                "name": name,
                "pid": one.pid,
                "address": one.part.address,
                "state": one.state.value,
                "restarts": one.restarts,
            }
            for name, one in self._parts.items()
        ]

    def pids(self) -> dict[str, int]:
        """The living processes."""
        return {name: one.pid for name, one in self._parts.items() if one.pid is not None}

    async def run(self) -> None:
        """Start everything and keep it so until cancelled; SettingError where something can not be prepared."""
        try:
            async with asyncio.TaskGroup() as group:
                self._step_tasks = [group.create_task(self._run_step(step)) for step in self._steps]
                for name, one in self._parts.items():
                    self._tasks[name] = group.create_task(one.supervise())
        except ExceptionGroup as several:
            raise setting_error_in(several) or several from None

    def hurry(self) -> None:
        """Wait no longer for anyone who stops."""
        self._hurry.set()

    async def stop_all(self) -> None:
        """Stop the parts one after the other, last started first, and what is still to be done between them."""
        for step in self._step_tasks:
            step.cancel()
        for name, one in reversed(self._parts.items()):
            task = self._tasks.get(name)
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
            await one.end(self._hurry)

    async def stop(self, name: str) -> State:
        """Stop a part, and keep it so; its state then. BadRequestError where it is not ours."""
        one = self._ours(name, "stop")
        one.want(run=False)
        return await one.reach(State.STOPPED, State.FAILED)

    async def start(self, name: str) -> State:
        """Start a part that is stopped, or thaw one that is frozen; its state then, or after `START_DEADLINE_S`."""
        one = self._ours(name, "start")
        one.want(run=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_DEADLINE_S):
                await one.reach(State.RUNNING, State.RESTARTING, State.FAILED)
        return one.state

    async def freeze(self, name: str) -> State:
        """Let a running part stand still until it is started; its state then."""
        one = self._ours(name, "freeze")
        if one.state is not State.RUNNING:
            raise BadRequestError(f"{name} is {one.state}: only a running part can be frozen")
        one.freeze()
        return one.state

    def _ours(self, name: str, command: str) -> SupervisedPart:
        one = self._parts.get(name)
        if one is None:
            raise BadRequestError(f"there is no part {name}: the parts are {', '.join(self._parts)}")
        if one.part.command is None:
            raise BadRequestError(f"{name} is external: it is not ours to {command}")
        return one

    async def _run_step(self, step: Step) -> None:
        for need in step.needs:
            await self._known[need].wait()
        wait_s = STEP_WAIT_S
        while True:
            try:
                await step.run()
                break
            except UnavailableError as error:
                self._hooks.on_change(Change(step.name, State.WAITING, f"{error.detail}; again in {wait_s:g} s"))
                await asyncio.sleep(wait_s)
                wait_s = min(STEP_WAIT_MAX_S, 2 * wait_s)
        self._done[step.name].set()
