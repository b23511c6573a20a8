"""Make the passwords of the containers, each once, in the volume that only those mount who need it.

    python -IS make_secrets.py FOLDER

FOLDER/shard1  password  dsn                 FOLDER/redis  password  url  redis.conf

A password that the environment gives (SHARD1_PASSWORD, SHARD2_PASSWORD, REDIS_PASSWORD) goes before the one made
earlier, as a shard's own password does that was set when its volume was new.
"""

import os
import re
import secrets
import sys
from pathlib import Path

READABLE = 0o444  # by the user of each image that mounts it


def main(folder: Path) -> None:
    """Write what is not there yet, or is given anew."""
    for shard in ("shard1", "shard2"):
        password = password_of(folder / shard, shard)
        write(folder / shard / "dsn", f"postgresql://cotacoes:{password}@{shard}:5432/cotacoes?sslmode=disable")
    password = password_of(folder / "redis", "redis")
    write(folder / "redis" / "url", f"redis://:{password}@redis:6379")
    write(folder / "redis" / "redis.conf", f"requirepass {password}")


def password_of(folder: Path, name: str) -> str:
    """The password given, else the one made before, else a new one."""
    variable, file = f"{name.upper()}_PASSWORD", folder / "password"
    password = os.environ.get(variable) or (file.read_text().strip() if file.exists() else secrets.token_hex(24))
    if not re.fullmatch("[A-Za-z0-9_-]+", password):  # it is part of an address and of a line of settings
        sys.exit(f"{variable} is refused: use letters, digits, - and _")
    write(file, password)
    return password


def write(file: Path, text: str) -> None:
    """All of it or nothing."""
    draft = file.with_suffix(".new")
    draft.write_text(f"{text}\n")
    draft.chmod(READABLE)
    draft.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
