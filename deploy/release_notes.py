"""Print the section of a version in CHANGELOG.md, which becomes the notes of its release.

    python deploy/release_notes.py v0.2.0

Ends with 1 if the package carries another version, or if the changelog has no dated section for it.
"""

import re
import sys
from pathlib import Path

import cotacoes

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def section_of(version: str, changelog: str) -> str | None:
    """What stands between the dated heading of `version` and the next one; None if there is no such heading."""
    heading = rf"^## {re.escape(version)} – \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"  # noqa: RUF001  # the dash of the headings
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else None


def main(tag: str) -> None:
    """Print the notes, or end the program with what is wrong."""
    version = tag.removeprefix("v")
    if version != cotacoes.__version__:
        sys.exit(f"the tag is {tag}, but the package is version {cotacoes.__version__}: tag v{cotacoes.__version__}")
    notes = section_of(version, CHANGELOG.read_text(encoding="utf-8"))
    if not notes:
        sys.exit(f"CHANGELOG.md has no dated section for {version}: add `## {version} – YYYY-MM-DD`")  # noqa: RUF001
    sys.stdout.write(f"{notes}\n")


if __name__ == "__main__":
    main(sys.argv[1])
