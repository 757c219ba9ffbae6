// The editor of one flag: a form made from a definition, and a definition read from the form.
//
// Invariant: fields of a definition that this form does not know stay as they are.

const byId = (id) => document.getElementById(id);
const NEW = {
  description: "",
  enabled: true,
  variants: { off: false, on: true },
  default: "off",
  off: "off",
};

/** Opens the editor for `flag`, or for a new one; `save` gets the button and what reads the form. */
export function edit(flag, flags, save) {
  const dialog = byId("editor");
  const definition = flag?.definition ?? NEW;
  byId("editor-title").textContent = flag ? `Edit ${flag.name}` : "New flag";
  byId("name-label").hidden = Boolean(flag);
  byId("name").required = !flag;
  byId("name").value = flag?.name ?? "";
  byId("why").value = "";
  byId("editor-fault").hidden = true;
  fill(definition, flags.filter(({ name }) => name !== flag?.name));
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    save(byId("save"), () => ({
      name: flag?.name ?? byId("name").value,
      definition: read(definition),
      why: byId("why").value,
    }));
  };
  dialog.showModal();
  dialog.scrollTop = 0;
}

// ---- From a definition to the form

function fill(definition, others) {
  byId("description").value = definition.description;
  byId("enabled").checked = definition.enabled;
  byId("kind").value = { boolean: "bool", number: "number", string: "string" }[
    typeof Object.values(definition.variants)[0]
  ];
  for (const id of ["variants", "rules", "requires"]) byId(id).replaceChildren();
  for (const [name, value] of Object.entries(definition.variants)) addVariant(name, String(value));
  for (const rule of definition.rules ?? []) addRule(rule);
  for (const requirement of definition.requires ?? []) addRequirement(others, requirement);
  offerVariants();
  byId("default").value = definition.default;
  byId("off").value = definition.off;
  byId("from").value = local(definition.from);
  byId("until").value = local(definition.until);
  byId("add-variant").onclick = () => { addVariant("", "").focus(); offerVariants(); };
  byId("add-rule").onclick = () => { addRule({ percent: 10, variant: names()[0] }); offerVariants(); };
  byId("add-requirement").disabled = others.length === 0;
  byId("add-requirement").onclick = () => addRequirement(others, {});
}

/** A copy of a template at the end of a list; its `.drop` takes it away again. */
function add(template, list, dropped = () => {}) {
  const line = byId(template).content.firstElementChild.cloneNode(true);
  list.append(line);
  line.querySelector(".drop").addEventListener("click", () => {
    line.remove();
    dropped();
  });
  return line;
}

function addVariant(name, value) {
  const line = add("variant", byId("variants"), offerVariants);
  const input = line.querySelector(".variant-name");
  input.value = name;
  line.querySelector(".variant-value").value = value;
  let before = name;
  input.addEventListener("input", () => {
    offerVariants({ from: before, to: input.value });
    before = input.value;
  });
  return input;
}

const names = () => [...document.querySelectorAll(".variant-name")].map((input) => input.value).filter(Boolean);

/** Every choice of a variant offers those that there are; one that is renamed stays chosen. */
function offerVariants({ from, to } = {}) {
  for (const select of document.querySelectorAll("#editor select.variant")) {
    const chosen = select.value || select.dataset.first;
    select.replaceChildren(...names().map((name) => new Option(name)));
    select.value = chosen === from && from ? to : chosen;
    select.required = true;
  }
}

function addRule({ when = {}, percent = 100, variant }) {
  const rule = add("rule", byId("rules"));
  const [number, slider] = [rule.querySelector(".percent"), rule.querySelector(".slider")];
  number.value = percent;
  slider.value = percent;
  number.addEventListener("input", () => { slider.value = number.value; });
  slider.addEventListener("input", () => { number.value = slider.value; });
  rule.querySelector("select.variant").dataset.first = variant;
  const conditions = rule.querySelector(".conditions");
  for (const [attribute, values] of Object.entries(when)) addCondition(conditions, attribute, values);
  rule.querySelector(".add-condition").addEventListener("click", () => addCondition(conditions, "user", []));
  rule.querySelector(".up").addEventListener("click", (event) => {
    rule.previousElementSibling?.before(rule);
    event.target.focus();
  });
}

function addCondition(conditions, attribute, values) {
  const line = add("condition", conditions);
  line.querySelector(".attribute").value = attribute;
  line.querySelector(".values").value = values.join("\n");
}

function addRequirement(others, { flag, variant }) {
  const line = add("requirement", byId("requires"));
  const [which, gives] = [line.querySelector(".flag"), line.querySelector(".gives")];
  which.append(...others.map(({ name }) => new Option(name)));
  if (flag) which.value = flag;
  const offer = () => {
    const { definition } = others.find(({ name }) => name === which.value);
    gives.replaceChildren(...Object.keys(definition.variants).map((name) => new Option(name)));
  };
  which.addEventListener("change", offer);
  offer();
  if (variant) gives.value = variant;
}

/** RFC 3339 as the field of a date shows it, in UTC. */
const local = (time) => (time ? new Date(time).toISOString().slice(0, 19) : "");

// ---- From the form to a definition

function read(before) {
  const definition = {
    ...before,
    description: byId("description").value,
    enabled: byId("enabled").checked,
    variants: readVariants(),
    default: byId("default").value,
    off: byId("off").value,
    rules: lines("#rules > .rule").map(readRule),
    requires: lines("#requires > .line").map((line) => ({
      flag: line.querySelector(".flag").value,
      variant: line.querySelector(".gives").value,
    })),
  };
  for (const end of ["from", "until"]) {
    const time = readTime(byId(end).value, before[end]);
    if (time) definition[end] = time;
    else delete definition[end];
  }
  return definition;
}

const lines = (selector) => [...document.querySelectorAll(selector)];

function readVariants() {
  const kind = byId("kind").value;
  const pairs = lines("#variants > .line").map((line) => {
    const name = line.querySelector(".variant-name").value;
    return [name, readValue(kind, name, line.querySelector(".variant-value").value)];
  });
  return unique(pairs, "two values are called");
}

function readValue(kind, name, text) {
  if (kind === "string") return text;
  if (kind === "bool") {
    if (text !== "true" && text !== "false") throw new Error(`value ${name} is "${text}"; on or off is written true or false`);
    return text === "true";
  }
  const number = text.trim() === "" ? NaN : Number(text);
  if (!Number.isFinite(number)) throw new Error(`value ${name} is "${text}", which is no number`);
  if (Number.isInteger(number) && !Number.isSafeInteger(number)) {
    throw new Error(`value ${name} is larger than a browser keeps exactly; use \`mainstay flags set\``);
  }
  return number;
}

function readRule(rule) {
  const conditions = [...rule.querySelectorAll(".conditions > .line")].map((line) => {
    const values = line.querySelector(".values").value.split("\n").map((value) => value.trim());
    return [line.querySelector(".attribute").value, values.filter(Boolean)];
  });
  return {
    when: unique(conditions, "one rule asks twice for"),
    percent: Number(rule.querySelector(".percent").value),
    variant: rule.querySelector("select.variant").value,
  };
}

function unique(pairs, fault) {
  const seen = new Set();
  for (const [name] of pairs) {
    if (seen.has(name)) throw new Error(`${fault} ${name}`);
    seen.add(name);
  }
  return Object.fromEntries(pairs);
}

/** What stands in the field of a date, as RFC 3339; the text of before where it says the same. */
function readTime(value, before) {
  if (!value) return undefined;
  const time = `${value.length === 16 ? `${value}:00` : value}Z`;
  return before && Date.parse(before) === Date.parse(time) ? before : time;
}
