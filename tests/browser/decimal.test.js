import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, percent, signed, subtract } from "../../src/cotacoes/gateway_service/page/state.js";

const LONG = "123456789012345678901234567890.123456789012345678";

test("a difference is exact, however many digits there are", () => {
  assert.equal(subtract("67012.3400", "67012.35"), "-0.0100");
  assert.equal(subtract(LONG, "123456789012345678901234567890.123456789012345677"), "0.000000000000000001");
  assert.equal(subtract("0.3", "0.1"), "0.2");
  assert.equal(subtract("5", "5.00"), "0.00");
  assert.equal(subtract("100", "1"), "99");
});

test("decimals compare by value, not by text", () => {
  assert.equal(compare("9", "10"), -1);
  assert.equal(compare("1.10", "1.1"), 0);
  assert.equal(compare(LONG, LONG.slice(0, -1)), 1);
});

test("a percentage has two places, rounded half away from zero", () => {
  assert.equal(percent("110", "100"), "10.00");
  assert.equal(percent("99.995", "100"), "-0.01");
  assert.equal(percent("100.004", "100"), "0.00");
  assert.equal(percent("1", "3"), "-66.67");
  assert.equal(percent("1.0005", "1", 3), "0.050");
  assert.equal(percent("1", "0"), null);
});

test("a sign is shown unless the number is zero", () => {
  assert.deepEqual(["1.20", "-0.05", "0.00", "-0.00"].map(signed), ["+1.20", "−0.05", "0.00", "−0.00"]);
});
