"""Runs the commands of `docs/tutorial/pull-the-plug.md` and writes their output into it: `make tour`.

The document is its own script. A block `sh` is run, and the block `text` after it gets the output. `text live=N` gets
what the live view showed from the start of the last `sh` block until N seconds after its end; `text up=N` gets the
first N lines of the live view. Ports and the data folder are shown as a newcomer has them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.system import free_port_block

from cotacoes.config import PORT_OFFSETS, PREFIX

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tutorial" / "pull-the-plug.md"
BLOCK = re.compile(r"^```(sh|text)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST_PORT = 8000
PORT_BASES = range(9000, 9900)  # with as many digits, so that tables stay in line
START_S = 12.0
COMMANDS_S_MAX = 60.0
LINES_MAX = 36
QUOTE = re.compile(r"\d\d:\d\d:\d\d  \w+ +[\d.]+ ")
QUOTES_IN_A_ROW_MAX = 3


class Terminal:
    """`cotacoes up` in the first terminal, and the lines that it shows."""

    def __init__(self, data: Path) -> None:
        self.lines: list[str] = []
        self._port_base = free_port_block(PORT_BASES)
        self._data = data
        environment = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        programs = str(Path(sys.executable).parent)
        self._environment = environment | {
            "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
            PREFIX + "DATA": str(data),
        }
        self._up = subprocess.Popen(
            [f"{programs}/cotacoes", "up", "--plain", "--port-base", str(self._port_base)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def run(self, commands: str) -> str:
        """The output of commands in a second terminal."""
        for offset in PORT_OFFSETS.values():
            commands = commands.replace(f":{FIRST_PORT + offset}/", f":{self._port_base + offset}/")
        done = subprocess.run(
            ["/bin/sh", "-c", commands],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMANDS_S_MAX,
            env=self._environment,
            check=False,
        )
        return self._as_shown(done.stdout)

    def end(self) -> None:
        self._up.terminate()
        self._up.wait(COMMANDS_S_MAX)

    def _read(self) -> None:
        assert self._up.stdout is not None
        for line in self._up.stdout:
            self.lines.append(self._as_shown(line.rstrip("\n")))

    def _as_shown(self, text: str) -> str:
        for offset in PORT_OFFSETS.values():
            text = text.replace(f":{self._port_base + offset}", f":{FIRST_PORT + offset}")
        return text.replace(str(self._data), ".cotacoes")


def calm(lines: list[str]) -> list[str]:
    """The lines, with only the first few of many quotes in a row."""
    shown: list[str] = []
    in_a_row = 0
    for line in lines:
        in_a_row = in_a_row + 1 if QUOTE.match(line) else 0
        if in_a_row == QUOTES_IN_A_ROW_MAX + 1:
            shown.append("…")
        elif in_a_row <= QUOTES_IN_A_ROW_MAX:
            shown.append(line)
    return shown[:LINES_MAX]


def run_tour(text: str, terminal: Terminal) -> str:
    """The document with the output of its commands."""
    said = ""
    since = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal said, since
        kind, how, content = match.groups()
        if kind == "sh":
            if not content.startswith(("make up", ". ")):
                since = len(terminal.lines)
                said = terminal.run(content)
            return match[0]
        name, _, amount = how.strip().partition("=")
        if name == "up":
            time.sleep(START_S)
            shown = [line for line in terminal.lines if line][: int(amount)]
        elif name == "live":
            time.sleep(float(amount))
            shown = calm(terminal.lines[since:])
        else:
            shown = said.splitlines()
        body = "".join(f"{line.rstrip()}\n" for line in shown)
        return f"```{kind}{how}\n{body}```"

    return BLOCK.sub(replace, text)


def main() -> None:
    """Run the tour and write the document."""
    with tempfile.TemporaryDirectory() as place:
        terminal = Terminal(Path(place) / "data")
        try:
            made = run_tour(TOUR.read_text(encoding="utf-8"), terminal)
        finally:
            terminal.end()
    TOUR.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
