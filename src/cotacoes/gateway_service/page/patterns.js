// @ts-check
// The patterns at work: the breakers, what this page has of each coin, the shards, a report, and the exchanges. And the
// buttons that break something.

import { byId, change, chooser, drawn, element, list, mark, offer, offerCopies, once, show, write } from "./dom.js";
import { clock, coinOf, known, percent, sourceBreaker, stream, subtract, titleOf } from "./state.js";
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

/** The word for a breaker's state: `open` is also a price, and `closed` a candle's.
 * @param {string} state */
export const stateWord = (state) => t(`is_${state}`);

/** @param {string} state
 * @param {string} text
 * @returns {Cell} */
export const marked = (state, text) => ({ text, mark: MARKS[state] ?? "bad" });

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
  show("shards", Object.entries(shards).map(([name, part]) => {
    const own = Object.entries(coins).filter(([, coin]) => coin.shard === name);
    const isKnown = own.every(([, coin]) => coin.pending !== null);
    const pending = isKnown ? own.reduce((sum, [, coin]) => sum + (coin.pending ?? 0), 0) : null;
    const titles = own.map(([coin]) => titleOf(coin)).join(", ");
    return [name, name, titles, pending, ...said(part)];
  }));
}

/** @param {Status} status */
function source(status) {
  const breaker = sourceBreaker(status);
  write(byId("now"), breaker ? t("nowIs", breaker.name, stateWord(breaker.state)) : t("noBreaker"));
  write(byId("next"), breaker ? nextCall(breaker, status.services.quote_service) : "");
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
function waitOf({ retry_after_s }, { known_at }) {
  return Math.ceil((retry_after_s ?? 0) - (clock.age(known_at) ?? 0) / 1000);
}

/** @param {Breaker} breaker
 * @param {Part} part */
function nextCall(breaker, part) {
  const { state, is_awaited, window, consecutive_failures } = breaker;
  const wait = waitOf(breaker, part);
  if (is_awaited) return t("isAwaited");
  if (state === "open") return wait > 0 ? t("waits", wait) : t("probeNext");
  if (/forced|disabled|only/.test(state)) return t("byOperator");
  return t("seen", window.failures, window.calls, consecutive_failures);
}

/** @param {Status} status */
function breakers({ services }) {
  const all = Object.entries(services).flatMap(([service, part]) =>
    (part.breakers ?? []).map((breaker) => ({ ...breaker, service, isUp: part.state === "up", wait: waitOf(breaker, part) })),
  );
  show("breakers", all.map(({ service, isUp, wait, name, state, next_call, window, not_permitted, last_errors }) => {
    const next = state === "open" && wait <= 0 ? "probe" : next_call;
    return [
      `${service}/${name}`,
      `${service} → ${name}`,
      isUp ? marked(state, stateWord(state)) : marked("unknown", t("unknown")),
      next === "refused" && wait > 0 ? t("refusedFor", wait) : t(next),
      window.calls,
      window.failures,
      window.slow_calls,
      not_permitted,
      last_errors[0] && `${time(last_errors[0].at)} ${last_errors[0].error}`,
      button(service, name, state),
    ];
  }));
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
  show("positions", all.map(([coin, { position }]) => {
    const { received, gaps, isSilent } = coinOf(coin);
    const feed = isSilent ? marked("away", t("silent")) : marked("up", t("speaks"));
    return [coin, titleOf(coin), position, stream.last(coin), received, gaps, feed];
  }));
  show("kept", all.map(([coin, { shard, position, through, pending }]) =>
    [coin, titleOf(coin), shard, position, through, pending]));
}

/** @param {Report} report */
function report({ generated_at, elapsed_ms, deadline_ms, complete, trace, missing }) {
  const age = duration(clock.age(generated_at));
  write(byId("report"), t("reportIs", age, elapsed_ms, deadline_ms, t(complete ? "complete" : "partial")));
  const whole = Math.max(deadline_ms, ...trace.map((one) => one.start_ms + one.elapsed_ms));
  show("trace", trace.map(({ branch, status, start_ms, elapsed_ms, attempts, reason }) => {
    const bar = [start_ms / whole, (start_ms + elapsed_ms) / whole];
    const picture = barOf(`report/${branch}`, MARKS[status] ?? "bad", { bar, line: deadline_ms / whole });
    const state = marked(status, t(`was_${status}`));
    return [branch, branch, picture, `${start_ms} ms`, `${elapsed_ms} ms`, attempts, state, reason];
  }));
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
  const [from, to] = [Number(low), Number(high)];
  const place = (/** @type {Decimal | null} */ usd, rate = "1") => (Number(usd) * Number(rate) - from * 2 + to) / (to - from) / 3;
  show("venues", of.venues.map(({ venue, bid, ask, currency, rate, mid_usd, age_ms, used, reason }) => {
    const bar = [bid, ask].map((side) => place(side, rate ?? "1"));
    return [
      venue,
      venue,
      bid && ask && price && barOf(`venue/${venue}`, used ? "good" : "bad", { bar, band: [1 / 3, 2 / 3], line: place(price) }),
      bid && `${bid} ${currency}`,
      ask && `${ask} ${currency}`,
      mid_usd,
      bid && ask && `${subtract(ask, bid)} (${percent(ask, bid, 3)} %)`,
      age_ms === null ? null : duration(age_ms + since),
      used ? marked("up", t("yes")) : marked("away", t("no", t(reason ?? ""))),
    ];
  }));
}

/** A bar over a band, with a line across; what is outside stands at the edge. Numbers are shares of the width.
 * @param {string} key
 * @param {string} kind
 * @param {{ bar: number[], band?: number[], line: number }} places */
function barOf(key, kind, { bar, band = [0, 0], line }) {
  const made = once(key, () => {
    const shapes = [drawn("rect", { class: "band", y: 0, height: 16 }), drawn("rect", { y: 4, height: 8 }), drawn("path")];
    return drawn("svg", { viewBox: "0 0 202 16", class: "bar", "aria-hidden": "true" }, ...shapes);
  });
  const x = (/** @type {number} */ share) => 200 * Math.max(0, Math.min(1, share)) || 0;
  [band, bar].forEach(([start, end], index) => {
    mark(made.children[index], "x", x(start));
    mark(made.children[index], "width", Math.max(index * 2, x(end) - x(start)));
  });
  mark(made.children[1], "class", kind);
  mark(made.children[2], "d", `M${x(line)} 0v16`);
  return made;
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
  offerCopies();
}
