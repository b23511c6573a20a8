// @ts-check
// The candles of one coin and one interval: those that the gateway answers, and the quotes that came since, exactly
// once each. The prices stay text; an interval without a quote is an empty candle, which the chart leaves out visibly.

import { compare } from "./decimal.js";
import { isAfter, positionOf } from "./continuity.js";

/** @type {Record<string, number>} */
const INTERVALS = { "1m": 60_000, "5m": 300_000, "1h": 3_600_000, "1d": 86_400_000 };
const CANDLES_MAX = 1_000;
const WAITING_MAX = 20_000; // quotes during one question

/** @typedef {{ at: number, open: Decimal | null, high: Decimal | null, low: Decimal | null, close: Decimal | null,
 *   count: number, closed: boolean }} Candle */

export class Candles {
  /** @type {Candle[]} */
  list = [];
  /** Changes when the list is another one; while it is the same, only its end grows. */
  version = 0;
  /** Why the candles have to be asked for again. */
  isDoubtful = true;
  currency = "";
  origin = "";
  /** @type {Position | null} */
  #through = null;
  /** @type {Quote[] | null} those that came since the question, until it is answered */
  #waiting = null;

  /** @param {string} coin
   * @param {string} interval */
  constructor(coin, interval) {
    this.coin = coin;
    this.interval = interval;
    this.step = INTERVALS[interval];
  }

  /** The gateway is being asked: what comes meanwhile may be missing in the answer. */
  ask() {
    this.#waiting = [];
    this.isDoubtful = false;
  }

  /** There was no answer. */
  fail() {
    this.#waiting = null;
    this.isDoubtful = true;
  }

  /** @param {CandlesPage} page */
  load(page) {
    this.list = page.candles.map((one) => ({ ...one, at: Date.parse(one.at) }));
    while (this.list.length && !this.list[0].count) this.list.shift(); // before the first quote
    [this.currency, this.origin, this.#through] = [page.currency, page.origin, page.through];
    this.version++;
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const quote of waiting) this.hear(quote);
  }

  /** @param {Quote} quote */
  hear(quote) {
    if (this.#waiting) {
      if (this.#waiting.push(quote) > WAITING_MAX) this.fail();
      return;
    }
    if (this.#through === null || !isAfter(positionOf(quote), this.#through)) return;
    this.#through = positionOf(quote);
    const at = Math.floor(Date.parse(quote.at) / this.step) * this.step;
    const newest = this.list.at(-1);
    if (quote.currency !== this.currency || quote.origin !== this.origin || (newest && at < newest.at)) {
      this.isDoubtful = true;
    } else if (newest && at === newest.at) {
      this.#add(newest, quote.price);
    } else {
      this.#open(at, quote.price);
    }
  }

  /** @param {Candle} candle
   * @param {Decimal} price */
  #add(candle, price) {
    candle.open ??= price;
    candle.high = candle.high === null || compare(price, candle.high) > 0 ? price : candle.high;
    candle.low = candle.low === null || compare(price, candle.low) < 0 ? price : candle.low;
    candle.close = price;
    candle.count++;
  }

  /** @param {number} at
   * @param {Decimal} price */
  #open(at, price) {
    const newest = this.list.at(-1);
    if (newest) {
      newest.closed = true;
      if ((at - newest.at) / this.step > CANDLES_MAX) this.isDoubtful = true;
      else for (let empty = newest.at + this.step; empty < at; empty += this.step) this.list.push(emptyAt(empty));
    }
    this.list.push({ at, open: price, high: price, low: price, close: price, count: 1, closed: false });
    if (this.list.length > CANDLES_MAX) {
      this.list.splice(0, this.list.length - CANDLES_MAX);
      this.version++;
    }
  }
}

/** @param {number} at
 * @returns {Candle} */
const emptyAt = (at) => ({ at, open: null, high: null, low: null, close: null, count: 0, closed: true });

/** What the chart shows, in numbers for a text: the first open, the highest, the lowest, the last close, and how many
 * intervals are empty. Null without a candle.
 * @param {Candle[]} list */
export function summary(list) {
  const full = list.filter((one) => one.count);
  if (!full.length) return null;
  const pick = (/** @type {"high" | "low"} */ side, /** @type {number} */ sign) =>
    full.reduce((best, one) => (compare(one[side] ?? "0", best[side] ?? "0") * sign > 0 ? one : best))[side] ?? "";
  const last = full[full.length - 1];
  return {
    from: list[0].at,
    open: full[0].open ?? "",
    high: pick("high", 1),
    low: pick("low", -1),
    close: last.close ?? "",
    empty: list.length - full.length,
  };
}
