"""Every small change to the circuit breaker turns a test red, except those that are explained to change nothing.

mutmut makes the changes, in a copy of the tree. It does not change tables, defaults and properties, and takes no
statement out: those are held by tests of their own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
EXPLAINED = Path(__file__).with_name("breaker_mutants.toml")
CORE = ["circuit_breaker", "breaker_evidence", "breaker_config", "sliding_window"]
TESTS = [
    "test_breaker_config",
    "test_breaker_conformance",
    "test_circuit_breaker",
    "test_sliding_window",
    "test_breaker_races",
    "test_breaker_model",
]
RUN_DEADLINE_S = 1200
KILLED = {1, 3}
TIMED_OUT = {24, -24, 36, 152, 255}  # a mutant that never ends is noticed too
SETTINGS = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = {json.dumps([f"src/cotacoes/patterns/resilience/{name}.py" for name in CORE])}
pytest_add_cli_args_test_selection = {json.dumps([f"tests/unit/{name}.py" for name in TESTS])}
pytest_add_cli_args = ["-p", "no:cacheprovider", "--hypothesis-seed=1"]
also_copy = ["docs", "benchmarks"]
timeout_multiplier = 5.0
timeout_constant = 1.0
use_git_change_detection = false
track_dependencies = false
"""


class Mutant(NamedTuple):
    """A change, known by where it is and what it does: numbers shift with each edit."""

    function: str
    removed: str
    added: str


@pytest.mark.soak
@pytest.mark.timeout(RUN_DEADLINE_S + 60)
def test_no_mutation_of_the_breaker_survives_unexplained(tmp_path: Path) -> None:
    if find_spec("mutmut") is None:
        pytest.skip("mutmut is not installed: run it as `make soak`")
    copy_tree(tmp_path)
    run_mutmut(tmp_path)
    lived = set(survivors(tmp_path))
    explained = {
        Mutant(entry["function"], entry["removed"], entry["added"])
        for entry in tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["mutant"]
    }
    assert lived - explained == set(), "a change that no test notices"
    assert explained - lived == set(), "an explanation of what does not live any more"


def copy_tree(place: Path) -> None:
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "README.pt-BR.md", "Makefile"):
        shutil.copy(ROOT / name, place / name)
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + SETTINGS
    (place / "pyproject.toml").write_text(settings, encoding="utf-8")


def run_mutmut(place: Path) -> None:
    environment = {**os.environ, "TEST_SEED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    log = place / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mutmut", "run"], cwd=place, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(RUN_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            raise
    assert code == 0, log.read_text()[-2000:]


def survivors(place: Path) -> Iterator[Mutant]:
    """The mutants that no test killed; at least one test must have reached each of them."""
    seen = 0
    for meta in sorted((place / "mutants").rglob("*.meta")):
        source = str(meta.relative_to(place / "mutants")).removesuffix(".meta")
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            seen += 1
            if code not in KILLED | TIMED_OUT:
                yield described(place, name, source)
    assert seen > 500, "mutmut changed next to nothing"


def described(place: Path, name: str, source: str) -> Mutant:
    diff = subprocess.run(
        [sys.executable, "-c", SHOW, name, source], cwd=place, capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()[2:]

    def lines(sign: str) -> str:
        return " ".join(" ".join(line[1:].split()) for line in diff if line.startswith(sign))

    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]
    function = ".".join(mangled.split("ǁ")[1:]) if "ǁ" in mangled else mangled.removeprefix("x_")
    return Mutant(function, lines("-"), lines("+"))


SHOW = """
import sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(get_diff_for_mutant(sys.argv[1], path=sys.argv[2]))
"""
