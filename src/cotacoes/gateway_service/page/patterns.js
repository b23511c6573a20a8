// @ts-check
// The patterns at work: the breakers, what this page has of each coin, the shards, a report, and the exchanges. And the
// buttons that break something.

import { byId, change, chooser, drawn, element, list, mark, offer, offerCopies, once, show, write } from "./dom.js";
import { clock, coinOf, known, percent, sourceBreaker, stream, streamOf, subtract, titleOf } from "./state.js";
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

/** A change of a breaker's state, in words.
 * @param {string} from
 * @param {string} to
 * @param {string} reason */
export const changeOf = (from, to, reason) => `${stateWord(from)} → ${stateWord(to)}: ${t(reason)}`;

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
  if (!stream.isLive) {
    write(byId("trouble"), t("unheard", time(status.generated_at)));
    mark(byId("trouble"), "data-mark", "warn");
    return;
  }
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
const ago = (at) => `${time(at)} (${duration(clock.age(at))})`;

/** What is said of every part: its state, since when, and why it is away.
 * @param {Part} part
 * @returns {Cell[]} */
function said({ state, since, known_at, reason }) {
  const why = state === "up" ? null : [reason, known_at && t("notSince", ago(known_at))].filter(Boolean).join("; ");
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
  const calls = breaker && nextCall(breaker, status.services.quote_service);
  write(byId("now"), calls ? t("nowIs", breaker.name, stateWord(breaker.state), calls) : t("unknown"));
  for (const box of byId("diagram").querySelectorAll("g")) {
    mark(box, "class", breaker?.state.endsWith(box.dataset.of ?? "?") ? "now" : "");
  }
  const changes = breaker?.transitions ?? [];
  list("timeline", changes.map(({ at, from, to, reason }) =>
    `${time(at)} ${changeOf(from, to, reason)}`));
}

/** What becomes of the next call, counted on since the gateway knew it.
 * @param {Breaker} breaker
 * @param {Part} part */
function nextCall({ state, next_call, retry_after_s }, { known_at }) {
  const wait = Math.ceil((retry_after_s ?? 0) - (clock.age(known_at) ?? 0) / 1000);
  if (next_call === "refused" && wait > 0) return t("refusedFor", wait);
  return t(state === "open" ? "probe" : next_call);
}

/** @param {Status} status */
function breakers({ services }) {
  const all = Object.entries(services).flatMap(([service, part]) =>
    (part.breakers ?? []).map((breaker) => ({ ...breaker, service, isUp: part.state === "up", next: nextCall(breaker, part) })),
  );
  show("breakers", all.map(({ service, isUp, next, name, state, window, not_permitted, last_errors }) => [
    `${service}/${name}`,
    `${service} → ${name}`,
    isUp ? marked(state, stateWord(state)) : marked("unknown", t("unknown")),
    next,
    window.calls,
    window.failures,
    window.slow_calls,
    not_permitted,
    last_errors[0] && `${time(last_errors[0].at)} ${last_errors[0].error}`,
    button(service, name, state),
  ]));
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
    return [coin, titleOf(coin), position, streamOf(coin).last(coin), received, gaps, feed];
  }));
  show("kept", all.map(([coin, { shard, position, through, pending, held }]) =>
    [coin, titleOf(coin), shard, position, through, held ? `${pending}: ${held}` : pending]));
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
  const made = price ? `${price} (${low} – ${high}) · ${duration((of.age_ms ?? 0) + since)}` : t(reason ?? "");
  write(byId("consensus"), `${titleOf(of.coin)} · ${t(state)} · ${used}/${of.of} · ${made}`);
  offer(chooser("venue"), of.venues.map(({ venue }) => [venue, venue]));
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

const DEFAULTS = new Set(["0", "false", "null", '""', '"0"', '"1"', "[]", "{}"]);

/** The faults of a setting, as the command line has them: `hang=1`, `kraken.lie=0.10`.
 * @param {string} of
 * @param {Record<string, any>} setting */
export const faultsOf = (of, setting) =>
  Object.entries({ ...setting, ...setting.kinds })
    .filter(([name, value]) => !/^(for_s|status|kinds)$/.test(name) && !DEFAULTS.has(JSON.stringify(value)))
    .filter(([name, value]) => value !== 1 || !/^(slow|pace)$/.test(name))
    .map(([name, value]) => `${of}${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);

const buttons = () => /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-fault]"));

export function beginFaults() {
  chooser("part").onchange = command;
  for (const button of buttons()) {
    const fault = button.dataset.fault ?? "";
    const setting = fault.startsWith("{") ? JSON.parse(fault) : { kinds: { [fault]: 1 } };
    button.onclick = () => {
      const of = button.closest("#venues") ? `/venues/${chooser("venue").value}` : "";
      change(`/v1${of}/faults`, { for_s: Number(chooser("lasts").value), ...setting });
    };
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
  if (!faults) return t("unknown");
  const passed_s = (clock.age(faults.known_at) ?? 0) / 1000;
  const venues = Object.entries(faults.venues).map(([name, one]) => ({ of: `${name}.`, one }));
  const all = [{ of: "", one: faults.setting ?? {} }, ...venues, { of: "market.", one: faults.market ?? {} }];
  const words = all.flatMap(({ of, one }) => {
    const left = one.for_s == null ? null : Math.ceil(one.for_s - passed_s);
    return left !== null && left <= 0 ? [] : faultsOf(of, one).map((text) => (left ? t("left", text, left) : t("lasting", text)));
  });
  return words.length ? t("faultIs", words.join("; ")) : t("noFault");
}

function command() {
  for (const word of ["stop", "pause", "start"]) write(byId(word), `cotacoes ${word} ${chooser("part").value}`);
  offerCopies();
}
