// @ts-check
// The live stream: a WebSocket for the status and coins, which comes back by itself and continues exactly.
//
//     connect ─▶ ask for the status ─▶ its coins, each after the last position ─▶ live
//        ▲                                                                         │
//        └──── pause, with jitter ◀── closed: offline ◀── silent for 11 s: late ◀──┘
//
// A browser does not say that a connection is dead. Heartbeats come every 5 s, so what is silent for longer than two of
// them is given up. While it is late, a new connection is tried; one that is refused makes it offline.
//
// Continuity decides whether what comes of a coin follows what came before. One variable decides, `last`: the position
// up to which everything was shown, or reported as a gap.
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

/** Whether `a` was recorded after `b`; everything is after null.
 * @param {Position | null} a
 * @param {Position | null} b */
export function isAfter(a, b) {
  if (a === null || b === null) return a !== null;
  const [[e, s], [f, t]] = [a, b].map((position) => position.split("-").map(Number));
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

/** @typedef {"connecting" | "live" | "late" | "offline" | "paused"} StreamState */
/** @typedef {{ type: "state", state: StreamState }
 *   | { type: "resumed", coins: string[] }
 *   | { type: "refused", problem: Refusal["problem"] }
 *   | { type: "beat", coins: string[], silent: string[] }
 *   | Quote | Gap | StatusFrame } StreamEvent */

const SILENT_MS = 11_000; // two heartbeats
const OPEN_MS = 4_000; // to connect, and to be answered
const PAUSE_MS = 250; // doubles with each attempt that fails, up to:
const PAUSE_MS_MAX = 1_200;
const MESSAGES_AT_ONCE = 5; // of the ten a second that the gateway allows
const COINS_A_MESSAGE = 50; // with positions some 5 kB, of the 16 kB that the gateway reads
const RETRY_MS = 1_000; // to ask again for coins that were refused
const HELD_MS = 30_000;

/** The gateway's time of day, from what it sends and a clock of the browser that nobody sets.
 *
 * A time that the gateway sends is older on arrival than when it was written, by the way here, or by more after a stall.
 * So of those that came in the last half minute, the one that makes the gateway's clock latest is nearest to the truth.
 * No price seems younger than it is, and a gateway whose clock is set back is believed after half a minute. */
export class GatewayClock {
  /** @type {{ at: number, offset: number }[]} */
  #heard = [];

  /** @param {() => number} monotonic milliseconds of a clock that only rises */
  constructor(monotonic = () => performance.now()) {
    this.monotonic = monotonic;
  }

  /** Note that the gateway sent this time.
   * @param {Time} sentAt */
  note(sentAt) {
    const at = this.monotonic();
    const offset = Date.parse(sentAt) - at;
    if (!Number.isNaN(offset)) this.#heard = [...this.#heard.filter((one) => at - one.at < HELD_MS), { at, offset }];
  }

  /** Forget it: nothing is known until the next message. */
  reset() {
    this.#heard = [];
  }

  /** Milliseconds since 1970; null if the gateway has not said. */
  get now() {
    return this.#heard.length ? this.monotonic() + Math.max(...this.#heard.map((one) => one.offset)) : null;
  }

  /** How long ago that was, in milliseconds and at least 0; null if it is not known.
   * @param {Time | null | undefined} at */
  age(at) {
    const now = this.now;
    return now === null || !at ? null : Math.max(0, now - Date.parse(at));
  }
}

export class Stream {
  /** @type {StreamState} */
  state = "connecting";
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, Continuity>} */
  #coins = new Map();
  /** @type {Map<string, string[]>} coins by the id of the message that asks for them */
  #asked = new Map();
  /** @type {Set<string>} */
  #isAsked = new Set();
  #size = COINS_A_MESSAGE;
  #ids = 0;
  #heardAt = 0;
  #hasHeard = false;
  #askAt = 0;
  #attempts = 0;
  #refusal = "";
  #connectAt = 0;
  /** @type {number | null} */
  #retryMs = null;
  /** @type {(event: StreamEvent) => void} */
  #on = () => {};

  /** @param {() => WebSocket} open
   * @param {GatewayClock} clock
   * @param {Map<string, Continuity>} seen of all coins that were ever followed, so that one that comes back goes on
   * @param {() => number} random */
  constructor(open, clock, seen = new Map(), random = Math.random) {
    this.open = open;
    this.clock = clock;
    this.seen = seen;
    this.random = random;
  }

  /** Begin, and hand each event to `on`.
   * @param {(event: StreamEvent) => void} on */
  start(on) {
    this.#on = on;
    this.check();
  }

  get isLive() {
    return this.state === "live";
  }

  /** The last position of a coin that was shown or reported missing.
   * @param {string} coin */
  last(coin) {
    return this.#coins.get(coin)?.last ?? null;
  }

  /** The coins that it follows. */
  get coins() {
    return [...this.#coins.keys()];
  }

  /** Connect, give up what is silent, ask for coins that are new. To be called a few times each second. */
  check() {
    const now = this.clock.monotonic();
    if (this.state === "paused") return;
    if (this.#socket === null) {
      if (now >= this.#connectAt) this.#connect();
    } else if (now - this.#heardAt > (this.#hasHeard ? SILENT_MS : OPEN_MS)) {
      this.#lose(this.#hasHeard || this.state === "late" ? "late" : "offline");
    } else {
      this.#ask();
    }
  }

  /** Follow these coins, and no others.
   * @param {string[]} coins */
  follow(coins) {
    for (const coin of coins) {
      if (!this.seen.has(coin)) this.seen.set(coin, new Continuity(coin));
      if (!this.#coins.has(coin)) this.#coins.set(coin, /** @type {Continuity} */ (this.seen.get(coin)));
    }
    for (const coin of this.coins) {
      if (coins.includes(coin)) continue;
      this.#coins.delete(coin);
      if (this.#isAsked.delete(coin)) this.#send({ op: "unsubscribe", coins: [coin] });
    }
    this.#ask();
  }

  /** Connect at once, since there is reason to think that it works now. */
  hurry() {
    if (this.#socket === null && this.state !== "paused") this.#connect();
  }

  /** Cut the connection as a network would, for so long.
   * @param {number} ms */
  cut(ms) {
    this.#retryMs = ms;
    this.#lose("offline");
  }

  /** Stop, for nobody looks. */
  pause() {
    if (this.state !== "paused") this.#lose("paused");
  }

  /** Go on at the newest quotes: a page that was hidden does not read the hours in between. */
  resume() {
    if (this.state !== "paused") return;
    for (const continuity of this.#coins.values()) continuity.forget();
    this.clock.reset(); // the other clock may have stood still while the machine slept
    this.#enter("connecting");
    this.#connect();
  }

  #connect() {
    const socket = (this.#socket = this.open());
    this.#heardAt = this.clock.monotonic();
    socket.onopen = () => this.#send({ op: "subscribe", topics: ["status"], id: "status" });
    socket.onclose = () => this.#lose("offline");
    socket.onmessage = (event) => {
      this.#heardAt = this.clock.monotonic();
      try {
        this.#apply(JSON.parse(event.data));
      } catch (error) {
        if (!(error instanceof Hole)) throw error;
        this.#lose("offline");
      }
    };
  }

  /** @param {StreamState} state */
  #lose(state) {
    const socket = this.#socket;
    if (socket !== null) {
      socket.onopen = socket.onclose = socket.onmessage = null;
      socket.close();
    }
    this.#socket = null;
    this.#hasHeard = false;
    this.#asked.clear();
    this.#isAsked.clear();
    const bound = Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** this.#attempts++);
    this.#connectAt = this.clock.monotonic() + (this.#retryMs ?? this.random() * bound);
    this.#retryMs = null;
    this.#enter(state);
  }

  /** @param {StreamState} state */
  #enter(state) {
    if (state === this.state) return;
    this.state = state;
    this.#on({ type: "state", state });
  }

  /** @param {object} message */
  #send(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  /** Ask for the coins that were not asked for yet, each after its last position. */
  #ask() {
    if (!this.#hasHeard || this.clock.monotonic() < this.#askAt) return;
    const fresh = this.coins.filter((coin) => !this.#isAsked.has(coin));
    if (!fresh.length) this.#size = COINS_A_MESSAGE;
    for (let count = 0; fresh.length && count < MESSAGES_AT_ONCE; count++) {
      const coins = fresh.splice(0, this.#size);
      /** @type {Record<string, Position>} */
      const since = {};
      for (const coin of coins) {
        const last = this.#coins.get(coin)?.ask();
        if (last) since[coin] = last;
        this.#isAsked.add(coin);
      }
      const id = String(++this.#ids);
      this.#asked.set(id, coins);
      this.#send({ op: "subscribe", coins, mode: "every", since, id });
    }
    if (fresh.length) this.#askAt = this.clock.monotonic() + RETRY_MS;
  }

  /** @param {Frame} frame */
  #apply(frame) {
    switch (frame.type) {
      case "status":
        this.clock.note(frame.generated_at);
        this.#begin();
        this.#on(frame);
        break;
      case "heartbeat":
        this.clock.note(frame.sent_at);
        this.#begin();
        for (const [coin, position] of Object.entries(frame.coins)) {
          this.#tell(this.#coins.get(coin)?.beat(position));
        }
        this.#on({ type: "beat", coins: Object.keys(frame.coins), silent: frame.silent });
        break;
      case "subscribed":
        this.#resumed(frame);
        break;
      case "quote":
        this.#tell(this.#coins.get(frame.coin)?.hear(frame));
        break;
      case "gap":
        this.#tell(this.#coins.get(frame.coin)?.miss(frame));
        break;
      case "bye":
        this.#retryMs = frame.retry_ms;
        break;
      case "error":
        this.#refused(frame);
    }
  }

  /** The gateway speaks: the stream is live. */
  #begin() {
    if (this.#hasHeard) return;
    this.#hasHeard = true;
    this.#attempts = 0;
    this.#enter("live");
    this.#ask();
  }

  /** @param {Subscribed} frame */
  #resumed(frame) {
    const resumed = [];
    for (const [coin, begun] of Object.entries(frame.coins)) {
      const continuity = this.#coins.get(coin);
      if (continuity?.last && begun.recovered) resumed.push(coin);
      this.#tell(continuity?.begin(begun));
    }
    if (resumed.length) this.#on({ type: "resumed", coins: resumed });
  }

  /** The gateway does not know one of these coins yet: ask again, in smaller parts, so that the others come.
   * @param {Refusal} frame */
  #refused({ id, problem }) {
    const coins = this.#asked.get(id ?? "") ?? [];
    for (const coin of coins) this.#isAsked.delete(coin);
    this.#size = Math.max(1, Math.min(this.#size, Math.ceil(coins.length / 2)));
    this.#askAt = this.clock.monotonic() + RETRY_MS;
    if (problem.detail !== this.#refusal) this.#on({ type: "refused", problem });
    this.#refusal = problem.detail;
  }

  /** @param {(Quote | Gap)[] | undefined} events */
  #tell(events) {
    for (const event of events ?? []) this.#on(event);
  }
}
