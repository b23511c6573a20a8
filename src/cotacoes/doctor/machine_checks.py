"""The checks of the machine and of the data folder: facts in, judgements out."""

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
FREE_BYTES_CALM = 1_000_000_000  # the local log alone may grow that far, and full disks come at night
MEMORY_BYTES_MIN = 400_000_000  # a system of two shards and five services takes some 300 MB
LOGS_BYTES_MAX = 8 * 2 * LOG_BYTES_MAX  # eight services, each with its `.log` and `.log.1`
COMPOSE = "docker compose up --build"
UPGRADE = "install a newer cotacoes"
SET_CLOCK = "timedatectl set-ntp true"


def release(facts: Facts) -> Iterator[Judgement]:
    """Our version, Python's, and the platform."""
    if facts.local is None:
        yield error(facts.local_problem or "the machine could not be looked at")
        return
    machine = facts.local.machine
    version = ".".join(map(str, machine.python))
    text = f"cotacoes {cotacoes.__version__} on Python {version}, {machine.platform}"
    if machine.python < PYTHON_MIN:
        yield error(f"{text}: Python 3.11 or newer is needed", "make PYTHON=python3.12 install")
    else:
        yield ok(text)


def settings(facts: Facts) -> Iterator[Judgement]:
    """The environment's COTACOES_… variables."""
    if facts.settings_problem is None:
        yield ok("every COTACOES_... variable of the environment is understood")
    else:
        yield error(f"the environment is refused: {facts.settings_problem}")


def servers(facts: Facts) -> Iterator[Judgement]:
    """Whether our own PostgreSQL and Valkey can run here."""
    if facts.local is None:
        return
    problem = facts.local.machine.no_servers or facts.local.machine.no_namespaces
    if problem is None:
        yield ok("PostgreSQL and Valkey of the wheels can run here")
    else:
        yield error(problem, COMPOSE)


def room(facts: Facts) -> Iterator[Judgement]:
    """Disk and memory. A running system already has its memory."""
    if facts.local is None:
        return
    disk, memory = facts.local.machine.disk_free_bytes, facts.local.machine.memory_free_bytes
    is_tight = memory < MEMORY_BYTES_MIN and not facts.is_running
    if disk < FREE_BYTES_MIN:
        yield error(f"the disk has {_size(disk)} free: `cotacoes up` needs {_size(FREE_BYTES_MIN)}, make room")
    elif disk < FREE_BYTES_CALM:
        yield warning(f"the disk has only {_size(disk)} free: on a full one nothing is recorded, make room")
    if is_tight:
        yield warning(f"only {_size(memory)} of memory are free: the system takes some 300 MB")
    if disk >= FREE_BYTES_CALM and not is_tight:
        yield ok(f"{_size(disk)} of disk and {_size(memory)} of memory are free")


def folder(facts: Facts) -> Iterator[Judgement]:
    """That the data folder can be used, by this release."""
    if facts.local is None:
        return
    told = facts.local.folder
    if told.problem is not None:
        yield error(f"{facts.path} can not be used ({told.problem}): set --data to another folder")
    elif not told.exists:
        yield ok(f"there is no data folder {facts.path} yet: `cotacoes up` makes it")
    elif told.version is not None and not _is_known(told.version):
        yield error(f"the data folder is of version {told.version[:20]}, this release knows up to {VERSION}: {UPGRADE}")
    elif told.log_format is not None and told.log_format > FORMAT_VERSION:
        yield error(
            f"the local log is of format {told.log_format}, this release knows up to {FORMAT_VERSION}: {UPGRADE}"
        )
    else:
        yield ok(f"{facts.path} can be written, and is of this release or an older one")


def _usable(facts: Facts) -> Folder | None:
    """The folder, where there is one that can be looked into."""
    told = None if facts.local is None else facts.local.folder
    return told if told is not None and told.exists and told.problem is None else None


def _is_known(version: str) -> bool:
    return version.isascii() and version.isdigit() and len(version) < 10 and int(version) <= VERSION


def permissions(facts: Facts) -> Iterator[Judgement]:
    """That nobody else reads the passwords, and PostgreSQL will take its folders."""
    told = _usable(facts)
    if told is None:
        return
    for name, mode in told.open_modes.items():
        path = facts.path / name
        if name.endswith(".secret"):
            yield error(f"{name} can be read by others (mode {mode:o})", shlex.join(["chmod", "600", str(path)]))
        elif name:
            yield error(
                f"PostgreSQL refuses the folder {name} (mode {mode:o})", shlex.join(["chmod", "700", str(path)])
            )
        else:
            yield warning(f"others can look into {path} (mode {mode:o})", shlex.join(["chmod", "700", str(path)]))
    if not told.open_modes:
        yield ok("the data folder and its secrets are for their owner only")


def leftovers(facts: Facts) -> Iterator[Judgement]:
    """What a killed `up` left behind; the next one clears it away."""
    told = _usable(facts)
    if told is None or facts.is_running:
        return
    if told.leftovers:
        yield warning(f"a killed `up` left {', '.join(told.leftovers)} running: the next one ends it", _up(facts))
    if told.drafts:
        yield warning(
            f"half-made databases are left ({', '.join(told.drafts)}): the next `up` removes them", _up(facts)
        )
    if not told.leftovers and not told.drafts:
        yield ok("nothing is left of a killed `up`")


def _up(facts: Facts) -> str:
    return facts.command("up")


def logs(facts: Facts) -> Iterator[Judgement]:
    """The size of the services' log files, which have a bound."""
    told = _usable(facts)
    if told is None:
        return
    text = f"the logs of the services have {_size(told.logs_bytes)}"
    if told.logs_bytes > LOGS_BYTES_MAX:
        yield warning(f"{text}, more than the {_size(LOGS_BYTES_MAX)} that we keep: look what else writes there")
    else:
        yield ok(text)


def ports(facts: Facts) -> Iterator[Judgement]:
    """That each service has its port, or can get it."""
    if facts.local is None:
        return
    taken = [port for port in facts.local.ports if port.taken_by is not None]
    if taken:
        told = ", ".join(f"{port.number} ({port.service}) is taken by {port.taken_by}" for port in taken)
        base = facts.local.free_port_base
        yield error(f"port {told}: end that, or move", None if base is None else _move(facts, base))
    elif facts.local.ports:
        numbers = ", ".join(str(port.number) for port in facts.local.ports)
        yield ok(f"the ports {numbers} are {'free or ours' if facts.is_running else 'free'}")


def _move(facts: Facts, port_base: int) -> str:
    return _again(facts, facts.command("up", "--port-base", str(port_base)))


def _again(facts: Facts, up: str) -> str:
    return f"{facts.command('down')} && {up}" if facts.is_running else up


def clock(facts: Facts) -> Iterator[Judgement]:
    """The wall clock against the newest quote stored anywhere: one that lies far ahead needs a person's word."""
    stored = [shard.newest_at for shard in facts.shards.values()]
    if facts.stored_log is not None:
        stored.append(facts.stored_log.newest_at)
    newest = max((at for at in stored if at is not None), default=None)
    if newest is None:
        yield ok(f"the clock says {facts.now:%Y-%m-%d %H:%M:%S} UTC; no stored quote was at hand to hold it against")
        return
    ahead = newest - facts.now
    text = f"the newest stored quote is {_span(ahead)} ahead of the clock; if the clock is wrong, set it ({SET_CLOCK})"
    if ahead > AHEAD_MAX:
        yield error(
            f"{text}; if the stored time is wrong, quote_service starts only with --accept-clock",
            _again(facts, facts.command("up", "--accept-clock")),
        )
    elif ahead > FUTURE_MAX:
        yield warning(f"{text}; if it is right, prices are recorded under the stored time until the clock gets there")
    else:
        yield ok(f"the clock is not behind the newest stored quote, which is {_span(-ahead)} old")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1_000_000_000 else f"{count / 1e6:.0f} MB"


def _span(length: timedelta) -> str:
    seconds = max(0.0, length.total_seconds())
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{length}"
