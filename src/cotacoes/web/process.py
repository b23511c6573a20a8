"""A service as this process: settings → log → tracing → signals → the service's own main → exit code; and its port.

Nothing here imports the web framework or the HTTP server until a port is opened: client_subscriber has neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cotacoes import config
from cotacoes.errors import OutputError, SettingError
from cotacoes.errors.exit_codes import FAILURE, USAGE
from cotacoes.observability import tracing
from cotacoes.observability.bounded_log import log_loop_errors
from cotacoes.observability.logs import get_logger, logging_to_stderr

if TYPE_CHECKING:
    from cotacoes.adapters.http_server.connection import ASGIApp
    from cotacoes.adapters.http_server.context import MakeWebSocket
    from cotacoes.observability.metrics import Metrics

Resources = Callable[[], AbstractAsyncContextManager[None]]


class Stop:
    """Asks the process to end, with an exit code; the first request wins."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.code = 0

    def __call__(self, code: int = 0) -> None:
        if not self.event.is_set():
            self.code = code
            self.event.set()


@dataclass(frozen=True)
class HttpService:
    """A wired HTTP service, not yet started: its app and the scope in which its resources are open."""

    name: str
    app: ASGIApp
    metrics: Metrics
    resources: Resources = contextlib.nullcontext
    websocket: MakeWebSocket | None = None


Main = Callable[[config.Settings, Stop], Coroutine[Any, Any, None]]


def run_process(name: str, main: Main, **given: Any) -> int:
    """Run a service as this process until a signal or its own end; returns the exit code."""
    try:
        return run_service(name, main, **given)
    except (SettingError, OutputError) as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{name}: {error}\n")
        return USAGE if isinstance(error, SettingError) else FAILURE


def run_service(
    name: str,
    main: Main,
    *,
    environment: Mapping[str, str] | None = None,
    in_words: bool = False,
    **given: Any,
) -> int:
    """Like run_process, but SettingError and OutputError are raised. `in_words` is for a log that a person reads.

    Settings come from `environment`, by default this process's own, and from `given`, which takes precedence.
    """
    settings = config.load(environment, **given)
    with logging_to_stderr(name, settings.log_level, in_words=in_words), tracing_to_collector(name):
        return asyncio.run(_until_stopped(main, settings))


@contextlib.contextmanager
def tracing_to_collector(service: str) -> Iterator[None]:
    """Send this process's spans where the environment says; SettingError if that is invalid."""
    address = tracing.collector(os.environ)
    if address is None:
        yield
        return
    from cotacoes.adapters import otlp  # slow to import, and only needed here

    with otlp.opened(service) as tracer, tracing.reporting_to(tracer):
        get_logger().info("tracing.started", collector=address)
        yield


async def _until_stopped(main: Main, settings: config.Settings) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    log_loop_errors(loop)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    await main(settings, stop)
    return stop.code


def cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> SettingError:
    """The error that names what to change, the host or the port."""
    reason = error.strerror if isinstance(error, OSError) else "not a host name"
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return SettingError(f"cannot listen on COTACOES_HOST={host} ({reason}): set it to an address of this machine")
    return SettingError(
        f"cannot listen on port {port} of {host} ({reason}): stop the process that uses it or set COTACOES_PORT_BASE"
    )


async def serve_http(service: HttpService, settings: config.Settings, stop: Stop) -> None:
    """Listen on the service's port while its resources are open; SettingError if the port is taken."""
    from cotacoes.adapters.http_server import server
    from cotacoes.adapters.http_server.accepting import ConnectionLimits
    from cotacoes.adapters.http_server.hosts import AllowedHosts

    port = settings.port(service.name)
    try:
        listener = server.listen(settings.host, port)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(settings.host, port, error) from error
    with listener:
        async with service.resources():
            gc.freeze()  # imported objects are no garbage; scanning them each time stopped the service for 50 ms
            get_logger().info("service.started", address=f"http://{settings.host}:{port}")
            refusals = service.metrics.http.refusals
            await server.serve(
                service.app,
                listener,
                stop.event,
                hosts=AllowedHosts(settings.hosts),
                websocket=service.websocket,
                limits=ConnectionLimits.beside_streams(settings.streams_max, settings.streams_per_address_max),
                note_refused=lambda reason: refusals.labels(reason=reason).inc(),
            )
    get_logger().info("service.stopped", code=stop.code)
