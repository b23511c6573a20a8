"""`cotacoes doctor`: run the checks and show what they find."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from cotacoes.cli.options import AsJson, Data, data_folder
from cotacoes.cli.output import can_encode, put, put_json

if TYPE_CHECKING:
    from cotacoes.doctor.finding import Finding  # slow to import, and only needed here

OK, FAILURE = 0, 1
_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}
_PLAIN_MARKS = {"ok": "+", "warning": "!", "error": "x"}  # for a terminal that cannot show those
CHECK_COLUMNS = 11

app = typer.Typer()


@app.command()
def doctor(data: Data = None, as_json: AsJson = False) -> int:
    """Find what is wrong, and what fixes it.

    \b
    Examples:
      cotacoes doctor
      cotacoes doctor --data ./second
      cotacoes doctor --json

    It examines the machine, the data folder and the system that runs there, and changes nothing. The exit code is 1 if
    there is an error, and 0 if there are only warnings.
    """
    from cotacoes.doctor.examination import examine

    findings = asyncio.run(examine(data_folder(data).absolute(), os.environ))
    if as_json:
        put_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for line in lines(findings, marks_for(sys.stdout.encoding)):
            put(line)
    return FAILURE if any(finding.severity == "error" for finding in findings) else OK


def marks_for(encoding: str | None) -> Mapping[str, str]:
    """The marks that this encoding can write."""
    return _MARKS if can_encode("".join(_MARKS.values()), encoding) else _PLAIN_MARKS


def lines(findings: Sequence[Finding], marks: Mapping[str, str]) -> Iterator[str]:
    """A line for each finding, one below it with the fix if there is one, and a summary."""
    for finding in findings:
        head = f"{marks[finding.severity]} {finding.severity:<7} {finding.check:<{CHECK_COLUMNS}} "
        yield head + finding.text
        if finding.mend is not None:
            yield f"{'':>{len(head)}}fix: {finding.mend}"
    count = Counter(str(finding.severity) for finding in findings)
    counts = ((count[severity], severity) for severity in ("error", "warning") if count[severity])
    yield ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for number, word in counts) or "nothing is wrong"
