// The page of the feature flags: it shows them, and changes them through the API.
//
// Invariants: what the server says is shown as text, never as markup; the key stays in this page;
// nothing is changed without a dialog that says what, and that stays open until the server has
// said yes; an answer never takes the place of a later one.

import { edit } from "./editor.js";
import { Refused, ask, forgetKey, hasKey, useKey } from "./api.js";

const REFRESH_MS = 10_000;
/** How many events of the trail are read, and how many changes of flags are shown of them. */
const EVENTS = { read: 200, shown: 10 };

const byId = (id) => document.getElementById(id);

/** The flags as last read, and what they were read as, to draw only what is new. */
let flags = [];
let drawn = "";
/** The number of the newest question; answers to older ones are dropped. */
let newest = 0;
let readAt = null;
/** The names of keys by their ids, by which the trail calls them. */
const people = new Map();

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function showText(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

/** A value as people write it: texts in quotes, so that "true" is not taken for true. */
const shown = (value) => JSON.stringify(value);

// ---- Reading

async function load() {
  const mine = ++newest;
  const whom = new URLSearchParams();
  for (const name of ["user", "collection"]) if (byId(name).value) whom.set(name, byId(name).value);
  try {
    // The flags alone decide whether there is anything to see; what else is shown may be missing.
    const list = await ask("GET", `admin/flags?${whom}`);
    const others = ["admin/level", `admin/audit?limit=${EVENTS.read}`, "admin/keys"];
    const [level, trail, keys] = await Promise.all(others.map((path) => ask("GET", path).catch(() => null)));
    if (mine !== newest) return;
    readAt = new Date();
    showText("fault", "");
    byId("key-form").hidden = true;
    byId("flags").hidden = false;
    byId("forget").hidden = !hasKey();
    for (const { id, name } of keys?.keys ?? []) people.set(id, name);
    draw(list.flags, level, trail);
  } catch (error) {
    if (mine === newest) notRead(error);
  }
}

function notRead(error) {
  if (!(error instanceof Refused)) throw error;
  const askingForKey = !byId("key-form").hidden;
  if (error.status === 401 || error.status === 403 || askingForKey) {
    askForKey(hasKey() ? error.message : "");
    return;
  }
  const since = readAt ? `; below is what it said at ${readAt.toLocaleTimeString()}` : "";
  showText("fault", `${error.message}${since}. It is asked again every ${REFRESH_MS / 1000} s.`);
}

function askForKey(fault) {
  const opens = byId("key-form").hidden;
  forgetKey();
  flags = [];
  drawn = "";
  for (const id of ["flags", "forget", "level"]) byId(id).hidden = true;
  byId("freshness").textContent = "";
  showText("fault", "");
  byId("key-form").hidden = false;
  if (fault || opens) showText("key-fault", fault);
  if (opens) byId("key").focus();
}

// ---- Showing

function draw(list, level, trail) {
  byId("freshness").textContent = `as of ${readAt.toLocaleTimeString()}`;
  if (level) drawLevel(level.standing);
  const now = JSON.stringify([list, trail?.events[0]?.number]);
  if (now === drawn) return;
  drawn = now;
  flags = list;
  drawRows();
  if (trail) drawChanges(trail.events.filter((event) => event.action.startsWith("flag.")));
}

function drawLevel({ level, reason }) {
  const badge = byId("level");
  badge.hidden = false;
  badge.className = `badge ${level === "full" ? "good" : "warning"}`;
  badge.textContent = level === "full" ? "level full" : `level ${level}: ${reason}`;
}

function drawRows() {
  const wanted = byId("find").value.toLowerCase();
  const matches = ({ name, overridden, definition }) =>
    `${name}\n${definition.description}`.toLowerCase().includes(wanted) &&
    (overridden || !byId("changed-only").checked);
  const found = flags.filter(matches);
  const user = byId("user").value;
  byId("value-title").textContent = user ? `Value for ${user}` : "Value now";
  byId("count").textContent = `${found.length} of ${flags.length} flags`;
  // Whoever works with the keyboard stays where they are.
  const [at, of] = [document.activeElement?.classList[0], document.activeElement?.closest("tr")?.id];
  byId("rows").replaceChildren(...found.map(row));
  if (of) byId(of)?.querySelector(`.${at}`)?.focus();
}

function row(flag) {
  const { name, definition, value, variant, reason } = flag;
  const made = byId("row").content.cloneNode(true);
  const part = (selector) => made.querySelector(selector);
  part("tr").id = `flag-${name}`;
  part(".name").textContent = name;
  part(".description").textContent = definition.description;
  part(".value").textContent = shown(value);
  part(".value").classList.add(value === false ? "warning" : "good");
  part(".reason").textContent = `${variant}, ${reason.toLowerCase().replaceAll("_", " ")}`;
  part(".badges").append(...badges(flag));
  part(".rules").append(...summary(definition).map((line) => element("li", line)));
  const toggle = part(".switch");
  toggle.setAttribute("aria-checked", definition.enabled);
  toggle.setAttribute("aria-label", `${name} enabled`);
  toggle.addEventListener("click", () => askToSwitch(flag));
  const inexact = Object.values(definition.variants).some(
    (one) => Number.isInteger(one) && !Number.isSafeInteger(one),
  );
  part(".edit").disabled = inexact;
  part(".edit").setAttribute("aria-label", `Edit ${name}`);
  if (inexact) part(".edit").title = "It holds a number that a browser would round: use `mainstay flags set`.";
  part(".edit").addEventListener("click", () => openEditor(flag));
  const remove = part(".remove");
  remove.hidden = !flag.overridden;
  remove.textContent = flag.declared ? "Bring back…" : "Remove…";
  remove.setAttribute("aria-label", `${flag.declared ? "Bring back" : "Remove"} ${name}`);
  remove.addEventListener("click", () => askToRemove(flag));
  return made;
}

function badges({ overridden, declared, definition }) {
  const made = [];
  if (overridden) made.push(element("span", declared ? "changed" : "added", "warning"));
  if (definition.from || definition.until) made.push(element("span", "scheduled"));
  return made;
}

/** Who gets what, a line each, in the order in which it is decided. */
function summary({ enabled, rules = [], requires = [], from, until, default: others, off }) {
  const lines = [];
  if (!enabled) lines.push(`disabled: everybody gets ${off}`);
  if (from || until) {
    lines.push(`${[from && `from ${from}`, until && `until ${until}`].filter(Boolean).join(" ")}, else ${off}`);
  }
  for (const { flag, variant } of requires) lines.push(`only if ${flag} gives ${variant}, else ${off}`);
  for (const { when = {}, percent = 100, variant } of rules) {
    const share = percent < 100 ? `${percent} % of users` : "everybody";
    const whose = Object.entries(when).map(([name, values]) => `${name} is ${listed(values)}`);
    lines.push(`${[share, whose.join(" and ")].filter(Boolean).join(" whose ")} → ${variant}`);
  }
  lines.push(`${rules.length ? "everybody else" : "everybody"} → ${others}`);
  return lines;
}

function listed(values) {
  const first = values.slice(0, 5).join(", ");
  return values.length > 5 ? `${first} or ${values.length - 5} more` : first;
}

function drawChanges(events) {
  byId("no-changes").hidden = events.length > 0;
  byId("changes").replaceChildren(...events.slice(0, EVENTS.shown).map(change));
}

function change({ time, who, action, target, after, why, outcome }) {
  const verbs = {
    "flag.enable": after?.enabled ? "switched on" : "switched off",
    "flag.set": "set",
    "flag.remove": "took back the change of",
  };
  const ended = outcome === "done" ? "" : ` (${outcome})`;
  const line = element("li", `${new Date(time).toLocaleString()} `);
  line.append(element("b", people.get(who) ?? who), ` ${verbs[action] ?? action} `, element("code", target), ended);
  if (why) line.append(element("span", `: ${why}`, "quiet"));
  return line;
}

// ---- Changing

const path = (name, why) => `admin/flags/${encodeURIComponent(name)}?${new URLSearchParams({ why })}`;

/** Asks first; `act` gets the reason. The dialog stays open with the fault when it fails. */
function confirmed({ title, text, go, act }) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-go").textContent = go;
  byId("confirm-why").value = "";
  showText("confirm-fault", "");
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    changing(dialog, byId("confirm-go"), "confirm-fault", () => act(byId("confirm-why").value));
  };
  dialog.showModal();
}

/** Does `act` with its button locked; closes the dialog once it is done. */
async function changing(dialog, button, faultId, act) {
  button.disabled = true;
  showText(faultId, "");
  try {
    await act();
    dialog.close();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    showText(faultId, error.message);
  } finally {
    button.disabled = false;
    load();
  }
}

function askToSwitch({ name, definition }) {
  const on = !definition.enabled;
  const off = `${definition.off} (${shown(definition.variants[definition.off])})`;
  confirmed({
    title: `Switch ${name} ${on ? "on" : "off"}?`,
    text: on ? "Its rules and its schedule decide again, at once." : `Everybody gets ${off}, at once.`,
    go: `Switch ${on ? "on" : "off"}`,
    act: (why) => ask("PUT", path(name, why), { enabled: on }),
  });
}

function askToRemove({ name, declared }) {
  confirmed({
    title: declared ? `Bring ${name} back?` : `Remove ${name}?`,
    text: declared
      ? "The definition that the program declares counts again, at once."
      : "Whoever asks for it gets the program's own default, at once.",
    go: declared ? "Bring back" : "Remove",
    act: (why) => ask("DELETE", path(name, why)),
  });
}

function openEditor(flag) {
  edit(flag, flags, (button, read) => {
    changing(byId("editor"), button, "editor-fault", async () => {
      const { name, definition, why } = read();
      await requireUnchanged(name, flag);
      await ask("PUT", path(name, why), definition);
    });
  });
}

/** Refuses to write over what somebody else has changed since the editor was opened. */
async function requireUnchanged(name, flag) {
  const there = await ask("GET", `admin/flags/${encodeURIComponent(name)}`).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  if (!flag && there) throw new Error(`there is a flag ${name} already; choose another name, or edit that one`);
  if (flag && JSON.stringify(there?.definition) !== JSON.stringify(flag.definition)) {
    throw new Error(`${name} was changed by somebody else meanwhile; cancel, look at it, and edit it again`);
  }
}

// ---- Wiring

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  byId("key").value = "";
  showText("key-fault", "");
  load();
});
byId("forget").addEventListener("click", () => askForKey(""));
for (const id of ["find", "changed-only"]) byId(id).addEventListener("input", drawRows);
for (const id of ["user", "collection"]) byId(id).addEventListener("input", load);
byId("tools").addEventListener("submit", (event) => event.preventDefault());
byId("new").addEventListener("click", () => openEditor(null));
for (const button of document.querySelectorAll("dialog .cancel")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
setInterval(() => {
  const reading = byId("key-form").hidden && !document.hidden;
  if (reading && !document.querySelector("dialog[open]")) load();
}, REFRESH_MS);
load();
