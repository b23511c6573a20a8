import assert from "node:assert/strict";
import { test } from "node:test";
import { Continuity, GatewayClock, Hole, Stream } from "../../src/cotacoes/gateway_service/page/stream.js";
import { Socket, quote, seeded } from "./page.js";

const START = Date.UTC(2026, 0, 1);

/** A stream whose connections and time the test holds. */
function world({ random = () => 0.5 } = {}) {
  const held = { now: 0, sockets: [], events: [] };
  const clock = new GatewayClock(() => held.now);
  const open = () => {
    const socket = new Socket();
    held.sockets.push(socket);
    return socket;
  };
  held.stream = new Stream(open, clock, new Map(), random);
  held.stream.start((event) => held.events.push(event));
  held.pass = (ms) => {
    for (const until = held.now + ms; held.now < until; held.now += 250) held.stream.check();
  };
  held.states = () => held.events.filter((event) => event.type === "state").map((event) => event.state);
  held.shown = () => held.events.filter((event) => event.type === "quote").map((event) => event.seq);
  held.gaps = () => held.events.filter((event) => event.type === "gap");
  Object.defineProperty(held, "socket", { get: () => held.sockets.at(-1) });
  held.heartbeat = (coins = {}) =>
    held.socket.say({ type: "heartbeat", sent_at: new Date(START + held.now).toISOString(), coins, silent: [] });
  held.answer = () => {
    held.socket.onopen();
    held.heartbeat();
  };
  return held;
}

const asked = (socket) => socket.sent.filter((message) => message.coins);
const begin = (position, recovered = false) => ({
  type: "subscribed",
  id: "1",
  mode: "every",
  coins: { bitcoin: { recovered, position } },
});

/** A world that is live with bitcoin, and has shown quotes 1 and 2. */
function following() {
  const held = world();
  held.stream.follow(["bitcoin"]);
  held.answer();
  held.socket.say(begin(null));
  held.socket.say(quote(1));
  held.socket.say(quote(2));
  return held;
}

test("the status is asked for at once, and coins once they are known", () => {
  const held = world();
  held.answer();
  assert.deepEqual(held.socket.sent, [{ op: "subscribe", topics: ["status"], id: "status" }]);
  held.stream.follow(["bitcoin", "ethereum"]);
  assert.deepEqual(asked(held.socket), [
    { op: "subscribe", coins: ["bitcoin", "ethereum"], mode: "every", since: {}, id: "1" },
  ]);
  held.stream.follow(["ethereum", "solana"]);
  assert.deepEqual(asked(held.socket).slice(1), [
    { op: "unsubscribe", coins: ["bitcoin"] },
    { op: "subscribe", coins: ["solana"], mode: "every", since: {}, id: "2" },
  ]);
});

test("after a cut, what follows the last position is asked for, and nothing is shown twice", () => {
  const held = following();
  held.socket.cut();
  assert.equal(held.stream.state, "offline");
  held.pass(1000);
  held.answer();
  assert.deepEqual(asked(held.socket)[0].since, { bitcoin: "5-2" });
  held.socket.say(begin("5-2", true));
  for (const seq of [2, 3, 4]) held.socket.say(quote(seq));
  assert.deepEqual(held.shown(), [1, 2, 3, 4]);
  assert.deepEqual(held.states(), ["live", "offline", "live"]);
  assert.ok(held.events.some((event) => event.type === "resumed"));
});

test("coins that are named while there is no connection are asked for on the next one", () => {
  const held = following();
  held.socket.cut();
  held.stream.follow(["bitcoin", "ethereum"]);
  held.pass(1000);
  held.answer();
  assert.deepEqual(asked(held.socket)[0].coins, ["bitcoin", "ethereum"]);
});

test("a coin that comes back goes on after its last position", () => {
  const held = following();
  held.stream.follow([]);
  held.stream.follow(["bitcoin"]);
  assert.deepEqual(asked(held.socket).at(-1).since, { bitcoin: "5-2" });
  held.socket.say(begin("5-2", true));
  held.socket.say(quote(3));
  assert.deepEqual(held.shown(), [1, 2, 3]);
});

test("each quote is shown once and in order, whatever is cut and whenever", () => {
  const random = seeded(18);
  const held = world({ random });
  held.stream.follow(["bitcoin"]);
  let [written, sent] = [0, null];
  for (let step = 0; step < 5000; step++) {
    const { socket } = held;
    const isOpen = socket.readyState === 1 && socket.onmessage;
    if (isOpen && !socket.isAnswered) {
      socket.isAnswered = true;
      held.answer();
      const { since } = asked(socket)[0];
      sent = since.bitcoin ? Number(since.bitcoin.split("-")[1]) : written;
      socket.say(begin(sent ? `5-${sent}` : null, Boolean(since.bitcoin)));
    } else if (isOpen && sent < written) {
      socket.say(quote(++sent));
    }
    if (random() < 0.6) written++;
    if (random() < 0.04) socket.cut();
    held.pass(250);
  }
  held.heartbeat({ bitcoin: `5-${sent}` });
  const shown = held.shown();
  assert.ok(held.sockets.length > 100);
  assert.ok(shown.length > 1000);
  assert.deepEqual(shown, shown.map((_, index) => shown[0] + index));
  assert.deepEqual(held.gaps(), []);
});

test("a gap that the gateway names is shown once, and the stream goes on after it", () => {
  const held = following();
  const gap = { type: "gap", coin: "bitcoin", after: "5-2", through: "5-7", reason: "gone" };
  held.socket.say(gap);
  held.socket.say(gap);
  held.socket.say(quote(8));
  assert.deepEqual(held.gaps(), [gap]);
  assert.deepEqual(held.shown(), [1, 2, 8]);
});

test("a hole that nobody named is asked for again, and is a gap only if it stays", () => {
  const held = following();
  held.socket.say(quote(5));
  assert.equal(held.stream.state, "offline");
  held.pass(1000);
  held.answer();
  assert.deepEqual(asked(held.socket)[0].since, { bitcoin: "5-2" });
  held.socket.say(begin("5-2", true));
  held.socket.say(quote(5));
  assert.deepEqual(held.gaps(), [{ type: "gap", coin: "bitcoin", after: "5-2", through: "5-4", reason: "lost" }]);
  assert.deepEqual(held.shown(), [1, 2, 5]);
});

test("a heartbeat that is ahead of the quotes shows a hole", () => {
  const held = following();
  held.heartbeat({ bitcoin: "5-2" });
  assert.equal(held.stream.state, "live");
  held.heartbeat({ bitcoin: "5-3" });
  assert.equal(held.stream.state, "offline");
});

test("false quotes are taken back, and the true ones follow", () => {
  const held = following();
  held.socket.say({ type: "gap", coin: "bitcoin", after: "5-1", through: "5-9", reason: "retracted" });
  assert.equal(held.gaps()[0].through, "5-2");
  held.socket.say(quote(2, { price: "7" }));
  assert.deepEqual(held.shown(), [1, 2, 2]);
});

test("a new epoch follows the old one by its `prev`", () => {
  const continuity = new Continuity("bitcoin");
  continuity.begin({ recovered: false, position: "5-2" });
  const first = quote(1, { epoch: 6, prev: "5-2" });
  assert.deepEqual(continuity.hear(first), [first]);
  assert.throws(() => continuity.hear(quote(1, { epoch: 7, prev: "6-4" })), Hole);
});

test("another history is told as a gap, and may begin further back", () => {
  const continuity = new Continuity("bitcoin");
  continuity.begin({ recovered: false, position: "5-8" });
  const gap = { type: "gap", coin: "bitcoin", after: "5-8", through: "5-8", reason: "rewritten" };
  assert.deepEqual(continuity.miss(gap), [gap]);
  assert.equal(continuity.hear(quote(3)).length, 1);
  assert.equal(continuity.last, "5-3");
});

test("silence for more than two heartbeats is late, and a new connection is tried", () => {
  const held = following();
  held.pass(11_000);
  assert.equal(held.stream.state, "live");
  held.pass(1_000);
  assert.equal(held.stream.state, "late");
  held.pass(6_000);
  assert.equal(held.stream.state, "late", "an address that accepts and says nothing is late, not offline");
  assert.ok(held.sockets.length >= 3);
  held.socket.cut();
  assert.equal(held.stream.state, "offline");
  held.pass(2_500);
  held.answer();
  assert.equal(held.stream.state, "live");
});

test("a late answer of a connection that was given up changes nothing", () => {
  const held = following();
  const old = held.socket;
  held.pass(12_000);
  old.say(quote(3));
  old.cut();
  assert.deepEqual(held.shown(), [1, 2]);
  assert.equal(held.stream.state, "late");
});

test("the pause between attempts grows to two seconds and has jitter; `bye` overrides it", () => {
  const held = world({ random: () => 1 });
  for (let attempt = 0; attempt < 10; attempt++) {
    const count = held.sockets.length;
    held.socket.cut();
    held.pass(2_250);
    assert.equal(held.sockets.length, count + 1);
  }
  held.answer();
  held.socket.say({ type: "bye", reason: "shutdown", retry_ms: 5_000 });
  held.socket.cut();
  const count = held.sockets.length;
  held.pass(4_750);
  assert.equal(held.sockets.length, count);
  held.pass(750);
  assert.equal(held.sockets.length, count + 1);
});

test("coins that are refused are asked for again each second, and the refusal is told once", () => {
  const held = world();
  held.stream.follow(["bitcoin"]);
  held.answer();
  for (let count = 1; count < 5; count++) {
    assert.equal(asked(held.socket).length, count);
    const problem = { title: "Unknown coin", detail: "bitcoin is not quoted here", status: 404 };
    held.socket.say({ type: "error", id: String(count), op: "subscribe", problem });
    held.pass(750);
    assert.equal(asked(held.socket).length, count);
    held.pass(750);
  }
  assert.equal(held.events.filter((event) => event.type === "refused").length, 1);
});

test("many coins are asked for in several messages", () => {
  const held = world();
  held.stream.follow(Array.from({ length: 70 }, (_, index) => `coin-${index}`));
  held.answer();
  assert.deepEqual(asked(held.socket).map((message) => message.coins.length), [50, 20]);
});

test("one coin that is refused keeps no other away, and no more messages go out than the gateway allows", () => {
  const held = world();
  const coins = Array.from({ length: 90 }, (_, index) => `coin-${index}`);
  held.stream.follow(coins);
  held.answer();
  const begun = new Set();
  let seen = 0;
  for (let second = 0; second < 20; second++) {
    const fresh = asked(held.socket).slice(seen);
    seen += fresh.length;
    assert.ok(fresh.length <= 5);
    for (const { id, coins: named } of fresh) {
      if (named.includes("coin-33")) {
        const problem = { title: "Unknown coin", detail: "coin-33 is not quoted here", status: 404 };
        held.socket.say({ type: "error", id, op: "subscribe", problem });
      } else {
        for (const coin of named) begun.add(coin);
      }
    }
    held.heartbeat();
    held.pass(1_000);
  }
  assert.equal(begun.size, 89);
});

test("a page that was hidden begins at the newest quotes", () => {
  const held = following();
  held.stream.pause();
  held.pass(600_000);
  assert.equal(held.sockets.length, 1);
  held.stream.resume();
  held.answer();
  assert.deepEqual(asked(held.socket)[0].since, {});
  held.socket.say(begin("5-600"));
  held.socket.say(quote(601));
  assert.deepEqual(held.shown(), [1, 2, 601]);
  assert.deepEqual(held.gaps(), []);
});

test("ages follow the gateway's clock, and a stalled message makes nothing younger", () => {
  let now = 1_000;
  const clock = new GatewayClock(() => now);
  assert.equal(clock.age("2026-01-01T00:00:00Z"), null);
  clock.note("2026-01-01T00:00:10.000000Z");
  assert.equal(clock.age("2026-01-01T00:00:04Z"), 6_000);
  now += 8_000;
  clock.note("2026-01-01T00:00:11.000000Z"); // written 7 s ago
  assert.equal(clock.age("2026-01-01T00:00:04Z"), 14_000);
  assert.equal(clock.age("2026-01-01T00:09:00Z"), 0);
  now += 31_000;
  clock.note("2026-01-01T00:00:40.000000Z"); // the clock was set back
  assert.equal(clock.now, Date.UTC(2026, 0, 1, 0, 0, 40));
});
