"""The files of the page: read once at the start and answered from memory by name, so that no name is ever a path.

Each is compressed once, and our own scripts and styles are first freed of comments and indentation, a quarter of their
weight. The page's own files are asked for again each time, by their ETag, since the next release has others under the
same names. A file of another project has its version in its name, and never changes.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from cotacoes.errors import NotFoundError
from cotacoes.web.document import answering
from cotacoes.web.requests import is_known

INDEX = "index.html"
# the page asks nobody but the gateway, runs no script but its own files, and cannot be shown within another page
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "require-trusted-types-for 'script'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_COMMENT = re.compile(r"/\*.*?\*/|(?:^|(?<=\s))//(?= |$).*?$", re.DOTALL | re.MULTILINE)
UNCHANGING = "public, max-age=31536000, immutable"
_MEDIA_TYPES = {  # by the end of the name
    "LICENSE": "text/plain; charset=utf-8",
    "NOTICE": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """A file as it is answered, plain and compressed."""

    media_type: str
    body: bytes
    compressed: bytes
    digest: str
    is_unchanging: bool


def read_page_files() -> dict[str, PageFile]:
    """The files of the installed page, by their names in addresses."""
    folder = resources.files("cotacoes.gateway_service").joinpath("page")
    own = {file.name: _read(file, is_unchanging=False) for file in folder.iterdir() if _is_answered(file)}
    others = {
        f"vendor/{file.name}": _read(file, is_unchanging=True)
        for file in folder.joinpath("vendor").iterdir()
        if _is_answered(file)
    }
    return own | others


def page_routes(files: Mapping[str, PageFile]) -> APIRouter:
    """The page at `/`, and its other files below `/page/`."""
    router = APIRouter(tags=["page"])

    @router.head("/", include_in_schema=False)
    @router.get("/", summary="The page: live prices, and the patterns at work", **answering("text/html"))
    async def index(request: Request) -> Response:
        return _answer(files[INDEX], request)

    @router.head("/page/{name:path}", include_in_schema=False)
    @router.get("/page/{name:path}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        if name not in files:
            raise NotFoundError("the page has no such file")
        return _answer(files[name], request)

    return router


def without_comments(source: str) -> str:
    """A script or style sheet without comments, indentation and blank lines; no text in it may look like a comment."""
    bare = _COMMENT.sub("", source)
    return "\n".join(line for line in map(str.strip, bare.splitlines()) if line)


def _answer(file: PageFile, request: Request) -> Response:
    is_compressed = _takes_gzip(request.headers.get("accept-encoding", ""))
    etag = f'"{file.digest}{"-gzip" if is_compressed else ""}"'
    headers = {
        "cache-control": UNCHANGING if file.is_unchanging else "no-cache",
        "etag": etag,
        "vary": "accept-encoding",
    }
    if file.media_type.startswith("text/html"):
        headers["content-security-policy"] = CONTENT_SECURITY_POLICY
    if is_known(etag, request.headers.get("if-none-match", "")):
        return Response(None, 304, headers)
    headers["content-type"] = file.media_type
    if is_compressed:
        headers["content-encoding"] = "gzip"
    return Response(file.compressed if is_compressed else file.body, 200, headers)


def _takes_gzip(accepted: str) -> bool:
    for item in accepted.lower().split(","):
        name, _, quality = item.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _is_answered(file: Traversable) -> bool:
    return file.is_file() and any(file.name.endswith(ending) for ending in _MEDIA_TYPES)


def _read(file: Traversable, *, is_unchanging: bool) -> PageFile:
    body = file.read_bytes()
    media_type = next(kind for ending, kind in _MEDIA_TYPES.items() if file.name.endswith(ending))
    if file.name.endswith((".js", ".css")) and not is_unchanging:
        body = without_comments(body.decode()).encode()
    return PageFile(
        media_type,
        body,
        gzip.compress(body, mtime=0),
        hashlib.sha256(body).hexdigest()[:32],
        is_unchanging,
    )
