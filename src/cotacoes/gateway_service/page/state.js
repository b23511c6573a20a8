// @ts-check
// What is known: the status as its changes come, and of each coin the newest quotes. Pure; views show it.

import { subtract } from "./decimal.js";
import { isAfter, positionOf } from "./continuity.js";

const POINTS_MAX = 120; // of a sparkline
const WHOLE_MS = 120_000; // of a day may be without a price at its start

/** The status after this frame, which is the whole or has only what changed; an entry that is gone is null.
 * @param {Status | null} known
 * @param {StatusFrame} frame
 * @returns {Status} */
export function merged(known, frame) {
  const isWhole = frame.limits !== undefined;
  /** @type {any} */
  const status = isWhole ? { services: {}, shards: {}, coins: {}, venues: null, faults: null, report: null } : { ...known };
  for (const [name, value] of Object.entries(frame)) {
    if (name === "services" || name === "shards" || name === "coins") {
      const entries = Object.entries({ ...status[name], ...value });
      status[name] = Object.fromEntries(entries.filter(([, entry]) => entry !== null));
    } else {
      status[name] = value;
    }
  }
  return status;
}

/** The transitions that a breaker made since it was seen, oldest first. Their times differ a little each time they are
 * asked for, so they are counted by the generation, which each of them raises.
 * @param {Breaker | undefined} seen
 * @param {Breaker} breaker */
export function newTransitions(seen, breaker) {
  if (seen === undefined) return [];
  const [from, to] = [seen.generation, breaker.generation];
  return breaker.transitions.slice(0, to < from ? to : to - from).reverse();
}

/** The breaker of what the prices come from.
 * @param {Status | null} status */
export function sourceBreaker(status) {
  return status?.services.quote_service?.breakers.find((one) => /^(external|feed)_service\./.test(one.name)) ?? null;
}

/** What a price is worth; `limits` are undefined while the stream is not live, and then nothing is fresh.
 * @param {Quote | null} quote
 * @param {number | null} age
 * @param {Status["limits"] | undefined} limits
 * @returns {"none" | "fresh" | "stale" | "expired"} */
export function worth(quote, age, limits) {
  if (!quote) return "none";
  if (!limits || age === null) return "stale";
  return age <= limits.fresh_ms ? "fresh" : age <= limits.age_max_ms ? "stale" : "expired";
}

/** A point of a sparkline; one that `breaks` is not joined to the one before.
 * @typedef {{ position: Position, price: number, breaks: boolean }} Point */

/** What was received of one coin. */
export class CoinState {
  /** @type {Quote | null} */
  quote = null;
  /** The exact difference to the price before; null if that is not known.
   * @type {Decimal | null} */
  step = null;
  /** @type {Point[]} */
  points = [];
  isSilent = false;
  received = 0;
  gaps = 0;
  #breaks = false;

  /** @param {Quote} quote */
  hear(quote) {
    const { price, currency, origin } = quote;
    const isSameKind = this.quote?.currency === currency && this.quote.origin === origin;
    if (!isSameKind) this.points = [];
    this.step = this.quote && isSameKind && !this.#breaks ? subtract(price, this.quote.price) : null;
    this.points.push({ position: positionOf(quote), price: Number(price), breaks: this.#breaks });
    if (this.points.length > POINTS_MAX) this.points.shift();
    this.quote = quote;
    this.received++;
    this.#breaks = false;
  }

  /** @param {Gap} gap */
  miss(gap) {
    this.gaps++;
    this.#breaks = true;
    if (gap.reason !== "retracted") return;
    this.points = this.points.filter((point) => !isAfter(point.position, gap.after));
    if (this.quote && isAfter(positionOf(this.quote), gap.after)) this.quote = this.step = null;
  }

  /** What follows is not joined to what came before. */
  interrupt() {
    this.#breaks = true;
  }

  /** Add quotes of the history, before those that came.
   * @param {{ quotes: Quote[], gaps?: { through: Position }[] }} page */
  precede({ quotes, gaps = [] }) {
    const [first] = this.points;
    if (!this.quote || !first) return;
    const { currency, origin } = this.quote;
    const older = quotes.filter(
      (one) => one.currency === currency && one.origin === origin && isAfter(first.position, positionOf(one)),
    );
    const points = older.map((one) => ({ position: positionOf(one), price: Number(one.price), breaks: false }));
    this.points = [...points, ...this.points].slice(-POINTS_MAX);
    for (const gap of gaps) {
      const next = this.points.find((point) => isAfter(point.position, gap.through));
      if (next) next.breaks = true;
    }
  }
}

/** The price that a change counts from: the open of the first candle of a day, and whether it is from its start.
 * @param {CandlesPage | null} page
 * @param {number} start where the day begins, in milliseconds */
export function baseOf(page, start) {
  const [candle] = page?.candles ?? [];
  if (!candle?.open) return null;
  const at = Date.parse(candle.at);
  return { price: candle.open, at, isWhole: at - start <= WHOLE_MS };
}

/** What every view reads. Only main.js writes it. */
export class World {
  /** @type {Status | null} */
  status = null;
  /** @type {Map<string, CoinState>} */
  coins = new Map();
  /** The price from which the change of a coin counts, by coin.
   * @type {Map<string, NonNullable<ReturnType<typeof baseOf>>>} */
  bases = new Map();
  /** @type {string | null} */
  token = null;
  /** The coin that the chart shows. */
  chosen = "";

  /** @param {import("./stream.js").Stream} stream */
  constructor(stream) {
    this.stream = stream;
    this.clock = stream.clock;
  }

  /** @param {string} coin */
  coin(coin) {
    let state = this.coins.get(coin);
    if (!state) this.coins.set(coin, (state = new CoinState()));
    return state;
  }

  /** The name of a coin, for people.
   * @param {string} coin */
  title(coin) {
    return this.status?.coins[coin]?.title || coin;
  }
}
