"""The whole system on one machine: its topology as data, and how it is brought up and down.

    shard1 ┐                          redis, external_service or feed_service, or both,
    shard2 ┴▶ migrate ▶ quote_service    aggregator_service, gateway_service, client_subscriber   start at once
    external_service ▶ feed_service      if exchanges are simulated

Only real needs are waited for: every service copes with another one that is away, since that happens later too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from cotacoes import config
from cotacoes.config import PREFIX, SHARDS, Settings
from cotacoes.config.uses import USES
from cotacoes.errors import SettingError
from cotacoes.errors.exit_codes import INTERRUPTED, SUPERSEDED, USAGE
from cotacoes.observability import tracing
from cotacoes.observability.printer import Printer, descriptor_writer, unblocked_stderr
from cotacoes.quote_service import takeover_pause
from cotacoes.up import embedded_servers
from cotacoes.up.data_folder import DataFolder
from cotacoes.up.live_view import SUBSCRIBER, LiveView, Style, dropped_line
from cotacoes.up.running_system import RunningSystem, Topology
from cotacoes.up.supervision.service import ServiceSpec
from cotacoes.up.supervision.supervisor import OneTimeTask

LIVEZ_DEADLINE_S = 0.5

# The variables of our environment that children get in addition to their settings.
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")  # for feed_service alone: all else is near
_PASSED_ON_PREFIXES = ("LC_", "PYTHON", "SSL_CERT_", "OTEL_", "COVERAGE_")  # the last one for `make coverage`


def run(settings: Settings, style: Style) -> int:
    """Start the system, keep it running, stop it; returns the exit code. SettingError says why it cannot start."""
    tracing.collector(os.environ)  # if it is refused, no service would start
    _refuse_useless_source(settings)
    with DataFolder(settings.data) as folder:
        folder.refuse_full()
        leftovers = folder.end_leftovers()
        system = topology(settings, folder)
        _refuse_unusable_shards(system, folder)
        refuse_taken_ports(settings, system.services)
        with unblocked_stderr(functools.partial(dropped_line, Style.PLAIN)):
            return asyncio.run(_run(system, folder, style, leftovers))


async def _run(topology: Topology, folder: DataFolder, style: Style, leftovers: Sequence[str]) -> int:
    loop = asyncio.get_running_loop()

    def on_failed(error: OSError) -> None:
        if error.errno in {errno.EPIPE, errno.EIO}:  # the pipe or the terminal is closed
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(system.stop, INTERRUPTED)
        else:
            sys.stderr.write(f"standard output cannot be written ({error.strerror}): going on without it\n")

    descriptor = sys.stdout.fileno()
    dropped = functools.partial(dropped_line, style)
    encoding = sys.stdout.encoding or "utf-8"
    with Printer(descriptor_writer(descriptor), on_failed, encoding=encoding, dropped_line=dropped) as printer:
        coin_width = max(map(len, topology.settings.seed_placement))
        page = page_address(topology.settings, with_token=sys.stdout.isatty())
        view = LiveView(style, printer.put, coin_width=coin_width, now=lambda: datetime.now(UTC), page=page)
        system = RunningSystem(topology, folder, view)
        if leftovers:
            sys.stderr.write(f"ended processes that a killed `up` left behind: {', '.join(leftovers)}\n")
        return await system.run(describe_source(topology.settings))


def page_address(settings: Settings, *, with_token: bool) -> str:
    """The address of the page; with the admin token in its fragment, which a browser keeps to itself."""
    token = settings.admin_token.get_secret_value()
    fragment = f"#token={quote(token)}" if with_token and token else ""
    return f"{settings.url('gateway_service')}/{fragment}"


def _refuse_useless_source(settings: Settings) -> None:
    if settings.replay_paths:
        from cotacoes.external_service.feed import recording_of  # only then: it is not needed otherwise

        recording_of(settings).check()


def _refuse_unusable_shards(topology: Topology, folder: DataFolder) -> None:
    for service in topology.services:
        if service.name in SHARDS and service.command is not None:
            embedded_servers.refuse_unusable_postgres(folder.path / service.name)


def topology(settings: Settings, folder: DataFolder) -> Topology:
    """The services for these settings on this folder; servers whose address is in the settings run elsewhere."""
    _refuse_foreign_services(settings)
    passwords = {shard: folder.secret(shard) for shard in SHARDS}
    own = {shard: embedded_servers.postgres_dsn(settings.port(shard), passwords[shard]) for shard in SHARDS}
    given = {"shard1": settings.shard1_dsn, "shard2": settings.shard2_dsn}
    # what `cotacoes env` exported of this very folder names our own servers
    external = {shard for shard in SHARDS if given[shard] and passwords[shard] not in given[shard]}
    own_redis = embedded_servers.valkey_url(settings.port("redis"), folder.secret("redis"))
    # also without the password, as an older release exported it
    is_own_redis = config.without_password(settings.redis_url or own_redis) == config.without_password(own_redis)
    complete = settings.model_copy(
        update={
            "data": folder.path,
            "port_base": settings.port_base,
            "redis_url": own_redis if is_own_redis else settings.redis_url,
            **{f"{shard}_dsn": given[shard] if shard in external else own[shard] for shard in SHARDS},
            "admin_token": SecretStr(settings.admin_token.get_secret_value() or folder.secret("admin_token")),
        }
    )
    shards = [
        _external(shard, complete.dsn(shard))
        if shard in external
        else _shard(shard, folder.path / shard, settings.port(shard), passwords[shard])
        for shard in SHARDS
    ]
    redis = (
        _redis(folder.path / "redis", settings.port("redis"), folder.secret("redis"))
        if is_own_redis
        else _external("redis", complete.redis)
    )
    services = [
        _external(name, settings.url(name))
        if _is_elsewhere(name, settings)
        else _service(name, complete, service_environment(name, complete, os.environ))
        for name in (*settings.http_services, SUBSCRIBER)
    ]

    async def migrate() -> None:
        from cotacoes.admin import migrate as admin_migrate  # slow to import, and the servers start meanwhile

        await admin_migrate.main(complete)

    return Topology(complete, [*shards, redis, *services], [OneTimeTask("migrate", SHARDS, migrate)], exports(complete))


def exports(settings: Settings) -> dict[str, str]:
    """The variables of `cotacoes env`, for psql, redis-cli and curl."""
    return {
        "COTACOES_REDIS_URL": settings.redis,
        "COTACOES_GATEWAY_URL": settings.url("gateway_service"),
        **_exports_of_source(settings),
        "COTACOES_QUOTE_URL": settings.url("quote_service"),
        "COTACOES_AGGREGATOR_URL": settings.url("aggregator_service"),
        **{f"{PREFIX}{shard.upper()}_DSN": settings.dsn(shard) for shard in SHARDS},
        "COTACOES_ADMIN_TOKEN": settings.admin_token.get_secret_value(),
    }


def _exports_of_source(settings: Settings) -> dict[str, str]:
    urls = {
        "COTACOES_EXTERNAL_URL": settings.url("external_service"),
        "COTACOES_FEED_URL": settings.url("feed_service"),
    }
    source = {"COTACOES_SOURCE": settings.source} if settings.is_live_source else {}
    return {variable: url for variable, url in urls.items() if url} | source


def _shard(name: str, path: Path, port: int, password: str) -> ServiceSpec:
    def prepare() -> None:
        embedded_servers.initialise_postgres(path, password)
        embedded_servers.recover_postgres(path)

    return ServiceSpec(
        name,
        f"postgresql://127.0.0.1:{port}/{embedded_servers.DATABASE}",
        lambda: embedded_servers.postgres_command(path, port),
        is_ready=lambda pid: embedded_servers.postgres_is_ready(path, pid),
        environment=embedded_servers.environment(),
        prepare=prepare,
        stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown, which does not wait for connections
    )


def _redis(path: Path, port: int, password: str) -> ServiceSpec:
    settings_file = path / "valkey.conf"
    return ServiceSpec(
        "redis",
        f"redis://127.0.0.1:{port}",
        lambda: embedded_servers.valkey_command(path, port, settings_file),
        is_ready=lambda _: embedded_servers.valkey_is_ready(port, password),
        environment=embedded_servers.environment(),
        prepare=lambda: embedded_servers.require_password_of_valkey(settings_file, password),
    )


def _service(name: str, settings: Settings, environment: Mapping[str, str]) -> ServiceSpec:
    arguments = ["--json"] if name == SUBSCRIBER else []
    listens = name != SUBSCRIBER
    return ServiceSpec(
        name,
        settings.url(name) if listens else None,
        # -P: a file in the working directory must not take the place of a module
        lambda: [sys.executable, "-P", "-m", "cotacoes", name.replace("_", "-"), *arguments],
        is_ready=(lambda _: answers_livez(settings.port(name))) if listens else (lambda _: True),
        environment=environment,
        needs=_needs(name, settings),
        # it ends for good when another writer takes over; a person who starts it again means it
        prepare=(lambda: takeover_pause.forget(settings.data / name)) if name == "quote_service" else None,
        final_exit_codes=frozenset({USAGE, SUPERSEDED} if name == "quote_service" else {USAGE}),
    )


def _needs(name: str, settings: Settings) -> tuple[str, ...]:
    if name == "quote_service":
        return ("migrate",)
    # not a real need, but the first thing that a newcomer sees would be six refused connections
    is_simulated = name == "feed_service" and settings.source == "venues"
    return ("external_service",) if is_simulated and not _is_elsewhere("external_service", settings) else ()


def _external(name: str, url: str) -> ServiceSpec:
    return ServiceSpec(name, config.without_password(url), None)


def _refuse_foreign_services(settings: Settings) -> None:
    for name in ("gateway_service", "quote_service", "aggregator_service"):
        if _is_elsewhere(name, settings):
            variable = f"{PREFIX}{name.removesuffix('_service').upper()}_URL"
            raise SettingError(
                f"{variable} names another {name}, but `up` starts its own at {_own_url(name, settings)}: unset it"
            )


def _is_elsewhere(name: str, settings: Settings) -> bool:
    """Whether the settings name another address than the one at which `up` would start this service."""
    return name != SUBSCRIBER and settings.url(name) != _own_url(name, settings)


def _own_url(name: str, settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.port(name)}"


def service_environment(name: str, settings: Settings, ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service: its own settings, and from ours only what any program needs."""
    passed_on = {
        variable: text
        for variable, text in ours.items()
        if variable in _PASSED_ON
        or variable.startswith(_PASSED_ON_PREFIXES)
        or (name == "feed_service" and variable.upper() in _PROXIES)
    }
    values = {field: getattr(settings, field) for field in USES[name] & settings.model_fields_set}
    return passed_on | {
        PREFIX + field.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for field, value in values.items()
    }


def answers_livez(port: int) -> bool:
    """Whether the service on this port answers /livez with 200."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIVEZ_DEADLINE_S) as connection:
        connection.settimeout(LIVEZ_DEADLINE_S)
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.1 200"
    return False


def describe_source(settings: Settings) -> str:
    """The source of the prices, in words."""
    pace = "as fast as possible" if settings.speed == math.inf else f"{settings.speed:g} times as fast"
    speed = f", {pace}" if settings.speed != 1 else ""
    failures = f"{100 * settings.failure_rate:g} % of requests fail on purpose"
    if settings.frame_paths:
        return f"one price from recorded frames of {', '.join(settings.venue_names)}"
    if settings.is_live_source:
        kind = "real exchanges" if settings.source == "exchanges" else "simulated exchanges"
        return f"one price agreed on by {kind}: {', '.join(settings.venue_names)}"
    if settings.source == "sim":
        return f"simulated market (seed {settings.seed}{speed}, {failures})"
    names = ", ".join(path.name for path in settings.replay_paths)
    return f"replay of {names} ({failures}{speed})"


def refuse_taken_ports(settings: Settings, services: Sequence[ServiceSpec]) -> None:
    """Raise SettingError if a port that one of our services will listen on is in use."""
    for service in services:
        if service.command is None or service.address is None:
            continue
        port = int(urlsplit(service.address).port or 0)
        if reason := why_not_bound(port):
            raise SettingError(
                f"cannot listen on port {port} for {service.name} ({reason}): stop what uses it, "
                f"or set --port-base (COTACOES_PORT_BASE), which is {settings.port_base}"
            )


def why_not_bound(port: int) -> str | None:
    """Why no server could bind this port of loopback; None if one could. It is tried without listening."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return str(error.strerror)
    return None
