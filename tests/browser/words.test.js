import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { duration, page, said, setLanguage, t, time, written } from "../../src/cotacoes/gateway_service/page/words.js";
import { faultsOf } from "../../src/cotacoes/gateway_service/page/patterns.js";
import { path } from "../../src/cotacoes/gateway_service/page/prices.js";
import { MODULES, source } from "./page.js";

const html = source("index.html");
const inPage = new Map([...html.matchAll(/data-t="(\w+)"[^>]*>([^<]*)</g)].map(([, key, text]) => [key, text]));
const placeholders = (text) => (text.match(/\{\d\}/g) ?? []).sort().join();

beforeEach(() => {
  setLanguage("en");
  Object.assign(written, Object.fromEntries(inPage));
});

test("each word of the page has its Portuguese, and none is left over", () => {
  assert.deepEqual(Object.keys(page).sort(), [...inPage.keys()].sort());
});

test("a word that stands in the page twice is the same both times", () => {
  for (const [, key, text] of html.matchAll(/data-t="(\w+)"[^>]*>([^<]*)</g)) assert.equal(text, inPage.get(key), key);
});

test("each word is in one table, in both languages, with the same places to fill", () => {
  assert.deepEqual(Object.keys(said).filter((key) => key in page), []);
  for (const [key, words] of Object.entries(said)) {
    assert.equal(words.length, 2, key);
    assert.ok(words.every(Boolean), key);
    assert.equal(placeholders(words[0]), placeholders(words[1]), key);
  }
});

test("each word that the code names exists", () => {
  const named = MODULES.flatMap((name) => [...source(name).matchAll(/\bt\("(\w+)"/g)].map(([, key]) => key));
  assert.ok(named.length > 30);
  assert.deepEqual(named.filter((key) => !(key in said) && !(key in page)), []);
});

test("every state, reason and fault of the services has a word", () => {
  const states = ["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"].map((state) => `is_${state}`);
  const branches = ["ok", "stale", "skipped", "rejected", "failed", "timed_out", "abandoned"].map((one) => `was_${one}`);
  const reasons = ["failure_rate", "slow_call_rate", "consecutive_failures", "retry_after", "wait_over",
    "probes_succeeded", "probes_failed", "probes_slow", "half_open_timed_out", "reset", "forced", "disabled",
    "metrics_only", "empty", "crossed", "stale", "future", "wide", "no_rate", "outlier", "disputed", "held", "alone",
    "no_venue", "gone", "hole", "rewritten", "retracted", "lost"];
  const faults = ["hang", "cut_body", "drip_body", "huge_body", "gzip_bomb", "garbage", "html_200", "redirect",
    "too_many_requests", "wrong_coin", "nan", "zero", "negative", "absurd", "many_digits", "frozen_price", "old_time",
    "future_time"];
  for (const key of [...states, ...branches, ...reasons]) assert.ok(key in said || key in page, key);
  for (const fault of faults) assert.ok(html.includes(`data-fault="${fault}"`), fault);
});

test("words are filled in, in the chosen language; an unknown one stands as it is", () => {
  assert.equal(t("refusedFor", 3), "is refused for 3 s");
  assert.equal(t("coins"), "Prices");
  setLanguage("pt-BR");
  assert.equal(t("refusedFor", 3), "é recusada por 3 s");
  assert.equal(t("coins"), "Preços");
  for (const strange of ["a_later_reason", "constructor", "__proto__", "{0}<img>"]) {
    assert.equal(t(strange), strange.replace("{0}", "undefined"));
  }
});

test("durations are in the largest unit that fits", () => {
  const shown = [0, 999, 4_000, 99_999, 100_000, 3_600_000, 7_200_000, 200_000_000].map(duration);
  assert.deepEqual(shown, ["0 s", "0 s", "4 s", "99 s", "1 min", "60 min", "2 h", "2 d"]);
  assert.equal(duration(null), "–");
  assert.equal(time(null), "–");
});

test("faults are said as the command line has them, without what is no fault", () => {
  const setting = { error_rate: 0.2, status: [500], latency_ms: 0, coins: [], retry_after_s: null, for_s: 3 };
  assert.deepEqual(faultsOf("", { ...setting, kinds: { hang: 1, nan: 0 } }), ["error_rate=0.2", "hang=1"]);
  assert.deepEqual(faultsOf("kraken.", { stall: true, lie: "0.10", slow: 1, clock: null, late_s: 0 }), [
    "kraken.stall=true",
    "kraken.lie=0.10",
  ]);
  assert.deepEqual(faultsOf("market.", { shock: "1", peg: {}, pace: 1, for_s: null }), []);
});

test("no line of a sparkline crosses a gap", () => {
  const point = (price, breaks = false) => ({ position: "5-1", price, breaks });
  assert.equal(path([point(1), point(2), point(1, true), point(1)]), "M0.0 26.0L40.0 2.0M80.0 26.0L120.0 26.0");
  assert.equal(path([]), "");
  assert.equal(path([point(5)]), "M0.0 2.0");
});
