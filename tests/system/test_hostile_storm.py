"""Clients that send without measure, beside the kills: nothing that anyone saw is lost, and nothing grows or hangs."""

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.hostile_clients import ATTACKS
from tests.conftest import SEED
from tests.system.conftest import System
from tests.system.test_storm import Blow, endure, kills

ROOT = Path(__file__).parents[2]
SERVICES = ("quote_service", "gateway_service", "aggregator_service", "external_service")
ATTACK_S = 5.0
AT_ONCE = 2
STORM_S = 600.0
RSS_BYTES_MAX = 256_000_000  # of one service; each has some 80 MB when nothing goes on


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_ten_minutes_of_hostile_clients_beside_the_kills_lose_nothing(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    endure(tmp_path, _for(STORM_S, kills(dice)), dice, beside=hostile_clients)


def _for(seconds: float, blows: Iterator[Blow]) -> Iterator[Blow]:
    ends = time.monotonic() + seconds
    for blow in blows:
        if time.monotonic() > ends:
            return
        yield blow


@contextlib.contextmanager
def hostile_clients(system: System) -> Iterator[None]:
    """Some at once, each of another kind, against another service and for a few seconds."""
    is_over = threading.Event()
    heaviest: list[int] = []

    def attack(dice: random.Random) -> None:
        while not is_over.is_set():
            kind, service = dice.choice(sorted(ATTACKS)), dice.choice(SERVICES)
            port = str(system.port(service))
            command = [sys.executable, "-m", "benchmarks.hostile_clients", kind, port, str(ATTACK_S)]
            subprocess.run(command, cwd=ROOT, timeout=10 * ATTACK_S, check=True)
            heaviest.append(max(_memory_of(system), default=0))

    threads = [threading.Thread(target=attack, args=(random.Random(SEED + number),)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert heaviest, "nobody attacked"
    assert max(heaviest) < RSS_BYTES_MAX


def _memory_of(system: System) -> Iterator[int]:
    assert system.up is not None
    with contextlib.suppress(psutil.Error):  # killed just now
        for process in psutil.Process(system.up.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(service.replace("_", "-") in process.cmdline() for service in SERVICES):
                    yield process.memory_info().rss
