// @ts-check
// What a page has besides its subject: a language, colours, a token, buttons that copy, and questions over HTTP.

import { byId, chooser, element, mark, write } from "./dom.js";
import { setLanguage, t, written } from "./words.js";

const DEADLINE_MS = 6_000; // of a question: a little more than the gateway gives itself
const AT_ONCE = 2;

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

/** Let the visitor choose a language and colours, which are remembered; `changed` is called after each choice.
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
  theme.onchange = () => {
    page.dataset.theme = kept("localStorage", "theme", theme.value) ?? "";
    changed();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

/** The token of the address, which is then taken out of it, or the one of before; null if there is none. */
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
    /** @type {HTMLElement} */ (button).onclick = async () => {
      getSelection()?.selectAllChildren(code); // if the browser does not let us copy, it is at least selected
      await navigator.clipboard?.writeText(code.textContent ?? "").catch(() => {});
      write(byId("answer"), `${t("copied")}: ${code.textContent}`);
    };
  }
}

/** Why there is no answer, in the words of the gateway if it said any; status 0 if nothing came. */
export class NoAnswer extends Error {
  status = 0;
}

/** @type {((value?: unknown) => void)[]} */
const waiting = [];
let running = 0;

/** The answer to a question to the gateway, of which there are never more than two at a time; NoAnswer without one.
 * @param {string} path
 * @param {RequestInit} [change]
 * @returns {Promise<any>} */
export async function ask(path, change) {
  if (running >= AT_ONCE && !change) await new Promise((go) => waiting.push(go));
  running++;
  try {
    const answer = await fetch(path, { ...change, signal: AbortSignal.timeout(DEADLINE_MS) });
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) return body;
    throw Object.assign(new NoAnswer(body.detail ?? answer.status), { status: answer.status });
  } catch (error) {
    throw error instanceof NoAnswer ? error : new NoAnswer(String(error));
  } finally {
    running--;
    waiting.shift()?.();
  }
}
