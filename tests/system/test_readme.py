"""The README's commands run as they stand: in the README's order, on one running system, as in a second terminal."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.conftest import System

from cotacoes.config import PORT_OFFSETS

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT_BASE = 8000
BLOCK_DEADLINE_S = 60


def blocks() -> Iterator[str]:
    """Each block of commands of the README."""
    yield from BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def make_targets(block: str) -> list[str]:
    return re.findall(r"^make ([a-z]+)", block, re.MULTILINE)


def test_every_command_of_make_that_is_named_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = {
        *re.findall(r"`make ([a-z]+)", readme),
        *(target for block in blocks() for target in make_targets(block)),
    }
    assert {"up", "test"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_replay_that_the_readme_names_plays(tmp_path: Path) -> None:
    (arguments,) = re.findall(r'^make up ARGS="(.*)"$', "".join(blocks()), re.MULTILINE)
    words = [
        f"replay:{ROOT / word.removeprefix('replay:')}" if word.startswith("replay:") else word
        for word in arguments.split()
    ]
    with System(tmp_path / "data", *words) as system:
        system.begin()
        system.wait_for_event("a quote", lambda event: event["type"] == "quote", 40)


def test_every_block_of_commands_runs(running_system: System, tmp_path: Path) -> None:
    """In a folder that looks like the checkout, so that what they write lands nowhere else."""
    place, ran = tmp_path / "checkout", 0
    place.mkdir()
    for entry in (".venv", "docs", "Makefile"):
        (place / entry).symlink_to(ROOT / entry)
    for block in blocks():
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
        ran += 1
    assert ran >= 8


def _on_ports_of(system: System, block: str) -> str:
    """The same commands for a system on other ports."""
    for offset in PORT_OFFSETS.values():
        block = block.replace(f":{PORT_BASE + offset}/", f":{system.port_base + offset}/")
    return block
