// @ts-check
// The wiring: what comes goes into what is known, and four times a second the page shows it, not with each quote. And the
// log of what happened.

import { ask, byId, element, offerChoices, offerCopies, takeToken } from "./dom.js";
import { baseOf, clock, coinOf, follow, known, merged, newTransitions, stream, streams, titleOf } from "./state.js";
import { beginFaults, changeOf, renderFaults, renderHead, renderPatterns } from "./patterns.js";
import { beginChart, doubtCandles, hearCandle, renderChart, renderCoins } from "./prices.js";
import { t, time } from "./words.js";

const LINES_MAX = 200;

/** @type {{ at: number | Time | null, say: () => string }[]} */
const lines = [];

/** @param {() => string} say
 * @param {Time | null} at */
export function log(say, at = null) {
  const line = { at: at ?? clock.now, say };
  lines.unshift(line);
  byId("lines").prepend(shown(line));
  if (lines.length > LINES_MAX) {
    lines.pop();
    byId("lines").lastChild?.remove();
  }
}

/** Say all lines in the chosen language, which is not news. */
export function translateLog() {
  const list = byId("lines");
  list.ariaLive = "off";
  list.replaceChildren(...lines.map(shown));
  setTimeout(() => (list.ariaLive = "polite"), 500);
}

/** Log what changed from one status to the next.
 * @param {Status} was
 * @param {Status} is */
export function logChanges(was, is) {
  const before = { ...was.services, ...was.shards };
  for (const [name, { state, reason, since }] of Object.entries({ ...is.services, ...is.shards })) {
    if (before[name] && state !== before[name].state) {
      log(() => `${name}: ${t(state)}${reason ? `, ${reason}` : ""}`, since);
    }
  }
  for (const [service, part] of Object.entries(is.services)) {
    for (const breaker of part.breakers ?? []) {
      const seen = was.services[service]?.breakers?.find((one) => one.name === breaker.name);
      for (const { at, from, to, reason } of newTransitions(seen, breaker)) {
        log(() => `${service} → ${breaker.name}: ${changeOf(from, to, reason)}`, at);
      }
    }
  }
  for (const [coin, { title, shard }] of Object.entries(is.coins)) {
    if (shard && shard !== was.coins[coin]?.shard) log(() => t("logCoin", title, shard));
  }
}

/** @param {{ at: number | Time | null, say: () => string }} line */
const shown = ({ at, say }) => element("p", {}, `${time(at)} ${say()}`);

const TICK_MS = 250;
const HIDDEN_MS = 60_000; // after which a page that nobody sees lets go of its stream
const BASES_MS = 120_000; // between two looks at the prices of a day ago
const BASE_MS = 3_000; // at least, for each coin
const DAY_MS = 86_400_000;
const CUT_MS = 5_000;
const COINS_MAX = 100; // of a stream


/** @typedef {import("./stream.js").StreamEvent} StreamEvent */

/** @param {StreamEvent} event */
function receive(event) {
  switch (event.type) {
    case "status":
      know(event);
      break;
    case "quote":
      coinOf(event.coin).hear(event);
      hearCandle(event);
      break;
    case "gap": {
      const { coin, after, through, reason } = event;
      coinOf(coin).miss(event);
      doubtCandles(coin);
      log(() => t("logGap", titleOf(coin), after ?? "–", through ?? "–", t(reason)));
      break;
    }
    case "beat":
      for (const coin of event.coins) {
        const [state, isSilent] = [coinOf(coin), event.silent.includes(coin)];
        if (isSilent !== state.isSilent) log(() => `${titleOf(coin)}: ${t(isSilent ? "silent" : "speaks")}`);
        state.isSilent = isSilent;
      }
      break;
    case "state":
      if (event.state !== "connecting") log(() => t(event.state));
      break;
    case "resumed":
      log(() => t("logResumed", event.coins.map((coin) => titleOf(coin)).join(", ")));
      break;
    case "refused":
      log(() => event.problem.detail);
  }
}

/** @param {StatusFrame} frame */
function know(frame) {
  const was = known.status;
  const is = (known.status = merged(was, frame));
  if (was) logChanges(was, is);
  const further = (/** @type {StreamEvent} */ event) => event.type !== "state" && receive(event);
  follow(Object.keys(is.coins), is.limits.stream_coins_max ?? COINS_MAX, (one) => one.start(further));
  for (const coin of known.coins.keys()) if (!is.coins[coin]) known.coins.delete(coin);
}

let askAt = 0;

/** Ask for the price of each coin a day ago, or its first one since. */
async function askBases() {
  const { now } = clock;
  const coins = [...known.coins.keys()];
  if (now === null || !stream.isLive || !coins.length || performance.now() < askAt) return;
  askAt = performance.now() + Math.max(BASES_MS, coins.length * BASE_MS);
  const start = now - DAY_MS;
  for (const coin of coins) {
    const path = `/v1/candles/${coin}?interval=1m&limit=1&from=${new Date(start).toISOString()}`;
    const base = baseOf(await ask(path).catch(() => null), start);
    if (base) known.bases.set(coin, base);
  }
}

const show = () => document.body.classList.add("known");
let ticks = 0;

/** Write what has changed; the chart is drawn twice a second, and what comes from the status is written once. */
function render() {
  renderHead();
  renderCoins();
  if (known.coins.size) show();
  if (ticks % 2 === 0) renderChart();
  if (ticks++ % 4) return;
  renderPatterns();
  renderFaults();
}

let hiddenAt = 0;
document.onvisibilitychange = () => {
  hiddenAt = performance.now();
  if (document.hidden) return;
  if (stream.state === "paused") {
    for (const state of known.coins.values()) state.interrupt();
    log(() => t("logHidden"));
    doubtCandles();
    for (const one of streams) one.resume();
  }
  render();
};
onhashchange = () => (known.token = takeToken());
ononline = () => streams.forEach((one) => one.hurry());
byId("cut").onclick = () => stream.cut(CUT_MS);

known.token = takeToken();
beginChart();
beginFaults();
offerChoices(() => {
  offerCopies();
  translateLog();
  ticks = 0;
  render();
});
offerCopies();
setTimeout(show, 2_000); // the rest of the page does not wait for ever
setInterval(() => {
  const isForgotten = document.hidden && performance.now() - hiddenAt > HIDDEN_MS;
  for (const one of streams) one[isForgotten ? "pause" : "check"]();
  if (document.hidden) return;
  render();
  void askBases();
}, TICK_MS);
stream.start(receive);
