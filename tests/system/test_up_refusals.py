"""What `cotacoes up` refuses before anything starts: each by name, with what to change, and nothing damaged."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from tests.system.conftest import System, wait_until

from cotacoes.up.data_folder import VERSION

USAGE = 2


def refusal(system: System) -> str:
    """What `up` says and ends with at once."""
    assert system.begin().wait_ended() == USAGE
    assert not [event for event in system.events if event["type"] == "part"], "something was started"
    said = system.stderr.decode()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    return said


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("service", ["gateway_service", "redis", "shard2"])
def test_a_port_in_use_is_named_with_the_setting_to_change(system: System, service: str) -> None:
    with socket.create_server(("127.0.0.1", system.port(service))):
        said = refusal(system)
    assert f"port {system.port(service)} for {service}" in said
    assert "--port-base" in said


def test_a_second_up_on_the_same_data_is_refused_and_the_first_goes_on(system: System) -> None:
    system.start()
    with System(system.data) as second:
        assert "another `cotacoes up` runs on" in refusal(second)
    assert {service["state"] for service in system.status().values()} == {"running"}


def test_data_of_another_postgres_is_refused_with_both_versions_and_not_touched(system: System) -> None:
    shard = system.data / "shard2"
    shard.mkdir(parents=True, mode=0o700)
    (shard / "PG_VERSION").write_text("15\n")
    said = refusal(system)
    assert f"{shard} holds data of PostgreSQL 15, and this release brings PostgreSQL 1" in said
    assert files(shard) == {"PG_VERSION": b"15\n"}


def test_data_of_a_newer_version_is_refused_and_not_touched(system: System) -> None:
    system.data.mkdir()
    (system.data / "version").write_text(f"{VERSION + 1}\n")
    (system.data / "treasure").write_bytes(b"gold")
    before = files(system.data)
    assert f"is of version {VERSION + 1}, this release knows up to {VERSION}" in refusal(system)
    assert files(system.data) == before


def test_a_read_only_data_folder_is_refused(system: System, tmp_path: Path) -> None:
    if os.geteuid() == 0:  # root writes anywhere but where there is no folder
        in_the_way = tmp_path / "a file"
        in_the_way.touch()
        system.data = in_the_way / "data"
    else:
        system.data.mkdir(mode=0o500)
    assert f"cannot write the data folder {system.data} (" in refusal(system)


def test_a_full_disk_is_refused(system: System, tmp_path: Path) -> None:
    disk = tmp_path / "small disk"
    disk.mkdir()
    unshare = shutil.which("unshare")
    mount = f"mount -t tmpfs -o size=20m small '{disk}'"
    inside = [str(unshare), "--user", "--map-root-user", "--mount", "sh", "-c"]
    if unshare is None or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("a small disk needs Linux, and leave to mount one in a user namespace")
    system.data = disk / "data"
    system.wrapper = [*inside, f'{mount} && exec "$@"', "sh"]
    assert "20 MB free, but 200 MB are needed: free some space" in refusal(system)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--source", "replay:/nowhere/at all.gz"], "/nowhere/at all.gz cannot be read"),
        (["--source", "magic"], "COTACOES_SOURCE=magic is invalid"),
        (["--failure-rate", "1.5"], "≤ 1"),
        (["--speed", "0"], "≥ 0.01"),
    ],
)
def test_an_impossible_option_is_refused_with_the_allowed_range(
    system: System, options: list[str], reason: str
) -> None:
    system.options = tuple(options)
    assert reason in refusal(system)


def test_an_unknown_setting_is_refused_by_name(system: System) -> None:
    system.environment["COTACOES_POTR_BASE"] = "9000"
    assert "unknown setting COTACOES_POTR_BASE: did you mean COTACOES_PORT_BASE?" in refusal(system)


def test_the_address_of_a_service_that_it_starts_itself_is_refused(system: System) -> None:
    system.environment["COTACOES_QUOTE_URL"] = "http://127.0.0.1:9"
    assert "COTACOES_QUOTE_URL names another quote_service" in refusal(system)


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_a_closed_output_is_reported_and_the_system_keeps_running(system: System, output: str) -> None:
    system.wrapper = ["sh", "-c", f'exec "$@" {output}', "sh"]
    system.begin()
    wait_until("it says so", lambda: system.stderr.startswith(b"standard output cannot be written"), 40)
    wait_until(
        "every service runs", lambda: {service["state"] for service in system.status().values()} == {"running"}, 40
    )


def test_a_data_folder_without_a_name_is_refused_and_nothing_is_made(system: System, tmp_path: Path) -> None:
    ended = subprocess.run(
        [*system.program, "up", "--data", ""],
        cwd=tmp_path,
        env=system.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == USAGE
    assert "'--data': the folder's name is empty: name a folder or leave the option out" in ended.stderr
    assert not list(tmp_path.iterdir())
