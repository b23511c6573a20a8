"""The settings of every process: environment variables `COTACOES_…`, each with its default, unit and range.

`COTACOES_…_FILE` names a file that holds the value instead, as a container is given a password.

An unknown `COTACOES_…` variable or an invalid value is a SettingError that names it, before anything starts.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotacoes.config.formats import SHARDS
from cotacoes.config.settings import HTTP_SERVICES, PORT_OFFSETS, PREFIX, Settings
from cotacoes.errors import SettingError
from cotacoes.errors.values import explain_value

__all__ = ["HTTP_SERVICES", "PORT_OFFSETS", "PREFIX", "SHARDS", "Settings", "allowed_range", "load", "without_password"]


FILE_SUFFIX = "_file"


def load(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Read the settings; `given` values take precedence over variables, and variables over files.

    `environment` is this process's by default. SettingError names what is wrong.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    files: dict[str, str] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or text == "":
            continue
        name = variable.removeprefix(PREFIX).lower()
        field = name.removesuffix(FILE_SUFFIX)
        if field not in Settings.model_fields or variable != variable.upper():
            raise SettingError(_unknown(variable))
        if field == name:
            values[field] = text
        else:
            files[field] = _content(variable, Path(text))
    try:
        return Settings(**(files | values | given))
    except ValidationError as error:
        raise SettingError("; ".join(_explain(dict(problem)) for problem in error.errors())) from None


def _content(variable: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingError(f"cannot read {file}, named by {variable} ({reason})") from error


def _unknown(variable: str) -> str:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    near = difflib.get_close_matches(variable.upper(), known, n=1)
    return f"unknown setting {variable}: " + (f"did you mean {near[0]}?" if near else "see docs/reference/settings.md")


def _explain(problem: dict[str, Any]) -> str:
    if not problem["loc"]:
        return explain_value(problem)
    name = str(problem["loc"][0])
    shown = "" if name.endswith(("token", "dsn", "url")) else f"={problem['input']}"
    return f"{PREFIX}{name.upper()}{shown} is invalid: {explain_value(problem)}{allowed_range(name)}"


def without_password(dsn: str) -> str:
    """The address in a DSN, without user, password and options."""
    scheme, _, rest = dsn.partition("://")  # not by urlsplit, to which a # or a / of the password ends the user
    address, _, options = rest.partition("?")
    if "@" in options and "@" not in address:  # the ? may be one of the password
        return f"{scheme}://…"
    return f"{scheme}://{address.rpartition('@')[2]}"


def allowed_range(name: str) -> str:
    """The bounds of a setting as ` (allowed: ≥ 1 and ≤ 5)`, empty if it has none."""
    bounds = {type(item).__name__.lower(): item for item in Settings.model_fields[name].metadata}
    low = next((f"{sign} {getattr(bounds[key], key)}" for key, sign in (("ge", "≥"), ("gt", ">")) if key in bounds), "")
    high = next((f"≤ {bounds['le'].le}" for _ in "x" if "le" in bounds), "")
    both = " and ".join(bound for bound in (low, high) if bound)
    return f" (allowed: {both})" if both else ""
