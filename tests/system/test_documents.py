"""The commands of every document run as they stand there: in the document's order, as in a second terminal."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.conftest import System, wait_until

from cotacoes.config import PORT_OFFSETS

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "docs" / "reference"  # shows how commands are used, from their own help
WRITTEN = [page for page in (ROOT / "docs").rglob("*.md") if not page.is_relative_to(GENERATED)]
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in WRITTEN)]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT_BASE = 8000
BLOCK_DEADLINE_S = 60

# Commands in a block `console` are shown and not run here; each block begins in one of these ways, for this reason.
NOT_RUN = {
    r"docker |podman-compose ": "needs a container engine",
    r"COTACOES_TEST_DSN=|export COTACOES_SHARD1_DSN=|cotacoes (shards add|directory rebuild) ": "names another server",
    r"(\w+=\S+ )*(make|cotacoes) up": "starts another system",
    r"cotacoes [a-z]+-service": "starts one process, which does not end by itself",
    r"cotacoes record --raw": "follows exchanges, which cannot be reached from everywhere",
    r"cotacoes ledger accept": "has nothing to accept in a new history",
}
NOT_RUN_BLOCK = re.compile("|".join(NOT_RUN))


def blocks_of(page: str, kind: str = "sh") -> list[str]:
    """The blocks of this kind of a page; `sh` holds commands that are run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [content for named, content in BLOCK.findall(text) if named == kind]


def make_targets(block: str) -> list[str]:
    return re.findall(r"^make ([a-z]+)", block, re.MULTILINE)


WITH_COMMANDS = [page for page in PAGES if any(not make_targets(block) for block in blocks_of(page))]
COMMANDS = "".join(block for page in PAGES for block in blocks_of(page))


def test_every_make_target_that_a_page_names_exists() -> None:
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    targets = {*make_targets(COMMANDS), *(target for text in texts for target in re.findall(r"`make ([a-z]+)", text))}
    assert {"up", "test"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_not_run_have_a_reason(page: str) -> None:
    shown = [block for kind in ("bash", "shell", "text", "") for block in blocks_of(page, kind)]
    assert [block for block in shown if NOT_RUN_BLOCK.match(block)] == []
    assert [block for block in blocks_of(page, "console") if not NOT_RUN_BLOCK.match(block)] == []


@pytest.mark.parametrize("arguments", sorted(set(re.findall(r'^make up ARGS="(.*)"$', COMMANDS, re.MULTILINE))))
def test_a_system_that_a_page_starts_has_quotes(arguments: str, tmp_path: Path) -> None:
    """The real exchanges need the internet, so simulated ones take their place."""
    arguments = arguments.replace("--source exchanges", "--source venues")
    words = [
        f"replay:{ROOT / word.removeprefix('replay:')}" if word.startswith("replay:") else word
        for word in arguments.split()
    ]
    with System(tmp_path / "data", *words) as system:
        system.begin()
        system.wait_for_event("a quote", lambda event: event["type"] == "quote", 40)


def test_most_guides_have_commands_to_run() -> None:
    assert sum("/how-to/" in page for page in WITH_COMMANDS) >= 12


@pytest.fixture(scope="module")
def following_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that follows exchanges."""
    with System(tmp_path_factory.mktemp("following") / "data", "--source", "venues") as system:
        yield system.start()


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_block_of_commands_runs(page: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The folder looks like the checkout, so that what the commands write lands nowhere else."""
    ends_it = any("cotacoes down" in block for block in blocks_of(page))
    follows = any("cotacoes venues" in block for block in blocks_of(page))
    system: System = (
        request.getfixturevalue("system").start()
        if ends_it
        else request.getfixturevalue("following_system" if follows else "running_system")
    )
    place = tmp_path / "checkout"
    place.mkdir()
    for entry in (".venv", "docs", "Makefile"):
        (place / entry).symlink_to(ROOT / entry)
    wait_until("fresh quotes and a complete report", lambda: _is_well(system), 40)
    for block in blocks_of(page):
        if make_targets(block):
            continue  # `up` is what all tests here start, `test` is what runs this
        if "curl" in block and shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", _on_ports_of(system, block)],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=BLOCK_DEADLINE_S,
            env={
                **{name: text for name, text in os.environ.items() if not name.startswith("COTACOES_")},
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "COTACOES_DATA": str(system.data),
            },
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or done.stderr or block.startswith(". "), f"{block} says nothing"
        for coin in re.findall(r"cotacoes coins add ([a-z0-9-]+)", block):  # a person types the next block later
            wait_until(f"a price of {coin}", functools.partial(_is_quoted, system, coin), 40)


def _is_quoted(system: System, coin: str) -> bool:
    return system.get("quote_service", f"/cotacao_atual/{coin}").status == 200


def _is_well(system: System) -> bool:
    report = system.get("aggregator_service", "/report/full").body
    return report["complete"] and all(coin["current"]["status"] == "fresh" for coin in report["coins"].values())


def _on_ports_of(system: System, block: str) -> str:
    """The same commands for a system on other ports."""
    for offset in PORT_OFFSETS.values():
        block = block.replace(f":{PORT_BASE + offset}/", f":{system.port_base + offset}/")
    return block
