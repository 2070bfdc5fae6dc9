"use strict";
// Start: unpacks the content, draws everything, and fetches it again where a server keeps it fresh.

const POLL = 2000; // milliseconds

function draw() {
  const shown = shownRuns();
  drawHeader();
  drawTable(shown);
  byId("note").textContent = hasGroups() ? view.data.note : "";
  drawCurves(shown);
  drawFlags(shown);
  drawLineage(shown);
  drawPictures(shown);
  drawDetail();
}

// Without runs the page is a message alone.
function showMessage(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
  document.body.classList.toggle("empty", Boolean(text));
}

function show(data) {
  // Names are of strangers: one such as `constructor` must not be found where it is not.
  for (const one of [...data.runs, ...data.groups, data]) {
    for (const part of Object.values(one)) {
      if (part && typeof part === "object" && !Array.isArray(part)) Object.setPrototypeOf(part, null);
    }
  }
  view.data = data;
  draw();
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function listen() {
  let waiting = 0;
  byId("filter").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { view.words = event.target.value; draw(); }, 120);
  });
  byId("smoothing").addEventListener("input", (event) => {
    view.smoothing = Number(event.target.value);
    byId("smoothed").textContent = event.target.value;
    drawCurves(shownRuns());
  });
  const choose = (id, key, then) => byId(id).addEventListener("change", (event) => { view[key] = event.target.value; then(); });
  choose("flag-metric", "flagMetric", () => drawFlags(shownRuns()));
  choose("picture-kind", "kind", () => drawPictures(shownRuns()));
  choose("run-a", "a", drawDetail);
  choose("run-b", "b", drawDetail);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colorValues.clear();
    for (const made of charts.values()) made.signature = "";
    draw();
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
  });
}

// Fetches the content whenever it has changed. The address has the token.
async function follow() {
  let digest = "";
  let problem = "";
  for (;;) {
    try {
      const answer = await fetch(`content${location.search}&have=${digest}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      if (answer.status === 200) {
        const data = await answer.json();
        digest = answer.headers.get("X-Digest") ?? "";
        problem = data.problem;
        showMessage(problem);
        if (!problem) show(data);
      }
      const isRunning = view.data?.runs.some((run) => run.state === "running");
      byId("live").textContent = problem ? "· live, no run" : isRunning ? "· live" : "· live, no run in progress";
    } catch {
      byId("live").textContent = "· the server does not answer";
    }
    document.body.dataset.ready = "1";
    await new Promise((resolve) => { setTimeout(resolve, POLL); });
  }
}

async function start() {
  listen();
  const text = byId("content").textContent.trim();
  if (text) {
    show(await unpacked(text));
    document.body.dataset.ready = "1";
  } else {
    showMessage("Reading the runs ...");
    await follow();
  }
}

start();
