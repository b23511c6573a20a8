"""The data folder: its lock, version, secrets, logs and what it remembers of a run."""

import os
import stat
from pathlib import Path

import pytest

from cotacoes.errors import SettingError
from cotacoes.up.data_folder import VERSION, DataFolder, Running, ServiceLogs, read_running, read_secret
from cotacoes.up.supervision import processes


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "a b" / "data") as folder:
        with pytest.raises(SettingError, match="another `cotacoes up` runs on"), DataFolder(folder.path):
            pass
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    with DataFolder(folder.path):
        pass


@pytest.mark.parametrize("found", [str(VERSION + 1), "", "x", "-1", "²", "9" * 5000])
def test_an_unknown_version_is_refused(tmp_path: Path, found: str) -> None:
    (tmp_path / "version").write_text(found)
    with pytest.raises(SettingError, match="this release knows up to"), DataFolder(tmp_path):
        pass
    assert (tmp_path / "version").read_text() == found


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with (
        pytest.raises(SettingError, match=r"cannot write the data folder .* \(File exists\): set --data"),
        DataFolder(tmp_path / "data"),
    ):
        pass


def test_a_disk_without_room_is_refused() -> None:
    folder = next((Path(path) for path in ("/proc", "/dev") if os.statvfs(path).f_bavail == 0), None)
    if folder is None:
        pytest.skip("no file system without room here")
    with pytest.raises(SettingError, match="0 MB free, but 200 MB are needed"):
        DataFolder(folder).refuse_full()


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        secret = folder.secret("token")
        assert len(secret) >= 32
        assert folder.secret("token") == secret == read_secret(tmp_path, "token")
        assert folder.secret("other") != secret
    assert stat.S_IMODE((tmp_path / "token.secret").stat().st_mode) == 0o600
    assert read_secret(tmp_path, "none") == ""


def test_running_processes_are_recorded_until_everything_is_stopped(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        folder.note_running(1234, {"me": os.getpid()})
        running = read_running(tmp_path)
        assert running == Running(
            os.getpid(), processes.birth(os.getpid()), 1234, {"me": (os.getpid(), processes.birth(os.getpid()))}
        )
        assert running.is_alive
        assert stat.S_IMODE((tmp_path / "up.json").stat().st_mode) == 0o600
    assert read_running(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pid":1}', '{"pid":1,"birth":"x","control_port":"y","children":{}}']
)
def test_a_damaged_record_of_what_runs_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "up.json").write_text(text)
    assert read_running(tmp_path) is None


def test_a_log_is_bounded_and_its_previous_file_is_kept(tmp_path: Path) -> None:
    logs = ServiceLogs(tmp_path, bytes_max=30)
    for number in range(7):
        logs.write("part", b"line %d...." % number)  # 11 bytes with its line feed
    assert (tmp_path / "part.log").read_bytes() == b"line 6....\n"
    assert (tmp_path / "part.log.1").read_bytes() == b"".join(b"line %d....\n" % number for number in (4, 5))
    again = ServiceLogs(tmp_path, bytes_max=30)  # after a restart the size is known
    again.write("part", b"x" * 20)
    assert (tmp_path / "part.log.1").read_bytes() == b"line 6....\n"


def test_lines_that_a_log_cannot_take_are_dropped_and_counted(tmp_path: Path) -> None:
    logs = ServiceLogs(tmp_path)
    (tmp_path / "part.log").symlink_to("/dev/full")
    logs.write("part", b"lost")
    logs.write("part", b"lost too")
    (tmp_path / "part.log").unlink()
    logs.write("part", b"kept")
    assert (tmp_path / "part.log").read_text().splitlines() == ['{"event": "log.dropped", "count": 2}', "kept"]


def test_a_removed_log_begins_again(tmp_path: Path) -> None:
    logs = ServiceLogs(tmp_path, bytes_max=60)
    logs.write("part", b"x" * 50)
    (tmp_path / "part.log").unlink()
    for word in (b"one line, lost", b"two", b"three"):
        logs.write("part", word)
    assert (tmp_path / "part.log").read_text().splitlines()[-2:] == ["two", "three"]
