"""The data folder of `cotacoes up`: its lock, version, secrets and logs, and what runs in it now.

lock        held by the running `up`            version     of this layout; a newer one is refused
up.json     control port, pids and births       *.secret    token and passwords, for their owner only
shard1/ shard2/ redis/ quote_service/ logs/     the services' own data
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from cotacoes.errors import SettingError
from cotacoes.observability.whole_file import OWNER_ONLY, replace_file
from cotacoes.quote_service.folder_lock import FolderLock
from cotacoes.up.supervision import processes

VERSION = 1
LOG_BYTES_MAX = 5_000_000  # for each service, and as much again in its `.1`
LEFTOVERS_DEADLINE_S = 5.0
FREE_BYTES_MIN = 200_000_000  # two database folders and a little room
OTHER_FOLDER = "set --data to another folder"


@dataclass(frozen=True)
class Running:
    """The content of `up.json`: the control port of an `up`, and its children as (pid, birth)."""

    pid: int
    birth: str
    control_port: int
    children: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether this `up` still runs, and not another process with its pid."""
        return processes.is_same(self.pid, self.birth)


class DataFolder:
    """The folder, locked by this process while the context is open. SettingError names the problem and the fix."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._probe()
        except OSError as error:
            raise self._not_writable(error) from error
        self._refuse_newer()
        busy = f"another `cotacoes up` runs on {self.path}: stop it (`cotacoes down`), or {OTHER_FOLDER}"
        with contextlib.ExitStack() as stack:
            stack.enter_context(FolderLock(self.path, busy=busy))
            try:
                self._write("version", f"{VERSION}\n")
                (self.path / "logs").mkdir(exist_ok=True)
                (self.path / "redis").mkdir(exist_ok=True)
            except OSError as error:
                raise self._not_writable(error) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        (self.path / "up.json").unlink(missing_ok=True)
        self._stack.close()

    def _probe(self) -> None:
        probe = self.path / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"x" * 4096)
        finally:
            probe.unlink(missing_ok=True)

    def _not_writable(self, error: OSError) -> SettingError:
        return SettingError(f"cannot write the data folder {self.path} ({error.strerror}): {OTHER_FOLDER}")

    def _refuse_newer(self) -> None:
        version = self.path / "version"
        found = version.read_text(errors="replace").strip() if version.exists() else str(VERSION)
        if not re.fullmatch("[0-9]{1,9}", found) or int(found) > VERSION:
            raise SettingError(
                f"the data folder {self.path} is of version {found[:20]}, this release knows up to {VERSION}: "
                f"install a newer cotacoes, or {OTHER_FOLDER}"
            )

    def refuse_full(self) -> None:
        """Raise SettingError if the disk has no room for a start."""
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        if free < FREE_BYTES_MIN:
            raise SettingError(
                f"the disk of {self.path} has {free // 1_000_000} MB free, but "
                f"{FREE_BYTES_MIN // 1_000_000} MB are needed: free some space, or {OTHER_FOLDER}"
            )

    def secret(self, name: str) -> str:
        """A random secret, made once and stored in a file that only its owner can read."""
        path = self.path / f"{name}.secret"
        if not path.exists():
            self._write(path.name, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def end_leftovers(self) -> list[str]:
        """End the children that outlived a killed `up`; returns their names. Blocks."""
        before = read_running(self.path)
        return [] if before is None else processes.end_leftovers(before.children, deadline_s=LEFTOVERS_DEADLINE_S)

    def note_running(self, control_port: int, pids: Mapping[str, int]) -> None:
        """Write what runs now, for `control` and for the next start. OSError if the disk is full."""
        running = Running(
            pid=os.getpid(),
            birth=processes.birth(os.getpid()),
            control_port=control_port,
            children={name: (pid, processes.birth(pid)) for name, pid in pids.items()},
        )
        self._write("up.json", json.dumps(asdict(running)))

    def _write(self, name: str, text: str) -> None:
        replace_file(self.path / name, text.encode(), mode=OWNER_ONLY)


def read_running(path: Path) -> Running | None:
    """The content of the folder's `up.json`; None if it is missing or cannot be read."""
    try:
        found = json.loads((path / "up.json").read_text())
        children = {str(name): (int(pid), str(born)) for name, (pid, born) in found["children"].items()}
        return Running(int(found["pid"]), str(found["birth"]), int(found["control_port"]), children)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_secret(path: Path, name: str) -> str:
    """A secret of a running `up`; empty if it cannot be read."""
    try:
        return (path / f"{name}.secret").read_text().strip()
    except (OSError, ValueError):
        return ""


class ServiceLogs:
    """The log file of each service. At `bytes_max` it is renamed to `.log.1`, and a new one begins.

    Lines that cannot be written, on a full disk, are dropped; their number is written once there is room.
    """

    def __init__(self, folder: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._sizes: dict[str, int] = {}
        self._dropped: Counter[str] = Counter()

    def write(self, service: str, line: bytes) -> None:
        """Append one line."""
        try:
            if missing := self._dropped[service]:
                self._append(service, json.dumps({"event": "log.dropped", "count": missing}).encode())
                del self._dropped[service]
            self._append(service, line)
        except OSError:
            self._dropped[service] += 1
            self._sizes.pop(service, None)  # the file may have been removed

    def _append(self, service: str, line: bytes) -> None:
        path = self._folder / f"{service}.log"
        size = self._sizes[service] if service in self._sizes else path.stat().st_size if path.exists() else 0
        if size + len(line) + 1 > self._bytes_max:
            path.replace(path.with_suffix(".log.1"))
            size = 0
        with path.open("ab", buffering=0) as file:
            size += file.write(line + b"\n")
        self._sizes[service] = size
