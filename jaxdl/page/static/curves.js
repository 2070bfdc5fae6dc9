"use strict";
// Learning curves: a panel for each metric, with lines of runs or means over seeds.

const LINE = { train: { width: 1.1, alpha: 0.85 }, validation: { width: 2.2, alpha: 1 }, test: { width: 1.6, alpha: 1 } };
const SPLIT_NAMES = { train: "thin: train", validation: "thick: validation", test: "star: test" };
const FEW_PANELS = 4;
const MOST_FAINT = 24; // runs whose curves are drawn behind their smoothed ones
const LAST_METRICS = ["learning_rate", "gradient_norm"];

const splitOf = (name) => name.slice(0, name.indexOf("/"));
const metricOf = (name) => name.slice(name.indexOf("/") + 1);

function metricNames() {
  const names = new Set(view.data.runs.flatMap((run) => Object.keys(run.curves).map(metricOf)));
  const main = baseOf(view.data.metric);
  const rank = (name) => (name === main ? 0 : name === "loss" ? 1 : LAST_METRICS.includes(name) ? 3 : 2);
  return [...names].sort((a, b) => rank(a) - rank(b) || collator.compare(a, b));
}

function splitNames() {
  const names = new Set(view.data.runs.flatMap((run) => Object.keys(run.curves).map(splitOf)));
  const order = Object.keys(LINE);
  return [...names].sort((a, b) => (order.indexOf(a) + 9) % 9 - (order.indexOf(b) + 9) % 9);
}

// Moving average that begins without a bias; values that are missing are left out.
function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

// Points that draw a curve: of a long one up and down between the least and the greatest values.
function path(curve) {
  const steps = view.data.steps[curve.at];
  if (!curve.low) return [steps, curve.mean];
  const xs = [];
  const ys = [];
  let last = null;
  steps.forEach((step, n) => {
    const [low, high] = [curve.low[n], curve.high[n]];
    const isUp = last === null || Math.abs(last - low) <= Math.abs(last - high);
    xs.push(step, step);
    ys.push(isUp ? low : high, isUp ? high : low);
    last = ys[ys.length - 1];
  });
  return [xs, ys];
}

function visible(xs, ys) {
  const isLogX = view.scales.has("x");
  const isLogY = view.scales.has("y");
  return [
    xs.map((x) => (isLogX && x <= 0 ? NaN : x)),
    ys.map((y) => (y === null || (isLogY && y <= 0) ? NaN : y)),
  ];
}

function emptyLines() {
  return { xs: [], ys: [], color: [], width: [], alpha: [], name: [], split: [] };
}

function addLine(lines, xs, ys, fields) {
  const [x, y] = visible(xs, ys);
  lines.xs.push(x);
  lines.ys.push(y);
  for (const [name, value] of Object.entries(fields)) lines[name].push(value);
}

function emptyPoints() {
  return { x: [], y: [], color: [], name: [], split: [], marker: [] };
}

function addPoint(points, x, y, { color: fill, name, split }) {
  const marker = split === "test" ? "star" : "circle";
  for (const [key, value] of Object.entries({ x, y, color: fill, name, split, marker })) points[key].push(value);
}

function runLayers(names, shown, colors) {
  const { runs } = view.data;
  const lines = emptyLines();
  const faint = emptyLines();
  const points = emptyPoints();
  const ordered = [...shown].sort((a, b) => (colors.nameOf(b) === "pale") - (colors.nameOf(a) === "pale"));
  for (const n of ordered) {
    for (const name of names) {
      const curve = runs[n].curves[name];
      if (!curve) continue;
      const split = splitOf(name);
      const colorName = colors.nameOf(n);
      const style = LINE[split] ?? LINE.validation;
      const isPale = colorName === "pale";
      const fields = { color: color(colorName), width: isPale ? 1 : style.width,
        alpha: isPale ? Math.max(0.15, Math.min(style.alpha, 40 / shown.length)) : style.alpha, name: runs[n].name, split };
      const steps = view.data.steps[curve.at];
      if (steps.length === 1 && curve.mean[0] !== null) {
        const [[x], [y]] = visible(steps, curve.mean);
        addPoint(points, x, y, fields);
      } else if (view.smoothing) {
        if (shown.length <= MOST_FAINT) addLine(faint, ...path(curve), { ...fields, width: 0.4, alpha: 0.8 });
        addLine(lines, steps, smoothed(curve.mean, view.smoothing), fields);
      } else addLine(lines, ...path(curve), fields);
    }
  }
  return [lineLayer("faint", faint, { isHovered: false }), lineLayer("lines", lines),
    pointLayer("points", points, [["", "@name"], ["", "@split"], ["value", "@y{0.[00000]a}"]], 11)];
}

// Value of a curve at a step, by linear interpolation; NaN outside it.
function valueAt(steps, values, step) {
  let low = 0;
  let high = steps.length - 1;
  if (step < steps[low] || step > steps[high]) return NaN;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle;
  }
  if (step === steps[low] || high === low) return values[low] ?? NaN;
  if (step === steps[high]) return values[high] ?? NaN;
  const [a, b] = [values[low], values[high]];
  if (a === null || b === null) return NaN;
  return a + ((b - a) * (step - steps[low])) / (steps[high] - steps[low]);
}

// Mean over seeds and its 95 % t interval at each step of the longest curve that half of them reach.
function overSeeds(numbers, name) {
  const curves = numbers.map((n) => view.data.runs[n].curves[name]).filter(Boolean);
  if (!curves.length) return null;
  const known = curves.map((curve) => [view.data.steps[curve.at], smoothed(curve.mean, view.smoothing)]);
  const steps = known.reduce((longest, [own]) => (own.length > longest.length ? own : longest), []);
  const rows = steps.map((step) => {
    const values = known.map(([own, means]) => valueAt(own, means, step)).filter((value) => !Number.isNaN(value));
    const count = values.length;
    if (2 * count < known.length || count < Math.min(2, known.length)) return [step, null, NaN];
    const mean = values.reduce((sum, value) => sum + value, 0) / count;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const quantile = view.data.quantiles[Math.min(count - 1, view.data.quantiles.length) - 1];
    return [step, mean, count > 1 ? quantile * Math.sqrt(squares / (count - 1) / count) : NaN];
  });
  return { rows, count: curves.length };
}

function seedLayers(names, shown, colors) {
  const { runs } = view.data;
  const lines = emptyLines();
  const bands = { xs: [], ys: [], color: [], alpha: [] };
  const points = emptyPoints();
  const groups = new Map();
  for (const n of shown) groups.set(runs[n].group, [...(groups.get(runs[n].group) ?? []), n]);
  const nameOf = (numbers) => (colors.byGroup ? colors.nameOf(numbers[0]) : "c0");
  const ordered = [...groups].sort(([, a], [, b]) => (nameOf(b) === "pale") - (nameOf(a) === "pale"));
  for (const [number, numbers] of ordered) {
    const colorName = nameOf(numbers);
    const isPale = colorName === "pale";
    for (const name of names) {
      const means = overSeeds(numbers, name);
      if (!means) continue;
      const split = splitOf(name);
      const style = LINE[split] ?? LINE.validation;
      const label = `${labelOf(number, true)}, ${counted(means.count, "seed")}`;
      const fields = { color: color(colorName), width: isPale ? 1 : style.width,
        alpha: isPale ? Math.max(0.15, Math.min(1, 40 / groups.size)) : style.alpha, name: label, split };
      const xs = means.rows.map((row) => row[0]);
      if (xs.length === 1) {
        const [[x], [y]] = visible(xs, [means.rows[0][1]]);
        addPoint(points, x, y, fields);
        continue;
      }
      addLine(lines, xs, means.rows.map((row) => row[1]), fields);
      const banded = isPale ? [] : means.rows.filter(([x, mean, half]) =>
        !Number.isNaN(half) && !(view.scales.has("y") && mean - half <= 0) && !(view.scales.has("x") && x <= 0));
      if (banded.length > 1) {
        bands.xs.push([...banded.map((row) => row[0]), ...banded.map((row) => row[0]).reverse()]);
        bands.ys.push([...banded.map((row) => row[1] + row[2]), ...banded.map((row) => row[1] - row[2]).reverse()]);
        bands.color.push(color(colorName));
        bands.alpha.push(split === "train" ? 0.08 : Math.max(0.08, 0.22 / Math.sqrt(colors.chosen.length)));
      }
    }
  }
  return [bandLayer(bands), lineLayer("lines", lines),
    pointLayer("points", points, [["", "@name"], ["", "@split"], ["value", "@y{0.[00000]a}"]], 11)];
}

function drawCurves(shown) {
  const metrics = metricNames();
  const splits = splitNames();
  byId("curves").hidden = !metrics.length;
  if (!metrics.length) return;
  const again = () => drawCurves(shownRuns());
  const [panels, togglePanel] = choice("panels", metrics.slice(0, FEW_PANELS), again);
  const [shownSplits, toggleSplit] = choice("splits", splits, again);
  const lines = hasGroups() ? view.lines ?? "seeds" : "runs";
  chips("lines", hasGroups() ? [["runs", "each run"], ["seeds", "mean over seeds"]] : [], (key) => lines === key,
    (key) => { view.lines = key; again(); });
  chips("splits", splits.map((name) => [name, name]), (key) => shownSplits.has(key), toggleSplit);
  chips("scales", [["y", "log y"], ["x", "log step"]], (key) => view.scales.has(key), (key) => { toggled(view.scales, key); again(); });
  boxes("metrics", metrics, (name) => panels.has(name), togglePanel);
  const colors = colorNames(shown);
  drawLegend(shown, colors, splits.filter((split) => shownSplits.has(split)), lines);
  const place = byId("panels");
  const wanted = metrics.filter((name) => panels.has(name));
  for (const panel of [...place.children]) if (!wanted.includes(panel.name)) forget(panel);
  for (const metric of wanted) {
    let panel = [...place.children].find((one) => one.name === metric);
    if (!panel) {
      panel = element("div", { className: "panel" }, element("h3", {}, metric), element("div", { className: "plot" }));
      panel.name = metric;
      place.append(panel);
    }
    const names = splits.filter((split) => shownSplits.has(split)).map((split) => `${split}/${metric}`);
    lazily(panel.lastChild, () => {
      const layers = (lines === "seeds" ? seedLayers : runLayers)(names, shown, colors);
      const settings = { logX: view.scales.has("x"), logY: view.scales.has("y") };
      panel.lastChild.setAttribute("role", "img");
      panel.lastChild.setAttribute("aria-label", `${metric} over steps, ${counted(shown.length, "run")}`);
      chart(panel.lastChild, settings, layers, (figure) => {
        firstOf(figure.xaxis).axis_label = "step";
        if (!view.scales.has("x")) firstOf(figure.xaxis).formatter = new Bokeh.NumeralTickFormatter({ format: "0,0" });
      });
    });
  }
}

function drawLegend(shown, colors, splits, lines) {
  const isOneMean = lines === "seeds" && !colors.byGroup;
  const items = (isOneMean ? [0] : colors.chosen).map((key, n) => {
    const line = element("i");
    line.style.background = `var(--c${n})`;
    return element("li", {}, line, isOneMean ? "mean over seeds" : labelOf(key, colors.byGroup));
  });
  const others = isOneMean ? 0 : colors.count - colors.chosen.length;
  if (others > 0) {
    const line = element("i");
    line.style.background = "var(--pale)";
    items.push(element("li", {}, line, counted(others, "other")));
  }
  const styles = splits.map((split) => SPLIT_NAMES[split] ?? split);
  items.push(element("li", { className: "muted" }, styles.join(", ")));
  byId("legend").replaceChildren(...items);
}
