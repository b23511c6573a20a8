"""The list of the decision records, from their titles."""

from __future__ import annotations

import re
from pathlib import Path

from docs.make_reference.markdown import WRITTEN, joined, table

FOLDER = Path(__file__).parents[1] / "decisions"
TITLE = re.compile(r"# (\d+)\. (.+)")
INTRODUCTION = """
A record says what was chosen, why, and what else was considered. Its facts and versions are those of the day on which
it was written.
"""


def page() -> str:
    """The records in their order."""
    rows = []
    for file in sorted(FOLDER.glob("0*.md")):
        title = TITLE.match(file.read_text(encoding="utf-8"))
        assert title, f"{file.name} does not begin with its number and its title"
        rows.append((title[1], f"[{title[2]}]({file.name})"))
    return joined("# Decisions", WRITTEN, INTRODUCTION, table(("number", "decision"), rows))
