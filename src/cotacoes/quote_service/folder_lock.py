"""A lock on a folder, held by a process as long as it lives, so that two writers never share a log."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from cotacoes.errors import SettingError


class FolderLock:
    """Holds a folder for this process; SettingError if another process holds it (`busy`) or it is not writable."""

    def __init__(
        self, folder: Path, *, busy: str = "another quote_service uses this log folder: stop it, or set COTACOES_DATA"
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingError(f"the log folder is not writable ({error.strerror}): set COTACOES_DATA") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise SettingError(busy) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
