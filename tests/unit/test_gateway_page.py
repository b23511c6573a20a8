"""The page's files: answered by name, checked by the browser, light, and of nobody but the gateway."""

import gzip
import hashlib
import re
from pathlib import Path

import httpx2
import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.test_gateway_service import QUOTES, asking

from cotacoes.gateway_service.page_files import read_page_files

FILES = read_page_files()
WEIGHT_MAX = 90_000  # compressed, all of it
CHART = "vendor/lightweight-charts-5.2.1.js"
CHART_SHA256 = "1bb1ee79f9d4dd17261b53d930f7a8995748276f80e7ba0e24412b5068062f5f"
FOLDER = Path(__file__).parents[2] / "src" / "cotacoes" / "gateway_service" / "page"
PATHS = ["/", *(f"/page/{name}" for name in FILES if name != "index.html")]


async def ask(path: str, method: str = "GET", **headers: str) -> httpx2.Response:
    async with asking(QuoteServiceTwin(QUOTES)) as gateway:
        given = {"accept-encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await gateway.request(method, path, headers=given)


@pytest.mark.parametrize("path", PATHS)
async def test_each_file_is_answered_plain_and_compressed_and_not_again_if_it_is_known(path: str) -> None:
    plain = await ask(path)
    assert plain.status_code == 200
    assert plain.headers["vary"] == "accept-encoding"
    packed = await ask(path, accept_encoding="br;q=1, gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]
    head = await ask(path, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == plain.headers["etag"]
    for known in (plain.headers["etag"], f'"other", W/{plain.headers["etag"]}', "*"):
        again = await ask(path, if_none_match=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == plain.headers["etag"]
    assert (await ask(path, if_none_match='"other"')).status_code == 200
    assert (await ask(path, accept_encoding="gzip;q=0, *;q=0")).headers.get("content-encoding") is None


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/none.js",
        "/page/vendor",
        "/page/../routes.py",
        "/page/..%2froutes.py",
        "/page/%2e%2e/routes.py",
        "/page/..\\routes.py",
        "/page/page.css%00",
        "/static/..%2f",
        "/index.html",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_no_other_name_is_a_file(path: str, method: str) -> None:
    assert (await ask(path, method)).status_code in (404, 405)


async def test_the_page_may_ask_the_gateway_alone_and_stands_in_no_other_page() -> None:
    policy = (await ask("/")).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_the_files_name_no_other_address_and_run_nothing_inline() -> None:
    for name, file in FILES.items():
        text = file.body.decode()
        if not name.startswith("vendor/"):
            addresses = re.findall(r"https?://[^\s\"'<>`)]+", text)
            assert all(one.startswith(("https://www.tradingview.com", "http://www.w3.org/")) for one in addresses), name
            assert "innerHTML" not in text, name
    index = FILES["index.html"].body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", index)


def test_the_page_is_light() -> None:
    weights = {
        name: len(file.compressed) for name, file in FILES.items() if not file.media_type.startswith("text/plain")
    }
    assert sum(weights.values()) <= WEIGHT_MAX, weights
    for file in FILES.values():
        assert gzip.decompress(file.compressed) == file.body


def test_the_chart_is_the_file_that_its_project_released() -> None:
    assert hashlib.sha256(FILES[CHART].body).hexdigest() == CHART_SHA256
    assert FILES[CHART].is_unchanging
    assert "Apache" in (FOLDER / "vendor" / "LICENSE").read_text()
    assert "https://www.tradingview.com/" in (FOLDER / "vendor" / "NOTICE").read_text()
