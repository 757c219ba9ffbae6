// How the pages of the console ask the server, with the key that its user typed.

/** How long a question may take: control calls pass every limit, so a server that is well is quick. */
const TIMEOUT_MS = 15_000;

/** Kept here alone: no storage of the browser outlives the page. */
let key = "";

export const hasKey = () => key !== "";
export const useKey = (typed) => { key = typed; };
export const forgetKey = () => { key = ""; };

/** The server said no, or nothing: `status` is 0 then. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Asks `verb path`, relative to the server's root, so that a proxy may put the server below a path. */
export async function ask(verb, path, body) {
  const headers = {};
  // Not `Authorization`, which a proxy in front may want for itself.
  if (key) headers["X-API-Key"] = key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    response = await fetch(new URL(`../${path}`, location.href), {
      method: verb,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    text = await response.text();
  } catch {
    const open = verb === "GET" ? "" : "; whether the change counts is seen once it answers again";
    throw new Refused(0, `the server does not answer${open}`);
  }
  const answer = parsed(text);
  if (response.ok) return answer;
  throw new Refused(response.status, answer?.detail ?? `the server answered ${response.status}`);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
