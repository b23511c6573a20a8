"""A recorded market: reads files of several formats as one stream of prices, in the order of receive time.

If two files have the same time, the file named first goes first. Each reading begins again at the start and holds one
line of each file, so memory does not grow with the recording. Lines of other streams are skipped, malformed lines are
counted; neither ends the reading. The formats are in `recording_formats.py`.

Files are not sorted, since they may be larger than memory. A price with a time before an earlier one of its coin keeps
its place and its own time; it is counted as late, and the first one of a file is logged. A file whose head runs
backwards is refused. Prices of different coins may overtake each other, since each coin came into the recording by
itself.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import heapq
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from prometheus_client import Counter

from cotacoes.errors import SettingError
from cotacoes.external_service.recording_formats import PAIRS, MalformedError, Pair, Read, Recorded, recognise
from cotacoes.model.quote import ORIGIN_PATTERN
from cotacoes.observability.logs import get_logger

LINE_BYTES_MAX = 1_048_576  # a full book of 5,000 levels a side has about 350,000
HEAD_LINES_MAX = 100_000  # how far `check` searches for prices
ORDER_PRICES = 100  # most of the first prices, so many, must not go back in time
ORIGIN_NAME_MAX = 90  # of the 100 characters an origin may have

_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz: unpack it, or pack it with gzip",
    b"BZh": "packed with bzip2: unpack it, or pack it with gzip",
    b"PAR1": "a Parquet file: write it as CSV",
    b"\xff\xfe": "UTF-16: write it as UTF-8",
    b"\xfe\xff": "UTF-16: write it as UTF-8",
}
_TORN = (EOFError, zlib.error, gzip.BadGzipFile)  # a truncated file fails each time
_READ_ERRORS = (*_TORN, OSError)
# Other times are not those of a market, and may be out of range for a datetime.
_TIMES_NS = range(946_684_800 * 10**9, 4_102_444_800 * 10**9)  # from 2000 to 2100
_DIGEST_BYTES = 65_536


@dataclass
class LineCounts:
    """How many lines were read, by outcome; `late` prices have a time before an earlier one of their coin.

    `problem` says what is wrong with the first line that could not be read.
    """

    price: int = 0
    skipped: int = 0
    malformed: int = 0
    late: int = 0
    problem: str | None = field(default=None, compare=False)

    def drain(self, counter: Counter | None) -> None:
        """Move the numbers of lines to the counter, by outcome; None drops them. A late line is a price as well."""
        for outcome in ("price", "skipped", "malformed", "late"):
            if counter is not None:
                counter.labels(outcome=outcome).inc(getattr(self, outcome))
            setattr(self, outcome, 0)


class Recording:
    """The recording in `paths`. `price` is mid or trade, if a format has both; `pairs` name the coins."""

    def __init__(self, paths: Sequence[Path], *, price: str = "mid", pairs: Mapping[str, Pair] = PAIRS) -> None:
        self.origin = _origin_of(paths)
        self._paths = paths
        self._price = price
        self._pairs = pairs
        self._disordered: set[Path] = set()

    @property
    def digest(self) -> str:
        """The same for the same files (by name, size, beginning and end) read the same way."""
        identity = [_identity(path) for path in self._paths], self._price, sorted(self._pairs.items())
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:12]

    def check(self) -> None:
        """SettingError, naming the file and what is wrong, unless each can be read, has a price, and runs forwards."""
        for path in self._paths:
            lines = LineCounts()
            try:
                head = list(itertools.islice(self._read(path, lines, HEAD_LINES_MAX), ORDER_PRICES))
            except _READ_ERRORS as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                raise SettingError(f"COTACOES_SOURCE: {path} cannot be read as a recording: {reason}") from error
            if not head and lines.malformed > lines.skipped // 2:
                raise SettingError(f"COTACOES_SOURCE: {path} cannot be read as a recording: {lines.problem}")
            if not head:
                raise SettingError(
                    f"COTACOES_SOURCE: {path} has no price of {', '.join(self._pairs)} in its head "
                    f"(COTACOES_REPLAY_PRICE is {self._price}), only lines of other pairs or streams"
                )
            if lines.late > len(head) // 2:
                raise SettingError(
                    f"COTACOES_SOURCE: {path} runs backwards in time: sort it, with the oldest row first"
                )

    def prices(self, lines: LineCounts) -> Iterator[Recorded]:
        """Read from the start, counting in `lines`. A truncated file ends early, which is logged.

        OSError if a file cannot be read just now; its prices have not ended then.
        """
        readings = [self._read_on(path, lines) for path in self._paths]
        return readings[0] if len(readings) == 1 else heapq.merge(*readings, key=_received_ns)

    def _read_on(self, path: Path, lines: LineCounts) -> Iterator[Recorded]:
        try:
            yield from self._read(path, lines)
        except _TORN as error:
            get_logger().warning("replay.broken", file=path.name, reason=str(error))

    def _read(self, path: Path, lines: LineCounts, lines_max: int | None = None) -> Iterator[Recorded]:
        read: Read | None = None
        newest_ns: dict[str, int] = {}
        for number, line in enumerate(itertools.islice(_lines_of(path), lines_max), start=1):
            try:
                read = read or recognise(line, self._price, self._pairs)
                recorded = read(line)
                if recorded is not None and not _has_times_of_a_market(recorded):
                    raise MalformedError("its time is not between the years 2000 and 2100")
            except MalformedError as error:
                lines.malformed += 1
                lines.problem = lines.problem or f"line {number}: {error}"
                continue
            if recorded is None:
                lines.skipped += 1
                continue
            lines.price += 1
            if recorded.received_ns < newest_ns.get(recorded.coin, 0):
                lines.late += 1
                if lines_max is None:
                    self._log_disordered(path, number)
            else:
                newest_ns[recorded.coin] = recorded.received_ns
            yield recorded

    def _log_disordered(self, path: Path, number: int) -> None:
        if path not in self._disordered:  # once per file, however often it is read
            self._disordered.add(path)
            get_logger().warning("replay.disordered", file=path.name, line=number)


def _has_times_of_a_market(recorded: Recorded) -> bool:
    return recorded.received_ns in _TIMES_NS and recorded.observed_ns in _TIMES_NS


def _identity(path: Path) -> tuple[str, int, str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = hashlib.sha256(file.read(_DIGEST_BYTES))
        file.seek(max(0, size - _DIGEST_BYTES))
        ends.update(file.read(_DIGEST_BYTES))
    return path.name, size, ends.hexdigest()


def _received_ns(recorded: Recorded) -> int:
    return recorded.received_ns


def _origin_of(paths: Sequence[Path]) -> str:
    """`replay:` and the names of the files, without folders and endings."""
    names = "+".join(path.name.removesuffix(".gz").partition(".")[0] for path in paths)
    origin = f"replay:{re.sub(r'[^A-Za-z0-9_+-]', '_', names)[:ORIGIN_NAME_MAX]}"
    assert ORIGIN_PATTERN.match(origin)
    return origin


def _lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a plain or packed file, each cut at `LINE_BYTES_MAX`; raises one of `_READ_ERRORS`."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as plain:
        begin = plain.read(8)
        plain.seek(0)
        for magic, kind in _OTHER_KINDS.items():
            if begin.startswith(magic):
                raise OSError(errno.EINVAL, f"it is {kind}")
        if not begin.startswith(_GZIP_MAGIC):
            if not path.stat().st_size:
                raise EOFError("it is empty")
            if path.suffix == ".gz":
                raise gzip.BadGzipFile("it is named .gz but is not packed with gzip")
            yield from _bounded_lines(plain)
            return
        with gzip.open(plain) as unpacked:
            yield from _bounded_lines(unpacked)


def _bounded_lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        yield line
        while not line.endswith(b"\n") and len(line) == LINE_BYTES_MAX:
            line = file.readline(LINE_BYTES_MAX)  # drop the rest of a line that is too long
