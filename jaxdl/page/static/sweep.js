"use strict";
// A metric against each flag, parallel coordinates, and the lineage of a search.

const MOST_FLAGS = 12;
const LABEL = 16; // letters of a label in a chart
const MOST_TICKS = 12; // of an axis

function short(text, most = LABEL) {
  const name = text.replace(/^experiments\./, "");
  return plain(name.length > most ? `${name.slice(0, most - 1)}…` : name);
}

// Positions of a flag's values on an axis: numbers as they are, other values side by side.
function scaleOf(values) {
  const known = [...new Set(values.filter((value) => value !== undefined))];
  const isNumber = known.length > 1 && known.every((value) => typeof value === "number");
  if (isNumber) {
    const low = Math.min(...known);
    const high = Math.max(...known);
    const isLog = low > 0 && high >= 10 * low;
    const at = (value) => (isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const ticks = known.length <= 6 ? known.sort((a, b) => a - b) : [low, high];
    return { isNumber, isLog, at, ticks, position: (value) => value ?? NaN };
  }
  const texts = known.map(String).sort(collator.compare);
  const index = new Map(texts.map((text, n) => [text, n]));
  const position = (value) => (value === undefined ? NaN : index.get(String(value)));
  return { isNumber, isLog: false, at: (value) => (position(value) + 0.5) / texts.length, ticks: texts, position };
}

function mixed(weight) {
  const parts = (name) => color(name).match(/[0-9a-f]{2}/gi).map((hex) => parseInt(hex, 16));
  const [from, to] = [parts("pale"), parts("c0")];
  return `rgb(${from.map((part, n) => Math.round(part + weight * (to[n] - part))).join(",")})`;
}

function drawFlags(shown) {
  const { data } = view;
  const metric = data.metrics.includes(view.flagMetric) ? view.flagMetric : data.metric;
  const numbers = shown.filter((n) => data.runs[n].results[metric] !== undefined);
  const flags = data.flags.filter((name) => new Set(numbers.map((n) => data.runs[n].config[name])).size > 1).slice(0, MOST_FLAGS);
  byId("flags").hidden = !data.flags.length || !data.metrics.length;
  options(byId("flag-metric"), data.metrics.map((name) => [name, name]), metric);
  const parallel = byId("parallel");
  parallel.hidden = flags.length < 2;
  byId("flag-note").textContent = flags.length ? ""
    : numbers.length ? "The runs with this metric have the same flags." : "No run that is shown has this metric.";
  if (flags.length > 1) {
    if (!parallel.firstChild) parallel.append(element("div", { className: "plot" }));
    parallel.firstChild.style.minWidth = `${110 * (flags.length + 1)}px`;
    lazily(parallel.firstChild, () => drawParallel(parallel.firstChild, numbers, flags, metric));
  }
  const place = byId("scatter");
  for (const panel of [...place.children]) if (!flags.includes(panel.name)) forget(panel);
  const colors = colorNames(shown);
  for (const flag of flags) {
    let panel = [...place.children].find((one) => one.name === flag);
    if (!panel) {
      panel = element("div", { className: "panel" }, element("h3", {}), element("div", { className: "plot" }));
      panel.name = flag;
      place.append(panel);
    }
    panel.firstChild.textContent = `${metric} by ${flag}`;
    lazily(panel.lastChild, () => drawScatter(panel.lastChild, numbers, flag, metric, colors));
  }
}

function drawScatter(place, numbers, flag, metric, colors) {
  const { runs } = view.data;
  const scale = scaleOf(numbers.map((n) => runs[n].config[flag]));
  const data = { x: [], y: [], color: [], name: [], value: [] };
  for (const n of numbers) {
    data.x.push(scale.position(runs[n].config[flag]));
    data.y.push(runs[n].results[metric]);
    data.color.push(color(colors.nameOf(n)));
    data.name.push(runs[n].name);
    data.value.push(format(runs[n].config[flag]));
  }
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${metric} against ${flag}, ${counted(numbers.length, "run")}`);
  const layers = [pointLayer("points", data, [["", "@name"], ["flag", "@value"], ["metric", "@y{0.[00000]a}"]])];
  const count = scale.ticks.length;
  const ticks = count <= MOST_TICKS ? scale.ticks : [];
  const finish = (figure) => {
    if (scale.isLog) return; // see `chart`
    const axis = firstOf(figure.xaxis);
    axis.ticker = new Bokeh.FixedTicker({ ticks: ticks.map(scale.position), minor_ticks: [] });
    axis.major_label_overrides = new Map(ticks.map((value) => [scale.position(value), short(format(value))]));
    if (!scale.isNumber) figure.x_range = new Bokeh.Range1d({ start: -0.5, end: count - 0.5 });
    if (!scale.isNumber && count > 4) axis.major_label_orientation = 0.6;
  };
  chart(place, { logX: scale.isLog, labels: [count, ...ticks] }, layers, finish);
}

function drawParallel(place, numbers, flags, metric) {
  const { runs } = view.data;
  const axes = [...flags, metric];
  const valueOf = (n, name) => (name === metric && axes.indexOf(name) === axes.length - 1 ? runs[n].results[metric] : runs[n].config[name]);
  const scales = axes.map((name) => scaleOf(numbers.map((n) => valueOf(n, name))));
  const best = ranked(numbers, metric);
  const lines = emptyLines();
  [...best].reverse().forEach((n, order) => {
    const weight = numbers.length > 1 ? order / (numbers.length - 1) : 1;
    const ys = axes.map((name, k) => {
      const value = valueOf(n, name);
      return value === undefined ? NaN : scales[k].at(value);
    });
    lines.xs.push(axes.map((_, k) => k));
    lines.ys.push(ys);
    lines.color.push(mixed(weight ** 3));
    lines.width.push(weight > 0.9 ? 2.2 : 1.2);
    lines.alpha.push(0.35 + 0.6 * weight);
    lines.name.push(runs[n].name);
    lines.split.push(`${metric} ${format(runs[n].results[metric])}`);
  });
  const ticks = { x: [], y: [], text: [] };
  const rules = { xs: axes.map((_, k) => [k, k]), ys: axes.map(() => [0, 1]), color: [], width: [], alpha: [], name: [], split: [] };
  axes.forEach((name, k) => {
    for (const list of ["name", "split"]) rules[list].push("");
    rules.color.push(color("muted"));
    rules.width.push(1);
    rules.alpha.push(0.7);
    for (const tick of scales[k].ticks.slice(0, MOST_TICKS)) {
      ticks.x.push(k);
      ticks.y.push(scales[k].at(tick));
      ticks.text.push(short(format(tick), 12));
    }
    ticks.x.push(k);
    ticks.y.push(1.13);
    ticks.text.push(short(name, Math.max(14, Math.floor(place.clientWidth / axes.length / 7))));
  });
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `parallel coordinates of ${axes.join(", ")}`);
  const texts = { kind: "ticks", data: ticks, add: (figure, source) => figure.text({ field: "x" }, { field: "y" }, { field: "text" }, {
    source, text_color: color("text"), text_font_size: "11px", x_offset: 5, text_baseline: "middle",
    background_fill_color: color("card"), background_fill_alpha: 0.75 }) };
  const layer = lineLayer("lines", lines, { isHovered: false });
  const add = (figure, source) => {
    const made = figure.multi_line({ field: "xs" }, { field: "ys" }, { source, line_color: { field: "color" },
      line_width: { field: "width" }, line_alpha: { field: "alpha" }, hover_line_color: color("c1"), hover_line_alpha: 1 });
    addHover(figure, [made], [["", "@name"], ["", "@split"]], { limit: 3 });
  };
  chart(place, { tools: "save", y_range: [-0.06, 1.22], x_range: [-0.08, axes.length - 0.35] },
    [{ ...layer, add }, lineLayer("rules", rules, { isHovered: false }), texts], (figure) => {
      for (const axis of [...figure.xaxis, ...figure.yaxis]) axis.visible = false;
      for (const grid of [...figure.xgrid, ...figure.ygrid]) grid.grid_line_color = null;
    });
}

// Rows of the lineage: copies on the row of the member that they replace, other trials by their end.
function lineageRows(numbers) {
  const { runs } = view.data;
  const member = (n) => runs[n].lineage.member;
  if (numbers.some((n) => member(n) !== undefined)) {
    const rows = new Map();
    const firsts = numbers.filter((n) => runs[n].lineage.parent === null);
    firsts.forEach((n, k) => rows.set(n, k));
    for (const n of numbers) if (!rows.has(n)) rows.set(n, member(n) ?? firsts.length);
    return rows;
  }
  const ordered = ranked(numbers).sort((a, b) => runs[b].lineage.end - runs[a].lineage.end);
  return new Map(ordered.map((n, k) => [n, k]));
}

function drawLineage(shown) {
  const { runs, metric } = view.data;
  const numbers = shown.filter((n) => runs[n].lineage);
  byId("lineage").hidden = !runs.some((run) => run.lineage);
  if (!numbers.length) return;
  const rows = lineageRows(numbers);
  const count = Math.max(...rows.values()) + 1;
  const order = ranked(numbers);
  const bars = { x: [], left: [], right: [], y: [], color: [], name: [], text: [], span: [] };
  const joins = emptyLines();
  for (const n of numbers) {
    const { parent, born = 0, end, pause_at: pause } = runs[n].lineage;
    const y = -rows.get(n);
    const weight = 1 - order.indexOf(n) / Math.max(1, order.length - 1);
    const flags = view.data.flags.map((name) => `${name}=${format(runs[n].config[name])}`).join("  ");
    const values = { x: (born + end) / 2, left: born, right: Math.max(end, born), y, color: mixed(0.15 + 0.85 * weight ** 2), name: runs[n].name,
      text: `${metric} ${format(runs[n].results[metric])}, ${runs[n].state}`, span: `${format(born)} to ${format(end)}${pause ? ", paused" : ""}  ${flags}` };
    for (const [name, value] of Object.entries(values)) bars[name].push(value);
    if (parent !== null && rows.has(parent)) {
      joins.xs.push([born, born]);
      joins.ys.push([-rows.get(parent), y]);
      for (const [name, value] of Object.entries({ color: color("muted"), width: 1.2, alpha: 0.9, name: "", split: "" })) joins[name].push(value);
    }
  }
  const place = byId("lineage-plot");
  const height = Math.min(700, Math.max(160, 70 + 18 * count));
  place.style.height = `${height}px`;
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `lineage of ${counted(numbers.length, "trial")}`);
  const bar = { kind: "bars", data: bars, add: (figure, source) => {
    const made = figure.hbar({ field: "y" }, 0.62, { field: "right" }, { field: "left" }, { source,
      fill_color: { field: "color" }, line_color: color("card"), hover_line_color: color("text") });
    addHover(figure, [made], [["", "@name"], ["", "@text"], ["steps", "@span"]]);
  } };
  lazily(place, () => chart(place, { height }, [bar, lineLayer("joins", joins, { isHovered: false })], (figure) => {
    firstOf(figure.yaxis).visible = false;
    firstOf(figure.ygrid).grid_line_color = null;
    firstOf(figure.xaxis).axis_label = "step";
    firstOf(figure.xaxis).formatter = new Bokeh.NumeralTickFormatter({ format: "0,0" });
  }));
}
