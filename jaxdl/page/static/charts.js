"use strict";
// Charts on a canvas by Bokeh. A chart that only gets new data keeps its view and its zoom.

const charts = new Map(); // by place
const HOVER = { line: [["", "@name"], ["", "@split"], ["step", "$snap_x{0,0}"], ["value", "$snap_y{0.[00000]a}"]] };

// Bokeh would read such signs in a label as TeX.
const plain = (text) => String(text).replace(/\$\$|\\[[(]/g, (found) => `${found[0]} ${found[1]}`);

const firstOf = (parts) => [...parts][0]; // of the axes of a figure

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.isNear = isIntersecting;
    if (isIntersecting && target.draw) drawNow(target);
  }
}, { rootMargin: "300px" });

function drawNow(place) {
  const { draw } = place;
  place.draw = null;
  draw();
}

// Draws once the place comes near the window.
function lazily(place, draw) {
  place.draw = draw;
  if (place.isNear) drawNow(place);
  else observer.observe(place);
}

function newFigure({ logX = false, logY = false, height = 260, tools = "box_zoom,reset,save", ...more }) {
  const figure = Bokeh.Plotting.figure({
    height, sizing_mode: "stretch_width", tools, toolbar_location: "above", toolbar_inner: true, output_backend: "canvas",
    x_axis_type: logX ? "log" : "linear", y_axis_type: logY ? "log" : "linear",
    background_fill_color: color("card"), border_fill_color: color("page"), outline_line_color: null,
    min_border_left: 56, min_border_right: 12, ...more,
  });
  figure.toolbar.logo = null;
  figure.toolbar.autohide = true;
  for (const grid of [...figure.xgrid, ...figure.ygrid]) grid.grid_line_color = color("grid");
  for (const axis of [...figure.xaxis, ...figure.yaxis]) {
    Object.assign(axis, {
      axis_line_color: color("line"), major_tick_line_color: color("line"), minor_tick_line_color: null,
      major_label_text_color: color("muted"), major_label_text_font_size: "11px",
      axis_label_text_color: color("muted"), axis_label_text_font_size: "11px", axis_label_text_font_style: "normal",
    });
  }
  return figure;
}

// Ticks at 1, 2 and 5 times powers of ten, where Bokeh's own would be too few: on a logarithmic axis
// whose values span less than two decades. Of less than half a decade round steps are closer.
function logTicker(layers, name) {
  let low = Infinity;
  let high = 0;
  const see = (value) => {
    if (!(value > 0)) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  };
  for (const { data } of layers) for (const one of data[name] ?? data[`${name}s`] ?? []) [one].flat().forEach(see);
  if (!(low <= high) || high >= 100 * low) return [];
  if (high < 3.2 * low) return ["steps"];
  const first = Math.floor(Math.log10(low)) - 1;
  const decades = Array.from({ length: Math.ceil(Math.log10(high)) - first + 2 }, (_, n) => first + n);
  return decades.flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
}

function setTicks(axis, ticks) {
  if (!ticks.length) return;
  const isFixed = ticks[0] !== "steps";
  axis.ticker = isFixed ? new Bokeh.FixedTicker({ ticks, minor_ticks: [] }) : new Bokeh.BasicTicker({ num_minor_ticks: 0 });
  axis.formatter = new Bokeh.BasicTickFormatter();
  if (isFixed) axis.major_label_overrides = new Map(ticks.map((tick) => [tick, format(tick)]));
}

// Draws layers in a place: each has a kind, data by column, and a function that adds its glyph. With
// other labels, which `finish` sets, the figure is made anew.
function chart(place, { labels = [], ...settings }, all, finish = () => {}) {
  const layers = all.filter((layer) => Object.values(layer.data)[0].length);
  const ticks = [settings.logX ? logTicker(layers, "x") : [], settings.logY ? logTicker(layers, "y") : []];
  const signature = JSON.stringify([settings, labels, ticks, layers.map((layer) => layer.kind)]);
  const old = charts.get(place);
  if (old && old.signature === signature) {
    layers.forEach((layer, n) => { old.sources[n].data = layer.data; });
    return;
  }
  const figure = newFigure(settings);
  const sources = layers.map((layer) => new Bokeh.ColumnDataSource({ data: layer.data }));
  layers.forEach((layer, n) => layer.add(figure, sources[n]));
  setTicks(firstOf(figure.xaxis), ticks[0]);
  setTicks(firstOf(figure.yaxis), ticks[1]);
  finish(figure);
  const made = { signature, sources };
  charts.set(place, made);
  const shown = (old?.shown ?? Promise.resolve()).then(() => {
    place.replaceChildren();
    return Bokeh.Plotting.show(figure, place);
  });
  made.shown = shown.catch((error) => { place.textContent = String(error); });
}

function forget(place) {
  charts.delete(place);
  observer.unobserve(place);
  place.remove();
}

function addHover(figure, renderers, tooltips, more = {}) {
  figure.add_tools(new Bokeh.HoverTool({ renderers, tooltips, ...more }));
}

function lineLayer(kind, data, { isHovered = true, alpha } = {}) {
  const add = (figure, source) => {
    const lines = figure.multi_line({ field: "xs" }, { field: "ys" }, {
      source, line_color: { field: "color" }, line_width: { field: "width" },
      line_alpha: alpha ?? { field: "alpha" }, line_join: "round",
      ...(isHovered ? { hover_line_alpha: 1, hover_line_color: color("text") } : {}),
    });
    if (isHovered) addHover(figure, [lines], HOVER.line, { line_policy: "nearest", limit: 3 });
  };
  return { kind, data, add };
}

function pointLayer(kind, data, tooltips, size = 8) {
  const add = (figure, source) => {
    const points = figure.scatter({ field: "x" }, { field: "y" }, {
      source, marker: "marker" in data ? { field: "marker" } : "circle", size, fill_color: { field: "color" }, fill_alpha: 0.85,
      line_color: color("card"), line_width: 1, hover_line_color: color("text"),
    });
    addHover(figure, [points], tooltips, { limit: 4 });
  };
  return { kind, data, add };
}

function bandLayer(data) {
  const add = (figure, source) => figure.patches({ field: "xs" }, { field: "ys" }, {
    source, fill_color: { field: "color" }, fill_alpha: { field: "alpha" }, line_color: null,
  });
  return { kind: "bands", data, add };
}
