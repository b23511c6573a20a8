"""SQL from a `.sql` file of a package, where each query has a name and one line on what it is for."""

from __future__ import annotations

from importlib import resources


def read(package: str, file: str) -> dict[str, str]:
    """The queries of a package's file by name, comments included."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    sections = (section.split("\n", 1) for section in text.split("-- name: ")[1:])
    return {name.strip(): body.strip() for name, body in sections}
