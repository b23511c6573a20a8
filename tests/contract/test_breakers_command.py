"""`cotacoes breakers` sets a breaker of a real service that asks for the admin token."""

import asyncio
from pathlib import Path

import pytest
from tests.harness_http_server import serving

from cotacoes import config
from cotacoes.cli import main
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience import CircuitBreakerConfig, ResilienceConfig
from cotacoes.web.app import build_app
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.upstreams import new_upstreams

NAME = "external_service.quote"


@pytest.mark.parametrize("state", ["forced-open", "Forced_Open"])
async def test_a_state_may_have_dashes_and_the_admin_token_is_sent(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams = new_upstreams(Metrics())
    upstreams.add(NAME, CircuitBreakerConfig(), ResilienceConfig())
    settings = config.load({}, admin_token="sesame")
    app = build_app("quote_service", settings, Metrics(), breaker_routes("quote_service", settings, upstreams))
    monkeypatch.setenv("COTACOES_DATA", str(tmp_path))  # on which nothing runs
    monkeypatch.setenv("COTACOES_ADMIN_TOKEN", "sesame")
    async with serving(app) as port:
        monkeypatch.setenv("COTACOES_QUOTE_URL", f"http://127.0.0.1:{port}")
        command = ["breakers", f"quote_service/{NAME}", state]
        assert await asyncio.to_thread(main, command) == 0
    assert upstreams.described()[0].state == "forced_open"
