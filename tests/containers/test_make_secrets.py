"""The passwords of the containers: made once, given first, and in every form that a container reads."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cotacoes import config

SCRIPT = Path(__file__).parents[2] / "deploy" / "make_secrets.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shard1", "shard2", "redis"):
        (tmp_path / name).mkdir()
    return tmp_path


def make(folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-IS", str(SCRIPT), str(folder)]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def made(folder: Path, **given: str) -> dict[str, str]:
    done = make(folder, **given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {str(file.relative_to(folder)): file.read_text().strip() for file in folder.rglob("*") if file.is_file()}


def test_each_password_is_random_and_is_part_of_the_address_that_services_read(folder: Path) -> None:
    found = made(folder)
    assert set(found) == {
        *(f"{shard}/{name}" for shard in ("shard1", "shard2") for name in ("password", "dsn")),
        *(f"redis/{name}" for name in ("password", "url", "redis.conf")),
    }
    passwords = {found[f"{name}/password"] for name in ("shard1", "shard2", "redis")}
    assert len(passwords) == 3
    assert min(map(len, passwords)) >= 32
    settings = config.load(
        {
            "COTACOES_SHARD1_DSN_FILE": str(folder / "shard1" / "dsn"),
            "COTACOES_SHARD2_DSN_FILE": str(folder / "shard2" / "dsn"),
            "COTACOES_REDIS_URL_FILE": str(folder / "redis" / "url"),
        }
    )
    for shard in ("shard1", "shard2"):
        password = found[f"{shard}/password"]
        assert settings.dsn(shard) == f"postgresql://cotacoes:{password}@{shard}:5432/cotacoes?sslmode=disable"
    assert settings.redis == f"redis://:{found['redis/password']}@redis:6379"
    assert found["redis/redis.conf"] == f"requirepass {found['redis/password']}"


def test_they_are_made_once_and_every_image_can_read_them(folder: Path) -> None:
    assert made(folder) == made(folder)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()}
    assert modes == {0o444}


def test_a_password_that_is_given_goes_first_and_stays(folder: Path) -> None:
    before = made(folder)
    after = made(folder, SHARD1_PASSWORD="cotacoes", REDIS_PASSWORD="")
    assert after["shard1/password"] == "cotacoes"
    assert after["redis/password"] == before["redis/password"]
    assert made(folder) == after


@pytest.mark.parametrize("password", ["a b", "a/b", "a@b", "a\nb", "é"])
def test_a_password_that_would_break_an_address_is_refused_by_name(folder: Path, password: str) -> None:
    done = make(folder, REDIS_PASSWORD=password)
    assert done.returncode == 1
    assert done.stderr == "REDIS_PASSWORD is refused: use letters, digits, - and _\n"
    assert not list((folder / "redis").iterdir())
