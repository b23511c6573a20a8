"""The commands, from the Typer application: usage, arguments, options, and what each exit code means."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import typer
from docs.make_reference.markdown import WRITTEN, code, joined, table

from cotacoes.cli import app as cli

INTRODUCTION = """
`cotacoes COMMAND --help` says the same. Commands that ask a running system find it by its data folder: `--data`, else
`COTACOES_DATA`, else `./.cotacoes`.

| exit code | means |
| --- | --- |
| 0 | success |
| 1 | failure, or something is wrong |
| 2 | usage or a setting is wrong |
| 3 | the answer is stale |
| 4 | what is needed is unavailable |
| 130 | ended by Ctrl-C |
"""
EXAMPLES = re.compile(r"Examples?:\n")
Command = Any  # Typer has no public type for a command


def page() -> str:
    """All commands that are not hidden, in the order of the help."""
    root = typer.main.get_command(cli.application())
    return joined("# Commands", WRITTEN, INTRODUCTION, *_below(root, ("cotacoes",)))


def _below(group: Command, words: tuple[str, ...]) -> Iterator[str]:
    for name, command in group.commands.items():
        if not command.hidden:
            yield _described(command, (*words, name))
            if hasattr(command, "commands"):
                yield from _below(command, (*words, name))


def _described(command: Command, words: tuple[str, ...]) -> str:
    text, examples = _split(command.help or "")
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    return joined(
        f"{'#' * len(words)} {' '.join(words)}",
        text,
        f"```text\n{_usage(words, arguments, options, hasattr(command, 'commands'))}\n```",
        table(("argument", "meaning"), [(code(_metavar(one)), one.help or "") for one in arguments])
        if arguments
        else "",
        table(("option", "default", "meaning"), [_option(one) for one in options]) if options else "",
        f"```text\n{examples}\n```" if examples else "",
    )


def _usage(words: tuple[str, ...], arguments: list[Any], options: list[Any], is_group: bool) -> str:
    required = [f"{one.opts[0]} {_metavar(one)}" for one in options if one.required]
    further = ["[OPTIONS]"] if len(required) < len(options) else []
    takes = [
        f"{'' if one.required else '['}{_metavar(one)}{'' if one.required else ']'}{'...' if one.nargs == -1 else ''}"
        for one in arguments
    ]
    return " ".join([*words, *required, *further, *takes, *(["COMMAND"] if is_group else [])])


def _option(option: Any) -> tuple[str, str, str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {_metavar(option)}"
    default = "required" if option.required else code(option.default) if option.default and not option.is_flag else ""
    return code(names + value), default, option.help or ""


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _split(text: str) -> tuple[str, str]:
    """The prose of a help text, and its examples without their indentation."""
    paragraphs = inspect.cleandoc(text.replace("\b", "")).split("\n\n")
    prose = [paragraph.strip() for paragraph in paragraphs if not EXAMPLES.match(paragraph.strip())]
    examples = [EXAMPLES.sub("", one.strip()) for one in paragraphs if EXAMPLES.match(one.strip())]
    return "\n\n".join(prose), "\n".join(textwrap.dedent(one) for one in examples)
