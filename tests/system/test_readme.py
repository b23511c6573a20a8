"""The commands of the README and of the how-to guides run as they stand there, as in a second terminal."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.conftest import System, wait_until

from cotacoes.config import PORT_OFFSETS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT_BASE = 8000
BLOCK_DEADLINE_S = 60


def blocks_of(page: Path) -> list[str]:
    """The commands of a page, block by block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def make_targets(block: str) -> list[str]:
    return re.findall(r"^make ([a-z]+)", block, re.MULTILINE)


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = {
        *(target for page in PAGES for target in re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8"))),
        *(target for page in PAGES for block in blocks_of(page) for target in make_targets(block)),
    }
    assert {"up", "test"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_replay_that_a_guide_names_plays(tmp_path: Path) -> None:
    commands = "".join(block for page in PAGES for block in blocks_of(page))
    (arguments,) = set(re.findall(r'^make up ARGS="(.*)"$', commands, re.MULTILINE))
    words = [
        f"replay:{ROOT / word.removeprefix('replay:')}" if word.startswith("replay:") else word
        for word in arguments.split()
    ]
    with System(tmp_path / "data", *words) as system:
        system.begin()
        system.wait_for_event("a quote", lambda event: event["type"] == "quote", 40)


def test_most_pages_have_commands_to_run() -> None:
    assert sum(any(not make_targets(block) for block in blocks_of(page)) for page in PAGES) >= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_commands_runs(page: Path, running_system: System, tmp_path: Path) -> None:
    """The folder looks like the checkout, so that what the commands write lands nowhere else."""
    place = tmp_path / "checkout"
    place.mkdir()
    for entry in (".venv", "docs", "Makefile"):
        (place / entry).symlink_to(ROOT / entry)
    wait_until("a complete report", lambda: running_system.get("aggregator_service", "/report/full").body["complete"])
    for block in blocks_of(page):
        if make_targets(block):
            continue  # `up` is what all tests here start, `test` is what runs this
        if "curl" in block and shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", _on_ports_of(running_system, block)],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=BLOCK_DEADLINE_S,
            env={
                **{name: text for name, text in os.environ.items() if not name.startswith("COTACOES_")},
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "COTACOES_DATA": str(running_system.data),
            },
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or done.stderr, f"{block} says nothing"


def _on_ports_of(system: System, block: str) -> str:
    """The same commands for a system on other ports."""
    for offset in PORT_OFFSETS.values():
        block = block.replace(f":{PORT_BASE + offset}/", f":{system.port_base + offset}/")
    return block
