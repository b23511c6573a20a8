"""Writes the pages of `docs/reference/` from the code: `make reference`.

    settings     the settings, their ranges, and which process is given each

Each page is a function without arguments that returns Markdown; a test compares what it returns with what is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.make_reference import settings

FOLDER = Path(__file__).parents[1] / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "settings": settings.page,
}


def file_of(page: str) -> Path:
    """Where a page is kept."""
    return FOLDER / f"{page}.md"


def write() -> list[str]:
    """Write every page that changed; returns their names."""
    changed = []
    for name, page in PAGES.items():
        text = page()
        if not file_of(name).is_file() or file_of(name).read_text(encoding="utf-8") != text:
            file_of(name).write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
