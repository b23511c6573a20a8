"""What a check says: how bad it is, one sentence, and the command that mends it where there is one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Severity(enum.StrEnum):
    """`warning` works now, and may not later; `error` does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Judgement(NamedTuple):
    """What a check says; its name stands in the table."""

    severity: Severity
    text: str
    mend: str | None = None


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    check: str
    severity: Severity
    text: str
    mend: str | None


def ok(text: str) -> Judgement:
    """All is well, or nothing is to be done."""
    return Judgement(Severity.OK, text)


def warning(text: str, mend: str | None = None) -> Judgement:
    """See Severity."""
    return Judgement(Severity.WARNING, text, mend)


def error(text: str, mend: str | None = None) -> Judgement:
    """See Severity."""
    return Judgement(Severity.ERROR, text, mend)
