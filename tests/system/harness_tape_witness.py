"""A witness of feed_service's tape: notes every price on it, and holds what was recorded against that.

    GET /quotes ─▶ TapeWitness ─▶ breaches ◀── the stored quotes, and the source gaps that quote_service noted

`breaches` is pure; `tests/unit/test_tape_witness.py` plants each breach once and sees it found.
"""

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from cotacoes.adapters.http_client import HttpClient
from cotacoes.errors import HttpMalformedError, HttpUnavailableError
from cotacoes.model.quote import parse_time
from cotacoes.patterns.resilience.classification import outcome_of_status

AGAIN_S = 0.02
WAIT_MS = 200
AGREED = ("price", "observed_at", "state", "confidence", "used", "of")  # what a quote keeps of an entry


Tape = Sequence[tuple[int, Mapping[str, Any]]]  # the prices of a coin, each with the number of its run


class Gap(NamedTuple):
    """A source gap as quote_service noted it: the cursors before and after it, each `RUN-INDEX`."""

    after: str
    next: str


@dataclass
class Run:
    """One start of feed_service: its name, and the prices on its tape from index 1 on, as far as they were seen."""

    name: str
    entries: list[dict[str, Any]] = field(default_factory=list)


def breaches(
    runs: Sequence[Run],
    gaps: Sequence[Gap],
    stored: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    is_whole: bool,
) -> list[str]:
    """What is wrong with the stored quotes of each coin, in words; none if every promise held.

    Each is a price of the tape, in its order and once. If the tape is recorded as a whole, each of its prices from the
    first stored one on is stored, unless it lies in a gap that was noted; and a gap leads from one run to a later one,
    once. The end of a run may have been recorded without having been seen.
    """
    numbers = {run.name: number for number, run in enumerate(runs)}
    found = [f"no such gap can be: {gap}" for gap in gaps if not (is_whole and _leads_on(gap, numbers))]
    led = Counter((_run_of(gap.after), _run_of(gap.next)) for gap in gaps)
    found += [
        f"the gap from {after} to {later} was noted {count} times" for (after, later), count in led.items() if count > 1
    ]
    ends = {numbers.get(_run_of(gap.after)): int(gap.after.rpartition("-")[2]) for gap in gaps}
    for coin, quotes in stored.items():
        tape = [(number, entry) for number, run in enumerate(runs) for entry in run.entries if entry["coin"] == coin]
        stored_at, strange = _places(tape, quotes)
        found += [f"{coin} {one['price']} of {one['observed_at']} is not on the tape, or not again" for one in strange]
        for place in range(min(stored_at, default=0), max(stored_at, default=-1)) if is_whole else ():
            number, entry = tape[place]
            if place not in stored_at and entry["index"] <= ends.get(number, entry["index"]):
                found.append(f"{coin} {entry['price']} of {entry['observed_at']} is neither stored nor in a gap")
    return found


def _places(tape: Tape, quotes: Sequence[Mapping[str, Any]]) -> tuple[set[int], list[Mapping[str, Any]]]:
    """The places on the tape of quotes, which must be in its order, and the quotes that have none."""
    places: set[int] = set()
    strange = []
    at = 0
    for quote in quotes:
        place = next((place for place in range(at, len(tape)) if _agrees(tape[place][1], quote)), None)
        if place is not None:
            places.add(place)
            at = place + 1
        elif not _is_unseen_end(tape, at, parse_time(quote["observed_at"])):
            strange.append(quote)
    return places, strange


def _is_unseen_end(tape: Tape, at: int, observed_at: datetime) -> bool:
    """Whether a quote after this place may be from the end of a run: later than what was seen of it."""
    end = max(1, at)
    while end < len(tape) and tape[end][0] == tape[end - 1][0]:
        end += 1
    is_after = end <= len(tape) and observed_at > parse_time(tape[end - 1][1]["observed_at"])
    return is_after and (end == len(tape) or observed_at < parse_time(tape[end][1]["observed_at"]))


def _agrees(entry: Mapping[str, Any], quote: Mapping[str, Any]) -> bool:
    return all(entry[name] == quote[name] for name in AGREED)


def _run_of(cursor: str) -> str:
    return cursor.rpartition("-")[0]


def _leads_on(gap: Gap, numbers: Mapping[str, int]) -> bool:
    before, later = numbers.get(_run_of(gap.after)), numbers.get(_run_of(gap.next))
    return before is not None and later is not None and before < later


def noted_gaps(data: Path) -> list[Gap]:
    """The source gaps in the local log of this data folder."""
    with contextlib.closing(
        sqlite3.connect(f"file:{data / 'quote_service' / 'quotes.sqlite3'}?mode=ro", uri=True)
    ) as db:
        return [
            Gap(after, later) for after, later in db.execute("SELECT after, next FROM source_gap ORDER BY noted_at")
        ]


class TapeWitness:
    """Reads the tape at `url` from its beginning all the time, in a thread, bearing that it is away."""

    def __init__(self, url: str) -> None:
        self.runs: list[Run] = []
        self._url = url
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="tape witness")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the witness of the tape does not end"
        if self._failures:
            raise self._failures[0]

    def has_read(self, cursor: str) -> bool:
        """Whether it has come as far as this cursor."""
        run, _, index = cursor.rpartition("-")
        return any(one.name == run and len(one.entries) >= int(index) for one in self.runs)

    def _run(self) -> None:
        try:
            asyncio.run(self._read())
        except BaseException as error:  # handed over to the test
            self._failures.append(error)

    async def _read(self) -> None:
        async with HttpClient(deadline_s=2.0, bytes_max=10_000_000) as client:
            while not self._stop.is_set():
                try:
                    self._note(await self._page(client))
                except (HttpUnavailableError, HttpMalformedError):
                    await asyncio.sleep(AGAIN_S)

    async def _page(self, client: HttpClient) -> Any:
        after = f"&after={self.runs[-1].name}-{len(self.runs[-1].entries)}" if self.runs else ""
        answer = await client.get(f"{self._url}/quotes?limit=10000&wait_ms={WAIT_MS}{after}")
        if answer.status not in {200, 410}:
            raise HttpUnavailableError(f"the tape answered {answer.status}", outcome=outcome_of_status(answer.status))
        return json.loads(answer.body)

    def _note(self, page: Any) -> None:
        """Note a page, or the beginning of another run, which a 410 names too."""
        run = _run_of(page["next"])
        if not self.runs or self.runs[-1].name != run:
            self.runs.append(Run(run))
            return  # whatever the page has, it is read from the beginning
        entries = self.runs[-1].entries
        for entry in page.get("quotes", ()):
            assert entry["index"] == len(entries) + 1
            entries.append(entry)
