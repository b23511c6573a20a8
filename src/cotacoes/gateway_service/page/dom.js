// @ts-check
// What any page has: writing, tables, a language, colours, a token, buttons that copy, and questions over HTTP. Text is
// written as text, what has not changed not at all, and never HTML.

import { known } from "./state.js";
import { setLanguage, t, written } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const TEXT_MAX = 600;
// controls, and marks that turn the direction of what follows: a text must not change the words around it
const UNSEEN = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** @param {string} id */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @param {string} id */
export const chooser = (id) => /** @type {HTMLSelectElement} */ (byId(id));

/** A text, fit to be shown, no matter where it comes from.
 * @param {string} text */
const clean = (text) => text.replace(UNSEEN, "\ufffd");

/** @param {Element} node
 * @param {string} text */
export function write(node, text) {
  text = clean(text).slice(0, TEXT_MAX);
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} node
 * @param {string} name
 * @param {string | number} value */
export function mark(node, name, value) {
  const text = clean(String(value));
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** @template {Element} T
 * @param {T} made
 * @param {Record<string, string | number>} attributes
 * @param {(Node | string)[]} children */
function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children.map((child) => (typeof child === "string" ? clean(child).slice(0, TEXT_MAX) : child)));
  return made;
}

/** @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {(Node | string)[]} children */
export const element = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);

/** @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {(Node | string)[]} children */
export const drawn = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** Write these lines into a list, if they are others than before.
 * @param {string} id
 * @param {string[]} lines */
export function list(id, lines) {
  const place = byId(id);
  if (place.dataset.said === lines.join("\n")) return;
  place.dataset.said = lines.join("\n");
  place.replaceChildren(...lines.map((line) => element("li", {}, line)));
}

/** Offer these choices, if they are others than before, and keep the one that was made.
 * @param {HTMLSelectElement} select
 * @param {[string, string][]} choices value and text
 * @returns {boolean} whether they are others */
export function offer(select, choices) {
  if (select.dataset.of === String(choices)) return false;
  select.dataset.of = String(choices);
  const chosen = select.value;
  select.replaceChildren(...choices.map(([value, text]) => element("option", { value }, text)));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
  return true;
}

/** What a cell shows: a text, a text with a `mark` (a shape beside it), or a node that is there to stay.
 * @typedef {"good" | "warn" | "bad" | "idle"} Mark */
/** @typedef {string | number | null | undefined | { text: string, mark: Mark } | Node} Cell */

/** Show these rows in a table, which has this id or is in what has it.
 * @param {string} id
 * @param {[string, ...Cell[]][]} items each row with its key, by which it is known again
 */
export function show(id, items) {
  once(id, () => new Rows(id)).show(items);
}

/** @type {Map<string, any>} */
const made = new Map();

/** What is made once, and stays.
 * @template T
 * @param {string} key
 * @param {() => T} make
 * @returns {T} */
export function once(key, make) {
  if (!made.has(key)) made.set(key, make());
  return made.get(key);
}

/** The rows of a table, by key. The first cell of each heads its row. */
class Rows {
  /** @type {Map<string, HTMLTableRowElement>} */
  #rows = new Map();

  /** @param {string} id of the table, or of what it is in */
  constructor(id) {
    const [table, all] = [`#${id} thead`, `#${id} tbody`].map((path) => document.querySelector(path));
    this.body = /** @type {HTMLTableSectionElement} */ (all);
    this.heads = /** @type {Element} */ (table).querySelectorAll("th");
    // on a narrow screen rows become blocks, which must remain a table for those who hear it
    const roles = { table: this.body.parentElement, rowgroup: this.body, row: this.heads[0].parentElement };
    for (const [role, node] of Object.entries(roles)) node?.setAttribute("role", role);
    table?.setAttribute("role", "rowgroup");
    for (const head of this.heads) head.setAttribute("role", "columnheader");
  }

  /** @param {[string, ...Cell[]][]} items each with its key */
  show(items) {
    const gone = new Set(this.#rows.keys());
    items.forEach(([key, ...cells], place) => {
      gone.delete(key);
      const row = this.#row(key, cells.length);
      if (this.body.rows[place] !== row) this.body.insertBefore(row, this.body.rows[place] ?? null);
      cells.forEach((cell, column) => this.#fill(row.cells[column], cell, column));
    });
    for (const key of gone) {
      this.#rows.get(key)?.remove();
      this.#rows.delete(key);
    }
  }

  /** @param {string} key
   * @param {number} count */
  #row(key, count) {
    let row = this.#rows.get(key);
    if (!row) {
      row = element("tr", { role: "row" }, element("th", { scope: "row", role: "rowheader" }));
      while (row.cells.length < count) row.append(element("td", { role: "cell" }));
      this.#rows.set(key, row);
    }
    return row;
  }

  /** @param {Element} place
   * @param {Cell} cell
   * @param {number} column */
  #fill(place, cell, column) {
    mark(place, "data-label", this.heads[column].textContent ?? "");
    if (cell instanceof Node) {
      if (place.firstChild !== cell) place.replaceChildren(cell);
    } else if (cell && typeof cell === "object") {
      write(place, cell.text);
      mark(place, "data-mark", cell.mark);
    } else {
      write(place, String(cell ?? "–"));
    }
  }
}

const ANSWER_MS = 6_000;
const DEADLINE_MS = 6_000; // of a question: a little more than the gateway gives itself

/** What a browser keeps for us; one that keeps nothing is fine.
 * @param {"localStorage" | "sessionStorage"} kind
 * @param {string} name
 * @param {string} [value] to be kept */
function kept(kind, name, value) {
  try {
    if (value !== undefined) window[kind].setItem(name, value);
    return window[kind].getItem(name);
  } catch {
    return value ?? null;
  }
}

/** Let the visitor choose a language and colours, which are remembered; `changed` is called in another language.
 * @param {() => void} changed */
export function offerChoices(changed) {
  const worded = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-t]"));
  for (const one of worded) written[one.dataset.t ?? ""] = one.textContent ?? "";
  const page = document.documentElement;
  const [language, theme] = ["language", "theme"].map(chooser);
  const speak = () => {
    page.lang = language.value;
    setLanguage(language.value);
    for (const one of worded) write(one, t(one.dataset.t ?? ""));
  };
  const preferred = kept("localStorage", "language") ?? (navigator.language.startsWith("pt") ? "pt-BR" : "en");
  if (preferred === "pt-BR") {
    language.value = preferred;
    speak();
  }
  language.onchange = () => {
    kept("localStorage", "language", language.value);
    speak();
    changed();
  };
  theme.value = page.dataset.theme ?? "";
  theme.onchange = () => (page.dataset.theme = kept("localStorage", "theme", theme.value) ?? "");
}

/** The token of the address, which is then taken out of it, or else the one that was kept; null without either. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
  if (given) history.replaceState(null, "", location.pathname + location.search);
  return kept("sessionStorage", "token", given);
}

/** Write, and at first make, the buttons that copy a command. */
export function offerCopies() {
  for (const line of document.querySelectorAll(".command")) {
    const [code, made] = line.children;
    const button = made ?? line.appendChild(element("button", { type: "button" }));
    write(button, t("copy"));
    mark(button, "aria-label", `${t("copy")}: ${code.textContent}`);
    /** @type {HTMLElement} */ (button).onclick = () => {
      getSelection()?.selectAllChildren(code); // where the browser does not let us copy, it is at least selected
      navigator.clipboard?.writeText(code.textContent ?? "").then(() => answer(t("copied")), () => {});
    };
  }
}

/** The answer to a question to the gateway; an error with its words and `status` if it is a refusal.
 * @param {string} path
 * @param {RequestInit} [sent]
 * @returns {Promise<any>} */
export async function ask(path, sent) {
  const answer = await fetch(path, { ...sent, signal: AbortSignal.timeout(DEADLINE_MS) });
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw Object.assign(new Error(body.detail ?? answer.status), { status: answer.status });
}

/** Change something, with the token, and say whether it was done.
 * @param {string} path
 * @param {object} body */
export async function change(path, body) {
  const headers = { authorization: `Bearer ${known.token}`, "content-type": "application/json" };
  let said = t("done");
  await ask(path, { method: "PUT", body: JSON.stringify(body), headers }).catch(({ status, message }) => {
    said = status === 401 ? t("refusedToken") : t("failed", message);
    if (status === 401) known.token = null;
  });
  answer(said);
}

let answered = 0;

/** Say at the foot of the window, for a while, what became of a click.
 * @param {string} text */
function answer(text) {
  write(byId("answer"), text);
  clearTimeout(answered);
  answered = setTimeout(() => write(byId("answer"), ""), ANSWER_MS);
}
