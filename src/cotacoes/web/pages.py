"""The frame of the pages that services answer: plain HTML that works offline, without scripts."""

from __future__ import annotations

import html

from fastapi.responses import HTMLResponse

_CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "body{color:#1b1f24;background:#fff}"
    "code{background:#f2f4f7;padding:.1em .3em;border-radius:3px}h3{margin:1.6rem 0 .2rem}"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#e6e9ee;background:#14171c}code{background:#232830}a{color:#8ab8ff}}"
)


def page(title: str, body: str) -> str:
    """A whole page; `title` is text, `body` is HTML."""
    name = html.escape(title)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{name}</title><style>{_STYLE}</style><h1>{name}</h1>{body}</html>"
    )


def answer_page(text: str) -> HTMLResponse:
    """The answer that shows a page and lets it load nothing."""
    return HTMLResponse(text, headers={"content-security-policy": _CONTENT_SECURITY_POLICY})
