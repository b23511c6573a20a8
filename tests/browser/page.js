// The modules of the page, and what its tests need of a gateway.

import { readFileSync, readdirSync } from "node:fs";

export const FOLDER = new URL("../../src/cotacoes/gateway_service/page/", import.meta.url);
export const MODULES = readdirSync(FOLDER).filter((name) => name.endsWith(".js"));
export const source = (name) => readFileSync(new URL(name, FOLDER), "utf8");

/** The source as the gateway answers it: without comments, indentation and empty lines. */
export const served = (text) =>
  text
    .replace(/\/\*.*?\*\/|(?<=^|\s)\/\/(?= |$).*?$/gms, "")
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean)
    .join("\n");

/** Random numbers from 0 to 1 that are the same ones for the same seed. */
export function seeded(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

/** A quote of one epoch; its time is its number of seconds after the start of 2026. */
export function quote(seq, fields = {}) {
  const at = new Date(Date.UTC(2026, 0, 1) + seq * 1000).toISOString();
  const price = String(100 + (seq % 7));
  const fixed = { type: "quote", coin: "bitcoin", currency: "USD", epoch: 5, prev: null, origin: "sim" };
  return { ...fixed, price, seq, observed_at: at, at, ...fields };
}

/** The end of a connection that a gateway holds. */
export class Socket {
  readyState = 1;
  sent = [];

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  /** The page gives the connection up. */
  close() {
    this.readyState = 3;
  }

  say(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** The connection is cut. */
  cut() {
    this.readyState = 3;
    this.onclose?.();
  }
}
