// @ts-check
// The candles of the chosen coin: drawn by lightweight-charts, said in a sentence, and the last ten as a table.

import { Candles, summary } from "./candles.js";
import { byId, chooser, element, offer, Rows, write } from "./dom.js";
import { ask } from "./page.js";
import { t, time } from "./words.js";

const SHOWN = 300; // intervals
const AGAIN_MS = 3_000; // after a question without an answer, or with one that does not follow
const PLACES_MAX = 12; // of a label: a number has 15 digits

/** @typedef {import("lightweight-charts")} Library */

export class ChartView {
  #rows = new Rows("candles");
  #coin = chooser("coin");
  #interval = chooser("interval");
  /** @type {Candles | null} */
  #candles = null;
  /** @type {ReturnType<Library["createChart"]> | null} */
  #chart = null;
  /** @type {any} */
  #series = null;
  #drawn = { version: -1, count: 0 };
  #askAt = 0;
  #failure = "";

  /** @param {import("./state.js").World} world */
  constructor(world) {
    this.world = world;
    this.#coin.onchange = this.#interval.onchange = () => this.show(this.#coin.value);
    requestAnimationFrame(() => setTimeout(() => this.#create())); // after the first paint
  }

  /** @param {string} coin */
  show(coin) {
    this.world.chosen = this.#coin.value = coin;
    this.#candles = new Candles(coin, this.#interval.value);
    this.#askAt = 0;
    this.#failure = "";
    this.#drawn.version = -1;
  }

  /** @param {Quote} quote */
  hear(quote) {
    if (quote.coin === this.#candles?.coin) this.#candles.hear(quote);
  }

  /** Something of this coin, or of any, is missing or was false.
   * @param {string} [coin] */
  doubt(coin) {
    if (this.#candles && (!coin || coin === this.#candles.coin)) this.#candles.isDoubtful = true;
  }

  render() {
    const coins = Object.keys(this.world.status?.coins ?? {});
    if (offer(this.#coin, coins.map((coin) => [coin, this.world.title(coin)])) && coins.length) this.show(this.#coin.value);
    const candles = this.#candles;
    if (!candles) return;
    if (candles.isDoubtful && performance.now() >= this.#askAt) void this.#ask(candles);
    const { list, interval, currency } = candles;
    const title = this.world.title(candles.coin);
    const at = (/** @type {number} */ from) => time(from, interval === "1d" ? "date" : "day");
    const seen = summary(list);
    const said = seen
      ? t("summary", title, interval, at(seen.from), seen.open, seen.high, seen.low, seen.close, currency, seen.empty)
      : this.#failure && t("noCandles", this.#failure);
    write(byId("chart-title"), t("candlesOf", title));
    write(byId("summary"), said || "…");
    this.#rows.show(
      list.slice(-10).reverse().map((one) => {
        const state = t(one.count ? (one.closed ? "candleClosed" : "candleOpen") : "candleEmpty");
        return [String(one.at), at(one.at), one.open, one.high, one.low, one.close, one.count, state];
      }),
    );
    this.#draw(candles);
  }

  /** In the colours of the page, which may have changed. */
  restyle() {
    const probe = byId("canvas").appendChild(element("i"));
    const [ground, ink, line, up, down] = ["ground", "ink", "line", "good", "bad"].map((name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    });
    probe.remove();
    this.#chart?.applyOptions({
      layout: { background: { color: ground }, textColor: ink },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      localization: { timeFormatter: (/** @type {number} */ s) => time(s * 1000, "day") },
    });
    // hollow if it rose and filled if it fell, for those who do not see the colours
    this.#series?.applyOptions({
      upColor: ground, borderUpColor: up, wickUpColor: up, downColor: down, borderDownColor: down, wickDownColor: down,
    });
  }

  async #create() {
    /** @type {Library} */
    const library = await import("./vendor/lightweight-charts-5.2.1.js");
    this.#chart = library.createChart(byId("canvas"), {
      autoSize: true,
      layout: { attributionLogo: false }, // it would set innerHTML, which the page forbids; the footer names them
      timeScale: {
        timeVisible: true,
        tickMarkFormatter: (/** @type {any} */ s, /** @type {number} */ kind) =>
          time(s * 1000, this.#interval.value === "1d" ? "date" : kind < 3 ? "day" : "minute"),
      },
      handleScroll: { mouseWheel: false, vertTouchDrag: false }, // the page scrolls
      handleScale: { mouseWheel: false },
    });
    this.#series = this.#chart.addSeries(library.CandlestickSeries);
    this.#drawn.version = -1;
    this.restyle();
  }

  /** @param {Candles} candles */
  async #ask(candles) {
    this.#askAt = performance.now() + AGAIN_MS;
    candles.ask();
    try {
      candles.load(await ask(`/v1/candles/${candles.coin}?interval=${candles.interval}&limit=${SHOWN}&empty=true`));
    } catch (error) {
      candles.fail();
      this.#failure = String(/** @type {Error} */ (error).message);
    }
  }

  /** @param {Candles} candles */
  #draw({ list, version }) {
    if (!this.#series) return;
    const isSame = version === this.#drawn.version;
    const bars = list.slice(isSame ? Math.max(0, this.#drawn.count - 1) : 0).map((one) => ({
      time: one.at / 1000,
      ...(one.count && { open: Number(one.open), high: Number(one.high), low: Number(one.low), close: Number(one.close) }),
    }));
    if (isSame) {
      for (const bar of bars) this.#series.update(bar);
    } else {
      const [, part = ""] = (list.findLast((one) => one.close)?.close ?? "").split(".");
      const places = Math.min(PLACES_MAX, part.length);
      const formatter = (/** @type {number} */ price) => price.toFixed(places);
      this.#series.applyOptions({ priceFormat: { type: "custom", minMove: 10 ** -places, formatter } });
      this.#series.setData(bars);
      this.#chart?.timeScale().fitContent();
    }
    this.#drawn = { version, count: list.length };
  }
}
