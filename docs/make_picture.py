"""Runs `cotacoes up`, stops Redis for a moment, and draws what the terminal showed: `make picture`.

The picture has its own background and no font of its own, so it looks the same on a light and on a dark page. Of many
quotes in a row it shows the first few, and of the services' log lines none; `…` stands for the rest.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.system import free_port_block
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from cotacoes.config import PORT_OFFSETS, PREFIX

PICTURE = Path(__file__).parent / "assets" / "terminal.svg"
FIRST_PORT = 8000
PORT_BASES = range(9000, 9900)  # with as many digits, so that tables stay in line
COLUMNS = 76
START_S = 9.0
AWAY_S = 2.5
BACK_S = 4.0
STOP_DEADLINE_S = 30.0
QUOTES_IN_A_ROW_MAX = 2
QUOTE = re.compile(r"\d\d:\d\d:\d\d  \w+ +[\d.]+ ")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d \w+ \w+\.\w+")
ELLIPSIS = "\x1b[2m…\x1b[0m"
BACKGROUND, TEXT = (16, 20, 27), (201, 209, 217)
BLACK, RED, GREEN, YELLOW = (72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)
BLUE, MAGENTA, CYAN, WHITE = (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)
THEME = TerminalTheme(BACKGROUND, TEXT, [BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE])
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>A terminal with cotacoes up: live quotes, and Redis stopped and started again</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
<rect width="{width}" height="{height}" rx="10" fill="#10141b" stroke="#30363d" />
<circle cx="24" cy="22" r="6" fill="#ff5f57" /><circle cx="44" cy="22" r="6" fill="#febc2e" />
<circle cx="64" cy="22" r="6" fill="#28c840" />
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def record() -> list[str]:
    """What a terminal shows of a run in which Redis goes away and comes back, coloured."""
    pieces: list[str] = []
    programs = Path(sys.executable).parent
    port_base = free_port_block(PORT_BASES)
    with tempfile.TemporaryDirectory() as place:
        environment = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {PREFIX + "DATA": f"{place}/data", "TERM": "xterm-256color"}
        mine, its = pty.openpty()
        up = subprocess.Popen(
            [programs / "cotacoes", "up", "--port-base", str(port_base)], stdout=its, stderr=its, env=environment
        )
        os.close(its)
        reader = threading.Thread(target=read, args=(mine, pieces), daemon=True)
        reader.start()
        try:
            time.sleep(START_S)
            for command, pause in (("stop", AWAY_S), ("start", BACK_S)):
                subprocess.run([programs / "cotacoes", command, "redis"], env=environment, check=True)
                time.sleep(pause)
            end = len(pieces)
        finally:
            up.terminate()
            up.wait(STOP_DEADLINE_S)
        reader.join(STOP_DEADLINE_S)
    text = "".join(pieces[:end]).replace("\r", "")
    for offset in PORT_OFFSETS.values():
        text = text.replace(f":{port_base + offset}", f":{FIRST_PORT + offset}")
    return text.splitlines()


def read(terminal: int, pieces: list[str]) -> None:
    """Collect what is written to the terminal, until nobody can write any more."""
    with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error
        while piece := os.read(terminal, 65536):
            pieces.append(piece.decode())


def shorten(lines: list[str]) -> list[str]:
    """The lines without those of the log, and with few quotes in a row."""
    shown: list[str] = []
    in_a_row = 0
    for line in lines:
        plain = COLOUR.sub("", line)
        if LOG_LINE.match(plain):
            continue
        in_a_row = in_a_row + 1 if QUOTE.match(plain) else 0
        if in_a_row <= QUOTES_IN_A_ROW_MAX:
            shown.append(line)
        elif shown[-1] != ELLIPSIS:
            shown.append(ELLIPSIS)
    return shown


def draw(lines: list[str]) -> str:
    """The lines as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis", crop=True)
    drawn = console.export_svg(title="cotacoes up", theme=THEME, code_format=FORMAT, unique_id="up")
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


def main() -> None:
    """Run it, and draw it."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(shorten(record())), encoding="utf-8")


if __name__ == "__main__":
    main()
