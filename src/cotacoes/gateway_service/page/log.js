// @ts-check
// What happened, newest first, for eyes and for a screen reader. Each line can be said again in another language.

import { byId, element } from "./dom.js";
import { stateWord } from "./patterns.js";
import { newTransitions } from "./state.js";
import { t, time } from "./words.js";

const LINES_MAX = 200;

export class Log {
  /** @type {{ at: number | Time | null, say: () => string }[]} */
  #lines = [];
  #list = byId("lines");

  /** @param {import("./state.js").World} world */
  constructor(world) {
    this.world = world;
  }

  /** @param {() => string} say
   * @param {Time | null} at */
  add(say, at = null) {
    const line = { at: at ?? this.world.clock.now, say };
    this.#lines.unshift(line);
    this.#list.prepend(shown(line));
    if (this.#lines.length > LINES_MAX) {
      this.#lines.pop();
      this.#list.lastChild?.remove();
    }
  }

  /** Say all lines in the chosen language, which is not news. */
  translate() {
    this.#list.ariaLive = "off";
    this.#list.replaceChildren(...this.#lines.map(shown));
    setTimeout(() => (this.#list.ariaLive = "polite"), 500);
  }

  /** What changed from one status to the next.
   * @param {Status | null} was
   * @param {Status} is */
  compare(was, is) {
    if (!was) return;
    const before = { ...was.services, ...was.shards };
    for (const [name, { state, reason, since }] of Object.entries({ ...is.services, ...is.shards })) {
      if (before[name] && state !== before[name].state) {
        this.add(() => t("logPart", name, t(state), reason ? `: ${reason}` : ""), since);
      }
    }
    for (const [service, part] of Object.entries(is.services)) {
      for (const breaker of part.breakers) {
        const seen = was.services[service]?.breakers.find((one) => one.name === breaker.name);
        for (const { at, from, to, reason } of newTransitions(seen, breaker)) {
          const words = () => t("changed", stateWord(from), stateWord(to), t(reason));
          this.add(() => `${service} → ${breaker.name}: ${words()}`, at);
        }
      }
    }
    for (const coin of Object.keys({ ...was.coins, ...is.coins })) {
      const [old, now] = [was.coins[coin], is.coins[coin]];
      const say = (/** @type {() => string} */ what) => this.add(() => `${(now ?? old).title}: ${what()}`);
      if (!old || !now) say(() => t(now ? "added" : "removed"));
      else if (now.shard && old.shard && now.shard !== old.shard) say(() => t("moved", now.shard ?? ""));
    }
  }
}

/** @param {{ at: number | Time | null, say: () => string }} line */
const shown = ({ at, say }) => element("p", {}, `${time(at)} ${say()}`);
