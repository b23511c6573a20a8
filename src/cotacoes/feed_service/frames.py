"""Recorded frames: what venues sent, byte for byte, with when it came; the format, its writer and its reader.

    {"v":1,"type":"opened","venue":"kraken","at":"…Z","symbols":{"bitcoin":["BTC/USD","USD"]}}    a new connection
    {"v":1,"type":"frame","venue":"kraken","at":"…Z","text":"…"}                      or "base64", if it is not UTF-8
    {"v":1,"type":"closed","venue":"kraken","at":"…Z","reason":"stalled"}

A file is NDJSON in gzip, named after its first line's time: `20261130T120000.123456Z.frames.gz`. A new one begins every
hour, and whenever one has `FILE_BYTES_MAX`. A file that was cut off is read as far as it goes.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from cotacoes.config.settings import FRAMES_SUFFIX
from cotacoes.errors import OutputError, SettingError
from cotacoes.model.quote import format_time, parse_time
from cotacoes.model.venue_symbols import VenueSymbol

SUFFIX = FRAMES_SUFFIX
FILE_BYTES_MAX = 2**28  # before compression, which makes it some ten times smaller
FILE_AGE_MAX = timedelta(hours=1)
LINE_BYTES_MAX = 2**22  # a frame has at most 1 MiB, and escapes can make it longer


class Opened(msgspec.Struct, frozen=True, tag_field="type", tag="opened"):
    """A connection to a venue was opened, for these symbols and currencies by coin."""

    v: int
    venue: str
    at: str
    symbols: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, venue: str, at: datetime, symbols: Mapping[str, VenueSymbol]) -> Opened:
        return cls(1, venue, format_time(at), {coin: (one.symbol, one.currency) for coin, one in symbols.items()})


class Frame(msgspec.Struct, frozen=True, tag_field="type", tag="frame", omit_defaults=True):
    """A frame of a venue, and when it came."""

    v: int
    venue: str
    at: str
    text: str = ""
    base64: str = ""

    @classmethod
    def of(cls, venue: str, at: datetime, frame: bytes) -> Frame:
        try:
            return cls(1, venue, format_time(at), text=frame.decode())
        except UnicodeDecodeError:
            return cls(1, venue, format_time(at), base64=base64.b64encode(frame).decode())

    @property
    def data(self) -> bytes:
        """The frame as it came."""
        return base64.b64decode(self.base64) if self.base64 else self.text.encode()


class Closed(msgspec.Struct, frozen=True, tag_field="type", tag="closed"):
    """A connection to a venue has ended."""

    v: int
    venue: str
    at: str
    reason: str


Line = Opened | Frame | Closed
_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Opened | Frame | Closed)


class FrameFiles:
    """Writes lines into files of one folder. OutputError if they cannot be written. To be used in one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: gzip.GzipFile | None = None
        self._began: datetime | None = None
        self._bytes = 0
        self.lines = 0

    def write(self, lines: Sequence[Line]) -> None:
        """Append these lines, and bring them to the disk's cache, so that a kill loses none of them."""
        try:
            for line in lines:
                at = parse_time(line.at)
                if self._is_full(at):
                    self.close()
                file = self._file or self._begin(at)
                self._bytes += file.write(_encode(line) + b"\n")
                self.lines += 1
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write into {self._folder} ({error.strerror})") from error

    def close(self) -> None:
        """End the present file; the next line begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_full(self, at: datetime) -> bool:
        return self._bytes >= FILE_BYTES_MAX or self._began is None or at - self._began >= FILE_AGE_MAX

    def _begin(self, at: datetime) -> gzip.GzipFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._began, self._bytes = at, 0
        path = self._folder / f"{at:%Y%m%dT%H%M%S.%fZ}{SUFFIX}"
        self._file = file = gzip.GzipFile(path, "xb", compresslevel=6)
        return file


def frame_files(paths: Sequence[Path]) -> list[Path]:
    """The files of recorded frames at these paths, in order; a folder stands for all in it. SettingError if none."""
    found = [file for path in paths for file in (sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path])]
    if not found:
        raise SettingError(f"no recorded frames (*{SUFFIX}) in {paths[0]}: name a folder of `cotacoes record --raw`")
    return found


def read_lines(files: Sequence[Path]) -> Iterator[Line]:
    """The lines of these files, in order. SettingError for a file that cannot be read or holds something else."""
    for path in files:
        try:
            with gzip.GzipFile(path) as file:
                yield from _lines_in(file, path)
        except (EOFError, zlib.error):
            pass  # cut off, as by a kill: what came before has been read
        except OSError as error:
            raise SettingError(f"cannot read {path} ({error.strerror or 'not a gzip file'})") from error


def _lines_in(file: gzip.GzipFile, path: Path) -> Iterator[Line]:
    number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        if not line.endswith(b"\n"):
            return  # cut off
        try:
            read = _decoder.decode(line)
            parse_time(read.at)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            raise SettingError(f"{path}: line {number} is no recorded frame ({error})") from error
        yield read
