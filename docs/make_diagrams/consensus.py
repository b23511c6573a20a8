"""One consensus, from the real function: eight venues, each with its part in the price or why it has none."""

from __future__ import annotations

from decimal import Decimal

from cotacoes.model.quote import format_price
from cotacoes.patterns.consensus import ConsensusPrice, VenueBook, agree

NOW_S = 100.0
RATES = {"USDT": Decimal("0.9992")}
BOOKS = (
    ("coinbase", "USD", "67010.11", "67010.95", 0.3),
    ("kraken", "USD", "67009.1", "67009.2", 0.6),
    ("bitstamp", "USD", "73700", "73712", 0.9),
    ("binance", "USDT", "67063.5", "67063.51", 0.2),
    ("okx", "USDT", "67062.8", "67062.9", 0.1),
    ("bybit", "USDT", "67064.1", "67064.11", 14.0),
    ("gemini", "USD", "66400", "67600", 0.4),
    ("bitfinex", "EUR", "61500", "61501", 0.4),
)


def diagram(books: tuple[tuple[str, str, str, str, float], ...] = BOOKS) -> str:
    """An arrow from each venue to the price, or to the reason for leaving it out."""
    given = [VenueBook(name, money, Decimal(bid), Decimal(ask), NOW_S - age) for name, money, bid, ask, age in books]
    result = agree(given, RATES, NOW_S, last=None)
    assert isinstance(result, ConsensusPrice)
    price = format_price(round(result.price, 2))
    lines = ["flowchart LR", f'    price(["{result.state.value}: {price}<br/>{result.used} of {result.of} venues"])']
    for (name, money, bid, ask, age), verdict in zip(books, result.verdicts, strict=True):
        mid = "no rate" if verdict.mid_usd is None else f"{format_price(round(verdict.mid_usd, 2))} USD"
        lines.append(f'    {name}["{name}: {bid} to {ask} {money}, {age:g} s ago"]')
        target = "price" if verdict.used else f"{verdict.reason}([{verdict.reason}])"
        lines.append(f"    {name} {'-->' if verdict.used else '-.->'}|{mid}| {target}")
    return "\n".join(lines) + "\n"
