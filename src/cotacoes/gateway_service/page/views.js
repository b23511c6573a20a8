// @ts-check
// What the page shows, from what is known: its head, the prices, the candles of one coin, the patterns at work and the
// faults. Each `render` writes what has changed since it was called last.

import { ask, byId, change, chooser, drawn, element, list, mark, offer, once, show, write } from "./dom.js";
import {
  Candles, clock, coinOf, known, percent, signed, sourceBreaker, stream, subtract, summary, titleOf, worth,
} from "./state.js";
import { duration, t, time } from "./words.js";

/** @typedef {import("./dom.js").Cell} Cell */

/** @type {Record<string, import("./dom.js").Mark>} */
const MARKS = {
  connecting: "idle", live: "good", late: "warn", paused: "idle",
  fresh: "good", stale: "warn", none: "idle",
  up: "good", unknown: "idle",
  closed: "good", half_open: "warn", disabled: "warn", metrics_only: "warn",
  ok: "good", skipped: "idle", lagging: "warn",
};
const BAR = 200; // the width of a bar's time

/** The word for a breaker's state: `open` is also a price, and `closed` a candle's.
 * @param {string} state */
export const stateWord = (state) => t(`is_${state}`);

/** @param {string} state
 * @param {string} text
 * @returns {Cell} */
const marked = (state, text) => ({ text, mark: MARKS[state] ?? "bad" });

export function renderHead() {
  write(byId("link"), t(stream.state));
  mark(byId("link"), "data-mark", MARKS[stream.state] ?? "bad");
  const { status } = known;
  if (!status) return;
  write(byId("source"), t(`from_${status.source}`));
  const troubles = Object.entries({ ...status.services, ...status.shards }).flatMap(([name, { state, breakers = [] }]) => [
    ...(state === "up" ? [] : [`${name} (${t(state)})`]),
    ...breakers.filter((one) => one.state !== "closed").map((one) => `${name} → ${one.name} (${stateWord(one.state)})`),
  ]);
  write(byId("trouble"), troubles.length ? t("troubles", troubles.join(", ")) : t("allUp"));
  mark(byId("trouble"), "data-mark", troubles.length ? "bad" : "good");
}

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
  return { button, amount, currency, price: element("span", {}, amount, " ", currency), line, course };
}

/** @param {[string, Coin]} coin
 * @returns {[string, ...import("./dom.js").Cell[]]} */
function row([coin, { symbol }]) {
  const { quote, step, points, isSilent } = coinOf(coin);
  const { button, amount, currency, price, line, course } = once(`coin/${coin}`, () => make(coin));
  write(button, `${titleOf(coin)} ${symbol}`);
  mark(button, "aria-label", `${button.textContent}: ${t("showChart")}`);
  write(amount, quote?.price ?? "–");
  write(currency, quote?.currency ?? "");
  mark(line, "d", path(points));
  const age = clock.age(quote?.observed_at);
  const is = worth(quote, age, stream.isLive ? known.status?.limits : undefined);
  const isRefused = sourceBreaker(known.status)?.next_call === "refused";
  const words = [
    t(is),
    quote && t(is === "fresh" && !isRefused ? "live" : "cache"),
    isSilent && t("silent"),
    stream.isUnfollowed(coin) && t("unfollowed", stream.coinsMax),
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
const PLACES_MAX = 12; // of a label: a number has 15 digits

/** @typedef {import("lightweight-charts")} Library */

/** @type {Candles | null} */
let candles = null;
/** @type {ReturnType<Library["createChart"]> | null} */
let chart = null;
/** @type {any} */
let series = null;
let inChart = { version: -1, count: 0 };
let askAt = 0;
let failure = "";

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
  inChart.version = -1;
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

/** Take the colours of the page, which may have changed. */
export function restyleChart() {
  const probe = byId("canvas").appendChild(element("i"));
  const [ground, ink, line, up, down] = ["ground", "ink", "line", "good", "bad"].map((name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  chart?.applyOptions({
    layout: { background: { color: ground }, textColor: ink },
    grid: { vertLines: { color: line }, horzLines: { color: line } },
    localization: { timeFormatter: (/** @type {number} */ s) => time(s * 1000, "day") },
  });
  // hollow if it rose and filled if it fell, for those who do not see the colours
  series?.applyOptions({
    upColor: ground, borderUpColor: up, wickUpColor: up, downColor: down, borderDownColor: down, wickDownColor: down,
  });
}

async function create() {
  /** @type {Library} */
  const library = await import("./vendor/lightweight-charts-5.2.1.js");
  chart = library.createChart(byId("canvas"), {
    autoSize: true,
    layout: { attributionLogo: false }, // it would be written as HTML, which the page forbids; the footer has it
    timeScale: {
      timeVisible: true,
      tickMarkFormatter: (/** @type {any} */ s, /** @type {number} */ kind) =>
        time(s * 1000, chooser("interval").value === "1d" ? "date" : kind < 3 ? "day" : "minute"),
    },
    handleScroll: { mouseWheel: false, vertTouchDrag: false }, // the page scrolls
    handleScale: { mouseWheel: false },
  });
  series = chart.addSeries(library.CandlestickSeries);
  inChart.version = -1;
  restyleChart();
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
    chart?.timeScale().fitContent();
  }
  inChart = { version, count: list.length };
}

export function renderPatterns() {
  const { status } = known;
  if (!status) return;
  parts(status);
  source(status);
  breakers(status);
  coins(status);
  if (status.report) report(status.report);
  venues(status);
}

/** @param {Time} at */
function ago(at) {
  return t("ago", time(at), duration(clock.age(at)));
}

/** What is said of every part: its state, since when, and why it is away.
 * @param {Part} part
 * @returns {Cell[]} */
function said({ state, since, known_at, reason }) {
  const heard = known_at ? t("notSince", ago(known_at)) : t("never");
  const why = state === "up" ? null : [reason, heard].filter(Boolean).join("; ");
  return [marked(state, t(state)), ago(since), why];
}

/** @param {Status} status */
function parts({ services, shards, coins }) {
  show("services", Object.entries(services).map(([name, part]) => [name, name, ...said(part)]));
  show("shards", 
    Object.entries(shards).map(([name, part]) => {
      const own = Object.entries(coins).filter(([, coin]) => coin.shard === name);
      const isKnown = own.every(([, coin]) => coin.pending !== null);
      const pending = isKnown ? own.reduce((sum, [, coin]) => sum + (coin.pending ?? 0), 0) : null;
      const titles = own.map(([coin]) => titleOf(coin)).join(", ");
      return [name, name, titles, pending, ...said(part)];
    }),
  );
}

/** @param {Status} status */
function source(status) {
  const breaker = sourceBreaker(status);
  write(byId("now"), breaker ? t("nowIs", breaker.name, stateWord(breaker.state)) : t("noBreaker"));
  write(byId("next"), breaker ? next(breaker, status.services.quote_service) : "");
  for (const box of byId("diagram").querySelectorAll("g")) {
    mark(box, "class", breaker?.state.endsWith(box.dataset.of ?? "?") ? "now" : "");
  }
  const changes = breaker?.transitions ?? [];
  list("timeline", changes.map(({ at, from, to, reason }) =>
    `${time(at)} ${t("changed", stateWord(from), stateWord(to), t(reason))}`));
}

/** Seconds for which no call is made, counted on since the gateway knew it.
 * @param {Breaker} breaker
 * @param {Part} part */
function wait({ retry_after_s }, { known_at }) {
  return Math.ceil((retry_after_s ?? 0) - (clock.age(known_at) ?? 0) / 1000);
}

/** @param {Breaker} breaker
 * @param {Part} part */
function next(breaker, part) {
  const { state, is_awaited, window, consecutive_failures } = breaker;
  const wait = wait(breaker, part);
  if (is_awaited) return t("isAwaited");
  if (state === "open") return wait > 0 ? t("waits", wait) : t("probeNext");
  if (/forced|disabled|only/.test(state)) return t("byOperator");
  return t("seen", window.failures, window.calls, consecutive_failures);
}

/** @param {Status} status */
function breakers({ services }) {
  show("breakers", 
    Object.entries(services).flatMap(([service, part]) =>
      part.breakers.map((breaker) => {
        const { name, state, next_call, window, not_permitted, last_errors } = breaker;
        const wait = wait(breaker, part);
        const next = next_call === "refused" && state === "open" && wait <= 0 ? "probe" : next_call;
        /** @type {[string, ...Cell[]]} */
        const row = [
          `${service}/${name}`,
          `${service} → ${name}`,
          part.state === "up" ? marked(state, stateWord(state)) : marked("unknown", t("unknown")),
          next === "refused" && wait > 0 ? t("refusedFor", wait) : t(next),
          window.calls,
          window.failures,
          window.slow_calls,
          not_permitted,
          last_errors[0] && `${time(last_errors[0].at)} ${last_errors[0].error}`,
          button(service, name, state),
        ];
        return row;
      }),
    ),
  );
}

/** @param {string} service
 * @param {string} name
 * @param {BreakerState} state */
function button(service, name, state) {
  const key = `${service}/${name}`;
  const button = once(key, () => element("button", { type: "button" }));
  const isClosed = state === "closed";
  write(button, t(isClosed ? "force" : "reset"));
  mark(button, "aria-label", `${button.textContent}: ${key}`);
  button.disabled = !known.token;
  button.onclick = () => change(`/v1/breakers/${key}`, { state: isClosed ? "forced_open" : "closed" });
  return button;
}

/** @param {Status} status */
function coins({ coins }) {
  const all = Object.entries(coins);
  show("positions", 
    all.map(([coin, { position }]) => {
      const { received, gaps, isSilent } = coinOf(coin);
      const feed = isSilent ? marked("away", t("silent")) : marked("up", t("speaks"));
      return [coin, titleOf(coin), position, stream.last(coin), received, gaps, feed];
    }),
  );
  show("kept", 
    all.map(([coin, { shard, position, through, pending }]) =>
      [coin, titleOf(coin), shard, position, through, pending]),
  );
}

/** @param {Report} report */
function report({ generated_at, elapsed_ms, deadline_ms, complete, trace, missing }) {
  const age = duration(clock.age(generated_at));
  write(byId("report"), t("reportIs", age, elapsed_ms, deadline_ms, t(complete ? "complete" : "partial")));
  const scale = BAR / Math.max(deadline_ms, ...trace.map((one) => one.start_ms + one.elapsed_ms));
  show("trace", 
    trace.map(({ branch, status, start_ms, elapsed_ms, attempts, reason }) => {
      const { bar, line, picture } = once(`report/${branch}`, makeBar);
      mark(bar, "x", start_ms * scale);
      mark(bar, "width", Math.max(2, elapsed_ms * scale));
      mark(bar, "class", MARKS[status] ?? "bad");
      mark(line, "d", `M${deadline_ms * scale} 0v16`);
      const state = marked(status, t(`was_${status}`));
      return [branch, branch, picture, `${start_ms} ms`, `${elapsed_ms} ms`, attempts, state, reason];
    }),
  );
  list("missing", missing.map(({ part, reason }) => `${part}: ${reason}`));
}

/** @param {Status} status */
function venues({ venues }) {
  const of = venues?.coins.find((one) => one.coin === known.chosen);
  byId("venues").hidden = !of;
  if (!of) return;
  const since = clock.age(venues?.known_at) ?? 0;
  const { price, low, high, used, reason, state } = of;
  const [title, age] = [titleOf(of.coin), duration((of.age_ms ?? 0) + since)];
  const said = price
    ? t("consensusIs", title, t(state), price, used, of.of, low ?? "", high ?? "", age)
    : t("noConsensus", title, t(reason ?? state));
  write(byId("consensus"), said);
  show("venues", 
    of.venues.map(({ venue, bid, ask, currency, mid_usd, age_ms, used, reason }) => [
      venue,
      venue,
      bid && `${bid} ${currency}`,
      ask && `${ask} ${currency}`,
      mid_usd,
      bid && ask && `${subtract(ask, bid)} (${percent(ask, bid, 3)} %)`,
      age_ms === null ? null : duration(age_ms + since),
      used ? marked("up", t("yes")) : marked("away", t("no", t(reason ?? ""))),
    ]),
  );
  byId("spread").replaceChildren(...spread(of));
}

function makeBar() {
  const [bar, line] = [drawn("rect", { y: 4, height: 8 }), drawn("path")];
  const picture = drawn("svg", { viewBox: `0 0 ${BAR + 2} 16`, class: "bar", "aria-hidden": "true" }, bar, line);
  return { bar, line, picture };
}

/** Each book as a bar from bid to ask, over the band and the price; what is far outside stands at the edge.
 * @param {Consensus} consensus */
function spread({ venues, low, high, price }) {
  const [from, to] = [Number(low), Number(high)];
  const margin = to - from || to / 1000;
  const x = (/** @type {number} */ usd) => 110 + 480 * Math.max(0, Math.min(1, (usd - from + margin) / (to - from + 2 * margin)));
  const bar = (/** @type {string} */ kind, /** @type {number} */ y, /** @type {number} */ height, /** @type {number[]} */ [start, end]) =>
    drawn("rect", { class: kind, x: x(start), y, height, width: Math.max(2, x(end) - x(start)) });
  const height = 20 * venues.length;
  return [
    ...(price ? [bar("band", 0, height, [from, to]), bar("ink", 0, height, [Number(price), Number(price)])] : []),
    ...venues.flatMap(({ venue, bid, ask, rate, used }, index) => [
      drawn("text", { x: 0, y: 20 * index + 15 }, venue.slice(0, 14)),
      ...(price && bid && ask
        ? [bar(used ? "good" : "bad", 20 * index + (used ? 6 : 9), used ? 8 : 2, [bid, ask].map((side) => Number(side) * Number(rate ?? 1)))]
        : []),
    ]),
  ];
}

const DEFAULTS = new Set(["0", "1", "false", "null", '""', '"0"', '"1"', "[]", "{}"]);

/** What a simulated venue or its market does differently: `kraken: lie 0.10`.
 * @param {string} name
 * @param {Record<string, unknown>} faults */
const altered = (name, faults) =>
  Object.entries(faults)
    .filter(([field, value]) => field !== "for_s" && !DEFAULTS.has(JSON.stringify(value)))
    .map(([field, value]) => `${name}: ${field} ${typeof value === "string" ? value : JSON.stringify(value)}`);

/** The faults of a setting, each in words.
 * @param {FaultSetting} setting */
export function faultsOf({ error_rate = 0, kinds, latency_ms = 0, jitter_ms = 0 }) {
  const words = Object.entries({ error: error_rate, ...kinds })
    .filter(([, rate]) => rate)
    .map(([kind, rate]) => t("shareOf", t(kind), Math.round(rate * 1000) / 10));
  return latency_ms + jitter_ms ? [...words, `+${latency_ms}–${latency_ms + jitter_ms} ms`] : words;
}

const buttons = () => /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-fault]"));

export function beginFaults() {
  chooser("part").onchange = command;
  for (const button of buttons()) {
    const [name, value] = (button.dataset.fault ?? "").split("=");
    const setting = value ? { [name]: Number(value) } : { kinds: { [name]: 1 } };
    button.onclick = () => change("/v1/faults", { for_s: Number(chooser("lasts").value), ...setting });
  }
}

export function renderFaults() {
  const { status, token } = known;
  const isReal = status?.source === "exchanges";
  for (const button of buttons()) button.disabled = !token || isReal;
  write(byId("token"), t(isReal ? "noFaults" : token ? "withToken" : "noToken"));
  write(byId("faults"), inForce());
  const parts = new Set([...Object.keys(status?.shards ?? {}), "redis", ...Object.keys(status?.services ?? {})]);
  if (status && offer(chooser("part"), [...parts].map((part) => [part, part]))) command();
}

function inForce() {
  const { faults } = known.status ?? {};
  if (!faults) return t("faultNotKnown");
  const { setting, venues, market, known_at } = faults;
  const passed_s = (clock.age(known_at) ?? 0) / 1000;
  const all = Object.entries({ ...venues, market: market ?? {} }).map(([name, one]) => ({ ...one, of: altered(name, one) }));
  const words = [{ for_s: setting?.for_s, of: faultsOf(setting ?? {}) }, ...all].flatMap(({ for_s, of }) => {
    const left = for_s == null ? null : Math.ceil(Number(for_s) - passed_s);
    return left !== null && left <= 0 ? [] : of.map((text) => (left ? t("left", text, left) : t("lasting", text)));
  });
  return words.length ? t("faultIs", words.join("; ")) : t("noFault");
}

function command() {
  for (const word of ["stop", "pause", "start"]) write(byId(word), `cotacoes ${word} ${chooser("part").value}`);
}
