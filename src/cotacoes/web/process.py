"""One service as this process: settings, log, signals, its own main, the exit code; and its port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cotacoes import config
from cotacoes.adapters.http_server.accepting import ConnectionLimits
from cotacoes.adapters.http_server.exchange import ASGIApp
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.errors import OutputError, SettingError
from cotacoes.observability.bounded_log import log_loop_errors
from cotacoes.observability.logs import get_logger, logging_to_stderr
from cotacoes.observability.metrics import Metrics
from cotacoes.web.request_spans import reported

if TYPE_CHECKING:
    from cotacoes.adapters.http_server.server import MakeWebSocket

Resources = Callable[[], AbstractAsyncContextManager[None]]


class Stop:
    """Asks the process to end, with an exit code; the first one asked for stands."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.code = 0

    def __call__(self, code: int = 0) -> None:
        if not self.event.is_set():
            self.code = code
            self.event.set()


@dataclass(frozen=True)
class Service:
    """A wired HTTP service, not yet started: its app and the scope in which its resources are open."""

    name: str
    app: ASGIApp
    metrics: Metrics
    resources: Resources = contextlib.nullcontext
    websocket: MakeWebSocket | None = None


Main = Callable[[config.Settings, Stop], Coroutine[Any, Any, None]]


def run_process(name: str, main: Main, **given: Any) -> int:
    """Run one part as this process until a signal or its own end; returns the exit code."""
    try:
        return run_part(name, main, **given)
    except (SettingError, OutputError) as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{name}: {error}\n")
        return 2 if isinstance(error, SettingError) else 1


def run_part(
    name: str,
    main: Main,
    *,
    environment: Mapping[str, str] | None = None,
    in_words: bool = False,
    **given: Any,
) -> int:
    """The same with settings of its own, whose errors come out; `in_words` if a person reads its log.

    The settings come from `environment`, by default this process's own, and from `given`, which wins.
    """
    settings = config.load(environment, **given)
    with logging_to_stderr(name, settings.log_level, in_words=in_words), reported(name):
        return asyncio.run(_until_stopped(main, settings))


async def _until_stopped(main: Main, settings: config.Settings) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    log_loop_errors(loop)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    await main(settings, stop)
    return stop.code


def cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> SettingError:
    """What to change, the host or the port."""
    reason = error.strerror if isinstance(error, OSError) else "not a host name"
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return SettingError(f"cannot listen on COTACOES_HOST={host} ({reason}): set it to an address of this machine")
    return SettingError(
        f"cannot listen on port {port} of {host} ({reason}): stop the process that uses it or set COTACOES_PORT_BASE"
    )


async def serve_http(service: Service, settings: config.Settings, stop: Stop) -> None:
    """Listen on the service's port while its resources are open; SettingError where the port is taken."""
    from cotacoes.adapters.http_server import server  # slow to import, and a part without routes has no use for it

    port = settings.port(service.name)
    try:
        listener = server.listen(settings.host, port)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(settings.host, port, error) from error
    with listener:
        async with service.resources():
            gc.freeze()  # what was imported is no garbage; looking at it each time stopped everything for 50 ms
            get_logger().info("service.started", address=f"http://{settings.host}:{port}")
            refused = service.metrics.http.refusals
            await server.serve(
                service.app,
                listener,
                stop.event,
                hosts=AllowedHosts(settings.hosts),
                websocket=service.websocket,
                limits=ConnectionLimits.beside_streams(settings.streams_max, settings.streams_per_address_max),
                note_refused=lambda reason: refused.labels(reason=reason).inc(),
            )
    get_logger().info("service.stopped", code=stop.code)
