"""`cotacoes up` after a crash of its own: services die with it, leftovers are ended, and an unfinished first
start is no obstacle."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from tests.system.conftest import PARTS, System, wait_until

from cotacoes.up.supervision import processes

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends a child with its parent")


@LINUX
def test_all_services_die_with_a_killed_up_and_the_next_one_works(system: System) -> None:
    system.start().kill_up()
    wait_until("every service is gone", lambda: not system.left(), 15)
    system.start()
    assert b"had left" not in system.stderr


def test_what_outlives_a_killed_up_is_ended_by_the_next_one(system: System) -> None:
    system.start()
    # frozen services do not hear the signal that ends them
    for service in ("shard1", "quote_service", "redis"):
        system.ask("freeze", service)
    system.kill_up()
    frozen = {"shard1", "quote_service", "redis"}
    assert {name for name in frozen if system.left()}
    before = system.left()
    system.start()
    assert not before & system.left()
    said = system.stderr.decode()
    assert "ended processes that a killed `up` left behind" in said
    assert frozen <= set(said.replace(",", " ").split())


def test_a_process_that_only_has_the_number_of_an_old_service_is_left_alone(system: System) -> None:
    system.start().kill_up()
    wait_until("every service is gone", lambda: not system.left(), 15)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        up_json = system.data / "up.json"
        state = json.loads(up_json.read_text())
        state["children"]["redis"][0] = stranger.pid
        up_json.write_text(json.dumps(state))
        # the number that PostgreSQL itself keeps may be a stranger's by now as well
        lock = system.data / "shard1" / "postmaster.pid"
        lines = lock.read_text().splitlines() if lock.exists() else ["0"] * 8
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        system.start()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_workers_that_outlive_a_killed_postgres_are_ended_before_it_starts_again(system: System) -> None:
    system.start()
    top = psutil.Process(system.pid("shard1"))
    workers = top.children(recursive=True)
    processes.suspend(workers)
    top.kill()
    wait_until("shard1 is back", lambda: system.status()["shard1"]["pid"] not in {top.pid, None}, 30)
    system.wait_for_states({"shard1": "running"})
    assert [worker for worker in workers if processes.birth(worker.pid) and worker.is_running()] == []


def test_a_first_start_that_crashed_half_way_is_no_obstacle(system: System) -> None:
    system.begin()
    drafts = wait_until("a half made database", lambda: list(system.data.glob("shard?.new-*/data/base")))
    system.kill_up()
    assert drafts
    assert not (system.data / "shard1" / "PG_VERSION").exists() or not (system.data / "shard2" / "PG_VERSION").exists()
    system.start()
    assert list(system.data.glob("shard?.new-*")) == []


def test_a_second_start_goes_on_with_the_same_history(system: System) -> None:
    system.start()
    system.wait_for_event("a quote", lambda event: event["type"] == "quote")
    wait_until("a quote in shard1", lambda: '"pending":0' in _positions(system))
    before = _history(system)
    system.signal(signal.SIGTERM)
    assert system.wait_ended() == 130
    system.start()
    wait_until("a new quote", lambda: len(_history(system)) > len(before))
    after = _history(system)
    assert after[: len(before)] == before
    positions = [(quote["epoch"], quote["seq"]) for quote in after]
    assert positions == sorted(set(positions))


def _history(system: System) -> list[dict[str, object]]:
    done = system.cli("history", "bitcoin", "--last", "1000", "--json")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _positions(system: System) -> str:
    done = system.cli("report", "--json")
    return done.stdout.replace(" ", "")


def test_a_broken_service_is_tried_again_and_says_why(system: System, tmp_path: Path) -> None:
    system.start()
    system.ask("stop", "shard2")
    control = system.data / "shard2" / "global" / "pg_control"
    hidden = tmp_path / "pg_control"
    os.rename(control, hidden)
    system.ask("start", "shard2")
    said = system.wait_for_event(
        "shard2 fails", lambda event: event.get("part") == "shard2" and event.get("state") == "restarting"
    )
    assert "pg_control" in said["detail"]
    os.rename(hidden, control)
    system.wait_for_states({"shard2": "running"})
    assert list(system.status()) == PARTS


def test_services_keep_working_while_up_is_suspended(system: System) -> None:
    """They write more log than a pipe holds, and nobody reads it."""
    system.start()
    system.wait_for_event("a quote", lambda event: event["type"] == "quote" and event["coin"] == "bitcoin")
    token = system.ask("env")["env"]["COTACOES_ADMIN_TOKEN"]
    system.signal(signal.SIGSTOP)
    try:
        before = system.get("gateway_service", "/v1/quotes/bitcoin/current").body["seq"]
        for _ in range(700):
            request = urllib.request.Request(
                f"{system.url('external_service')}/faults",
                b'{"latency_ms":1}',
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                method="PUT",
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
        wait_until(
            "a new quote",
            lambda: system.get("gateway_service", "/v1/quotes/bitcoin/current").body["seq"] != before,
        )
    finally:
        system.signal(signal.SIGCONT)
    assert {service["state"] for service in system.status().values()} == {"running"}
