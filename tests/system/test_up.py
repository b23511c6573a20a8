"""`cotacoes up`: what it shows, what one can do to its services, and that it leaves nothing running."""

import json
import signal
import socket
import stat
import subprocess
import time

import psutil
import pytest
from tests.system.conftest import PARTS, System, wait_until

from cotacoes.config import PORT_OFFSETS
from cotacoes.up.supervision import processes


def test_up_names_the_source_first_then_the_services_then_quotes(running_system: System) -> None:
    first = running_system.wait_for_event("a line", lambda event: True)
    assert first == {"type": "source", "text": "simulated market (seed 1, 20 % of requests fail on purpose)"}
    running_system.wait_for_event("a quote", lambda event: event["type"] == "quote")
    table = running_system.wait_for_event("the table", lambda event: event["type"] == "parts")
    assert [service["name"] for service in table["parts"]] == PARTS


def test_status_names_every_service_with_its_process_and_address(running_system: System) -> None:
    services = json.loads(running_system.cli("status", "--json").stdout)["parts"]
    status = {service["name"]: service for service in services}
    assert list(status) == PARTS
    for name, service in status.items():
        assert set(service) == {"name", "pid", "address", "state", "restarts"}
        assert psutil.pid_exists(service["pid"])
        port = PORT_OFFSETS.get(name)
        assert (
            service["address"] is None if port is None else f":{running_system.port_base + port}" in service["address"]
        )


def test_the_data_folder_and_its_secrets_are_for_their_owner_only(running_system: System) -> None:
    assert stat.S_IMODE(running_system.data.stat().st_mode) == 0o700
    folder = running_system.data
    secrets = [*folder.glob("*.secret"), folder / "up.json", folder / "redis" / "valkey.conf"]
    assert len(secrets) == 7
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_no_secret_is_on_a_command_line_or_in_a_log(running_system: System) -> None:
    secrets = [path.read_text() for path in running_system.data.glob("*.secret")]
    assert running_system.up is not None
    lines = [" ".join(process.cmdline()) for process in processes.family(running_system.up.pid)]
    assert any("valkey-server" in line for line in lines)
    texts = [*lines, *(path.read_text() for path in (running_system.data / "logs").iterdir())]
    assert not [text for text in texts if any(secret in text for secret in secrets)]


def test_everything_listens_on_loopback_only(running_system: System) -> None:
    family = [psutil.Process(service["pid"]) for service in running_system.status().values()]
    listening = {
        connection.laddr
        for process in family
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port - running_system.port_base for address in listening} == {
        offset
        for service, offset in PORT_OFFSETS.items()
        if service != "feed_service"  # it follows exchanges, if any
    }


def test_the_printed_environment_leads_to_every_server(running_system: System) -> None:
    env = json.loads(running_system.cli("env", "--json").stdout)
    for name in ("REDIS_URL", "GATEWAY_URL", "EXTERNAL_URL", "QUOTE_URL", "AGGREGATOR_URL", "ADMIN_TOKEN"):
        assert env[f"COTACOES_{name}"]
    for shard in ("SHARD1", "SHARD2"):
        asked = subprocess.run(
            [f"{env['path']}/psql", "-qXAt", "-c", "SELECT count(*) >= 0 FROM quotes", env[f"COTACOES_{shard}_DSN"]],
            capture_output=True,
            text=True,
        )
        assert asked.stdout == "t\n", asked.stderr


def test_a_stopped_service_stays_stopped_until_it_is_started(running_system: System) -> None:
    pid = running_system.pid("shard1")
    assert running_system.cli("stop", "shard1").returncode == 0
    service = running_system.status()["shard1"]
    assert (service["state"], service["pid"]) == ("stopped", None)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert running_system.cli("start", "shard1").returncode == 0
    assert running_system.status()["shard1"]["state"] == "running"


@pytest.mark.parametrize("service", ["quote_service", "shard2", "redis"])
def test_a_paused_service_stands_still_with_all_its_processes_until_it_is_started(
    running_system: System, service: str
) -> None:
    assert running_system.cli("pause", service).returncode == 0
    assert running_system.status()[service]["state"] == "frozen"
    top = psutil.Process(running_system.pid(service))
    family = [top, *top.children(recursive=True)]
    assert {process.status() for process in family} == {psutil.STATUS_STOPPED}
    assert running_system.cli("start", service).returncode == 0
    assert running_system.status()[service]["state"] == "running"
    assert psutil.STATUS_STOPPED not in {process.status() for process in family if process.is_running()}


def test_a_paused_service_can_be_stopped(running_system: System) -> None:
    assert running_system.cli("freeze", "gateway_service").returncode == 0
    assert running_system.cli("stop", "gateway_service").returncode == 0
    assert running_system.status()["gateway_service"]["state"] == "stopped"
    assert running_system.cli("start", "gateway_service").returncode == 0


@pytest.mark.parametrize("service", PARTS)
def test_a_killed_service_is_restarted_and_the_restart_is_reported(running_system: System, service: str) -> None:
    before = running_system.status()[service]
    running_system.kill(service)

    def is_back() -> bool:
        now = running_system.status()[service]
        return now["state"] == "running" and now["pid"] not in {before["pid"], None}  # None: its end is not noticed yet

    wait_until(f"{service} is back", is_back, 30)
    assert running_system.status()[service]["restarts"] > before["restarts"]
    said = [event for event in running_system.events if event.get("part") == service and event.get("state")]
    assert "killed by SIGKILL; again in" in next(e["detail"] for e in reversed(said) if e["state"] == "restarting")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("stop", "shard3"), "unknown service shard3: the services are shard1, shard2"),
        (("pause", "nothing"), "unknown service nothing"),
    ],
)
def test_an_unknown_service_is_refused_by_name(running_system: System, arguments: tuple[str, ...], reason: str) -> None:
    done = running_system.cli(*arguments)
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_command_without_the_secret_is_refused(running_system: System) -> None:
    port = json.loads((running_system.data / "up.json").read_text())["control_port"]
    for request in (b'{"command":"down"}\n', b'{"secret":"x","command":"down"}\n', b"[]\n", b"x" * 9000 + b"\n"):
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(request)
            assert b"error" in connection.recv(1000)
    assert running_system.cli("status").returncode == 0


def test_logs_are_kept_per_service_without_the_quotes(running_system: System) -> None:
    logs = {path.stem: path.read_text() for path in (running_system.data / "logs").glob("*.log")}
    assert "database system is ready to accept connections" in logs["shard1"]
    assert "service.started" in logs["client_subscriber"]
    assert '"type":"quote"' not in logs["client_subscriber"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_reverse_order_and_leaves_nothing_running(
    system: System, number: signal.Signals
) -> None:
    system.start().note_pids()
    system.signal(number)
    assert system.wait_ended() == 130
    assert not system.left()
    states = [(event["part"], event["state"]) for event in system.events if event["type"] == "part"]
    assert states[-len(PARTS) :] == [(service, "stopped") for service in reversed(PARTS)]
    assert not (system.data / "up.json").exists()


def test_down_returns_when_everything_is_gone(system: System) -> None:
    system.start().note_pids()
    assert system.cli("down").returncode == 0
    assert not system.left()
    assert system.wait_ended() == 0
    again = system.cli("down")
    assert again.returncode == 4
    assert "nothing runs on" in again.stderr


def test_when_nobody_reads_its_output_any_more_everything_stops(system: System) -> None:
    system.start().note_pids()
    system.stop_reading()
    assert system.wait_ended() == 130
    assert not system.left()


def test_a_second_ctrl_c_leaves_nothing_running_either(system: System) -> None:
    system.start().note_pids()
    system.signal(signal.SIGINT)
    system.wait_for_event("the first service stopped", lambda event: event.get("state") == "stopped")
    system.signal(signal.SIGINT)
    assert system.wait_ended() == 130
    assert not system.left()


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_it_can_be_stopped_at_any_moment_of_a_first_start(system: System, seconds: float) -> None:
    system.begin()
    system.wait_for_event("a first line", lambda event: True)
    time.sleep(seconds)
    system.note_pids()
    system.signal(signal.SIGINT)
    assert system.wait_ended() == 130
    assert not system.left()


def test_up_can_be_stopped_while_a_shard_cannot_start(system: System) -> None:
    system.start()
    system.signal(signal.SIGTERM)
    assert system.wait_ended() == 130
    (system.data / "shard1" / "global" / "pg_control").unlink()
    system.begin()
    system.wait_for_event("shard1 fails", lambda event: event.get("state") == "restarting")
    system.note_pids()
    system.signal(signal.SIGTERM)
    assert system.wait_ended() == 130
    assert not system.left()
