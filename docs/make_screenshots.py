"""Runs the system, breaks it, and takes pictures of the page into `docs/assets`: `make screenshots`.

The pictures have 256 colours, which makes them a third as large and shows on a page of few colours in nothing.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import tempfile
import zlib
from pathlib import Path

from playwright.async_api import Browser, Page, ViewportSize, async_playwright
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.harness_market import Market, market_running
from tests.browser.harness_page import RECORDER, ChromiumTab, choose, until_live, until_text

PICTURES = Path(__file__).parent / "assets"
GROWN_S = 480.0  # until there are candles to see
WATCHED_S = 30.0  # until a page has seen prices for its lines
SHOWN_S = 6.0  # until an open breaker has tried a probe, and pending quotes are many
DESK: ViewportSize = {"width": 1200, "height": 1100}
PHONE: ViewportSize = {"width": 390, "height": 844}
FAULT_S = 60.0
COINS = "bitcoin:shard1,ethereum:shard2,solana:shard1"
LIAR, LIE = "kraken", "0.10"
# the pixels as indices into the 256 most frequent colours
REDUCE = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, width, height);
  const colours = [];
  for (let at = 0; at < data.length; at += 4) colours.push((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
  const counts = new Map();
  for (const one of colours) counts.set(one, (counts.get(one) ?? 0) + 1);
  const palette = [...counts].sort(([, a], [, b]) => b - a).slice(0, 256).map(([one]) => one);
  const distance = (a, b) => [16, 8, 0].reduce((sum, by) => sum + (((a >> by) & 255) - ((b >> by) & 255)) ** 2, 0);
  const nearest = (one) => palette.reduce((best, other, at) =>
    distance(one, other) < distance(one, palette[best]) ? at : best, 0);
  const places = new Map([...counts.keys()].map((one) => [one, nearest(one)]));
  const indices = Uint8Array.from(colours, (one) => places.get(one));
  let pixels = "";
  for (let at = 0; at < indices.length; at += 8192) pixels += String.fromCharCode(...indices.subarray(at, at + 8192));
  return { width, height, palette, pixels: btoa(pixels) };
}"""


class Camera:
    """Takes pictures of pages with a browser, which also reduces their colours on a page of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def open(self, address: str, viewport: ViewportSize = DESK) -> ChromiumTab:
        """A tab on the page, once it shows fresh prices, candles and a report."""
        context = await self._browser.new_context(viewport=viewport, locale="en-GB", timezone_id="UTC")
        await context.add_init_script(RECORDER)
        tab = ChromiumTab(await context.new_page())
        await tab.go(address)
        await until_live(tab)
        await until_text(tab, "#summary", "opened at")
        await until_text(tab, "#report", "ms")
        await asyncio.sleep(WATCHED_S)
        return tab

    async def take(self, tab: ChromiumTab, name: str, section: str = "") -> None:
        """Picture what is in view, or from the head of a section on."""
        await tab.run(f"(document.getElementById({section!r}) ?? document.documentElement).scrollIntoView()")
        await asyncio.sleep(1)  # the chart is drawn in its own time
        picture = await tab.page.screenshot(type="png")
        page = await self._browser.new_page()
        (PICTURES / f"{name}.png").write_bytes(await reduced(page, picture))
        await page.close()


async def reduced(page: Page, picture: bytes) -> bytes:
    """The picture as a PNG with a palette."""
    found = await page.evaluate(REDUCE, base64.b64encode(picture).decode())
    width, height, pixels = found["width"], found["height"], base64.b64decode(found["pixels"])
    lines = b"".join(b"\0" + pixels[start : start + width] for start in range(0, width * height, width))
    colours = b"".join(colour.to_bytes(3, "big") for colour in found["palette"])
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


async def picture_market(camera: Camera, market: Market) -> None:
    """The page of simulated prices: as it is, and with parts of the system away."""
    address = f"{market.address}/#token={await market.token()}"
    tab = await camera.open(address)
    await camera.take(tab, "page")
    await choose(tab, "#language", "pt-BR")
    await camera.take(tab, "page-pt-br")
    await choose(tab, "#language", "en")
    await choose(tab, "#theme", "dark")
    await camera.take(tab, "page-dark", "chart")
    await choose(tab, "#theme", "light")
    phone = await camera.open(address, PHONE)
    await camera.take(phone, "page-phone")
    async with market.healed():
        await market.put("/v1/faults", error_rate=1, for_s=FAULT_S)
        await asyncio.sleep(SHOWN_S)
        await until_text(tab, "#now", "open")
        await camera.take(tab, "page-breaker-open", "breaker")
    async with market.healed():
        await market.ask("stop", "shard1")
        await until_text(tab, "#trouble", "shard1")
        await asyncio.sleep(SHOWN_S)
        await camera.take(tab, "page-shard-away", "sharding")
    async with market.healed():
        await market.ask("stop", "gateway_service")
        await until_text(tab, "#link", "^offline")
        await asyncio.sleep(SHOWN_S)
        await camera.take(tab, "page-gateway-away")


async def picture_exchanges(camera: Camera, market: Market) -> None:
    """The page of simulated exchanges, of which one lies."""
    tab = await camera.open(market.address)
    await market.put(f"/v1/venues/{LIAR}/faults", lie=LIE, for_s=FAULT_S)
    await until_text(tab, "#venues tbody", "far from the others")
    await asyncio.sleep(SHOWN_S)
    await camera.take(tab, "page-venue-lying", "venues")


async def main() -> None:
    """Take all pictures."""
    settings = {"COTACOES_COINS": COINS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        async with (
            async_playwright() as playwright,
            market_running(folder / "market", settings=settings) as market,
            market_running(folder / "exchanges", "--source", "venues", settings=settings) as exchanges,
        ):
            camera = Camera(await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS)))
            await asyncio.sleep(GROWN_S)
            await picture_market(camera, market)
            await picture_exchanges(camera, exchanges)


if __name__ == "__main__":
    asyncio.run(main())
