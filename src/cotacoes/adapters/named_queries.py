"""Named queries from a `.sql` file of a package: each has a name and a line on what it is for."""

from __future__ import annotations

from importlib import resources


def read(package: str, file: str, **fragments: str) -> dict[str, str]:
    """The queries of a package's file by name, with their comments; `/* fragment */` is replaced by that fragment."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    for name, fragment in fragments.items():
        text = text.replace(f"/* {name} */", fragment)
    sections = (section.split("\n", 1) for section in text.split("-- name: ")[1:])
    return {name.strip(): body.strip() for name, body in sections}
