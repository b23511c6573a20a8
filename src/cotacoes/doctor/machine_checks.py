"""The checks of the machine and of the data folder: from facts to judgements."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import timedelta

import cotacoes
from cotacoes.adapters.quote_log.log import FORMAT_VERSION
from cotacoes.doctor.facts import Facts, Folder
from cotacoes.doctor.finding import Judgement, error, ok, warning
from cotacoes.quote_service.clock import AHEAD_MAX
from cotacoes.quote_service.recent_prices import FUTURE_MAX
from cotacoes.up.data_folder import FREE_BYTES_MIN, LOG_BYTES_MAX, VERSION

PYTHON_MIN = (3, 11, 0)
FREE_BYTES_CALM = 1_000_000_000  # the local log alone may grow to that size
MEMORY_BYTES_MIN = 400_000_000  # a system of two shards and five services takes some 300 MB
LOGS_BYTES_MAX = 8 * 2 * LOG_BYTES_MAX  # eight services, each with its `.log` and `.log.1`
COMPOSE = "docker compose up --build"
UPGRADE = "install a newer cotacoes"
SET_CLOCK = "timedatectl set-ntp true"


def release(facts: Facts) -> Iterator[Judgement]:
    """Check our version, Python's, and the platform."""
    if facts.local is None:
        yield error(facts.local_problem or "the machine could not be examined")
        return
    machine = facts.local.machine
    version = ".".join(map(str, machine.python))
    text = f"cotacoes {cotacoes.__version__} on Python {version}, {machine.platform}"
    if machine.python < PYTHON_MIN:
        yield error(f"{text}: Python 3.11 or newer is needed", "make PYTHON=python3.12 install")
    else:
        yield ok(text)


def settings(facts: Facts) -> Iterator[Judgement]:
    """Check the environment's COTACOES_… variables."""
    if facts.settings_problem is None:
        yield ok("every COTACOES_... variable is valid")
    else:
        yield error(f"the environment is refused: {facts.settings_problem}")


def servers(facts: Facts) -> Iterator[Judgement]:
    """Check that our own PostgreSQL and Valkey can run here."""
    if facts.local is None:
        return
    problem = facts.local.machine.no_servers or facts.local.machine.no_namespaces
    if problem is None:
        yield ok("the installed PostgreSQL and Valkey can run here")
    else:
        yield error(problem, COMPOSE)


def room(facts: Facts) -> Iterator[Judgement]:
    """Check disk and memory; a running system already has its memory."""
    if facts.local is None:
        return
    disk, memory = facts.local.machine.disk_free_bytes, facts.local.machine.memory_free_bytes
    is_tight = memory < MEMORY_BYTES_MIN and not facts.is_running
    if disk < FREE_BYTES_MIN:
        yield error(f"the disk has {_size(disk)} free: `cotacoes up` needs {_size(FREE_BYTES_MIN)}, so free some space")
    elif disk < FREE_BYTES_CALM:
        yield warning(f"the disk has only {_size(disk)} free: if it is full, nothing is recorded, so free some space")
    if is_tight:
        yield warning(f"only {_size(memory)} of memory are free: the system needs about 300 MB")
    if disk >= FREE_BYTES_CALM and not is_tight:
        yield ok(f"{_size(disk)} of disk and {_size(memory)} of memory are free")


def folder(facts: Facts) -> Iterator[Judgement]:
    """Check that this release can use the data folder."""
    if facts.local is None:
        return
    found = facts.local.folder
    if found.problem is not None:
        yield error(f"cannot use {facts.path} ({found.problem}): set --data to another folder")
    elif not found.exists:
        yield ok(f"the data folder {facts.path} does not exist yet: `cotacoes up` makes it")
    elif found.version is not None and not _is_known(found.version):
        yield error(
            f"the data folder is of version {found.version[:20]}, this release knows up to {VERSION}: {UPGRADE}"
        )
    elif found.log_format is not None and found.log_format > FORMAT_VERSION:
        yield error(
            f"the local log is of format {found.log_format}, this release knows up to {FORMAT_VERSION}: {UPGRADE}"
        )
    else:
        yield ok(f"{facts.path} is writable and of a version that this release knows")


def _usable(facts: Facts) -> Folder | None:
    """The folder, if it exists and can be read."""
    found = None if facts.local is None else facts.local.folder
    return found if found is not None and found.exists and found.problem is None else None


def _is_known(version: str) -> bool:
    return version.isascii() and version.isdigit() and len(version) < 10 and int(version) <= VERSION


def permissions(facts: Facts) -> Iterator[Judgement]:
    """Check that nobody else can read the passwords, and that PostgreSQL accepts its folders."""
    found = _usable(facts)
    if found is None:
        return
    for name, mode in found.open_modes.items():
        path = facts.path / name
        if name.endswith(".secret"):
            yield error(f"{name} can be read by others (mode {mode:o})", shlex.join(["chmod", "600", str(path)]))
        elif name:
            yield error(
                f"PostgreSQL refuses the folder {name} (mode {mode:o})", shlex.join(["chmod", "700", str(path)])
            )
        else:
            yield warning(f"others can read {path} (mode {mode:o})", shlex.join(["chmod", "700", str(path)]))
    if not found.open_modes:
        yield ok("only the owner can read the data folder and its secrets")


def leftovers(facts: Facts) -> Iterator[Judgement]:
    """Check for what a killed `up` left behind; the next one removes it."""
    found = _usable(facts)
    if found is None or facts.is_running:
        return
    if found.leftovers:
        yield warning(f"a killed `up` left {', '.join(found.leftovers)} running: the next `up` ends it", _up(facts))
    if found.drafts:
        yield warning(
            f"unfinished databases are left ({', '.join(found.drafts)}): the next `up` removes them", _up(facts)
        )
    if not found.leftovers and not found.drafts:
        yield ok("no killed `up` left anything behind")


def _up(facts: Facts) -> str:
    return facts.command("up")


def logs(facts: Facts) -> Iterator[Judgement]:
    """Check the size of the services' log files, which is limited."""
    found = _usable(facts)
    if found is None:
        return
    text = f"the log files have {_size(found.logs_bytes)}"
    if found.logs_bytes > LOGS_BYTES_MAX:
        yield warning(f"{text}, more than the limit of {_size(LOGS_BYTES_MAX)}: find out what else writes there")
    else:
        yield ok(text)


def ports(facts: Facts) -> Iterator[Judgement]:
    """Check that each service has its port or can get it."""
    if facts.local is None:
        return
    taken = [port for port in facts.local.ports if port.taken_by is not None]
    if taken:
        taken_ports = ", ".join(f"{port.number} ({port.service}) is taken by {port.taken_by}" for port in taken)
        base = facts.local.free_port_base
        yield error(
            f"port {taken_ports}: stop that process, or use another port base",
            None if base is None else _move(facts, base),
        )
    elif facts.local.ports:
        numbers = ", ".join(str(port.number) for port in facts.local.ports)
        yield ok(f"the ports {numbers} are {'free or ours' if facts.is_running else 'free'}")


def _move(facts: Facts, port_base: int) -> str:
    return _again(facts, facts.command("up", "--port-base", str(port_base)))


def _again(facts: Facts, up: str) -> str:
    return f"{facts.command('down')} && {up}" if facts.is_running else up


def clock(facts: Facts) -> Iterator[Judgement]:
    """Compare the clock with the newest stored quote: if that is far ahead, a person has to decide."""
    stored = [shard.newest_at for shard in facts.shards.values()]
    if facts.stored_log is not None:
        stored.append(facts.stored_log.newest_at)
    newest = max((at for at in stored if at is not None), default=None)
    if newest is None:
        yield ok(f"the clock says {facts.now:%Y-%m-%d %H:%M:%S} UTC; there is no stored quote to compare it with")
        return
    ahead = newest - facts.now
    text = f"the newest stored quote is {_span(ahead)} ahead of the clock; if the clock is wrong, set it ({SET_CLOCK})"
    if ahead > AHEAD_MAX:
        yield error(
            f"{text}; if the stored time is wrong, quote_service starts only with --accept-clock",
            _again(facts, facts.command("up", "--accept-clock")),
        )
    elif ahead > FUTURE_MAX:
        yield warning(
            f"{text}; if it is right, prices are recorded under the stored time until the clock has caught up"
        )
    else:
        yield ok(f"the clock is not behind the newest stored quote, which is {_span(-ahead)} old")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1_000_000_000 else f"{count / 1e6:.0f} MB"


def _span(length: timedelta) -> str:
    seconds = max(0.0, length.total_seconds())
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{length}"
