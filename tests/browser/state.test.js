import assert from "node:assert/strict";
import { test } from "node:test";
import {
  Candles, CoinState, baseOf, follow, merged, newTransitions, sourceBreaker, streamOf, streams, summary, worth,
} from "../../src/cotacoes/gateway_service/page/state.js";
import { quote } from "./page.js";

const LIMITS = { fresh_ms: 5_000, age_max_ms: 300_000 };
const WHOLE = {
  type: "status",
  generated_at: "2026-01-01T00:00:00Z",
  limits: LIMITS,
  source: "sim",
  services: { quote_service: { state: "up", breakers: [] }, gateway_service: { state: "up", breakers: [] } },
  shards: { shard1: { state: "up" } },
  coins: { bitcoin: { title: "Bitcoin" }, solana: { title: "Solana" } },
  venues: null,
  faults: { setting: {} },
  report: null,
};

test("a change replaces its entries alone, and null removes one", () => {
  const known = merged(null, WHOLE);
  const changed = merged(known, {
    type: "status",
    generated_at: "2026-01-01T00:00:01Z",
    shards: { shard1: { state: "away" }, shard2: { state: "up" } },
    coins: { solana: null },
    report: { complete: true },
  });
  assert.equal(changed.generated_at, "2026-01-01T00:00:01Z");
  assert.deepEqual(Object.keys(changed.coins), ["bitcoin"]);
  assert.deepEqual(Object.entries(changed.shards).map(([name, { state }]) => [name, state]), [
    ["shard1", "away"],
    ["shard2", "up"],
  ]);
  assert.equal(changed.services, changed.services);
  assert.deepEqual(changed.services, known.services);
  assert.deepEqual(changed.faults, known.faults);
  assert.deepEqual(changed.report, { complete: true });
  assert.equal(known.shards.shard1.state, "up", "what was known before is unchanged");
});

test("a whole status leaves nothing of the one before", () => {
  const known = merged(merged(null, WHOLE), { ...WHOLE, coins: { ethereum: {} }, faults: null });
  assert.deepEqual(Object.keys(known.coins), ["ethereum"]);
  assert.equal(known.faults, null);
});

test("a coin is gone only if quote_service says so", () => {
  const known = merged(null, WHOLE);
  for (const state of ["unknown", "away"]) {
    const began = { ...WHOLE, coins: {}, services: { quote_service: { state, breakers: [] } } };
    assert.deepEqual(Object.keys(merged(known, began).coins), ["bitcoin", "solana"]);
    assert.deepEqual(Object.keys(merged(known, { ...began, coins: { ethereum: {} } }).coins).length, 3);
  }
  assert.deepEqual(merged(known, { ...WHOLE, coins: {} }).coins, {});
});

test("new transitions are counted by the generation, since their times differ each time", () => {
  const transitions = ["c", "b", "a"].map((reason) => ({ reason }));
  const seen = { generation: 4, transitions: [] };
  const reasons = (breaker) => newTransitions(seen, breaker).map((one) => one.reason);
  assert.deepEqual(reasons({ generation: 4, transitions }), []);
  assert.deepEqual(reasons({ generation: 6, transitions }), ["b", "c"]);
  assert.deepEqual(reasons({ generation: 1, transitions }), ["c"], "the service was restarted");
  assert.deepEqual(newTransitions(undefined, { generation: 6, transitions }), []);
});

test("the breaker of the source is found by its name", () => {
  const breakers = [{ name: "shard1.views" }, { name: "feed_service.quotes" }];
  assert.equal(sourceBreaker({ services: { quote_service: { breakers } } }), breakers[1]);
  assert.equal(sourceBreaker({ services: {} }), null);
});

test("a price is fresh only while the stream is live and it is young enough", () => {
  assert.equal(worth(null, null, LIMITS), "none");
  assert.equal(worth(quote(1), 5_000, LIMITS), "fresh");
  assert.equal(worth(quote(1), 5_001, LIMITS), "stale");
  assert.equal(worth(quote(1), 300_001, LIMITS), "expired");
  assert.equal(worth(quote(1), 10, undefined), "stale");
  assert.equal(worth(quote(1), null, LIMITS), "stale");
});

test("a step is exact, and there is none over a gap or from another origin", () => {
  const coin = new CoinState();
  coin.hear(quote(1, { price: "0.1" }));
  assert.equal(coin.step, null);
  coin.hear(quote(2, { price: "0.30" }));
  assert.equal(coin.step, "0.20");
  coin.miss({ coin: "bitcoin", after: "5-2", through: "5-3", reason: "gone" });
  coin.hear(quote(4, { price: "0.4" }));
  assert.equal(coin.step, null);
  assert.deepEqual(coin.points.map((point) => point.breaks), [false, false, true]);
  coin.hear(quote(5, { origin: "replay" }));
  assert.equal(coin.step, null);
  assert.equal(coin.points.length, 1);
  assert.equal(coin.received, 4);
});

test("a retracted price is no longer shown", () => {
  const coin = new CoinState();
  for (const seq of [1, 2, 3]) coin.hear(quote(seq));
  coin.miss({ coin: "bitcoin", after: "5-1", through: "5-3", reason: "retracted" });
  assert.equal(coin.quote, null);
  assert.deepEqual(coin.points.map((point) => point.position), ["5-1"]);
});

test("the points of a sparkline are bounded", () => {
  const coin = new CoinState();
  for (let seq = 1; seq <= 500; seq++) coin.hear(quote(seq));
  assert.equal(coin.points.length, 120);
});

test("a change counts from a day ago only if there was a price then", () => {
  const start = Date.UTC(2026, 0, 1);
  const page = (at, open = "5") => ({ candles: [{ at, open }] });
  assert.equal(baseOf(page("2026-01-01T00:01:00Z"), start).isWhole, true);
  assert.deepEqual(baseOf(page("2026-01-01T06:58:00Z"), start), {
    price: "5",
    at: Date.UTC(2026, 0, 1, 6, 58),
    isWhole: false,
  });
  assert.equal(baseOf({ candles: [] }, start), null);
  assert.equal(baseOf(null, start), null);
});

test("any number of coins is followed, and none changes its stream while it is there", () => {
  const coins = Array.from({ length: 25 }, (_, index) => `coin-${index}`);
  const begun = [];
  const start = (stream) => begun.push(stream);
  follow(coins, 10, start);
  assert.deepEqual(streams.map((stream) => stream.coins.length), [10, 10, 5]);
  assert.deepEqual(begun, streams.slice(1));
  const places = new Map(coins.map((coin) => [coin, streamOf(coin)]));
  follow([...coins.slice(3), "new"], 10, start);
  assert.equal(streamOf("new"), streams[0]);
  assert.equal(begun.length, 2);
  for (const coin of coins.slice(3)) assert.equal(streamOf(coin), places.get(coin));
});

const candle = (minute, price) => ({
  at: new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString(),
  open: price, high: price, low: price, close: price,
  count: price === null ? 0 : 1,
  closed: true,
});
const PAGE = { coin: "bitcoin", currency: "USD", origin: "sim", interval: "1m" };

/** Candles of minute 0 and 1, which count the quotes up to second 61. */
function loaded() {
  const candles = new Candles("bitcoin", "1m");
  candles.ask();
  candles.load({ ...PAGE, candles: [candle(0, "100"), { ...candle(1, "101"), closed: false }], through: "5-61" });
  return candles;
}

test("a quote moves the open candle, by exact comparison", () => {
  const candles = loaded();
  candles.hear(quote(61, { price: "999" })); // counted already
  candles.hear(quote(62, { price: "101.0000000000000000001" }));
  candles.hear(quote(63, { price: "9.5" }));
  const { open, high, low, close, count } = candles.list[1];
  assert.deepEqual([open, high, low, close, count], ["101", "101.0000000000000000001", "9.5", "9.5", 3]);
});

test("intervals without a quote are empty candles", () => {
  const candles = loaded();
  candles.hear(quote(245, { price: "103" }));
  assert.deepEqual(candles.list.map((one) => [one.count, one.closed]), [
    [1, true],
    [1, true],
    [0, true],
    [0, true],
    [1, false],
  ]);
  assert.deepEqual(summary(candles.list), {
    from: Date.UTC(2026, 0, 1), open: "100", high: "103", low: "100", close: "103", empty: 2,
  });
});

test("what comes while the candles are asked for counts once", () => {
  const candles = loaded();
  candles.ask();
  candles.hear(quote(62, { price: "102" }));
  candles.hear(quote(63, { price: "105" }));
  candles.load({ ...PAGE, candles: [{ ...candle(1, "102"), closed: false }], through: "5-62" });
  assert.deepEqual([candles.list[0].high, candles.list[0].count], ["105", 2]);
});

test("without an answer the candles go on as they are, and are asked for again", () => {
  const candles = loaded();
  candles.ask();
  candles.hear(quote(62, { price: "102" }));
  candles.fail();
  assert.deepEqual([candles.list[1].close, candles.isDoubtful], ["102", true]);
});

test("empty candles before the first quote are left out", () => {
  const candles = new Candles("bitcoin", "1m");
  candles.load({ ...PAGE, candles: [candle(0, null), candle(1, "5")], through: "5-61" });
  assert.equal(candles.list.length, 1);
  assert.equal(summary([]), null);
});

test("candles of another origin, or of the past, are asked for again", () => {
  for (const fields of [{ origin: "consensus" }, { currency: "EUR" }, { at: "2025-12-31T00:00:00Z" }]) {
    const candles = loaded();
    assert.equal(candles.isDoubtful, false);
    candles.hear(quote(64, fields));
    assert.equal(candles.isDoubtful, true);
  }
});

test("the candles are bounded", () => {
  const candles = loaded();
  for (let minute = 2; minute < 1500; minute++) candles.hear(quote(60 * minute));
  assert.equal(candles.list.length, 1000);
});
