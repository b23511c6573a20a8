"""A disk that is full stops the recording by name and takes nothing back; with room again it goes on by itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.system.harness_full_disk import BATCH

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
SCENARIO_DEADLINE_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder on which a disk can be mounted, in a mount namespace of one's own."""
    if shutil.which(NAMESPACE[0]) is None:
        pytest.skip("there are no mount namespaces here")
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine allows no disk in a namespace of one's own: {tried.stderr.strip()}")
    return tmp_path


def run_scenario(disk: Path, filled_by: str) -> dict[str, Any]:
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.system.harness_full_disk", str(disk), filled_by],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=SCENARIO_DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.mark.parametrize("filled_by", ["log", "other"])
def test_a_full_disk_stops_recording_by_name_and_loses_nothing_and_with_room_it_goes_on(
    disk: Path, filled_by: str
) -> None:
    outcome = run_scenario(disk, filled_by)
    full = "the log cannot be used: the disk is full, or the quota (COTACOES_LOG_QUOTA_BYTES) is reached"
    assert outcome["refusals"] == [full] * 3
    assert outcome["failures"] == [full, None]
    assert (outcome["while_full"] == BATCH) == (filled_by == "other")
    # what was refused is not there, not even a part of it; what was recorded is, once, and comes to the shard
    assert outcome["held"] == outcome["recorded"]
    assert outcome["stored"] == outcome["recorded"]
    positions = [(epoch, seq) for epoch, seq, _, _ in outcome["recorded"]]
    (epoch, last), (later, first), (_, second) = positions[-3:]
    assert (last, first, second) == (outcome["while_full"], 1, 2)
    assert later > epoch
    assert [prev for *_, prev in outcome["recorded"][-2:]] == [[epoch, last], None]
