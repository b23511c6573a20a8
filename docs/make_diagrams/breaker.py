"""The circuit breaker's states, from the table of its transitions: the table is the machine."""

from __future__ import annotations

from collections.abc import Mapping

from cotacoes.patterns.resilience.breaker_config import BreakerState
from cotacoes.patterns.resilience.breaker_events import TRANSITIONS, TransitionReason


def diagram(table: Mapping[tuple[BreakerState, TransitionReason], BreakerState] = TRANSITIONS) -> str:
    """An arrow for each pair of states with its reasons; what leads somewhere from every state is drawn once."""
    everywhere = {
        reason
        for (_, reason), to_state in table.items()
        if all(table.get((state, reason)) is to_state for state in BreakerState)
    }
    arrows: dict[tuple[str, str], list[str]] = {}
    for (from_state, reason), to_state in table.items():
        origin = "anywhere" if reason in everywhere else from_state.value
        reasons = arrows.setdefault((origin, to_state.value), [])
        if reason.value not in reasons:
            reasons.append(reason.value)
    lines = ["stateDiagram-v2", "    [*] --> closed"]
    lines += [f"    {origin} --> {to_state}: {', '.join(reasons)}" for (origin, to_state), reasons in arrows.items()]
    return "\n".join(lines) + "\n"
