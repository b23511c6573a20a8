// @ts-check
// The table of prices: each with every digit that the gateway sent, and with what it is worth now.

import { drawn, element, mark, Rows, write } from "./dom.js";
import { percent, signed } from "./decimal.js";
import { sourceBreaker, worth } from "./state.js";
import { duration, t, time } from "./words.js";

const [WIDTH, HEIGHT] = [120, 28];
const MARKS = /** @type {const} */ ({ fresh: "good", stale: "warn", expired: "bad", none: "idle" });

/** The path of a sparkline, which is not drawn across a gap.
 * @param {import("./state.js").Point[]} points */
export function path(points) {
  const prices = points.map((point) => point.price);
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  return points
    .map(({ price, breaks }, index) => {
      const x = (index * WIDTH) / Math.max(1, points.length - 1);
      const y = 2 + ((high - price) / (high - low || 1)) * (HEIGHT - 4);
      return `${index && !breaks ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}

export class CoinsView {
  #rows = new Rows("coins");
  /** @type {Map<string, ReturnType<CoinsView["made"]>>} */
  #made = new Map();

  /** @param {import("./state.js").World} world
   * @param {(coin: string) => void} choose */
  constructor(world, choose) {
    this.world = world;
    this.choose = choose;
  }

  render() {
    this.#rows.show(Object.keys(this.world.status?.coins ?? {}).map((coin) => this.#row(coin)));
  }

  /** What stays in a row: the button, the price, the sparkline.
   * @param {string} coin */
  made(coin) {
    const button = element("button", { type: "button", class: "coin" });
    button.onclick = () => this.choose(coin);
    const [amount, currency, line] = [element("b"), element("small"), drawn("path")];
    const course = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "course", "aria-hidden": "true" }, line);
    return { button, amount, currency, price: element("span", {}, amount, " ", currency), line, course };
  }

  /** @param {string} coin
   * @returns {[string, ...import("./dom.js").Cell[]]} */
  #row(coin) {
    const { status, clock, stream } = this.world;
    const { quote, step, points, isSilent } = this.world.coin(coin);
    let made = this.#made.get(coin);
    if (!made) this.#made.set(coin, (made = this.made(coin)));
    write(made.button, `${this.world.title(coin)} ${status?.coins[coin].symbol}`);
    mark(made.button, "aria-label", `${made.button.textContent}: ${t("showChart")}`);
    write(made.amount, quote?.price ?? "–");
    write(made.currency, quote?.currency ?? "");
    mark(made.line, "d", path(points));
    const age = clock.age(quote?.observed_at);
    const is = worth(quote, age, stream.isLive ? status?.limits : undefined);
    const words = [
      t(is),
      quote && t(is === "fresh" && sourceBreaker(status)?.next_call !== "refused" ? "live" : "cache"),
      isSilent && t("silent"),
      stream.isUnfollowed(coin) && t("unfollowed", stream.coinsMax),
    ];
    return [
      coin,
      made.button,
      made.price,
      step && `${/^-/.test(step) ? "▼" : /[1-9]/.test(step) ? "▲" : "="} ${signed(step)}`,
      made.course,
      this.#change(coin),
      duration(age),
      { text: words.filter(Boolean).join(" · "), mark: MARKS[is] },
      quote && this.#origin(quote),
    ];
  }

  /** @param {string} coin */
  #change(coin) {
    const base = this.world.bases.get(coin);
    const { quote } = this.world.coin(coin);
    const by = base && quote && percent(quote.price, base.price);
    if (!by) return null;
    if (base.isWhole) return t("in24h", signed(by));
    return t("sinceChange", signed(by), time(base.at, "minute"), duration((this.world.clock.now ?? base.at) - base.at));
  }

  /** @param {Quote} quote */
  #origin({ origin, state, used, of, confidence }) {
    const text = origin === "sim" ? `${t("simulated")} (sim)` : origin;
    return state ? `${text}: ${t("venuesUsed", used ?? "", of ?? "", confidence ?? "")}, ${t(state)}` : text;
  }
}
