"""Long lists of names in one line of text."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], most: int, separator: str = ", ") -> str:
    """The first `most` names, and how many more there are: `bitcoin, ethereum, and 3 more`."""
    every = list(names)
    further = [f"and {len(every) - most} more"] if len(every) > most else []
    return separator.join([*every[:most], *further])
