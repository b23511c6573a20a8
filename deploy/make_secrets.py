"""Make the passwords of the containers, each once, on a volume that only the containers that need it mount.

    python -IS make_secrets.py FOLDER

FOLDER/shard1  password  dsn                 FOLDER/redis  password  url  redis.conf

A password from the environment (SHARD1_PASSWORD, SHARD2_PASSWORD, REDIS_PASSWORD) replaces the one made earlier. A
shard keeps the password that it was given when its volume was new.
"""

import os
import re
import secrets
import sys
from pathlib import Path

READABLE = 0o444  # each image that mounts the volume has a user of its own


def main(folder: Path) -> None:
    """Write the passwords, and the addresses and settings that hold them, into FOLDER."""
    for shard in ("shard1", "shard2"):
        password = password_of(folder / shard, shard)
        write(folder / shard / "dsn", f"postgresql://cotacoes:{password}@{shard}:5432/cotacoes?sslmode=disable")
    password = password_of(folder / "redis", "redis")
    write(folder / "redis" / "url", f"redis://:{password}@redis:6379")
    write(folder / "redis" / "redis.conf", f"requirepass {password}")


def password_of(folder: Path, name: str) -> str:
    """The password from the environment, else the one made before, else a new one."""
    variable, file = f"{name.upper()}_PASSWORD", folder / "password"
    password = os.environ.get(variable) or (file.read_text().strip() if file.exists() else secrets.token_hex(24))
    if not re.fullmatch("[A-Za-z0-9_-]+", password):  # it becomes part of a URL and of a configuration line
        sys.exit(f"{variable} is refused: use letters, digits, - and _")
    write(file, password)
    return password


def write(file: Path, text: str) -> None:
    """Replace the file as a whole: a reader sees the old text or the new one."""
    draft = file.with_suffix(".new")
    draft.write_text(f"{text}\n")
    draft.chmod(READABLE)
    draft.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
