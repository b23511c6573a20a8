"""Each process is given the settings that its code reads, those by which they are judged, and no others."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import cotacoes
from cotacoes import config
from cotacoes.config import HTTP_SERVICES, PREFIX, Settings
from cotacoes.config.uses import USES
from cotacoes.up.topology import service_environment

SOURCE = Path(cotacoes.__file__).parent
ENTRIES = {name: f"cotacoes.{name}.app" for name in USES if name != "migrate"} | {"migrate": "cotacoes.admin.migrate"}
# What is read through a method or a property of Settings, as fields.
BEHIND = {
    "redis": {"redis_url", "port_base"},
    "dsn": {"shard1_dsn", "shard2_dsn"},
    "port": {"port_base"},
    "hosts": {"host", "allowed_hosts"},
    "origins": {"allowed_origins"},
    "further_pairs": {"replay_pairs"},
    "venue_symbol_overrides": {"venue_symbols"},
    "replay_paths": {"source"},
    "venue_names": {"venues"},
    "venue_url": {"venue_urls", "source", "external_url", "port_base"},
    "is_live_source": {"source"},
    "records_venues": {"record_venues", "source"},
    "source_service": {"source", "external_url", "feed_url", "port_base"},
    "http_services": {"source"},
    "seed_placement": {"coins"},
}
# What a process imports and does not call: it opens no directory, and does not listen.
LISTENING = {"host", "allowed_hosts", "admin_token", "streams_max", "streams_per_address_max"}
NOT_CALLED = {"migrate": {"data"}, "client_subscriber": LISTENING}
# Read by a name that stands in no single module: `Addresses.of` reads each address, and here some are called.
ALSO_READ = {
    "client_subscriber": {"quote_url"},
    "gateway_service": {"quote_url", "aggregator_url", "external_url", "feed_url"},
}
# Settings that judge each other, which must be given together.
JUDGED = [
    {"host", "allow_public"},
    {"speed", "source", "source_mode"},
    {"replay_times", "source", "source_mode", "loop"},
    {"shard1_dsn", "shard2_dsn"},
    {"age_max_s", "fresh_s"},
]


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def file_of(module: str) -> Path | None:
    """The file of a module of ours; None for any other."""
    if module.split(".")[0] != "cotacoes":
        return None
    path = SOURCE.parent / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_of(entry: str) -> dict[str, ast.Module]:
    """All modules of ours that are imported from this one, at whatever moment."""
    found: dict[str, ast.Module] = {}
    due = [entry]
    while due:
        module = due.pop()
        if module in found or not module.startswith("cotacoes.") or module.startswith("cotacoes.config"):
            continue
        if (file := file_of(module)) is not None:
            found[module] = parsed(file)
            due += imported(found[module])
    return found


def constants(tree: ast.Module) -> dict[str, object]:
    """The texts and numbers that a module gives a name."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def known_constants(tree: ast.Module) -> dict[str, object]:
    """Its own, and those that it imports from another module of ours."""
    found = constants(tree)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (file := file_of(node.module or "")) is not None:
            theirs = constants(parsed(file))
            found |= {alias.name: theirs[alias.name] for alias in node.names if alias.name in theirs}
    return found


def is_settings(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in {"settings", "_settings"}


def read_in(tree: ast.Module) -> set[str]:
    """The fields of Settings that a module reads; of an address that is no constant, none."""
    known = known_constants(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "url":
            if is_settings(node.func.value):
                part = node.args[0]
                name = part.value if isinstance(part, ast.Constant) else known.get(getattr(part, "id", ""))
                found |= {f"{str(name).removesuffix('_service')}_url", "port_base"} if name else set()
        elif isinstance(node, ast.Attribute) and is_settings(node.value):
            found |= {node.attr} & set(Settings.model_fields) | BEHIND.get(node.attr, set())
    return found


@functools.cache
def read_by(name: str) -> set[str]:
    read = set().union(*(read_in(tree) for tree in modules_of(ENTRIES[name]).values()))
    return read - NOT_CALLED.get(name, set()) | ALSO_READ.get(name, set())


@pytest.mark.parametrize("name", USES)
@pytest.mark.slow
def test_every_setting_that_a_process_reads_is_given_to_it(name: str) -> None:
    assert read_by(name) - USES[name] == set(), "add it to the row of this process in config/uses.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_no_process_is_given_a_setting_that_neither_it_nor_a_rule_reads(name: str) -> None:
    read = read_by(name) | {"log_level"}
    judged = set().union(*(group for group in JUDGED if group & read))
    assert USES[name] - read - judged == set(), "take it out of the row of this process in config/uses.py"


def test_every_setting_reaches_a_process_or_names_what_up_starts_itself() -> None:
    assert set(Settings.model_fields) - set().union(*USES.values()) == {"gateway_url"}


def test_only_services_that_use_a_shard_or_have_administrative_routes_know_their_secrets() -> None:
    knows = {secret: {name for name in USES if secret in USES[name]} for secret in ("shard1_dsn", "admin_token")}
    assert knows["shard1_dsn"] == {"migrate", "quote_service", "aggregator_service"}
    assert knows["admin_token"] == set(HTTP_SERVICES)


@pytest.mark.parametrize(
    "given",
    [
        {"HOST": "0.0.0.0", "ALLOW_PUBLIC": "1"},
        {"SOURCE": "replay:x.gz", "SOURCE_MODE": "tape", "SPEED": "max", "REPLAY_TIMES": "original"},
        {"FRESH_S": "0.5", "AGE_MAX_S": "1"},
        {"SHARD1_DSN": "postgresql://a/b", "SHARD2_DSN": "postgresql://a/c", "REDIS_URL": "redis://far"},
    ],
)
@pytest.mark.parametrize("name", USES)
def test_settings_that_are_valid_together_are_valid_for_each_process(name: str, given: dict[str, str]) -> None:
    settings = config.load({PREFIX + variable: text for variable, text in given.items()})
    environment = service_environment(name, settings, {})
    assert {variable for variable in environment if variable.startswith(PREFIX)} == {
        PREFIX + field.upper() for field in USES[name] & settings.model_fields_set
    }
    found = config.load(environment)
    for field in USES[name]:
        assert getattr(found, field) == getattr(settings, field)
