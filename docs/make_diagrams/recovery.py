"""How a hole is filled, from a recovery that is given a feed with a hole: its events are what the subscriber shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.recovery import Recovery
from cotacoes.patterns.pub_sub.recovery_events import GapDetected, GapFilled, QuoteReceived, RecoveryEvent

COIN, EPOCH, NOON = "bitcoin", 5, datetime(2026, 11, 24, 12, tzinfo=UTC)
PARTICIPANTS = ("quote_service", "Redis", "subscriber", "history")
FIRST, LAST = 41, 45
LOST = (42, 43)


def diagram(lost: Sequence[int] = LOST) -> str:
    """Quotes 41 to 45 on their way, of which Redis loses some; the history answers after the last one."""
    recovery = Recovery(COIN, Position(EPOCH, FIRST - 1))
    if recovery.wanted:  # the history is asked once at the start, and has nothing newer
        recovery.recover(recovery.wanted, [], more=False)
    lines = ["sequenceDiagram", *(f"    participant {name}" for name in PARTICIPANTS)]
    is_asked = False
    for seq in range(FIRST, LAST + 1):
        if seq in lost:
            lines.append(f"    quote_service-xRedis: {seq}")
            continue
        lines += [f"    quote_service->>Redis: {seq}", f"    Redis->>subscriber: {seq}"]
        lines += _shown(recovery.hear(_quote(seq)), otherwise=f"holds {seq} back")
        if recovery.wanted and not is_asked:
            lines.append(f"    subscriber->>history: what follows {_seq(recovery.wanted.after)}?")
            is_asked = True
    if recovery.wanted:
        wanted = recovery.wanted
        answer = [_quote(seq) for seq in range(_seq(wanted.after) + 1, LAST + 1)]
        lines.append(f"    history-->>subscriber: {', '.join(str(quote.seq) for quote in answer)}")
        lines += _shown(recovery.recover(wanted, answer, more=False))
    return "\n".join(lines) + "\n"


def _shown(events: Sequence[RecoveryEvent], otherwise: str = "") -> list[str]:
    """What the subscriber does, as notes; quotes that are shown together are one note."""
    notes: list[str] = []
    quotes = [event.quote.seq for event in events if isinstance(event, QuoteReceived)]
    for event in events:
        if isinstance(event, GapDetected):
            notes.append(f"misses {_seq(event.gap.after) + 1} to {event.gap.through.seq}")
        elif isinstance(event, GapFilled):
            notes.append(f"has recovered {event.quotes}")
    if quotes:
        notes.insert(0, f"shows {', '.join(map(str, quotes))}")
    if not quotes and otherwise:
        notes.append(otherwise)
    return [f"    Note over subscriber: {note}" for note in notes]


def _quote(seq: int) -> Quote:
    return Quote(COIN, "USD", Decimal(67_000 + seq), EPOCH, seq, NOON, NOON, "sim")


def _seq(position: Position | None) -> int:
    assert position is not None
    return position.seq
