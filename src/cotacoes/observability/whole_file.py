"""Small files of state that a crash leaves either as they were or as they should become, never torn."""

from __future__ import annotations

import os
from pathlib import Path

OWNER_ONLY = 0o600  # what holds a password or a token
ANYONE = 0o666  # less the umask


def replace_file(path: Path, content: bytes, *, mode: int = ANYONE) -> None:
    """Write `content` beside the file, then give it the file's name. OSError, and the file stays as it was."""
    draft = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    draft.replace(path)
