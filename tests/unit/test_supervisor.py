"""Supervision, over real processes that take no time to start: the order, restarts, freezing, the end."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cotacoes.errors import BadRequestError, SettingError, ShardUnavailableError
from cotacoes.up.supervision import processes
from cotacoes.up.supervision.service import Hooks, Pauses, ServiceSpec, ServiceState, StateChange
from cotacoes.up.supervision.supervisor import OneTimeTask, Supervisor

LIMIT_S = 20.0
SLEEP = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@dataclass
class Seen:
    """What the hooks heard."""

    changes: list[StateChange] = field(default_factory=list)
    lines: list[tuple[str, str, bytes]] = field(default_factory=list)
    spawns: int = 0

    def states(self, service: str) -> list[ServiceState]:
        return [change.state for change in self.changes if change.service == service]

    def details(self, service: str) -> list[str]:
        return [change.detail for change in self.changes if change.service == service and change.detail]

    def ends(self) -> list[str]:
        return [change.service for change in self.changes if change.state is ServiceState.STOPPED]

    def count_spawn(self) -> None:
        self.spawns += 1

    @property
    def hooks(self) -> Hooks:
        return Hooks(self.changes.append, lambda *line: self.lines.append(line), self.count_spawn)


def python(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-IS", "-c", code]


def service(name: str, code: str = SLEEP, **more: object) -> ServiceSpec:
    return ServiceSpec(name, None, python(code), **more)  # type: ignore[arg-type]  # whatever the test wants to say


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def supervising(
    *services: ServiceSpec,
    steps: tuple[OneTimeTask, ...] = (),
    pauses: Pauses = Pauses(),  # noqa: B008
) -> AsyncIterator[tuple[Supervisor, Seen]]:
    seen = Seen()
    supervisor = Supervisor(services, steps, seen.hooks, pauses=pauses)
    running = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, seen
    finally:
        await supervisor.stop_all()
        await asyncio.wait({running})
    running.result()


def states(supervisor: Supervisor) -> dict[object, object]:
    return {row["name"]: row["state"] for row in supervisor.status()}


async def test_services_start_as_soon_as_what_they_need_is_ready() -> None:
    gate = asyncio.Event()
    services = (
        service("slow", is_ready=lambda _: gate.is_set()),
        service("free"),
        service("needy", needs=("step",)),
    )
    ran: list[str] = []

    async def step() -> None:
        ran.append("step")

    async with supervising(*services, steps=(OneTimeTask("step", ("slow",), step),)) as (supervisor, seen):
        await until(lambda: states(supervisor) == {"slow": "starting", "free": "running", "needy": "waiting"})
        assert ran == []
        gate.set()
        await until(lambda: states(supervisor)["needy"] == "running")
        assert ran == ["step"]
        assert seen.spawns == 3


async def test_an_external_service_is_shown_counts_as_ready_and_takes_no_command() -> None:
    async with supervising(ServiceSpec("away", "redis://far", None), service("needy", needs=("away",))) as (
        supervisor,
        _,
    ):
        await until(lambda: states(supervisor) == {"away": "external", "needy": "running"})
        assert supervisor.status()[0] == {
            "name": "away",
            "pid": None,
            "address": "redis://far",
            "state": "external",
            "restarts": 0,
        }
        with pytest.raises(BadRequestError, match="cannot stop away: it runs outside of this system"):
            await supervisor.stop("away")


async def test_a_service_that_dies_is_restarted_with_growing_pauses_and_the_reason_is_shown() -> None:
    pauses = Pauses(restart_s=0.01, restart_max_s=0.03)
    ends_at_once = "import sys; print('no luck today', file=sys.stderr); sys.exit(7)"
    async with supervising(service("weak", ends_at_once), pauses=pauses) as (supervisor, seen):
        await until(lambda: len(seen.details("weak")) >= 4)
        assert seen.details("weak")[:4] == [
            f"ended with exit code 7 (no luck today); again in {pause_s} s" for pause_s in (0.01, 0.02, 0.03, 0.03)
        ]
        assert int(str(supervisor.status()[0]["restarts"])) >= 4


async def test_the_pause_is_short_again_after_the_service_was_up_for_a_while() -> None:
    async with supervising(service("weak", ""), pauses=Pauses(restart_s=0.01, steady_s=0.0)) as (_, seen):
        await until(lambda: len(seen.details("weak")) >= 3)
        assert {detail.rpartition("; ")[2] for detail in seen.details("weak")} == {"again in 0.01 s"}


async def test_a_killed_service_has_a_new_process_and_one_more_restart() -> None:
    async with supervising(service("strong"), pauses=Pauses(restart_s=0.01)) as (supervisor, seen):
        await until(lambda: states(supervisor) == {"strong": "running"})
        first = supervisor.pids()["strong"]
        psutil.Process(first).kill()
        await until(lambda: supervisor.pids().get("strong", first) != first)
        assert supervisor.status()[0]["restarts"] == 1
        assert seen.details("strong") == ["killed by SIGKILL; again in 0.01 s"]


async def test_a_service_with_a_final_exit_code_is_not_restarted_until_someone_starts_it() -> None:
    code = "import sys; print('it is refused', file=sys.stderr); sys.exit(2)"
    refused = service("refused", code, is_ready=lambda _: False, final_exit_codes=frozenset({2}))
    async with supervising(refused) as (supervisor, seen):
        await until(lambda: states(supervisor) == {"refused": "failed"})
        assert seen.details("refused") == ["ended with exit code 2 (it is refused); not started again"]
        assert seen.spawns == 1
        assert await supervisor.start("refused") is ServiceState.FAILED
        assert seen.spawns == 2


async def test_a_stopped_service_stays_stopped_until_it_is_started() -> None:
    async with supervising(service("one")) as (supervisor, seen):
        await until(lambda: states(supervisor) == {"one": "running"})
        first = supervisor.pids()["one"]
        assert await supervisor.stop("one") is ServiceState.STOPPED
        assert not processes.birth(first)
        assert supervisor.pids() == {}
        assert await supervisor.start("one") is ServiceState.RUNNING
        assert supervisor.status()[0]["restarts"] == 0
        assert seen.details("one") == []


async def test_a_service_can_be_stopped_while_it_waits_and_while_it_pauses() -> None:
    never = service("never", is_ready=lambda _: False)
    async with supervising(never, service("waits", needs=("never",)), service("pauses", "")) as (supervisor, _):
        assert await supervisor.stop("waits") is ServiceState.STOPPED
        await until(lambda: states(supervisor)["pauses"] == "restarting")
        assert await supervisor.stop("pauses") is ServiceState.STOPPED


async def test_start_skips_the_pause_of_a_service_that_died() -> None:
    async with supervising(service("one"), pauses=Pauses(restart_s=3600.0)) as (supervisor, _):
        await until(lambda: states(supervisor) == {"one": "running"})
        psutil.Process(supervisor.pids()["one"]).kill()
        await until(lambda: states(supervisor) == {"one": "restarting"})
        assert await supervisor.start("one") is ServiceState.RUNNING


async def test_every_process_of_a_paused_service_stands_still() -> None:
    family = f"import subprocess, sys; subprocess.run([sys.executable, '-IS', '-c', {SLEEP!r}])"
    async with supervising(service("family", family)) as (supervisor, _):
        # until the child is its own program: before that its parent waits in the kernel, and cannot be stopped there
        await until(
            lambda: [SLEEP in m.cmdline() for m in processes.family(supervisor.pids().get("family", 0))][1:] == [True]
        )
        members = processes.family(supervisor.pids()["family"])
        assert await supervisor.pause("family") is ServiceState.PAUSED
        await until(lambda: {member.status() for member in members} == {psutil.STATUS_STOPPED})
        with pytest.raises(BadRequestError, match="family is paused: only a running service can be paused"):
            await supervisor.pause("family")
        assert await supervisor.start("family") is ServiceState.RUNNING
        await until(lambda: psutil.STATUS_STOPPED not in {member.status() for member in members})
        await supervisor.pause("family")
        assert await supervisor.stop("family") is ServiceState.STOPPED
        assert processes.wait_gone(members, LIMIT_S) == []


async def test_all_are_stopped_one_after_the_other_the_last_started_first() -> None:
    async with supervising(service("a"), service("b"), service("c")) as (supervisor, seen):
        await until(lambda: set(states(supervisor).values()) == {"running"})
        pids = supervisor.pids()
    assert seen.ends() == ["c", "b", "a"]
    assert [pid for pid in pids.values() if processes.birth(pid)] == []


async def test_a_service_that_ignores_the_signal_is_killed_after_its_grace() -> None:
    async with supervising(service("deaf", DEAF, grace_s=0.05)) as (supervisor, seen):
        await until(lambda: seen.lines == [("deaf", "stdout", b"deaf")])
        assert await supervisor.stop("deaf") is ServiceState.STOPPED


async def test_a_hurried_stop_gives_no_grace() -> None:
    async with supervising(service("deaf", DEAF, grace_s=3600.0)) as (supervisor, seen):
        await until(lambda: seen.lines == [("deaf", "stdout", b"deaf")])
        stopping = asyncio.create_task(supervisor.stop_all())
        await asyncio.sleep(0)
        supervisor.hurry()
        async with asyncio.timeout(LIMIT_S):
            await stopping
    assert seen.states("deaf")[-1] is ServiceState.STOPPED


async def test_a_task_is_retried_while_what_it_needs_is_away() -> None:
    tries: list[int] = []

    async def step() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ShardUnavailableError("shard1 is away")

    steps, pauses = (OneTimeTask("step", (), step),), Pauses(step_s=0.01)
    async with supervising(service("after", needs=("step",)), steps=steps, pauses=pauses) as (supervisor, seen):
        await until(lambda: states(supervisor) == {"after": "running"})
        assert seen.details("step") == ["shard1 is away; next try in 0.01 s", "shard1 is away; next try in 0.02 s"]


async def test_an_unusable_setting_ends_everything_and_is_reported() -> None:
    def prepare() -> None:
        raise SettingError("the disk is full")

    seen = Seen()
    supervisor = Supervisor([service("other"), service("made", prepare=prepare)], (), seen.hooks)
    with pytest.raises(SettingError, match="the disk is full"):
        await supervisor.run()
    await supervisor.stop_all()
    assert supervisor.pids() == {}


async def test_a_missing_program_is_reported_in_one_sentence() -> None:
    async with supervising(ServiceSpec("absent", None, lambda: ["/nowhere/at all"])) as (_, seen):
        await until(lambda: seen.details("absent"))
        assert "cannot start /nowhere/at all: No such file" in seen.details("absent")[0]


async def test_a_service_gets_its_own_environment_and_session_and_no_input() -> None:
    code = "import json, os, sys; print(json.dumps([dict(os.environ), os.getsid(0) == os.getpid(), sys.stdin.read()]))"
    one = service("one", code, environment={"LC_ALL": "C", "ONLY": "this"})
    async with supervising(one) as (_, seen):
        await until(lambda: seen.lines)
        environment, leads_its_session, read = json.loads(seen.lines[0][2])
        assert {name: environment[name] for name in ("LC_ALL", "ONLY")} == {"LC_ALL": "C", "ONLY": "this"}
        assert "HOME" not in environment
        assert leads_its_session
        assert read == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends a child with its parent")
def test_a_service_gets_its_stop_signal_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = """
import asyncio, os, signal, sys
from pathlib import Path
from cotacoes.up.supervision.child import Child
async def main():
    child = await Child.start(
        [sys.executable, "-c", "import signal, sys, time; signal.signal(signal.SIGINT, "
         "lambda *_: (open(sys.argv[1], 'w').write('heard'), sys.exit())); print('ready', flush=True); time.sleep(600)",
         sys.argv[1]], os.environ, lambda *_: os.kill(os.getpid(), signal.SIGKILL), death_signal=signal.SIGINT)
    await child.wait()
asyncio.run(main())
"""
    heard = tmp_path / "heard"

    async def scenario() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(heard))
        assert await process.wait() == -signal.SIGKILL
        await until(lambda: heard.exists() and heard.read_text() == "heard")

    asyncio.run(scenario())


@pytest.mark.parametrize("is_ready", [True, False], ids=["a step that is at it", "a step that waits for its need"])
async def test_everything_can_be_stopped_before_a_task_is_done(is_ready: bool) -> None:
    begun = asyncio.Event()

    async def never_done() -> None:
        begun.set()
        await asyncio.Event().wait()

    services = (service("a", is_ready=lambda _: is_ready), service("b", needs=("step",)))
    async with (
        asyncio.timeout(LIMIT_S),
        supervising(*services, steps=(OneTimeTask("step", ("a",), never_done),)) as (_, seen),
    ):
        await until(lambda: begun.is_set() if is_ready else seen.spawns)
    assert seen.ends() == ["a"]
