"""A finding: its severity, one sentence, and the command that fixes it if there is one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Severity(enum.StrEnum):
    """`warning`: it works now but may fail later. `error`: it does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Judgement(NamedTuple):
    """The result of a check, without its name."""

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
    """A judgement that nothing needs to be done."""
    return Judgement(Severity.OK, text)


def warning(text: str, mend: str | None = None) -> Judgement:
    """A judgement that something may fail later."""
    return Judgement(Severity.WARNING, text, mend)


def error(text: str, mend: str | None = None) -> Judgement:
    """A judgement that something does not work."""
    return Judgement(Severity.ERROR, text, mend)
