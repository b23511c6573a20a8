// @ts-check
// What is known, without a document: exact numbers, the status, what came of each coin, its candles. Prices stay text;
// only what is drawn becomes a number.

import { GatewayClock, Stream, isAfter, positionOf } from "./stream.js";

/** The two as integers of one unit, with the number of places of that unit.
 * @param {Decimal} a
 * @param {Decimal} b
 * @returns {[bigint, bigint, number]} */
function aligned(a, b) {
  const places = Math.max(...[a, b].map((text) => (text.split(".")[1] ?? "").length));
  const [x, y] = [a, b].map((text) => {
    const [whole, part = ""] = text.split(".");
    return BigInt(whole + part.padEnd(places, "0"));
  });
  return [x, y, places];
}

/** @param {bigint} units
 * @param {number} places */
function plain(units, places) {
  const digits = String(units < 0n ? -units : units).padStart(places + 1, "0");
  const at = digits.length - places;
  return (units < 0n ? "-" : "") + digits.slice(0, at) + (places ? `.${digits.slice(at)}` : "");
}

/** Below, at or above zero as `a` is below, at or above `b`.
 * @param {Decimal} a
 * @param {Decimal} b */
export function compare(a, b) {
  const [x, y] = aligned(a, b);
  return x < y ? -1 : x > y ? 1 : 0;
}

/** @param {Decimal} a
 * @param {Decimal} b */
export function subtract(a, b) {
  const [x, y, places] = aligned(a, b);
  return plain(x - y, places);
}

/** By how many percent `a` is above `base`, rounded half away from zero; null if `base` is zero.
 * @param {Decimal} a
 * @param {Decimal} base */
export function percent(a, base, places = 2) {
  const [x, y] = aligned(a, base);
  if (y === 0n) return null;
  const scaled = (x - y) * 100n * 10n ** BigInt(places);
  const size = ((scaled < 0n ? -scaled : scaled) * 2n + y) / (2n * y);
  return plain(scaled < 0n ? -size : size, places);
}

/** With its sign, for people: `+1.20`, `−0.05`, `0.00`.
 * @param {string} text */
export function signed(text) {
  return text.startsWith("-") ? `−${text.slice(1)}` : /[1-9]/.test(text) ? `+${text}` : text;
}

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
  version = {};
  /** Whether the candles have to be asked for again. */
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
    this.#go();
    this.isDoubtful = true;
  }

  /** @param {CandlesPage} page */
  load(page) {
    this.list = page.candles.map((one) => ({ ...one, at: Date.parse(one.at) }));
    while (this.list.length && !this.list[0].count) this.list.shift(); // before the first quote
    [this.currency, this.origin, this.#through] = [page.currency, page.origin, page.through];
    this.version = {};
    this.#go();
  }

  /** Go on with what came since the question. */
  #go() {
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
      else for (let empty = newest.at + this.step; empty < at; empty += this.step) this.list.push(candleAt(empty, null));
    }
    this.list.push(candleAt(at, price));
    if (this.list.length > CANDLES_MAX) {
      this.list.splice(0, this.list.length - CANDLES_MAX);
      this.version = {};
    }
  }
}

/** A candle of one quote, or of none.
 * @param {number} at
 * @param {Decimal | null} price
 * @returns {Candle} */
function candleAt(at, price) {
  const isEmpty = price === null;
  return { at, open: price, high: price, low: price, close: price, count: isEmpty ? 0 : 1, closed: isEmpty };
}

/** What the chart shows, in numbers for a text: the first open, the highest, the lowest, the last close, and how many
 * intervals are empty. Null without a candle.
 * @param {Candle[]} list */
export function summary(list) {
  const full = list.filter((one) => one.count);
  if (!full.length) return null;
  const most = (/** @type {"high" | "low"} */ side, /** @type {number} */ sign) =>
    full.map((one) => one[side] ?? "").reduce((best, one) => (compare(one, best) === sign ? one : best));
  const [open, close] = [full[0].open ?? "", full[full.length - 1].close ?? ""];
  return { from: list[0].at, open, high: most("high", 1), low: most("low", -1), close, empty: list.length - full.length };
}

const POINTS_MAX = 120; // of a sparkline
const WHOLE_MS = 120_000; // of a day may be without a price at its start

/** The status after this frame, which is the whole or has only what changed; an entry that is gone is null. A coin is
 * gone only if quote_service says so: a gateway that has just started may not know all of them yet.
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
  if (status.services.quote_service?.state !== "up") status.coins = { ...known?.coins, ...status.coins };
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
  return status?.services.quote_service?.breakers?.find((one) => /^(external|feed)_service\./.test(one.name)) ?? null;
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

export const clock = new GatewayClock();
/** @type {Map<string, import("./stream.js").Continuity>} */
const seen = new Map();
const open = () => new WebSocket(`${location.origin.replace("http", "ws")}/v1/ws`);
export const stream = new Stream(open, clock, seen);
/** A stream has only so many coins; the first one is enough for most. */
export const streams = [stream];

/** @param {string} coin */
export const streamOf = (coin) => streams.find((one) => one.coins.includes(coin)) ?? stream;

/** Follow these coins, each in one stream as long as it is there. `start` is called with each further stream.
 * @param {string[]} coins
 * @param {number} coinsMax of a stream
 * @param {(stream: Stream) => void} start */
export function follow(coins, coinsMax, start) {
  const fresh = coins.filter((coin) => !streamOf(coin).coins.includes(coin));
  for (let place = 0; place < streams.length || fresh.length; place++) {
    if (place === streams.length) start((streams[place] = new Stream(open, clock, seen)));
    const held = streams[place].coins.filter((coin) => coins.includes(coin));
    streams[place].follow([...held, ...fresh.splice(0, coinsMax - held.length)]);
  }
}

export const known = {
  /** @type {Status | null} */
  status: null,
  /** @type {Map<string, CoinState>} */
  coins: new Map(),
  /** The price from which the change of a coin counts, by coin.
   * @type {Map<string, NonNullable<ReturnType<typeof baseOf>>>} */
  bases: new Map(),
  /** @type {string | null} */
  token: null,
  /** The coin that the chart shows. */
  chosen: "",
};

/** @param {string} coin */
export function coinOf(coin) {
  let state = known.coins.get(coin);
  if (!state) known.coins.set(coin, (state = new CoinState()));
  return state;
}

/** The name of a coin, for people.
 * @param {string} coin */
export const titleOf = (coin) => known.status?.coins[coin]?.title || coin;
