// @ts-check
// The prices: a table with every digit that the gateway sent and what it is worth now, and the candles of one coin, drawn
// by lightweight-charts, said in a sentence, and the last ten as a table.

import { ask, byId, chooser, drawn, element, mark, offer, once, show, write } from "./dom.js";
import { marked } from "./patterns.js";
import { Candles, clock, coinOf, known, percent, signed, streamOf, summary, titleOf, worth } from "./state.js";
import { duration, t, time } from "./words.js";

const [WIDTH, HEIGHT] = [120, 28];

/** The path of a sparkline, which is not drawn across a gap.
 * @param {import("./state.js").Point[]} points */
export function path(points) {
  const prices = points.map((point) => point.price);
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  return points
    .map(({ price, breaks }, index) => {
      const x = (index * WIDTH) / Math.max(1, points.length - 1);
      const y = 2 + ((high - price) / (high - low || 1)) * (HEIGHT - 4);
      return `${index && !breaks ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}

export const renderCoins = () => show("coins", Object.entries(known.status?.coins ?? {}).map(row));

/** What stays in a row: the button, the price, the sparkline.
 * @param {string} coin */
function make(coin) {
  const button = element("button", { class: "coin" });
  button.onclick = () => showCoin(coin);
  const [amount, currency, line] = [element("b"), element("small"), drawn("path")];
  const course = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "course", "aria-hidden": "true" }, line);
  return { button, amount, currency, price: element("span", {}, amount, " ", currency), line, course, drawn: 0 };
}

/** @param {[string, Coin]} coin
 * @returns {[string, ...import("./dom.js").Cell[]]} */
function row([coin, { symbol, source }]) {
  const { quote, step, points, isSilent, received, gaps } = coinOf(coin);
  const made = once(`coin/${coin}`, () => make(coin));
  const { button, amount, currency, price, line, course } = made;
  write(button, `${titleOf(coin)} ${symbol}`);
  mark(button, "aria-label", `${button.textContent}: ${t("showChart")}`);
  write(amount, quote?.price ?? "–");
  write(currency, quote?.currency ?? "");
  if (made.drawn !== received + gaps) mark(line, "d", path(points));
  made.drawn = received + gaps;
  const age = clock.age(quote?.observed_at);
  const is = worth(quote, age, streamOf(coin).isLive ? known.status?.limits : undefined);
  const words = [
    t(is),
    quote && (is === "fresh" && source !== "cache" ? t("live") : "cache"),
    isSilent && t("silent"),
  ];
  return [
    coin,
    button,
    price,
    step && `${/^-/.test(step) ? "▼" : /[1-9]/.test(step) ? "▲" : "="} ${signed(step)}`,
    course,
    quote && changeOf(coin, quote.price),
    duration(age),
    marked(is, words.filter(Boolean).join(" · ")),
    quote && origin(quote),
  ];
}

/** @param {string} coin
 * @param {Decimal} price */
function changeOf(coin, price) {
  const base = known.bases.get(coin);
  const by = base && percent(price, base.price);
  if (!by) return null;
  if (base.isWhole) return t("in24h", signed(by));
  return t("sinceChange", signed(by), time(base.at, "minute"), duration((clock.now ?? base.at) - base.at));
}

/** @param {Quote} quote */
function origin({ origin, state, used = 0, of = 0, confidence = "" }) {
  const text = origin === "sim" ? `${t("simulated")} (sim)` : origin;
  return state ? `${text}: ${t("venuesUsed", used, of, confidence)}, ${t(state)}` : text;
}

const SHOWN = 300; // intervals
const AGAIN_MS = 3_000; // after a question without an answer, or with one that does not follow
const GRID = "#80889040";
const PLACES_MAX = 12; // of a label: a number has 15 digits

/** @typedef {import("lightweight-charts")} Library */

/** @type {Candles | null} */
let candles = null;
/** @type {ReturnType<Library["createChart"]> | null} */
let chart = null;
/** @type {any} */
let series = null;
let inChart = { version: {}, count: 0 };
let askAt = 0;
let failure = "";
let isFitted = false;

/** Create the chart after the first paint, and offer the choices. */
export function beginChart() {
  chooser("coin").onchange = chooser("interval").onchange = () => choose(chooser("coin").value);
  requestAnimationFrame(() => setTimeout(create));
}

/** @param {string} coin */
function choose(coin) {
  known.chosen = chooser("coin").value = coin;
  candles = new Candles(coin, chooser("interval").value);
  askAt = 0;
  failure = "";
  isFitted = false;
}

/** Choose a coin, and go there.
 * @param {string} coin */
export function showCoin(coin) {
  choose(coin);
  chooser("coin").focus({ preventScroll: true });
  byId("chart").scrollIntoView();
}

/** @param {Quote} quote */
export function hearCandle(quote) {
  if (quote.coin === candles?.coin) candles.hear(quote);
}

/** Something of this coin, or of any, is missing or was false.
 * @param {string} [coin] */
export function doubtCandles(coin) {
  if (candles && (!coin || coin === candles.coin)) candles.isDoubtful = true;
}

export function renderChart() {
  const coins = Object.keys(known.status?.coins ?? {});
  const isOther = offer(chooser("coin"), coins.map((coin) => [coin, titleOf(coin)]));
  if (isOther && coins.length && chooser("coin").value !== candles?.coin) choose(chooser("coin").value);
  if (!candles) return;
  if (candles.isDoubtful && performance.now() >= askAt) void question(candles);
  const { coin, list, interval, currency } = candles;
  const at = (/** @type {number} */ from) => time(from, interval === "1d" ? "date" : "day");
  const seen = summary(list);
  const said = seen
    ? t("summary", titleOf(coin), interval, at(seen.from), seen.open, seen.high, seen.low, seen.close, currency, seen.empty)
    : failure && t("noCandles", failure);
  write(byId("chart-title"), t("candlesOf", titleOf(coin)));
  write(byId("summary"), said || "…");
  show("candles", list.slice(-10).reverse().map((one) => {
    const state = t(one.count ? (one.closed ? "candleClosed" : "candleOpen") : "candleEmpty");
    return [String(one.at), at(one.at), one.open, one.high, one.low, one.close, one.count, state];
  }));
  draw(candles);
}

async function create() {
  /** @type {Library} */
  const library = await import("./vendor/lightweight-charts-5.2.1.js");
  chart = library.createChart(byId("canvas"), {
    autoSize: true,
    // the logo would be written as HTML, which the page forbids; the footer has it
    layout: { attributionLogo: false, background: { color: "transparent" }, textColor: "#808890" },
    grid: { vertLines: { color: GRID }, horzLines: { color: GRID } },
    localization: { timeFormatter: (/** @type {number} */ s) => time(s * 1000, "day") },
    timeScale: {
      timeVisible: true,
      tickMarkFormatter: (/** @type {any} */ s, /** @type {number} */ kind) =>
        time(s * 1000, chooser("interval").value === "1d" ? "date" : kind < 3 ? "day" : "minute"),
    },
    handleScroll: { mouseWheel: false, vertTouchDrag: false }, // the page scrolls
    handleScale: { mouseWheel: false },
  });
  // hollow if it rose and filled if it fell, for those who do not see the colours
  series = chart.addSeries(library.CandlestickSeries, { upColor: "transparent" });
  inChart.version = {};
}

/** @param {Candles} of */
async function question(of) {
  askAt = performance.now() + AGAIN_MS;
  of.ask();
  try {
    of.load(await ask(`/v1/candles/${of.coin}?interval=${of.interval}&limit=${SHOWN}&empty=true`));
  } catch (error) {
    of.fail();
    failure = String(/** @type {Error} */ (error).message);
  }
}

/** @param {Candles} of */
function draw({ list, version }) {
  if (!series) return;
  const isSame = version === inChart.version;
  const bars = list.slice(isSame ? Math.max(0, inChart.count - 1) : 0).map((one) => ({
    time: one.at / 1000,
    ...(one.count && { open: Number(one.open), high: Number(one.high), low: Number(one.low), close: Number(one.close) }),
  }));
  if (isSame) {
    for (const bar of bars) series.update(bar);
  } else {
    const [, part = ""] = (list.findLast((one) => one.close)?.close ?? "").split(".");
    const places = Math.min(PLACES_MAX, part.length);
    const formatter = (/** @type {number} */ price) => price.toFixed(places);
    series.applyOptions({ priceFormat: { type: "custom", minMove: 10 ** -places, formatter } });
    series.setData(bars);
    if (!isFitted) chart?.timeScale().fitContent();
    isFitted = list.length > 0;
  }
  inChart = { version, count: list.length };
}
