"""A current quote that is told some time after its service answered: as much older, and stale or gone where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cotacoes.model.quote import AgeLimits


def with_age(quote: Mapping[str, Any], later_ms: int, limits: AgeLimits) -> dict[str, Any] | None:
    """The quote `later_ms` later; None where it is no price any more."""
    age_ms = quote["age_ms"] + later_ms
    if age_ms > limits.most:
        return None
    # one that its own service calls stale stays so, whatever the limits are here
    return {**quote, "age_ms": age_ms, "status": quote["status"] if limits.status(age_ms) == "fresh" else "stale"}
