// @ts-check
// The patterns at work: the breakers, what this page has of each coin, the shards, a report, and the exchanges.

import { percent, subtract } from "./decimal.js";
import { byId, drawn, element, list, mark, Rows, write } from "./dom.js";
import { sourceBreaker } from "./state.js";
import { duration, t, time } from "./words.js";

/** @typedef {import("./dom.js").Cell} Cell */

/** @type {Record<string, import("./dom.js").Mark>} */
const MARKS = {
  up: "good", unknown: "idle",
  closed: "good", half_open: "warn", disabled: "warn", metrics_only: "warn",
  ok: "good", stale: "warn", skipped: "idle", lagging: "warn",
};
const BAR = 200; // the width of a bar's time
const SPREAD = { left: 110, right: 596, row: 20 };

/** The word for a breaker's state: `open` is also a price, and `closed` a candle's.
 * @param {string} state */
export const stateWord = (state) => t(`is_${state}`);

/** @param {string} state
 * @param {string} text
 * @returns {Cell} */
const marked = (state, text) => ({ text, mark: MARKS[state] ?? "bad" });

export class PatternsView {
  #tables = {
    services: new Rows("services"),
    breakers: new Rows("breakers"),
    positions: new Rows("positions"),
    shards: new Rows("shards"),
    kept: new Rows("kept"),
    trace: new Rows("trace"),
    venues: new Rows("venues"),
  };
  /** Buttons and bars by what they are of, which stay while their rows do.
   * @type {Map<string, any>} */
  #made = new Map();

  /** @param {import("./state.js").World} world
   * @param {(service: string, breaker: string, state: string) => void} setBreaker */
  constructor(world, setBreaker) {
    this.world = world;
    this.setBreaker = setBreaker;
  }

  render() {
    const { status } = this.world;
    if (!status) return;
    this.#parts(status);
    this.#source(status);
    this.#breakers(status);
    this.#coins(status);
    if (status.report) this.#report(status.report);
    this.#venues(status);
  }

  /** @param {string} key
   * @param {() => any} make */
  #once(key, make) {
    if (!this.#made.has(key)) this.#made.set(key, make());
    return this.#made.get(key);
  }

  /** @param {Time} at */
  #ago(at) {
    return t("ago", time(at), duration(this.world.clock.age(at)));
  }

  /** What is said of every part: its state, since when, and why it is away.
   * @param {Part} part
   * @returns {Cell[]} */
  #said({ state, since, known_at, reason }) {
    const heard = known_at ? t("notSince", this.#ago(known_at)) : t("never");
    const why = state === "up" ? null : [reason, heard].filter(Boolean).join("; ");
    return [marked(state, t(state)), this.#ago(since), why];
  }

  /** @param {Status} status */
  #parts({ services, shards, coins }) {
    this.#tables.services.show(Object.entries(services).map(([name, part]) => [name, name, ...this.#said(part)]));
    this.#tables.shards.show(
      Object.entries(shards).map(([name, part]) => {
        const own = Object.entries(coins).filter(([, coin]) => coin.shard === name);
        const isKnown = own.every(([, coin]) => coin.pending !== null);
        const pending = isKnown ? own.reduce((sum, [, coin]) => sum + (coin.pending ?? 0), 0) : null;
        const titles = own.map(([coin]) => this.world.title(coin)).join(", ");
        return [name, name, titles, pending, ...this.#said(part)];
      }),
    );
  }

  /** @param {Status} status */
  #source(status) {
    const breaker = sourceBreaker(status);
    write(byId("now"), breaker ? t("nowIs", breaker.name, stateWord(breaker.state)) : t("noBreaker"));
    write(byId("next"), breaker ? this.#next(breaker, status.services.quote_service) : "");
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
  #wait({ retry_after_s }, { known_at }) {
    return Math.ceil((retry_after_s ?? 0) - (this.world.clock.age(known_at) ?? 0) / 1000);
  }

  /** @param {Breaker} breaker
   * @param {Part} part */
  #next(breaker, part) {
    const { state, is_awaited, window, consecutive_failures } = breaker;
    const wait = this.#wait(breaker, part);
    if (is_awaited) return t("isAwaited");
    if (state === "open") return wait > 0 ? t("waits", wait) : t("probeNext");
    if (/forced|disabled|only/.test(state)) return t("byOperator");
    return t("seen", window.failures, window.calls, consecutive_failures);
  }

  /** @param {Status} status */
  #breakers({ services }) {
    this.#tables.breakers.show(
      Object.entries(services).flatMap(([service, part]) =>
        part.breakers.map((breaker) => {
          const { name, state, next_call, window, not_permitted, last_errors } = breaker;
          const wait = this.#wait(breaker, part);
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
            this.#button(service, name, state),
          ];
          return row;
        }),
      ),
    );
  }

  /** @param {string} service
   * @param {string} name
   * @param {BreakerState} state */
  #button(service, name, state) {
    const key = `${service}/${name}`;
    const button = this.#once(key, () => element("button", { type: "button" }));
    const isClosed = state === "closed";
    write(button, t(isClosed ? "force" : "reset"));
    mark(button, "aria-label", `${button.textContent}: ${key}`);
    button.disabled = !this.world.token;
    button.onclick = () => this.setBreaker(service, name, isClosed ? "forced_open" : "closed");
    return button;
  }

  /** @param {Status} status */
  #coins({ coins }) {
    const all = Object.entries(coins);
    this.#tables.positions.show(
      all.map(([coin, { position }]) => {
        const { received, gaps, isSilent } = this.world.coin(coin);
        const feed = isSilent ? marked("away", t("silent")) : marked("up", t("speaks"));
        return [coin, this.world.title(coin), position, this.world.stream.last(coin), received, gaps, feed];
      }),
    );
    this.#tables.kept.show(
      all.map(([coin, { shard, position, through, pending }]) =>
        [coin, this.world.title(coin), shard, position, through, pending]),
    );
  }

  /** @param {Report} report */
  #report({ generated_at, elapsed_ms, deadline_ms, complete, trace, missing }) {
    const age = duration(this.world.clock.age(generated_at));
    write(byId("report"), t("reportIs", age, elapsed_ms, deadline_ms, t(complete ? "complete" : "partial")));
    const scale = BAR / Math.max(deadline_ms, ...trace.map((one) => one.start_ms + one.elapsed_ms));
    this.#tables.trace.show(
      trace.map(({ branch, status, start_ms, elapsed_ms, attempts, reason }) => {
        const { bar, line, picture } = this.#once(`report/${branch}`, makeBar);
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
  #venues({ venues }) {
    const of = venues?.coins.find((one) => one.coin === this.world.chosen);
    byId("venues").hidden = !of;
    if (!of) return;
    const since = this.world.clock.age(venues?.known_at) ?? 0;
    const { price, low, high, used, reason, state } = of;
    const [title, age] = [this.world.title(of.coin), duration((of.age_ms ?? 0) + since)];
    const said = price
      ? t("consensusIs", title, t(state), price, used, of.of, low ?? "", high ?? "", age)
      : t("noConsensus", title, t(reason ?? state));
    write(byId("consensus"), said);
    this.#tables.venues.show(
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
}

function makeBar() {
  const [bar, line] = [drawn("rect", { y: 4, height: 8 }), drawn("path")];
  const picture = drawn("svg", { viewBox: `0 0 ${BAR + 2} 16`, class: "bar", "aria-hidden": "true" }, bar, line);
  return { bar, line, picture };
}

/** Each book as a line from bid to ask, over the band and the price; what is far outside stands at the edge.
 * @param {Consensus} consensus */
function spread({ venues, low, high, price }) {
  const { left, right, row } = SPREAD;
  const [from, to, height] = [Number(low), Number(high), row * venues.length + 8];
  const margin = (to - from || to * 0.001) * 1.5;
  const x = (/** @type {number} */ usd) =>
    left + Math.max(0, Math.min(1, (usd - from + margin) / (to - from + 2 * margin))) * (right - left);
  const shapes = venues.flatMap(({ venue, bid, ask, rate, currency, used }, index) => {
    const y = row * index + 16;
    const usd = Number(rate ?? (currency === "USD" ? 1 : NaN));
    const [start, end] = [x(Number(bid) * usd), x(Number(ask) * usd)];
    const name = drawn("text", { x: 0, y: y + 4 }, venue.slice(0, 14));
    if (!bid || !ask || !price || !usd) return [name];
    return [name, drawn("path", { class: used ? "used" : "unused", d: `M${start} ${y - 5}v10m0-5H${end + 1}m0-5v10` })];
  });
  if (!price) return shapes;
  const band = drawn("rect", { class: "band", x: x(from), y: 0, width: Math.max(1, x(to) - x(from)), height });
  return [band, drawn("path", { class: "price", d: `M${x(Number(price))} 0v${height}` }), ...shapes];
}
