"""On what the figures were taken: the machine, how busy it was before, and the versions of what is measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

from cotacoes.up import embedded_servers

VERSION_DEADLINE_S = 10.0
LIBRARIES = {"uvicorn": "uvicorn", "httpx2": "httpx2", "asyncpg": "asyncpg", "redis-py": "redis"}


def describe_machine() -> dict[str, str]:
    """Time, cores, model, memory, kernel, and the load average of the last minute."""
    return {
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "cores": str(psutil.cpu_count()),
        "cpu": _cpu_model(),
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def describe_versions() -> dict[str, str]:
    """By name, without the names that stand around them."""
    return {
        "python": platform.python_version(),
        "cotacoes": metadata.version("cotacoes"),
        "postgres": _program_version(embedded_servers.postgres_folder() / "postgres"),
        "valkey": _program_version(embedded_servers.valkey_server()),
        **{name: metadata.version(package) for name, package in LIBRARIES.items()},
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    return read_cpu_model(text) or platform.machine()


def read_cpu_model(cpuinfo: str) -> str:
    """From the text of /proc/cpuinfo; empty where it does not tell."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def _program_version(program: Path) -> str:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=VERSION_DEADLINE_S, check=True
    )
    return read_version(done.stdout)


def read_version(text: str) -> str:
    """The first number with a point in it: `postgres (PostgreSQL) 18.1` is 18.1."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else "unknown"
