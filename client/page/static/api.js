// Requests to the process that serves this page. The token is in the fragment of the address; no other page knows it.

const MARK = "#token=";
if (location.hash.startsWith(MARK)) {
  sessionStorage.setItem("token", location.hash.slice(MARK.length));
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem("token") ?? "";
addEventListener("hashchange", () => location.hash.startsWith(MARK) && location.reload());

/** An error with its stable code. */
export class Problem extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { "X-Token": token } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("page_gone", "The process that serves this page does not answer.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Problem(said.code ?? "internal", said.message ?? `The page's own process answered ${response.status}.`);
}

export async function get(path) {
  return (await send(path)).json();
}

export async function post(path, body) {
  return (await send(path, { method: "POST", body })).json();
}

/** Calls `take` with each event of a line-by-line answer. */
export async function follow(path, body, take, signal) {
  const response = await send(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let last = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      last = JSON.parse(line);
      if (last.event === "error") throw new Problem(last.code, last.message);
      take(last);
    }
  }
  if (last?.event !== "answer") throw new Problem("internal", "The answer ended early.");
}

/** Base64 as bytes. */
export function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
