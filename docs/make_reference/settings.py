"""The settings: default, range and meaning from `Settings`, and who is given each from the table of uses."""

from __future__ import annotations

from typing import get_args

from docs.make_reference.markdown import WRITTEN, code, codes, joined, table

from cotacoes import config
from cotacoes.config import HTTP_SERVICES
from cotacoes.config.uses import USES

INTRODUCTION = """
Every setting is an environment variable. `NAME_FILE` names a file that holds the value of `NAME` instead, which is how
a container is given a password. An unknown `COTACOES_…` variable and an impossible value are refused by name before
anything starts. `cotacoes up` passes them on to the services; each service is given only those that name it, so that a
service that is broken into does not know the secrets of the others.
"""


NAMES = tuple(config.Settings.model_fields)


def page() -> str:
    """All settings, in the order of the class."""
    head = ("setting", "default", "allowed", "meaning", "given to")
    rows = [(_variable(name), default_of(name), _allowed(name), _meaning(name), _users(name)) for name in NAMES]
    return joined("# Settings", WRITTEN, INTRODUCTION, table(head, rows))


def default_of(name: str) -> str:
    """The default as it would be written; empty if it is empty."""
    default = config.Settings.model_fields[name].default
    if name == "admin_token":
        default = default.get_secret_value()
    if isinstance(default, bool):
        default = int(default)
    return code(default) if default != "" else ""


def _variable(name: str) -> str:
    return code(config.PREFIX + name.upper())


def _allowed(name: str) -> str:
    bounds = config.allowed_range(name)
    if bounds:
        return bounds.removeprefix(" (allowed: ").removesuffix(")")
    field = config.Settings.model_fields[name]
    return codes(("0", "1") if field.annotation is bool else get_args(field.annotation))


def _meaning(name: str) -> str:
    return config.Settings.model_fields[name].description or ""


def _users(name: str) -> str:
    users = [process for process, settings in USES.items() if name in settings]
    if not users:
        return "`cotacoes up` and the commands"
    if all(service in users for service in HTTP_SERVICES):
        users = ["every HTTP service", *(user for user in users if user not in HTTP_SERVICES)]
    return ", ".join(users)
