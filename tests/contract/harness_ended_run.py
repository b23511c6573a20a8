"""A test that starts both servers and then stands still, for `test_ended_runs.py` to end its run."""

import os
import time
from pathlib import Path

from tests.contract.conftest import Server

PIDS = "COTACOES_TEST_PIDS"  # the file that gets the servers' process ids


def test_that_stands_still(postgres_server: Server, valkey: Server) -> None:
    draft = Path(os.environ[PIDS]).with_suffix(".partial")
    draft.write_text(f"{postgres_server.process.pid} {valkey.process.pid}")
    draft.rename(os.environ[PIDS])
    time.sleep(600)
