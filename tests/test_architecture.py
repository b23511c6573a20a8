"""The rules of the layout that no linter knows: one library one file, short files, explained errors, clean locks."""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from docs.make_reference import settings

from cotacoes import config
from cotacoes.errors import problem_types

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "cotacoes"
MODULES = sorted(SOURCE.rglob("*.py"))
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]
OWNED = {
    "asyncpg": ("adapters/postgres/pool.py",),
    "sqlite3": ("adapters/quote_log/log.py",),
    "httpx2": ("adapters/http_client.py",),
    "httpcore2": ("adapters/http_client.py", "adapters/http_wire.py"),  # what httpx2 is built on: its pool, its network
    "uvicorn": ("adapters/http_server/protocol.py", "adapters/http_server/server.py"),  # one connection, all of them
    "httptools": ("adapters/http_server/protocol.py",),
    "redis": ("adapters/redis_bus.py",),
    "hiredis": ("adapters/redis_bus.py",),
    "opentelemetry": ("adapters/otlp.py",),
    "tenacity": ("patterns/resilience/retry.py",),
    "websockets": ("adapters/websocket_client.py", "adapters/websocket_server.py"),  # its two ends
}


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_each_network_or_database_library_is_imported_by_one_file() -> None:
    users = {(name, str(module.relative_to(SOURCE))) for module in MODULES for name in imports(module) if name in OWNED}
    assert users == {(name, file) for name, files in OWNED.items() for file in files}


def test_the_package_has_at_most_twenty_one_rooms() -> None:
    rooms = {module.relative_to(SOURCE).parts[0] for module in MODULES} - {"__init__.py"}
    assert len(rooms) <= 21


def test_adapters_hold_what_imports_a_network_or_database_library_and_nothing_else() -> None:
    rooms = {file.split("/")[1] for files in OWNED.values() for file in files if file.startswith("adapters/")}
    found = {module.relative_to(SOURCE / "adapters").parts[0] for module in (SOURCE / "adapters").rglob("*.py")}
    assert found - rooms == {"__init__.py", "named_queries.py"}  # the latter reads the SQL of two rooms


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))
def test_a_file_says_what_it_is_and_stays_short(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "begin with what the file decides"
    assert lines_of_code(tree) <= 300, "a file with more than 300 lines of code has two subjects: split it"


def lines_of_code(tree: ast.Module) -> int:
    """The lines on which code begins or ends: neither blank lines nor comments nor docstrings."""

    def lines(nodes: Iterable[ast.AST]) -> set[int]:
        placed = [node for node in nodes if isinstance(node, ast.stmt | ast.expr)]
        return {line for node in placed for line in (node.lineno, node.end_lineno or node.lineno)}

    nodes = list(ast.walk(tree))
    docstrings = (node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    return len(lines(nodes) - lines(docstrings))


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "helpers", "common", "manager", "base", "misc"}
    assert not [module for module in MODULES if module.stem in vague]


def test_an_object_of_quote_service_is_changed_only_by_its_own_methods() -> None:
    for module in (SOURCE / "quote_service").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not node.attr.startswith("_"):
                assert ast.unparse(node.value) == "self", f"{module.name}: {ast.unparse(node)}"


def test_every_problem_type_is_explained_once() -> None:
    kinds = list(problem_types())
    assert [slug for slug, count in Counter(kind.slug for kind in kinds).items() if count > 1] == []
    assert [kind.slug for kind in kinds if not kind.__doc__] == []


def test_every_setting_is_in_the_reference_with_its_default_and_range() -> None:
    reference = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    for name, field in config.Settings.model_fields.items():
        bounds = config.allowed_range(name).removeprefix(" (allowed: ").removesuffix(")")
        (row,) = re.findall(rf"^\| `{config.PREFIX}{name.upper()}` \|.*$", reference, re.MULTILINE)
        assert f"| {settings.default_of(name)} | {bounds}" in row
        assert str(field.description).replace("|", "\\|") in row


def test_log_events_are_facts_named_noun_dot_past() -> None:
    call = re.compile(r'\.(?:info|warning|error|exception)\(\s*"([^"]+)"')
    events = {event for module in MODULES for event in call.findall(module.read_text(encoding="utf-8"))}
    assert events
    assert [event for event in events if not re.fullmatch(r"[a-z_]+\.[a-z_]+", event)] == []


def test_locks_carry_hashes_and_name_no_index() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^--?(i|f|index-url|extra-index-url|find-links)\b", text, re.MULTILINE)
        pins = re.split(r"\n(?=[a-z])", text)
        assert [pin for pin in pins if "--hash=sha256:" not in pin] == []


def test_no_file_names_a_machine_or_leaves_work_for_later() -> None:
    unwanted = re.compile(rb"/(?:roo" rb"t|wor" rb"k|ho" rb"me)/|\b(?:TO" rb"DO|FIX" rb"ME|XX" rb"X)\b")
    files = [file for file in TRACKED if file.suffix not in {".gz", ".png"}]
    assert [str(file.relative_to(ROOT)) for file in files if unwanted.search(file.read_bytes())] == []


# questions of place are no condition: "know where it is", "the port where it listens", "continues where it ended"
OF_A_PLACE = "|".join(
    f"(?<={word} [Ww]here)"
    for word in (
        *("from", "to", "of", "up", "cut", "know", "knows", "say", "says", "see", "sees", "show", "shows", "find"),
        *("name", "names", "learn", "place", "places", "file", "line", "position", "page", "folder", "column", "point"),
        *("shard", "port", "database"),
    )
)
AT_A_PLACE = (
    r" (?:to|from|[\w' ]{1,30} (?:comes?|came|lives?|ends?|ended|starts?|begins?|began|belongs?|stopped|stands?"
    r"|points|goes|go|was|were|left off|listens))\b"
)
# what no native speaker would write, and how often it is left: lower these numbers, never raise one
PHRASES = {
    "is none": (r"(?<!there )\bis none\b", 0),
    "of now": (r"\bof now\b", 0),
    "of then": (r"\bof then\b", 0),
    "of before": (r"\bof before\b", 0),
    "not to be had": (r"\bnot to be had\b", 0),
    "whoever": (r"(?i)\bwhoever\b", 0),
    "who asks": (r"(?i)\bwho asks\b", 0),
    "can not": (r"(?i)\bcan not\b", 0),
    "which is the most": (r"\bwhich is the most\b", 0),
    "has its turn": (r"\bhas its turn\b", 0),
    "told": (r"(?i)\btold\b", 0),
    "where, for if or when": (rf"\b[Ww]here\b(?!{OF_A_PLACE})(?!{AT_A_PLACE})", 43),
}


def test_no_phrase_is_used_that_a_native_speaker_would_not_write() -> None:
    """In src, docs and tests, the names of tests included."""
    kinds = {".py", ".md", ".sql", ".toml", ".yaml"}
    files = [file for file in TRACKED if file.suffix in kinds and file != Path(__file__)]
    texts = [sentences_of(file) for file in files if file.relative_to(ROOT).parts[0] in ("src", "docs", "tests")]
    counts = {name: sum(len(re.findall(phrase, text)) for text in texts) for name, (phrase, _) in PHRASES.items()}
    assert {name: count for name, count in counts.items() if count > PHRASES[name][1]} == {}


def sentences_of(file: Path) -> str:
    """A file's text with its lines joined and its names split into words; schemas are as they were released."""
    if file.parent.name == "schema":
        return ""
    return re.sub(r"\s*\n\s*(?:#|--|>)?\s*", " ", file.read_text(encoding="utf-8")).replace("_", " ")


def commands_of(readme: str) -> list[str]:
    """What its blocks run, without what a comment says about it."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL))
    return [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]


def skeleton_of(readme: str) -> list[str]:
    """What is the same in every language: headings by depth, tables by rows, code in spans."""
    lines = [line for line in readme.splitlines() if not line.startswith("[")]
    marks = [re.match(r"#+ |\|", line) for line in lines]
    return [f"{mark[0]}{len(re.findall('`[^`]+`', line))}" for mark, line in zip(marks, lines, strict=True) if mark]


def test_both_readmes_say_the_same() -> None:
    english, portuguese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.pt-BR.md"))
    assert commands_of(portuguese) == commands_of(english)
    assert skeleton_of(portuguese) == skeleton_of(english)
    assert "](README.pt-BR.md)" in english
    assert "](README.md)" in portuguese


@pytest.mark.parametrize("name", ["README.md", "README.pt-BR.md"])
def test_a_newcomer_can_finish_the_readme(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 200, "move details to docs/how-to"


@pytest.mark.parametrize("document", [file for file in TRACKED if file.suffix == ".md"], ids=lambda file: file.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", [file for file in TRACKED if file.suffix == ".md"], ids=lambda file: file.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    """A file of the package may be named from the package's root, and a file in a folder by its name alone."""
    names = re.findall(r"`([\w./-]+\.(?:py|sql|md|yaml|toml|js))`", document.read_text(encoding="utf-8"))
    known = {file.name for file in TRACKED}
    assert [
        name for name in names if not any((place / name).exists() for place in (ROOT, SOURCE)) and name not in known
    ] == []


WEB = ("fastapi", "starlette", "uvicorn")
SLOW = (*WEB, "asyncpg", "prometheus_client", "pydantic_settings", "structlog", "redis")


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import cotacoes.client", (*SLOW, "pydantic", "websockets")),
        ("from cotacoes.client import Client, Stream", (*SLOW, "pydantic")),
        ("from cotacoes.web.service_client import ServiceClient", (*SLOW, "pydantic", "websockets")),
        ("from cotacoes import cli; cli.main(['--help'])", SLOW),
        ("from cotacoes import cli; cli.main(['quote', '--help'])", SLOW),
        ("from cotacoes import cli; cli.main(['quote', 'bitcoin', '--data', '/nowhere'])", SLOW),
        ("import cotacoes.up.topology", WEB),
        ("import cotacoes.client_subscriber.app", WEB),
    ],
)
@pytest.mark.slow
def test_what_starts_often_loads_no_library_that_it_does_not_need(code: str, unwanted: tuple[str, ...]) -> None:
    """Loading them takes most of the time that a command takes to start."""
    program = f"import sys; {code}; print('loaded', *{set(unwanted)} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


@pytest.mark.parametrize("package", ["cotacoes.client", "cotacoes.patterns.resilience"])
def test_every_name_of_a_package_that_loads_late_is_found(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imports = [
        one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and str(one.module).startswith("cotacoes.")
    ]
    names = [alias.name for one in imports for alias in one.names]
    assert names
    assert all(hasattr(module, name) for name in names)


def patches_of_ours(module: Path) -> int:
    """How often it calls `setattr` of a monkeypatch on something that no library gave it."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    foreign: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("cotacoes", "tests")):
            foreign |= {name.asname or name.name for name in node.names}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) > 1]
    patched = [call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "setattr"]
    return sum(not _is_foreign(target, foreign) for target in patched)


def _is_foreign(target: ast.expr, foreign: set[str]) -> bool:
    if isinstance(target, ast.Constant):
        return not str(target.value).startswith("cotacoes")
    while isinstance(target, ast.Attribute):
        target = target.value
    return isinstance(target, ast.Name) and target.id in foreign


def test_no_test_replaces_our_own_functions_or_constants() -> None:
    """A constant that a test needs smaller is an argument with a default; a function is passed in, or its object is."""
    found = {str(module.relative_to(ROOT)): patches_of_ours(module) for module in (ROOT / "tests").rglob("*.py")}
    assert {module: count for module, count in found.items() if count} == {}
