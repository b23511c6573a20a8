"""For every test: a port that is free, an event loop, and a printed seed."""

import os
import random
import signal
import socket

import pytest
import structlog
from hypothesis import settings

from cotacoes.up.supervision import die_with_parent

if "PYTEST_XDIST_WORKER" in os.environ:  # without it a worker goes on for ten seconds after its run was killed
    die_with_parent.bind(os.getppid(), signal.SIGTERM)

SEED = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
os.environ["TEST_SEED"] = str(SEED)  # for the workers if tests run side by side: the printed seed is theirs too

# as services have it: the default draws the values of all variables of each frame, a second for one traceback
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")


def pytest_report_header() -> str:
    return f"TEST_SEED={SEED} (set it to repeat a run's random choices)"


@pytest.fixture
def seeded() -> random.Random:
    """Random choices that one printed seed repeats."""
    return random.Random(SEED)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
