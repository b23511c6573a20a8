"""The page about the circuit breaker: its code runs, its files exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "explanation" / "circuit-breaker.md"
PAGE = FILE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_run(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[number], f"{FILE}, block {number}", "exec"), {})


def test_every_file_that_the_page_names_exists() -> None:
    names = re.findall(r"^\| `([^|]*?)` \|", PAGE.split("\n## ")[0], re.MULTILINE)
    files = [name for cell in names for name in cell.split("`, `")]
    patterns = ROOT / "src" / "cotacoes" / "patterns" / "resilience"
    assert len(files) > 8
    assert [name for name in files if not (patterns / name).is_file()] == []
