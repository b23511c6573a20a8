// @ts-check
// Continuity: whether what comes of a coin follows what came before. One variable decides, `last`: the position up to
// which everything was shown, or reported as a gap.
//
//     comes                                                  shown
//     a quote or gap that follows `last`                     it
//     one at or before `last`                                nothing: it is old
//     one further on: a hole that nobody reported            nothing: Hole, and the stream asks again after `last`
//     the same once more, although we asked again            a gap, reason lost; then as if it followed
//     a gap, reason retracted, that reaches back             the gap; `last` goes back to its beginning
//     a gap, reason rewritten                                the gap; what follows may begin further back
//
// So nothing is shown twice, and quotes and gaps cover everything. `client/continuity.py` has the same rules.

/** Something was lost on the way without the gateway's knowledge. */
export class Hole extends Error {}

/** @param {Position} position
 * @returns {[number, number]} */
export function parsed(position) {
  const [epoch, seq] = position.split("-");
  return [Number(epoch), Number(seq)];
}

/** Whether `a` was recorded after `b`; everything is after null.
 * @param {Position | null} a
 * @param {Position | null} b */
export function isAfter(a, b) {
  if (a === null || b === null) return a !== null;
  const [[e, s], [f, t]] = [parsed(a), parsed(b)];
  return e === f ? s > t : e > f;
}

/** @param {Quote} quote
 * @returns {Position} */
export const positionOf = (quote) => `${quote.epoch}-${quote.seq}`;

/** The position recorded right before this quote; null for the first one ever.
 * @param {Quote} quote
 * @returns {Position | null} */
export const before = (quote) => (quote.seq > 1 ? `${quote.epoch}-${quote.seq - 1}` : quote.prev);

export class Continuity {
  /** @type {Position | null} */
  last = null;
  /** The end of a history that was rewritten, until a quote of the present one comes.
   * @type {Position | null} */
  #left = null;
  /** @type {"asked" | "gap" | "following"} */
  #phase = "asked";
  /** @type {Position | null} */
  #base = null;
  #isDoubted = false;

  /** @param {string} coin */
  constructor(coin) {
    this.coin = coin;
  }

  /** Begin on a new connection: the position after which it must continue. */
  ask() {
    this.#phase = "asked";
    return this.last ?? this.#left;
  }

  /** Begin at the newest quote next time, whatever was missed. */
  forget() {
    this.last = this.#left = null;
  }

  /** @param {Begun} begun
   * @returns {Gap[]} */
  begin(begun) {
    if (this.#phase !== "asked") return [];
    const asked = this.last ?? this.#left;
    if (asked === null) this.#follow(begun.position);
    else if (begun.recovered) this.#phase = "following";
    else [this.#phase, this.#base] = ["gap", begun.position];
    return [];
  }

  /** @param {Quote} quote
   * @returns {(Gap | Quote)[]} */
  hear(quote) {
    if (this.#phase === "asked") throw new Hole("a quote before the answer");
    const position = positionOf(quote);
    const last = this.last ?? this.#left;
    /** @type {Gap[]} */
    let lost = [];
    if (last === null || isAfter(position, last)) {
      const from = before(quote);
      if (last !== null && from !== last && last !== this.#left) {
        lost = isAfter(from, last) ? this.#doubt(last, from, "lost") : this.#doubt(last, last, "rewritten");
      }
    } else if (last !== this.#left) {
      if (this.#phase !== "gap") return [];
      lost = this.#doubt(last, last, "rewritten");
    }
    this.#follow(position);
    return [...lost, quote];
  }

  /** @param {Gap} gap
   * @returns {Gap[]} */
  miss(gap) {
    if (this.#phase === "asked") throw new Hole("a gap before the answer");
    const last = this.last;
    if (gap.reason === "retracted") {
      if (last === null || !isAfter(last, gap.after) || isAfter(last, gap.through)) return [];
      this.#follow(gap.after);
      return [{ ...gap, through: last }];
    }
    const isAwaited = this.#phase === "gap";
    if (!isAwaited && last !== null && !isAfter(gap.through, last) && gap.after !== last) return [];
    const lost = isAfter(gap.after, last) && last !== null ? this.#doubt(last, gap.after, "lost") : [];
    const isRewritten = gap.reason === "rewritten";
    this.#follow(isAwaited && isRewritten ? this.#base : gap.through);
    if (isRewritten) this.#left = gap.through;
    return [...lost, gap];
  }

  /** @param {Position | null} position how far the stream has come, as the gateway says
   * @returns {Gap[]} */
  beat(position) {
    if (this.#phase !== "following" || !isAfter(position, this.last)) return [];
    const lost = this.#doubt(this.last, position, "lost");
    this.#follow(position);
    return lost;
  }

  /** @param {Position | null} after
   * @param {Position | null} through
   * @param {Gap["reason"]} reason
   * @returns {Gap[]} */
  #doubt(after, through, reason) {
    if (!this.#isDoubted) {
      this.#isDoubted = true;
      throw new Hole(`${this.coin}: nothing came of the positions after ${after}`);
    }
    return [{ type: "gap", coin: this.coin, after, through, reason }];
  }

  /** @param {Position | null} position */
  #follow(position) {
    if (position !== this.last) this.#isDoubted = false;
    [this.last, this.#left, this.#phase] = [position, null, "following"];
  }
}
