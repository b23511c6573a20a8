"""Writes the pages of `docs/reference/` from the code, and the list of decisions: `make reference`.

    routes       the HTTP routes, with the types of their answers
    problems     the problem types
    commands     the command line
    settings     the settings, their ranges, and which process is given each
    metrics      what each service counts
    log_events   what each room logs
    messages     the messages on Redis and on the gateway's streams
    venues       the exchanges, their protocols and symbols
    decisions    the titles of the decision records

Each page is a function without arguments that returns Markdown; a test compares what it returns with what is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.make_reference import commands, decisions, log_events, messages, metrics, problems, routes, settings, venues

DOCS = Path(__file__).parents[1]
PAGES: dict[str, Callable[[], str]] = {
    "reference/routes": routes.page,
    "reference/problems": problems.page,
    "reference/commands": commands.page,
    "reference/settings": settings.page,
    "reference/metrics": metrics.page,
    "reference/log-events": log_events.page,
    "reference/messages": messages.page,
    "reference/venues": venues.page,
    "decisions/index": decisions.page,
}


def file_of(page: str) -> Path:
    """The file that holds a page."""
    return DOCS / f"{page}.md"


def write() -> list[str]:
    """Write every page that changed; returns their names."""
    changed = []
    for name, page in PAGES.items():
        text = page()
        if not file_of(name).is_file() or file_of(name).read_text(encoding="utf-8") != text:
            file_of(name).write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
