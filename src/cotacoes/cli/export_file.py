"""The partial file of an export: it grows by lines, survives a crash, and gets its final name when complete."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO, Self

from cotacoes.errors import OutputError, SettingError

LINE_BYTES_MAX = 4_096  # a quote's line has about 150


class PartialFile:
    """A context manager that opens FILE.part, locked for this process.

    `head` is written to a new file; `begins` is the text with which every such file begins: the head, or the first
    bytes of its first line. `first` and `last` are the first and last line after the head when the file was opened,
    None if there were none; an incomplete line at the end is cut off.

    SettingError if FILE exists already, if FILE.part is of something else, or if another process writes it;
    OutputError if it cannot be written.
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
            raise SettingError(f"{self._target} exists already: remove it, or give --output another name")
        try:
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        except OSError as error:
            raise SettingError(f"cannot write {self.path} ({error.strerror}): give --output another name") from error
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
        """Append whole lines."""
        assert self._file is not None
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise self._unwritten(error) from error

    def complete(self) -> None:
        """Flush the file to the disk, then give it its name."""
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
            raise SettingError(f"{self.path} is not a regular file: give --output another name")
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - LINE_BYTES_MAX)
        file.seek(start)
        tail = file.read(LINE_BYTES_MAX)
        whole, _, torn = tail.rpartition(b"\n")
        end = size - len(torn)
        if end == 0 and (self._begins.startswith(torn) or torn.startswith(self._begins)):
            # new, or cut off before its first line was complete
            file.truncate(0)
            file.seek(0)
            self.write(self._head)
            return
        file.seek(0)
        first = file.read(len(self._head) + LINE_BYTES_MAX)
        if end == start or not first.startswith(self._begins):
            raise SettingError(f"{self.path} does not belong to this export: remove it, or give --output another name")
        file.truncate(end)
        file.seek(end)
        if end > len(self._head):
            self.first = first[len(self._head) :].partition(b"\n")[0] + b"\n"
            self.last = whole.rpartition(b"\n")[2] + b"\n"

    def _unwritten(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path} ({error.strerror})")
