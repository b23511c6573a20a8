// @ts-check
// Exact arithmetic on plain decimals: prices stay text, and only drawings use numbers.

/** The two as integers of one unit, with the number of places of that unit.
 * @param {Decimal} a
 * @param {Decimal} b
 * @returns {[bigint, bigint, number]} */
function aligned(a, b) {
  const places = Math.max(...[a, b].map((text) => (text.split(".")[1] ?? "").length));
  const [x, y] = [a, b].map((text) => {
    const [whole, part = ""] = text.split(".");
    return BigInt(whole + part.padEnd(places, "0"));
  });
  return [x, y, places];
}

/** @param {bigint} units
 * @param {number} places */
function plain(units, places) {
  const digits = String(units < 0n ? -units : units).padStart(places + 1, "0");
  const at = digits.length - places;
  return (units < 0n ? "-" : "") + digits.slice(0, at) + (places ? `.${digits.slice(at)}` : "");
}

/** Below, at or above zero as `a` is below, at or above `b`.
 * @param {Decimal} a
 * @param {Decimal} b */
export function compare(a, b) {
  const [x, y] = aligned(a, b);
  return x < y ? -1 : x > y ? 1 : 0;
}

/** @param {Decimal} a
 * @param {Decimal} b */
export function subtract(a, b) {
  const [x, y, places] = aligned(a, b);
  return plain(x - y, places);
}

/** By how many percent `a` is above `base`, rounded half away from zero; null if `base` is zero.
 * @param {Decimal} a
 * @param {Decimal} base */
export function percent(a, base, places = 2) {
  const [x, y] = aligned(a, base);
  if (y === 0n) return null;
  const scaled = (x - y) * 100n * 10n ** BigInt(places);
  const size = ((scaled < 0n ? -scaled : scaled) * 2n + y) / (2n * y);
  return plain(scaled < 0n ? -size : size, places);
}

/** With its sign, for people: `+1.20`, `−0.05`, `0.00`.
 * @param {string} text */
export function signed(text) {
  return text.startsWith("-") ? `−${text.slice(1)}` : /[1-9]/.test(text) ? `+${text}` : text;
}
