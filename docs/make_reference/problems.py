"""The problem types, from the error classes that callers see."""

from __future__ import annotations

from docs.make_reference.markdown import WRITTEN, joined

from cotacoes.errors import problem_types

INTRODUCTION = """
Every error is `application/problem+json` (RFC 9457) with `type`, `title`, `status` and `detail`; some have further
fields, which are named here. `type` is `/docs#` and the slug. The header `Retry-After` says when to try again, if that
is known.
"""


def page() -> str:
    """All types, by status."""
    kinds = sorted(problem_types(), key=lambda kind: (kind.status, kind.slug))
    shown = (
        joined(f"## {kind.slug}", f"**{kind.status} {kind.title}.** {' '.join((kind.__doc__ or '').split())}")
        for kind in kinds
    )
    return joined("# Problem types", WRITTEN, INTRODUCTION, *shown)
