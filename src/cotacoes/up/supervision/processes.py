"""Processes and their families: stop, resume and kill them, and recognise a process whose number was reused."""

from __future__ import annotations

import contextlib
import platform
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

GONE_POLL_S = 0.02


def birth(pid: int) -> str:
    """A text that distinguishes this process from any other that ever had its number; empty if it is gone.

    On Linux the boot and the tick of its start: a clock that is set changes neither. A process that has ended and was
    not yet waited for is gone.
    """
    if platform.system() == "Linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
        state, started = fields[0], fields[19]
        return "" if state in "ZX" else f"{boot}/{started}"
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.6f}"
    except psutil.Error:
        return ""


def is_same(pid: int, born: str) -> bool:
    """Whether the process with this number still is the one with this birth."""
    return bool(born) and birth(pid) == born


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; empty if it is gone."""
    import psutil

    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.Error:
        return []


def living_in(folder: Path, name: str) -> list[psutil.Process]:
    """The processes called `name` whose working directory is `folder`."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and birth(process.pid) and Path(process.cwd()) == folder:
                found.append(process)
    return found


def suspend(members: Iterable[psutil.Process]) -> None:
    """Suspend them."""
    _each(members, lambda member: member.suspend())


def resume(members: Iterable[psutil.Process]) -> None:
    """Resume them."""
    _each(members, lambda member: member.resume())


def terminate(members: Iterable[psutil.Process]) -> None:
    """Send them SIGTERM."""
    _each(members, lambda member: member.terminate())


def kill(members: Iterable[psutil.Process]) -> None:
    """Send them SIGKILL."""
    _each(members, lambda member: member.kill())


def _each(members: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    import psutil

    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            act(member)


def wait_gone(members: Iterable[psutil.Process], deadline_s: float) -> list[psutil.Process]:
    """Those that are still there after `deadline_s`. Blocking."""
    due = time.monotonic() + deadline_s
    left = list(members)
    # psutil's own wait takes a process that nobody waits for, as in a container, for a living one
    while (left := [member for member in left if birth(member.pid) and member.is_running()]) and time.monotonic() < due:
        time.sleep(GONE_POLL_S)
    return left


def end_leftovers(children: Mapping[str, tuple[int, str]], *, deadline_s: float) -> list[str]:
    """End the processes of an earlier run: (pid, birth) by name, if the process is still the same.

    Blocking, `deadline_s` at most twice. Returns the names of those that were still there.
    """
    found = {name: pid for name, (pid, born) in children.items() if is_same(pid, born)}
    everyone = [member for pid in found.values() for member in family(pid)]
    terminate(everyone)
    resume(everyone)  # a paused process hears the signal only when it goes on
    kill(wait_gone(everyone, deadline_s))
    wait_gone(everyone, deadline_s)
    return list(found)


def cause_of_end(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"killed by signal {-code}"
