"use strict";
// Pictures of the runs side by side, and the details of one or two runs.

const MOST_SHOWN = 48; // pictures of one kind

function drawPictures(shown) {
  const { runs, metric } = view.data;
  const kinds = [...new Set(runs.flatMap((run) => Object.keys(run.pictures)))].sort(collator.compare);
  byId("pictures").hidden = !kinds.length;
  if (!kinds.length) return;
  const all = shown.length <= 2;
  const first = all ? "" : kinds.find((kind) => kind.includes("confusion")) ?? kinds[0];
  const chosen = view.kind === "" || kinds.includes(view.kind) ? view.kind : first;
  options(byId("picture-kind"), [["", "all"], ...kinds.map((kind) => [kind, kind])], chosen);
  const figures = [];
  for (const n of ranked(shown)) {
    for (const [kind, address] of Object.entries(runs[n].pictures)) {
      if (chosen && kind !== chosen) continue;
      if (!/^data:image\/webp;base64,[A-Za-z0-9+/=]+$/.test(address)) continue;
      const value = runs[n].results[metric];
      const caption = `${runs[n].name}${chosen ? "" : `, ${kind}`}${value === undefined ? "" : `, ${metric} ${format(value)}`}`;
      figures.push(element("figure", {}, element("img", { src: address, alt: `${kind} of ${runs[n].name}`, loading: "lazy" }),
        element("figcaption", {}, caption)));
    }
  }
  byId("gallery").replaceChildren(...figures.slice(0, MOST_SHOWN));
  const having = runs.filter((run) => Object.keys(run.pictures).length).length;
  const notes = [];
  if (having < runs.length) notes.push(`${having} of ${format(runs.length)} runs have pictures here: a page keeps those of the best runs, as far as they fit.`);
  if (figures.length > MOST_SHOWN) notes.push(`The first ${MOST_SHOWN} of ${figures.length} are shown.`);
  byId("gallery-note").textContent = notes.join(" ");
}

function copyButton(text) {
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed for a file in some browsers
      const area = element("textarea", { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

function card(run) {
  const { data } = view;
  const mark = element("span", { className: run.state, "aria-hidden": "true" }, MARKS[run.state] + " ");
  const made = element("div", { className: "card" }, element("h3", {}, run.name), element("p", { className: "muted" }, mark, run.state));
  for (const note of run.notes) made.append(element("p", { className: "notice" }, note));
  const list = element("dl");
  const entry = (name, ...value) => list.append(element("dt", {}, name), element("dd", {}, ...value));
  for (const name of data.metrics.slice(0, FEW_COLUMNS)) if (name in run.results) entry(name, format(run.results[name]));
  if (run.data[0]) entry("data", run.data[0]);
  const commit = run.state === "unreadable" ? undefined : run.facts.commit ?? data.facts.commit;
  if (commit) entry("commit", element("code", {}, commit));
  for (const [name, value] of Object.entries(run.digests)) entry(`SHA-256 of ${name}`, element("code", {}, value));
  made.append(list);
  const command = element("div", { className: "command" });
  if (run.command) command.append(element("p", { className: "muted" }, "Makes this run again: "), copyButton(run.command), element("pre", { className: "code", tabIndex: 0 }, run.command));
  else command.append(element("p", { className: "muted" }, "No command: the config is not known, or not safe to copy into a terminal."));
  made.append(command);
  return made;
}

function differenceTable(title, names, first, second, isSame) {
  const rows = names.filter((name) => !isSame(first(name), second(name))).map((name) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, format(first(name))), element("td", {}, format(second(name)))));
  if (!rows.length) return [element("h3", {}, title), element("p", { className: "muted" }, "No difference.")];
  const head = element("tr", {}, ...["", "run", "beside"].map((text) => element("th", { scope: "col" }, text)));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return [element("h3", {}, title), element("div", { className: "scroll", tabIndex: 0 }, table)];
}

function drawDetail() {
  const { data } = view;
  const names = data.runs.map((run) => run.name);
  const best = ranked(names.map((_, n) => n));
  const first = names.includes(view.a) ? view.a : names[best[0]];
  const others = best.map((n) => names[n]).filter((name) => name !== first);
  const second = view.b === "" || names.includes(view.b) ? view.b : others[0] ?? "";
  options(byId("run-a"), names.map((name) => [name, name]), first);
  options(byId("run-b"), [["", "none"], ...names.map((name) => [name, name])], second);
  byId("run-b").parentElement.hidden = names.length < 2;
  const a = data.runs[names.indexOf(first)];
  const b = second === "" ? null : data.runs[names.indexOf(second)];
  byId("cards").replaceChildren(card(a), ...(b ? [card(b)] : []));
  const tables = [];
  if (b) {
    const union = (part) => [...new Set([...Object.keys(a[part]), ...Object.keys(b[part])])];
    const same = (x, y) => x === y;
    tables.push(...differenceTable("Config", union("config"), (name) => a.config[name], (name) => b.config[name], same));
    tables.push(...differenceTable("Environment", union("facts"), (name) => a.facts[name], (name) => b.facts[name], same));
    tables.push(...differenceTable("Results", union("results"), (name) => a.results[name], (name) => b.results[name], same));
  } else {
    const all = a.state === "unreadable" ? a.config : { ...data.config, ...a.config };
    tables.push(...differenceTable("Config", Object.keys(all), (name) => all[name], () => undefined, () => false));
  }
  byId("differences").replaceChildren(...tables);
}
