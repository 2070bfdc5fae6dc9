"use strict";
// Small helpers, and the state of the page. All texts of runs go through `textContent`.

const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const view = {
  data: null, words: "", hidden: new Set(), marked: new Set(), mode: "runs", all: false,
  scales: new Set(), smoothing: 0,
  // What the reader has chosen; null: not yet, so that it follows from the content.
  sort: null, columns: null, lines: null, splits: null, panels: null, flagMetric: null,
  kind: null, a: null, b: null,
};

// Chosen names, and a function that adds or removes one.
function choice(key, fallback, then) {
  const names = view[key] ?? new Set(fallback);
  const toggle = (name) => {
    view[key] = new Set(names);
    toggled(view[key], name);
    then();
  };
  return [names, toggle];
}

function format(value) {
  if (typeof value !== "number") return value === undefined || value === null ? "–" : String(value);
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? value.toLocaleString("en-US") : value.toExponential(3);
  const size = Math.abs(value);
  if (size < 1e-3) return String(Number(value.toPrecision(3)));
  if (size >= 1e6) return value.toPrecision(3);
  return size < 100 ? String(Number(value.toFixed(4))) : value.toLocaleString("en-US", { maximumSignificantDigits: 6 });
}

const counted = (count, word) => `${format(count)} ${word}${count === 1 ? "" : "s"}`;

const seedOf = (run) => run.config.seed;
const baseOf = (name) => name.slice(name.lastIndexOf("/") + 1);
const sign = () => (view.data.better === "max" ? -1 : 1);

const colorValues = new Map(); // of the style's variables; emptied when the colour scheme changes

function color(name) {
  if (!colorValues.has(name)) colorValues.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colorValues.get(name);
}

// The filter: every word must be in the row, or be a comparison with one of its fields.
function fieldOf(run, name) {
  if (name === "state" || name === "name" || name === "run") return run[name === "run" ? "name" : name];
  for (const fields of [run.config, run.results]) {
    if (name in fields) return fields[name];
    const like = Object.keys(fields).find((key) => key.endsWith("/" + name));
    if (like) return fields[like];
  }
  return undefined;
}

const COMPARISON = /^([^<>=]+)(<=|>=|<|>|=)(.*)$/;

function matches(run, word) {
  const parts = COMPARISON.exec(word);
  if (parts) {
    const [, name, operator, wanted] = parts;
    const value = fieldOf(run, name);
    if (value === undefined) return false;
    const number = Number(wanted);
    if (operator === "=") return String(value).toLowerCase() === wanted || (wanted !== "" && value === number);
    if (typeof value !== "number" || wanted === "" || Number.isNaN(number)) return false;
    return { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number }[operator];
  }
  const fields = Object.entries(run.config).map(([name, value]) => `${name}=${value}`);
  return [run.name, run.state, ...fields].join(" ").toLowerCase().includes(word);
}

// Numbers of the runs that the filter and the states show.
function shownRuns() {
  const words = view.words.toLowerCase().split(/\s+/).filter(Boolean);
  const { runs } = view.data;
  const numbers = [];
  runs.forEach((run, n) => {
    if (!view.hidden.has(run.state) && words.every((word) => matches(run, word))) numbers.push(n);
  });
  return numbers;
}

// Runs, best first; those without the main metric last.
function ranked(numbers, metric = view.data.metric) {
  const value = (n) => view.data.runs[n].results[metric] ?? Infinity * sign();
  return [...numbers].sort((a, b) => (value(a) === value(b) ? a - b : sign() * (value(a) - value(b))));
}

const hasGroups = () => view.data.groups.some((group) => group.runs.length > 1);
const COLORS = 8;

// What has a colour of its own: groups over seeds, or the runs if there is one group. If there are
// more than colours, the best have them and the others are pale.
function colorNames(shown) {
  const { groups, runs } = view.data;
  const isReadable = (n) => runs[n].state !== "unreadable"; // others have no curves
  const byGroup = groups.filter((group) => group.runs.some(isReadable)).length > 1;
  const readable = shown.filter(isReadable);
  const keyOf = (n) => (byGroup ? runs[n].group : n);
  const keys = [...new Set(readable.map(keyOf))];
  let chosen = keys;
  if (view.marked.size) chosen = [...new Set(shown.filter((n) => view.marked.has(runs[n].name)).map(keyOf))];
  else if (keys.length > COLORS) chosen = [...new Set(ranked(readable).map(keyOf))];
  chosen = chosen.slice(0, COLORS).sort((a, b) => a - b);
  const names = new Map(chosen.map((key, n) => [key, `c${n}`]));
  return { byGroup, chosen, count: keys.length, nameOf: (n) => names.get(keyOf(n)) ?? "pale" };
}

function labelOf(key, byGroup) {
  const { groups, runs } = view.data;
  if (!byGroup) return runs[key].name;
  const flags = Object.entries(groups[key].flags).map(([name, value]) => `${name}=${format(value)}`);
  return flags.join("  ") || runs[groups[key].runs[0]].name;
}

function chips(place, entries, isOn, toggle) {
  byId(place).replaceChildren(...entries.map(([key, ...label]) => {
    const button = element("button", { type: "button", "aria-pressed": String(isOn(key)) }, ...label);
    button.addEventListener("click", () => {
      toggle(key);
      byId(place).children[entries.findIndex((entry) => entry[0] === key)]?.focus();
    });
    return button;
  }));
}

function options(select, entries, value) {
  if (document.activeElement === select && select.options.length === entries.length) return;
  select.replaceChildren(...entries.map(([key, label]) => element("option", { value: key }, label)));
  select.value = value;
}

function boxes(place, names, isOn, toggle) {
  byId(place).replaceChildren(...names.map((name) => {
    const box = element("input", { type: "checkbox", checked: isOn(name) });
    box.addEventListener("change", () => toggle(name));
    return element("label", {}, box, name);
  }));
}

function toggled(set, key) {
  if (!set.delete(key)) set.add(key);
}
