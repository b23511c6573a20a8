"""Each figure of `make bench` can still be measured: what it measures changes more often than it is measured."""

import importlib.util
import json
import subprocess
import sys

import pytest
from benchmarks.__main__ import FIGURES

PEERS = {"frames": "ccxt", "feed-peers": "ccxt", "feed-faults": "ccxt", "breaker": "aiobreaker"}  # of another lock file


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_measured(name: str) -> None:
    if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed: it is a peer of the benchmarks (make bench)")
    words = [sys.executable, "-m", "benchmarks", "--quick", "--json", "-", "--only", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]
