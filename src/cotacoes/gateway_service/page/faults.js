// @ts-check
// The buttons that break something, with the administrator's token, and what is in force.

import { byId, chooser, offer, write } from "./dom.js";
import { ask, NoAnswer } from "./page.js";
import { t } from "./words.js";

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

export class FaultsView {
  #part = chooser("part");
  #buttons = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-fault], [data-kind]"));

  /** @param {import("./state.js").World} world */
  constructor(world) {
    this.world = world;
    this.#part.onchange = () => this.#command();
    for (const button of this.#buttons) {
      const { fault, kind } = button.dataset;
      const setting = kind ? { kinds: { [kind]: 1 } } : JSON.parse(fault ?? "{}");
      button.onclick = () => this.#put("/v1/faults", { for_s: Number(chooser("lasts").value), ...setting });
    }
  }

  /** @param {string} service
   * @param {string} breaker
   * @param {string} state */
  setBreaker(service, breaker, state) {
    this.#put(`/v1/breakers/${service}/${breaker}`, { state });
  }

  render() {
    const { status, token } = this.world;
    const isReal = status?.source === "exchanges";
    for (const button of this.#buttons) button.disabled = !token || isReal;
    write(byId("token"), t(isReal ? "noFaults" : token ? "withToken" : "noToken"));
    write(byId("faults"), this.#inForce());
    const parts = new Set([...Object.keys(status?.shards ?? {}), "redis", ...Object.keys(status?.services ?? {})]);
    if (status && offer(this.#part, [...parts].map((part) => [part, part]))) this.#command();
  }

  #inForce() {
    const { faults } = this.world.status ?? {};
    if (!faults) return t("faultNotKnown");
    const { setting, venues, market, known_at } = faults;
    const passed_s = (this.world.clock.age(known_at) ?? 0) / 1000;
    const all = Object.entries({ ...venues, market: market ?? {} }).map(([name, one]) => ({ ...one, of: altered(name, one) }));
    const words = [{ for_s: setting?.for_s, of: faultsOf(setting ?? {}) }, ...all].flatMap(({ for_s, of }) => {
      const left = for_s == null ? null : Math.ceil(Number(for_s) - passed_s);
      return left !== null && left <= 0 ? [] : of.map((text) => (left ? t("left", text, left) : t("lasting", text)));
    });
    return words.length ? t("faultIs", words.join("; ")) : t("noFault");
  }

  #command() {
    for (const command of ["stop", "pause", "start"]) write(byId(command), `cotacoes ${command} ${this.#part.value}`);
  }

  /** @param {string} path
   * @param {object} body */
  async #put(path, body) {
    const headers = { authorization: `Bearer ${this.world.token}`, "content-type": "application/json" };
    try {
      await ask(path, { method: "PUT", body: JSON.stringify(body), headers });
      write(byId("answer"), t("done"));
    } catch (error) {
      const { status, message } = /** @type {NoAnswer} */ (error);
      if (status === 401) this.world.token = null;
      write(byId("answer"), status === 401 ? t("refusedToken") : t("failed", message));
    }
  }
}
