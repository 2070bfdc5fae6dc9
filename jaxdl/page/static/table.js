"use strict";
// The header and the table of runs, or of groups over seeds.

const STATES = ["done", "running", "paused", "waiting", "killed", "failed", "unreadable"];
const MARKS = { done: "●", running: "◐", paused: "◍", waiting: "○", killed: "⊘", failed: "✕", unreadable: "?" };
const FEW_ROWS = 100;
const FEW_COLUMNS = 4; // results that a table begins with

function drawHeader() {
  const { data } = view;
  byId("title").textContent = data.name;
  document.title = `${data.name} · jaxdl`;
  const experiment = data.config.experiment ?? "several experiments";
  const about = [experiment, data.config.dataset, counted(data.runs.length, "run"), data.folder];
  byId("about").textContent = about.filter((part) => part !== undefined && part !== "").join("  ·  ");
  const counts = new Map();
  for (const run of data.runs) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
  const entries = STATES.filter((state) => counts.has(state)).map((state) => {
    const mark = element("span", { className: state, "aria-hidden": "true" }, MARKS[state] + " ");
    return [state, mark, `${format(counts.get(state))} ${state}`];
  });
  chips("states", entries, (state) => !view.hidden.has(state), (state) => {
    toggled(view.hidden, state);
    draw();
  });
  drawTiles();
}

function drawTiles() {
  const { data } = view;
  const done = data.groups.filter((group) => group.results[data.metric]);
  const best = [...done].sort((a, b) => sign() * (a.results[data.metric][2] - b.results[data.metric][2]))[0];
  const tiles = [];
  if (best) {
    const [mean, interval, , count] = best.results[data.metric];
    const over = count > 1 ? `mean of ${count} seeds${interval === "-" ? "" : ", " + interval}` : "one run";
    tiles.push([mean, `${data.metric}, best: ${over}`]);
    const flags = labelOf(data.groups.indexOf(best), true);
    if (data.flags.length) tiles.push([flags, "flags of the best"]);
  } else if (data.metric) {
    const n = ranked(data.runs.keys())[0];
    tiles.push([format(data.runs[n].results[data.metric]), `${data.metric}, best so far`]);
  }
  const seconds = data.runs.reduce((sum, run) => sum + (run.results.seconds ?? 0), 0);
  if (seconds) tiles.push([seconds < 7200 ? `${format(Math.round(seconds / 6) / 10)} min` : `${format(Math.round(seconds / 360) / 10)} h`, "time of all runs that are done"]);
  if (data.facts.hardware) tiles.push([data.facts.hardware, `jax ${data.facts.jax ?? "?"}`]);
  byId("tiles").replaceChildren(...tiles.map(([value, label]) => {
    const tile = element("div", { className: "tile" }, element("b", {}, value), element("span", {}, label));
    if (value.length > 24) tile.firstChild.style.fontSize = "14px";
    return tile;
  }));
}

// Columns of the table: a key, a label, the value to sort by and the cell's content.
function columnsOf(isGroups, shownColumns) {
  const { data } = view;
  const flags = [...data.flags, ...(!isGroups && data.runs.some((run) => seedOf(run) !== undefined) ? ["seed"] : [])];
  const flagColumns = flags.map((name) => ({
    key: `flag ${name}`, label: name, better: 1,
    value: (row) => (isGroups ? row.flags : row.config)[name],
  }));
  const metrics = data.metrics.filter((name) => shownColumns.has(name));
  const result = (row, name) => (isGroups ? row.results[name]?.[2] : row.results[name]);
  const metricColumns = metrics.map((name) => ({
    key: `result ${name}`, label: name, value: (row) => result(row, name), better: name === data.metric ? sign() : 1,
    text: isGroups ? (row) => groupText(row.results[name]) : undefined,
  }));
  const first = isGroups
    ? { key: "count", label: "done", value: (row) => row.runs.filter((n) => data.runs[n].state === "done").length,
        text: (row) => `${row.runs.filter((n) => data.runs[n].state === "done").length}/${row.runs.length}` }
    : { key: "state", label: "state", value: (row) => STATES.indexOf(row.state), state: true };
  const name = { key: "name", label: isGroups ? "group" : "run", value: (row) => row.name, name: true };
  const letters = data.groups.some((group) => group.letters)
    ? [{ key: "letters", label: "letters", value: (row) => row.letters }] : [];
  // The result comes first: with many flags, the others are at the right of the screen.
  const isMain = (column) => column.key === `result ${data.metric}`;
  const [main, others] = [metricColumns.filter(isMain), metricColumns.filter((column) => !isMain(column))];
  return [name, first, ...main, ...(isGroups ? letters : []), ...flagColumns, ...others];
}

function groupText(result) {
  if (!result) return "–";
  const [mean, interval] = result;
  return interval === "-" ? mean : `${mean} ${interval}`;
}

function drawTable(shown) {
  const { data } = view;
  const isGroups = view.mode === "groups";
  const [shownColumns, toggle] = choice("columns", data.metrics.slice(0, FEW_COLUMNS), () => drawTable(shownRuns()));
  chips("modes", hasGroups() ? [["runs", "runs"], ["groups", "means over seeds"]] : [],
    (key) => key === view.mode, (key) => { view.mode = key; view.sort = null; drawTable(shownRuns()); });
  boxes("columns", data.metrics, (name) => shownColumns.has(name), toggle);
  const columns = columnsOf(isGroups, shownColumns);
  view.rows = isGroups
    ? [...new Set(shown.map((n) => data.runs[n].group))].map((n) => ({ ...data.groups[n], number: n, name: `${n + 1}` }))
    : shown.map((n) => ({ ...data.runs[n], number: n }));
  const main = columns.find((column) => column.key === `result ${data.metric}`) ?? columns[0];
  if (!columns.some((column) => column.key === view.sort?.key)) view.sort = null;
  view.firstSort = { key: main.key, down: main.better === -1 };
  for (const column of columns) column.isNumber = !column.state && !column.text && view.rows.some((row) => typeof column.value(row) === "number");
  view.columnList = columns;
  view.colors = colorNames(shown);
  const head = element("tr", {}, ...columns.map((column) => {
    const button = element("button", { type: "button", title: column.label }, column.label);
    button.addEventListener("click", () => {
      const before = view.sort ?? view.firstSort;
      view.sort = { key: column.key, down: before.key === column.key ? !before.down : column.better === -1 };
      sortTable();
    });
    return element("th", { scope: "col" }, button);
  }));
  byId("table").replaceChildren(element("thead", {}, head), element("tbody"));
  view.cells = new Map();
  sortTable();
  fixWidths();
}

// Keeps the widths of the columns, so that sorting needs no new layout of all cells.
function fixWidths() {
  const table = byId("table");
  const cells = [...table.tHead.rows[0].cells];
  Object.assign(table.style, { tableLayout: "auto", minWidth: "0" });
  const widths = cells.map((cell) => cell.getBoundingClientRect().width);
  cells.forEach((cell, n) => { cell.style.width = `${widths[n]}px`; });
  Object.assign(table.style, { tableLayout: "fixed", minWidth: `${widths.reduce((sum, width) => sum + width, 0)}px` });
}

// Sorts the rows, and shows the first of them; rows are made once.
function sortTable() {
  const { key, down } = view.sort ?? view.firstSort;
  const column = view.columnList.find((one) => one.key === key);
  const keyed = view.rows.map((row) => [column.value(row), row]);
  const isMissing = (value) => value === undefined || value === null || value === "";
  keyed.sort(([a, x], [b, y]) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b) || x.number - y.number;
    const both = typeof a === "number" && typeof b === "number";
    const order = both ? a - b : collator.compare(String(a), String(b));
    return (down ? -order : order) || x.number - y.number;
  });
  const most = view.all ? keyed.length : FEW_ROWS;
  byId("table").tBodies[0].replaceChildren(...keyed.slice(0, most).map(([, row]) => rowOf(row)));
  [...byId("table").tHead.rows[0].cells].forEach((cell, n) => {
    const isSorted = view.columnList[n].key === key;
    cell.classList.toggle("number", view.columnList[n].isNumber);
    if (isSorted) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
    cell.firstChild.textContent = view.columnList[n].label + (isSorted ? (down ? " ↓" : " ↑") : "");
  });
  const more = byId("more");
  more.replaceChildren();
  if (!keyed.length) more.textContent = "No run fits the filter.";
  if (keyed.length > most) {
    const button = element("button", { type: "button" }, `Show all ${format(keyed.length)} rows`);
    button.addEventListener("click", () => { view.all = true; sortTable(); });
    more.append(`The first ${most} of ${format(keyed.length)} rows. `, button);
  }
}

const collator = new Intl.Collator("en", { numeric: true });

function rowOf(row) {
  let made = view.cells.get(row.number);
  if (!made) {
    made = element("tr", {}, ...view.columnList.map((column) => cellOf(row, column)));
    view.cells.set(row.number, made);
  }
  return made;
}

function cellOf(row, column) {
  if (column.name) return nameCell(row);
  if (column.state) {
    const mark = element("span", { className: row.state, "aria-hidden": "true" }, MARKS[row.state] + " ");
    return element("td", { title: row.notes.join("\n") }, mark, row.state, row.notes.length ? " *" : "");
  }
  const value = column.value(row);
  const text = column.text ? column.text(row) : format(value);
  return element("td", { className: column.isNumber ? "number" : "", title: text }, text);
}

function nameCell(row) {
  const isGroup = view.mode === "groups";
  const run = isGroup ? row.runs[0] : row.number;
  const swatch = element("button", { type: "button", className: "swatch",
    "aria-pressed": String(view.marked.has(view.data.runs[run].name)), title: "mark in the curves",
    "aria-label": `mark ${row.name} in the curves` });
  swatch.style.background = `var(--${view.colors.nameOf(run)})`;
  swatch.addEventListener("click", () => {
    const runs = isGroup ? row.runs : [row.number];
    for (const n of runs) toggled(view.marked, view.data.runs[n].name);
    draw();
  });
  const link = element("button", { type: "button", className: "link" }, row.name);
  link.addEventListener("click", () => {
    if (view.a !== view.data.runs[run].name) view.b = view.a;
    view.a = view.data.runs[run].name;
    drawDetail();
    byId("detail").scrollIntoView({ block: "start" });
    byId("run-a").focus({ preventScroll: true });
  });
  return element("td", { className: "name", title: row.name }, element("div", {}, swatch, link));
}
