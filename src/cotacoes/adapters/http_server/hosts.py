"""The hosts that a request may name: only those by which people and services reach this service.

Any web page can make a browser request `http://evil.example:8002/…` after pointing that name at 127.0.0.1 (DNS
rebinding), and read the answer as its own. The Host header reveals it: it names the page's host, not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cotacoes.errors import MalformedRequestError, MisdirectedRequestError, ProblemError

_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{0,5})?", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_SEEN_MAX = 256  # spellings of allowed hosts, with ports, that are remembered
_SHOWN_BYTES_MAX = 64


class AllowedHosts:
    """Judges the Host header, and the request's target if it names a host too. Any port is allowed."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {_bracketed(name.lower()).encode() for name in names}
        self._seen: set[bytes] = set()

    def refusal(self, headers: Sequence[tuple[bytes, bytes]], target: bytes) -> ProblemError | None:
        """The error that refuses the request; None if it is allowed. Names of headers are lower-case."""
        given = [value for name, value in headers if name == b"host"]
        if len(given) != 1:
            return MalformedRequestError("send exactly one Host header")
        if given[0] not in self._seen and (refusal := self._judge(given[0])):
            return refusal
        absolute = None if target[:1] == b"/" else _ABSOLUTE.match(target)
        return self._judge(absolute[1]) if absolute else None

    def _judge(self, given: bytes) -> ProblemError | None:
        host = _HOST.fullmatch(given)
        if host is None:
            return MalformedRequestError("write the Host header as HOST or HOST:PORT")
        if host[1].lower() not in self._names:
            shown = host[1][:_SHOWN_BYTES_MAX].decode("ascii")
            return MisdirectedRequestError(f"{shown} is not a host of this service: list it in COTACOES_ALLOWED_HOSTS")
        if len(self._seen) < _SEEN_MAX:
            self._seen.add(given)
        return None


def _bracketed(name: str) -> str:
    """An IPv6 address as it is written in a Host header."""
    return f"[{name.strip('[]')}]" if ":" in name else name
