"""For every test: a port that is free, an event loop, and a printed seed."""

import os
import random
import socket

import pytest
from hypothesis import settings

SEED = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)

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
