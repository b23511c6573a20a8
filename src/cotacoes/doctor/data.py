"""Facts about the data folder and the local log in it. Blocks; changes nothing there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.config import SHARDS
from cotacoes.doctor.facts import Folder, StoredLog
from cotacoes.errors import LogUnavailableError, SettingError
from cotacoes.up.data_folder import read_running
from cotacoes.up.supervision import processes

LOG_FILE = "quotes.sqlite3"
COPY_BYTES_MAX = 100_000_000  # copied in a fraction of a second; a log is larger only if a shard was away for long
QUOTA_BYTES = 2 * COPY_BYTES_MAX
HEADER_BYTES = 100
USER_VERSION = slice(60, 64)  # https://sqlite.org/fileformat.html, the database header
PREVIEW_CHARACTERS = 200
TAIL_BYTES = 8192


def inspect_folder(path: Path) -> Folder:
    """The state of the folder; OSError if it cannot be read."""
    if not path.exists():
        parent = next(one for one in path.parents if one.exists())
        problem = None if os.access(parent, os.W_OK | os.X_OK) else f"{parent} is not writable"
        return Folder(exists=False, problem=problem if parent.is_dir() else f"{parent} is not a folder")
    if not path.is_dir():
        return Folder(exists=True, problem="it is not a folder")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Folder(exists=True, problem="it is not writable")
    version = path / "version"
    return Folder(
        exists=True,
        version=version.read_text(errors="replace").strip() if version.exists() else None,
        open_modes=dict(_open_modes(path)),
        leftovers=list(_leftovers(path)),
        drafts=sorted(draft.name for shard in SHARDS for draft in path.glob(f"{shard}.new-*")),
        logs_bytes=sum(file.stat().st_size for file in path.glob("logs/*") if file.is_file()),
        log_format=_format_of(path / "quote_service" / LOG_FILE),
    )


def _open_modes(path: Path) -> Iterator[tuple[str, int]]:
    """What others than the owner can access; "" is the folder itself. PostgreSQL permits a group that only reads."""
    for name, refused in (("", 0o077), *((secret.name, 0o077) for secret in path.glob("*.secret"))):
        mode = stat.S_IMODE((path / name).stat().st_mode)
        if mode & refused:
            yield name, mode
    for shard in SHARDS:
        if (path / shard / "PG_VERSION").exists():
            mode = stat.S_IMODE((path / shard).stat().st_mode)
            if mode & 0o027:
                yield shard, mode


def _leftovers(path: Path) -> Iterator[str]:
    running = read_running(path)
    if running is not None and not running.is_alive:
        for name, (pid, born) in running.children.items():
            if processes.is_same(pid, born):
                yield f"{name} (pid {pid})"


def _format_of(file: Path) -> int | None:
    """Read from the file's header: SQLite makes files beside a database even if it only reads it."""
    if not file.exists():
        return None
    with file.open("rb") as log:
        header = log.read(HEADER_BYTES)
    return int.from_bytes(header[USER_VERSION], "big") if len(header) == HEADER_BYTES else None


def last_words(path: Path, service: str) -> str:
    """The last line of a service's log; empty if there is none."""
    with contextlib.suppress(OSError), (path / "logs" / f"{service}.log").open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = log.read(TAIL_BYTES).decode("utf-8", "replace").split("\n")
        return next((line.strip()[:PREVIEW_CHARACTERS] for line in reversed(lines) if line.strip()), "")
    return ""


async def read_log(path: Path) -> StoredLog | None:
    """The local log of a quote_service that does not run, read from a copy; None if there is none."""
    files = [file for name in (LOG_FILE, f"{LOG_FILE}-wal") if (file := path / "quote_service" / name).exists()]
    if not files:
        return None
    size = sum(file.stat().st_size for file in files)
    if size > COPY_BYTES_MAX:
        return StoredLog(problem=f"it has {size // 1_000_000} MB, too much to read here")
    with tempfile.TemporaryDirectory(prefix="cotacoes-doctor-") as copy:
        before = _state(files)
        for file in files:
            shutil.copyfile(file, Path(copy) / file.name)
        if _state(files) != before:
            return None  # an unknown quote_service is writing
        log = QuoteLog(Path(copy), quota_bytes=QUOTA_BYTES)
        try:
            return await _read(log)
        except (LogUnavailableError, SettingError) as error:
            return StoredLog(problem=str(error))
        finally:
            with contextlib.suppress(LogUnavailableError):
                await log.close()


def _state(files: Sequence[Path]) -> list[tuple[int, int]]:
    return [(status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)]


async def _read(log: QuoteLog) -> StoredLog:
    coins = await log.open()
    pending = {coin: await log.count_after(coin, one.delivered) for coin, one in coins.items()}
    oldest = [(await log.after(coin, coins[coin].delivered, 1))[0].at for coin, count in pending.items() if count]
    return StoredLog(
        newest_at=max((one.newest.at for one in coins.values() if one.newest is not None), default=None),
        pending=pending,
        oldest_pending_at=min(oldest, default=None),
        source_gaps=len(await log.source_gaps()),
    )
