"""A span for each branch of a report: the parent of the calls made in it, with the status from the gathering.

Only the gathering knows how a branch ended (`timed_out`, `skipped`, `abandoned`), and only once it is over.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from cotacoes.observability import tracing
from cotacoes.patterns.scatter_gather.gather import scatter_gather
from cotacoes.patterns.scatter_gather.gather_result import Branch, GatherResult, IncompleteError

T = TypeVar("T")


async def traced_gather(branches: Mapping[str, Callable[[], Awaitable[Any]]], **terms: Any) -> GatherResult[Any]:
    """`scatter_gather`, with a span around each branch if tracing is on."""
    tracer = tracing.active()
    if tracer is None:
        return await scatter_gather(branches, **terms)
    spans = _BranchSpans(tracer)
    asked = {name: functools.partial(spans.ask, name, ask) for name, ask in branches.items()}
    ended: Mapping[str, Branch[Any]] = {}
    try:
        result = await scatter_gather(asked, **terms)
        ended = result.branches
    except IncompleteError as error:
        ended = error.result.branches
        raise
    finally:
        spans.settle(ended)
    return result


class _BranchSpans:
    def __init__(self, tracer: tracing.Tracer) -> None:
        self._tracer = tracer
        self._spans: dict[str, tracing.Span] = {}
        self._ended_ns: dict[str, int] = {}

    async def ask(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        span = self._begin(name)
        try:
            with span.current():
                return await ask()
        finally:
            self._ended_ns[name] = time.time_ns()

    def _begin(self, name: str) -> tracing.Span:
        span = self._spans[name] = self._tracer.begin("internal", f"branch {name}", {"cotacoes.branch.name": name})
        return span

    def settle(self, branches: Mapping[str, Branch[Any]]) -> None:
        """End all spans; branches without a result were cancelled with the whole."""
        for name, branch in branches.items():
            span = self._spans.get(name) or self._begin(name)  # a branch that was not begun has a span without a length
            span.note({"cotacoes.branch.status": branch.status.value, "cotacoes.branch.attempts": branch.attempts})
            if branch.reason is not None:
                span.note({"cotacoes.branch.reason": branch.reason})
            if not branch.status.is_good:
                span.fail(branch.status.value)
        for name, span in self._spans.items():
            if name not in branches:
                span.fail("cancelled")
            span.end(self._ended_ns.get(name))
