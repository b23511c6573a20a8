// @ts-check
// The wiring: what comes goes into the world, and four times a second the views show it, not with each quote.

import { ChartView } from "./chart.js";
import { CoinsView } from "./coins.js";
import { byId, mark, write } from "./dom.js";
import { FaultsView } from "./faults.js";
import { Log } from "./log.js";
import { ask, offerChoices, offerCopies, takeToken } from "./page.js";
import { PatternsView, stateWord } from "./patterns.js";
import { baseOf, merged, World } from "./state.js";
import { GatewayClock, Stream } from "./stream.js";
import { t } from "./words.js";

const TICK_MS = 250;
const HIDDEN_MS = 60_000; // after which a page that nobody sees lets go of its stream
const BASES_MS = 120_000; // between two looks at the prices of a day ago
const BASE_MS = 3_000; // at least, for each coin
const DAY_MS = 86_400_000;
const PAST = 60; // quotes of the history, to begin a sparkline
const CUT_MS = 5_000;
const LINK = /** @type {const} */ ({ connecting: "idle", live: "good", late: "warn", offline: "bad", paused: "idle" });

const open = () => new WebSocket(`${location.origin.replace("http", "ws")}/v1/ws`);
const stream = new Stream({ open, clock: new GatewayClock(), on: receive });
const world = new World(stream);
const log = new Log(world);
const chart = new ChartView(world);
const faults = new FaultsView(world);
const patterns = new PatternsView(world, (...chosen) => faults.setBreaker(...chosen));
const coins = new CoinsView(world, (coin) => {
  chart.show(coin);
  byId("chart").scrollIntoView();
  byId("chart").focus();
});

/** @param {import("./stream.js").StreamEvent} event */
function receive(event) {
  switch (event.type) {
    case "status":
      know(event);
      break;
    case "quote":
      world.coin(event.coin).hear(event);
      chart.hear(event);
      break;
    case "gap": {
      const { coin, after, through, reason } = event;
      world.coin(coin).miss(event);
      chart.doubt(coin);
      log.add(() => t("logGap", world.title(coin), after ?? "–", through ?? "–", t(reason)));
      break;
    }
    case "beat":
      for (const [coin, state] of world.coins) {
        const isSilent = event.silent.includes(coin);
        if (isSilent !== state.isSilent) log.add(() => t(isSilent ? "logSilent" : "logBack", world.title(coin)));
        state.isSilent = isSilent;
      }
      break;
    case "state":
      log.add(() => t("logLink", t(event.state)));
      break;
    case "resumed":
      log.add(() => t("logResumed", event.coins.map((coin) => world.title(coin)).join(", ")));
      break;
    case "refused":
      log.add(() => t("logRefused", event.problem.detail));
  }
}

/** @param {StatusFrame} frame */
function know(frame) {
  const was = world.status;
  const is = (world.status = merged(was, frame));
  log.compare(was, is);
  stream.coinsMax = is.limits.stream_coins_max ?? stream.coinsMax;
  stream.follow(Object.keys(is.coins));
  for (const coin of world.coins.keys()) if (!is.coins[coin]) world.coins.delete(coin);
  document.body.classList.add("known");
}

let askAt = 0;
/** @type {Set<string>} */
const begun = new Set();

/** Ask for the price of each coin a day ago, or its first one since; at first, for the begin of its sparkline too. */
async function askPast() {
  const { now } = stream.clock;
  const known = [...world.coins.keys()];
  if (now === null || !stream.isLive || !known.length || performance.now() < askAt) return;
  askAt = performance.now() + Math.max(BASES_MS, known.length * BASE_MS);
  const start = now - DAY_MS;
  for (const coin of known) {
    const path = `/v1/candles/${coin}?interval=1m&limit=1&from=${new Date(start).toISOString()}`;
    const base = baseOf(await ask(path).catch(() => null), start);
    if (base) world.bases.set(coin, base);
    if (begun.has(coin)) continue;
    const past = await ask(`/v1/quotes/${coin}?last=${PAST}`).catch(() => null);
    if (past) world.coin(coin).precede(past);
    begun.add(coin);
  }
}

function renderHead() {
  write(byId("link"), t(stream.state));
  mark(byId("link"), "data-mark", LINK[stream.state]);
  const { status } = world;
  if (!status) return;
  write(byId("source"), t(`from_${status.source}`));
  const parts = Object.entries({ ...status.services, ...status.shards });
  const circuits = Object.entries(status.services).flatMap(([service, part]) =>
    part.breakers
      .filter((one) => one.state !== "closed")
      .map((one) => `${service} → ${one.name} (${stateWord(one.state)})`),
  );
  const troubles = [
    ["awayParts", parts.filter(([, part]) => part.state === "away").map(([name]) => name).join(", ")],
    ["unknownParts", parts.filter(([, part]) => part.state === "unknown").map(([name]) => name).join(", ")],
    ["openCircuits", circuits.join(", ")],
  ].filter(([, names]) => names);
  write(byId("trouble"), troubles.map(([word, names]) => t(word, names)).join(" ") || t("allUp"));
  mark(byId("trouble"), "data-mark", troubles.length ? "bad" : "good");
}

function render() {
  for (const view of [{ render: renderHead }, coins, chart, patterns, faults]) view.render();
}

let hiddenAt = 0;
document.onvisibilitychange = () => {
  hiddenAt = performance.now();
  if (document.hidden) return;
  if (stream.state === "paused") {
    for (const state of world.coins.values()) state.interrupt();
    log.add(() => t("logHidden"));
    chart.doubt();
    stream.resume();
  }
  render();
};
onhashchange = () => (world.token = takeToken());
ononline = () => stream.hurry();
byId("cut").onclick = () => stream.cut(CUT_MS);

world.token = takeToken();
offerChoices(() => {
  offerCopies();
  chart.restyle();
  log.translate();
  render();
});
offerCopies();
setTimeout(() => document.body.classList.add("known"), 2_000); // the rest of the page does not wait for ever
setInterval(() => {
  if (document.hidden && performance.now() - hiddenAt > HIDDEN_MS && stream.state !== "paused") stream.pause();
  stream.check();
  if (document.hidden) return;
  render();
  void askPast();
}, TICK_MS);
stream.check();
