"""The part of an export: a file of lines that grows, is gone on with after a crash, and gets its name when complete."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO, Self

from cotacoes.errors import OutputError, SettingError

LINE_BYTES_MAX = 4_096  # a quote's line has some 150


class PartialFile:
    """A context manager around FILE.part, which is this process's alone meanwhile.

    `head` is written into a new one; `begins` is what every such file begins with: the head, or the first bytes of its
    first line. `first` and `last` are the lines that stood behind the head at opening, None where none did; one that
    was torn at the end is cut off.

    SettingError where FILE is there already, where FILE.part is no such part, or where another process writes it;
    OutputError where it can not be written.
    """

    def __init__(self, file: Path, head: bytes, begins: bytes) -> None:
        self.path = file.with_name(f"{file.name}.part")
        self.first: bytes | None = None
        self.last: bytes | None = None
        self._target = file
        self._head = head
        self._begins = begins
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._target.exists():
            raise SettingError(f"{self._target} is there already: remove it, or give --output another name")
        try:
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        except OSError as error:
            raise SettingError(
                f"{self.path} can not be written ({error.strerror}): give --output another name"
            ) from error
        try:
            self._lock(self._file)
            self._resume(self._file)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        try:
            self._file.close()
        except OSError as failure:
            raise self._unwritten(failure) from failure

    def write(self, lines: bytes) -> None:
        """Whole lines more."""
        assert self._file is not None
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise self._unwritten(error) from error

    def complete(self) -> None:
        """On the disk first, then under its name."""
        assert self._file is not None
        try:
            os.fsync(self._file.fileno())
            self.path.replace(self._target)
            folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unwritten(error) from error

    def _lock(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingError(f"another export writes {self.path}: give --output another name") from error

    def _resume(self, file: BinaryIO) -> None:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SettingError(f"{self.path} is no file: give --output another name")
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - LINE_BYTES_MAX)
        file.seek(start)
        tail = file.read(LINE_BYTES_MAX)
        whole, _, torn = tail.rpartition(b"\n")
        end = size - len(torn)
        if end == 0 and (self._begins.startswith(torn) or torn.startswith(self._begins)):
            # new, or torn before its first line was whole
            file.truncate(0)
            file.seek(0)
            self.write(self._head)
            return
        file.seek(0)
        first = file.read(len(self._head) + LINE_BYTES_MAX)
        if end == start or not first.startswith(self._begins):
            raise SettingError(f"{self.path} is no part of such an export: remove it, or give --output another name")
        file.truncate(end)
        file.seek(end)
        if end > len(self._head):
            self.first = first[len(self._head) :].partition(b"\n")[0] + b"\n"
            self.last = whole.rpartition(b"\n")[2] + b"\n"

    def _unwritten(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} can not be written ({error.strerror})")
