"""The front page: which services run, where, and their routes. Plain HTML without scripts or outside resources."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from cotacoes.config import Settings
from cotacoes.model.listing import listed
from cotacoes.web.pages import page

COINS_SHOWN_MAX = 50
_OPERATION = ("/docs", "/readyz", "/metrics")
_BREAKERS = "/v1/breakers"


def render(settings: Settings, coins: Sequence[str], host: str) -> str:
    """The page for a client that reached the gateway as `host`, where each other service has its own port.

    The settings have the addresses by which services reach each other, which in containers are useless to others.
    """
    shown = f"[{host}]" if ":" in host else host
    running = settings.http_services
    rows = "".join(
        _row(name, f"http://{shown}:{settings.port(name)}", paths) for name, paths in _routes(coins) if name in running
    )
    return page(
        "cotacoes",
        "<p>A crypto price feed that you run yourself, and that you can pull the plug on.</p>"
        f"<p>Coins: {html.escape(listed(coins, COINS_SHOWN_MAX))}</p>"
        f"<table><tr><th>service<th>address<th>ask</tr>{rows}</table>",
    )


def _routes(coins: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    coin = next(iter(coins), "bitcoin")
    yield "gateway_service", (f"/v1/quotes/{coin}/current", _BREAKERS, *_OPERATION)
    yield (
        "quote_service",
        (
            f"/cotacao_atual/{coin}",
            f"/media_ultimos_10_logs/{coin}",
            f"/v1/quotes/{coin}?last=10",
            _BREAKERS,
            *_OPERATION,
        ),
    )
    yield "aggregator_service", ("/report/full", _BREAKERS, *_OPERATION)
    yield "feed_service", ("/quote", "/v1/venues", _BREAKERS, *_OPERATION)
    yield "external_service", ("/quote", "/faults", *_OPERATION)


def _row(name: str, address: str, paths: Iterable[str]) -> str:
    links = "<br>".join(f'<a href="{html.escape(address + path)}">{html.escape(path)}</a>' for path in paths)
    return f"<tr><td>{html.escape(name)}<td>{html.escape(address)}<td>{links}</tr>"
