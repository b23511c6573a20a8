import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { FOLDER, MODULES, served, source } from "./page.js";

const WEIGHT_MAX = 90_000;

test("what is answered of each module is the same program", async () => {
  const folder = mkdtempSync(join(tmpdir(), "page"));
  try {
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    for (const name of MODULES) writeFileSync(join(folder, name), served(source(name)));
    for (const name of MODULES) execFileSync(process.execPath, ["--check", join(folder, name)]);
    for (const name of ["stream.js", "state.js", "words.js", "dom.js", "prices.js", "patterns.js"]) {
      const [ours, theirs] = await Promise.all([import(new URL(name, FOLDER)), import(join(folder, name))]);
      assert.deepEqual(Object.keys(theirs), Object.keys(ours));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the whole page is light", () => {
  const weight = (text) => gzipSync(text, { level: 9 }).length;
  const own = [...MODULES, "page.css"].map((name) => weight(served(source(name))));
  const vendored = readdirSync(new URL("vendor", FOLDER)).filter((name) => name.endsWith(".js"));
  const others = ["index.html", ...vendored.map((name) => `vendor/${name}`)].map((name) => weight(source(name)));
  const all = [...own, ...others].reduce((sum, one) => sum + one);
  assert.ok(all <= WEIGHT_MAX, `${all} bytes`);
});

test("nothing is inline, nothing is written as HTML, and nothing comes from elsewhere", () => {
  const html = source("index.html");
  assert.doesNotMatch(html, /<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=/);
  for (const name of MODULES) {
    assert.doesNotMatch(source(name), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/, name);
  }
  const addresses = [...MODULES, "index.html", "page.css"].flatMap((name) => source(name).match(/https?:\/\/[^\s"'<>`)]+/g) ?? []);
  for (const address of addresses) assert.match(address, /^https:\/\/www\.tradingview\.com|^http:\/\/www\.w3\.org\//);
});

test("the chart is the file that npm has", () => {
  const lock = JSON.parse(readFileSync(new URL("package-lock.json", import.meta.url), "utf8"));
  const { version } = lock.packages["node_modules/lightweight-charts"];
  assert.match(source(`vendor/lightweight-charts-${version}.js`).slice(0, 200), new RegExp(`v${version.replaceAll(".", "\\.")}`));
  assert.ok(!JSON.stringify(lock).includes("resolved"));
});
