"""`cotacoes doctor` on the real thing: each fault is planted, found, and mended by the very command that it names."""

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.contract.conftest import psql
from tests.system.conftest import System, wait_until

from cotacoes.config import PORT_OFFSETS
from cotacoes.up.supervision import processes

ENDS_WITHIN_S = 10.0  # 5 s as promised, and as much again for a machine that is busy with other tests
MEND_DEADLINE_S = 60.0
HEALTHY_DEADLINE_S = 60.0
HEALTHY: set[Path] = set()  # the data folders of which the doctor said so last, before a test began
SLOW = pytest.mark.soak  # each takes the doctor several looks; what it judges is in the unit tests as well


@dataclass
class Report:
    """What the doctor said, and how it ended."""

    code: int
    findings: list[dict[str, str | None]]

    def of(self, check: str) -> list[dict[str, str | None]]:
        return [finding for finding in self.findings if finding["check"] == check]

    def troubles(self) -> list[dict[str, str | None]]:
        return [finding for finding in self.findings if finding["severity"] != "ok"]

    def trouble(self, check: str, said: str = "") -> dict[str, str | None]:
        """The one trouble of a check that says this."""
        (found,) = [one for one in self.troubles() if one["check"] == check and said in str(one["text"])]
        return found


def examine(system: System, **environment: str) -> Report:
    system.environment |= environment
    started = time.monotonic()
    try:
        done = system.cli("doctor", "--json")
    finally:
        for name in environment:
            del system.environment[name]
    assert time.monotonic() - started < ENDS_WITHIN_S
    assert done.stderr == ""
    findings = json.loads(done.stdout)["findings"]
    report = Report(done.returncode, findings)
    assert report.code == any(finding["severity"] == "error" for finding in findings)
    return report


def found(system: System, check: str, said: str = "") -> dict[str, str | None]:
    """The trouble, once the doctor finds it: some show only after a moment."""

    def look() -> dict[str, str | None] | None:
        troubles = [one for one in examine(system).troubles() if one["check"] == check and said in str(one["text"])]
        return troubles[0] if troubles else None

    trouble: dict[str, str | None] = wait_until(f"{check}: {said}", look, 30)
    return trouble


def mend(system: System, trouble: dict[str, str | None], **environment: str) -> None:
    """Run the command that it names, as a person would."""
    command = trouble["mend"]
    assert command is not None
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={**system.environment, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=MEND_DEADLINE_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def wait_healthy(system: System) -> None:
    """Return once nothing is wrong; fails with what still is."""
    due = time.monotonic() + HEALTHY_DEADLINE_S
    while troubles := examine(system).troubles():
        assert time.monotonic() < due, troubles
    HEALTHY.add(system.data)


@pytest.fixture
def healthy_system(running_system: System) -> System:
    """The system of this module, with nothing wrong in it, as each test leaves it."""
    if running_system.data not in HEALTHY:
        wait_healthy(running_system)
    HEALTHY.discard(running_system.data)
    return running_system


def test_a_folder_without_a_running_system_is_no_error_and_is_not_created(system: System) -> None:
    report = examine(system, COTACOES_PORT_BASE=str(system.port_base))
    assert (report.code, report.troubles()) == (0, [])
    assert "nothing runs" in str(report.of("system")[0]["text"])
    assert not system.data.exists()


def test_a_port_in_use_is_named_with_its_owner_and_the_setting_to_change(system: System) -> None:
    with socket.create_server(("127.0.0.1", system.port("redis"))):
        report = examine(system, COTACOES_PORT_BASE=str(system.port_base))
    assert report.code == 1
    trouble = report.trouble("ports")
    assert f"port {system.port('redis')} (redis) is taken by" in str(trouble["text"])
    assert f"(pid {os.getpid()})" in str(trouble["text"])
    base = int(str(trouble["mend"]).split("--port-base ")[1].split()[0])
    for offset in PORT_OFFSETS.values():
        with socket.create_server(("127.0.0.1", base + offset)):
            pass


def test_invalid_settings_are_reported_and_the_rest_is_examined(system: System) -> None:
    report = examine(system, COTACOES_SPED="2")
    assert "did you mean COTACOES_SPEED?" in str(report.trouble("settings")["text"])
    assert report.of("system")


def test_a_healthy_system_is_reported_as_healthy_as_text_and_as_json(healthy_system: System) -> None:
    done = healthy_system.cli("doctor")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "nothing is wrong")
    assert all(line.startswith("✓ ok ") for line in lines[:-1])
    assert "\x1b" not in done.stdout


def test_an_examination_changes_no_file(running_system: System) -> None:
    def kept() -> dict[str, tuple[int, bytes]]:
        files = (path for path in running_system.data.iterdir() if path.is_file())
        return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    def pids() -> dict[str, object]:
        return {name: service["pid"] for name, service in running_system.status().items()}

    before = kept(), pids()
    examine(running_system)
    assert (kept(), pids()) == before


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("shard1", "stop"),
        ("redis", "freeze"),
        ("quote_service", "stop"),
        *(
            pytest.param(*one, marks=SLOW)
            for one in (("shard1", "freeze"), ("redis", "stop"), ("quote_service", "freeze"))
        ),
    ],
)
def test_a_service_that_is_away_or_hangs_is_found_in_time_and_started(
    healthy_system: System, service: str, command: str
) -> None:
    healthy_system.ask(command, service)
    report = examine(healthy_system)
    assert report.code == 1
    check = {"shard1": "shards", "redis": "redis", "quote_service": "quotes"}[service]
    trouble = report.trouble(check)
    assert trouble["severity"] == "error"
    assert report.trouble("parts")["text"] == f"somebody left {service} {'stopped' if command == 'stop' else 'paused'}"
    mend(healthy_system, trouble)
    wait_healthy(healthy_system)


def test_the_doctor_ends_in_time_while_everything_hangs(healthy_system: System) -> None:
    frozen = ["shard1", "shard2", "redis", "external_service", "aggregator_service", "gateway_service", "quote_service"]
    for service in frozen:
        healthy_system.ask("freeze", service)
    report = examine(healthy_system)
    assert {str(trouble["check"]) for trouble in report.troubles()} >= {"parts", "shards", "redis", "quotes"}
    for service in frozen:
        healthy_system.ask("start", service)
    wait_healthy(healthy_system)


@SLOW
def test_a_service_that_hangs_unknown_to_up_is_found_and_restarted(healthy_system: System) -> None:
    family = processes.family(healthy_system.pid("aggregator_service"))
    processes.suspend(family)
    try:
        trouble = examine(healthy_system).trouble("parts")
        assert "aggregator_service runs but does not answer" in str(trouble["text"])
        mend(healthy_system, trouble)
    finally:
        processes.resume(family)
    wait_healthy(healthy_system)


@SLOW
def test_quotes_that_wait_for_their_shard_are_counted(healthy_system: System) -> None:
    healthy_system.ask("stop", "shard2")
    trouble = found(healthy_system, "local_log")
    assert "pending on the way to shard2" in str(trouble["text"])
    assert "the oldest for" in str(trouble["text"])
    mend(healthy_system, trouble)
    wait_healthy(healthy_system)


@SLOW
def test_a_failing_source_with_its_open_circuit_is_reported(healthy_system: System) -> None:
    healthy_system.cli("faults", "error_rate=1")
    mend(healthy_system, found(healthy_system, "circuit", "is open"))
    wait_healthy(healthy_system)


@SLOW
def test_a_channel_without_subscribers_is_reported(healthy_system: System) -> None:
    healthy_system.ask("stop", "gateway_service")  # it listens to every coin as well
    healthy_system.ask("stop", "client_subscriber")
    trouble = found(healthy_system, "redis")
    unheard = re.fullmatch(r"no subscriber listens to (\w+), (\w+)", str(trouble["text"]))
    assert unheard is not None
    assert set(unheard.groups()) == {"bitcoin", "ethereum"}
    mend(healthy_system, trouble)
    healthy_system.ask("start", "gateway_service")
    wait_healthy(healthy_system)


def test_a_missing_partition_is_found_and_made(healthy_system: System) -> None:
    day = datetime.now(UTC).date() + timedelta(days=1)
    psql(healthy_system.dsn("shard2"), f"DROP TABLE quote_{day:%Y%m%d}")
    report = examine(healthy_system)
    assert report.code == 0
    trouble = report.trouble("partitions")
    assert f"shard2 has no partition for {day}" in str(trouble["text"])
    mend(healthy_system, trouble)
    wait_healthy(healthy_system)
    assert psql(healthy_system.dsn("shard2"), f"SELECT to_regclass('quote_{day:%Y%m%d}') IS NOT NULL") == "t"


def test_a_secret_that_others_can_read_is_closed(healthy_system: System) -> None:
    secret = healthy_system.data / "admin_token.secret"
    secret.chmod(0o644)
    report = examine(healthy_system)
    assert report.code == 1
    mend(healthy_system, report.trouble("permissions"))
    assert secret.stat().st_mode & 0o777 == 0o600
    wait_healthy(healthy_system)


def test_a_schema_of_another_release_is_refused_by_name(healthy_system: System) -> None:
    psql(healthy_system.dsn("shard1"), "INSERT INTO schema_migration (version, name, sha256) VALUES (9000, 'x', 'y')")
    try:
        trouble = examine(healthy_system).trouble("schema")
    finally:
        psql(healthy_system.dsn("shard1"), "DELETE FROM schema_migration WHERE version = 9000")
    assert "shard1 has schema 9000, newer than this release" in str(trouble["text"])
    assert trouble["mend"] is None
    wait_healthy(healthy_system)


def test_empty_databases_are_reported_with_the_command_that_migrates_them(
    running_system: System, tmp_path: Path
) -> None:
    given = {}
    for shard in ("shard1", "shard2"):
        psql(running_system.dsn(shard), f"CREATE DATABASE empty_{shard}")
        given[f"COTACOES_{shard.upper()}_DSN"] = running_system.dsn(shard).replace("/cotacoes?", f"/empty_{shard}?")
    elsewhere = System(tmp_path / "nothing here")
    given["COTACOES_PORT_BASE"] = str(elsewhere.port_base)
    troubles = examine(elsewhere, **given).of("schema")
    assert [trouble["severity"] for trouble in troubles] == ["error", "error"]
    mend(elsewhere, troubles[0], **given)
    assert examine(elsewhere, **given).troubles() == []
    for shard in ("shard1", "shard2"):
        psql(running_system.dsn(shard), f"DROP DATABASE empty_{shard} WITH (FORCE)")


def has_been_restarted(system: System, service: str, times: int) -> bool:
    status = system.status()[service]
    return bool(status["restarts"] >= times and status["state"] == "running")


@SLOW
def test_a_service_that_keeps_dying_is_reported_with_its_last_words(healthy_system: System) -> None:
    for restarts in range(1, 4):
        healthy_system.kill("external_service")
        wait_until(
            f"restart {restarts}",
            functools.partial(has_been_restarted, healthy_system, "external_service", restarts),
            30,
        )
    trouble = examine(healthy_system).trouble("parts")
    assert "external_service runs, but was restarted" in str(trouble["text"])
    assert "its last message: " in str(trouble["text"])


def move_newest(system: System, minutes: int) -> None:
    """Move the time of the newest ether on shard2, as a clock that is wrong would have."""
    newest = "(epoch, seq) = (SELECT last_epoch, last_seq FROM fence WHERE coin = 'ethereum')"
    by = f"interval '{minutes} minutes'"
    last_day = "(d.coin_id, d.last_epoch, d.last_seq) = (f.coin_id, f.last_epoch, f.last_seq)"
    for change in (
        f"UPDATE quote SET at = at + {by}, observed_at = observed_at + {by} WHERE {newest}",
        f"UPDATE fence SET last_at = last_at + {by}",
        f"UPDATE day AS d SET day = utc_day(f.last_at) FROM fence AS f WHERE {last_day}",
    ):
        psql(system.dsn("shard2"), change)


def stop_writer(system: System) -> None:
    """Stop quote_service, and leave what the shards have as all there is."""
    system.ask("stop", "quote_service")
    for file in (system.data / "quote_service").glob("quotes.*"):
        file.unlink()


def test_a_stored_time_more_than_a_day_ahead_is_found_before_and_after_it_stops_the_writer(system: System) -> None:
    system.start()
    wait_healthy(system)
    stop_writer(system)
    move_newest(system, 25 * 60)
    trouble = examine(system).trouble("clock")
    assert trouble["severity"] == "error"
    assert "&& cotacoes up --accept-clock --data" in str(trouble["mend"])
    system.ask("start", "quote_service")
    gave_up = found(system, "parts", "gave up")
    assert "--accept-clock" in str(gave_up["text"])
    move_newest(system, -25 * 60)
    mend(system, gave_up)
    wait_healthy(system)


def test_a_stored_time_ahead_of_the_clock_stops_no_price_and_is_reported(system: System) -> None:
    system.start()
    wait_healthy(system)
    stop_writer(system)
    move_newest(system, 10)
    system.ask("start", "quote_service")
    trouble = found(system, "clock", "ahead of the clock")
    assert trouble["severity"] == "warning"
    wait_until("a fresh quote", lambda: examine(system).of("quotes")[0]["severity"] == "ok")


def test_an_up_that_hangs_is_found_in_time_and_goes_on(system: System) -> None:
    system.start()
    system.signal(signal.SIGSTOP)
    try:
        trouble = examine(system).trouble("system")
        mend(system, trouble)
        wait_healthy(system)
    finally:
        system.signal(signal.SIGCONT)


@SLOW
def test_pending_quotes_in_the_log_of_a_killed_system_are_counted_and_stay(system: System) -> None:
    system.start()
    wait_healthy(system)
    system.ask("stop", "shard1")
    found(system, "local_log")
    system.kill_up()
    wait_until("all services are gone", lambda: not system.left())
    log = system.data / "quote_service" / "quotes.sqlite3"
    before = log.read_bytes(), sorted(path.name for path in log.parent.iterdir())
    report = examine(system, COTACOES_PORT_BASE=str(system.port_base))
    assert (report.code, report.troubles()) == (0, [])
    assert "pending quotes, the oldest for" in str(report.of("local_log")[0]["text"])
    assert "newest stored quote" in str(report.of("clock")[0]["text"])
    assert (log.read_bytes(), sorted(path.name for path in log.parent.iterdir())) == before
