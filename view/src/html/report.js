"use strict";
// What the page does: overview, one flow, keys, dark and light.

const byId = (id) => document.getElementById(id);
const readData = (id) => JSON.parse(byId(id).textContent);
const overview = readData("overview");
const graph = byId("graph");
let flowsShown = [];
let traceData = [];
let whole = {};

// dark and light: as the system has it, until the button is pressed
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
function paint() {
  const theme = chosen ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (flowsShown.length) draw(flowsShown, graph.layout && ranges());
}
system.addEventListener("change", paint);
byId("theme").addEventListener("click", () => {
  chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  paint();
});

function ranges() {
  const axes = Object.keys(graph.layout).filter((name) => /^[xy]axis\d*$/.test(name));
  return Object.fromEntries(axes.map((name) => [name, graph.layout[name].range]));
}

function draw(flows, kept) {
  flowsShown = flows;
  hideTip();
  const made = figure(flows, overview);
  traceData = made.data;
  whole = Object.fromEntries(PANELS.flatMap((_, p) => ["x", "y"].map((letter) => layoutKey(letter, p)))
    .filter((name) => made.layout[name] && !made.layout[name].matches && !made.layout[name].fixedrange)
    .map((name) => (made.layout[name].range ? [`${name}.range`, [...made.layout[name].range]] : [`${name}.autorange`, true])));
  for (const [name, range] of Object.entries(kept ?? {})) if (range) made.layout[name].range = range;
  const data = made.data.map(({ about, panel, ...trace }) => trace);
  const config = { responsive: true, displaylogo: false, doubleClick: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetScale2d"] };
  const drawn = Plotly.react(graph, data, made.layout, config);
  graph.removeAllListeners("plotly_hover");
  graph.removeAllListeners("plotly_unhover");
  graph.removeAllListeners("plotly_doubleclick");
  graph.on("plotly_hover", showTip);
  graph.on("plotly_unhover", hideTip);
  graph.on("plotly_doubleclick", showAll);
  return drawn;
}

function showAll() {
  // a copy: plotly.js keeps what it is given, and writes into it
  return Plotly.relayout(graph, structuredClone(whole));
}

function showTip({ points: [point], event }) {
  const tip = byId("tip");
  tip.textContent = traceData[point.curveNumber].about(point.pointNumber).join("\n");
  tip.hidden = false;
  const box = byId("graph-box");
  const edge = box.getBoundingClientRect();
  const left = event.clientX - edge.left + box.scrollLeft;
  const turned = left - box.scrollLeft > edge.width / 2;
  tip.style.left = `${Math.max(box.scrollLeft, turned ? left - tip.offsetWidth - 14 : left + 14)}px`;
  tip.style.top = `${Math.max(0, event.clientY - edge.top - tip.offsetHeight / 2)}px`;
}
function hideTip() { byId("tip").hidden = true; }

function zoom(by, shift = 0) {
  const [from, to] = graph.layout.xaxis.range;
  const middle = (from + to) / 2 + shift * (to - from), half = (to - from) / 2 * by;
  return showTime(middle - half, middle + half);
}

function showTime(from, to) {
  const seq = seqWithin(flowsShown, from, to) ?? graph.layout.yaxis.range;
  return Plotly.relayout(graph, { "xaxis.range": [from, to], "yaxis.range": [...seq] });
}
const graphKeys = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: showAll,
  ArrowLeft: () => zoom(1, -0.25), ArrowRight: () => zoom(1, 0.25) };

function tablesOf(flow) {
  const { totals, longest } = flow.waiting;
  byId("waiting").hidden = !flow.sent;
  byId("no-waiting").hidden = totals.rows.length > 0;
  byId("no-waiting").textContent =
    "No two segments with data were recorded as they were sent, so there is nothing to say of the time between.";
  const all = totals.rows.reduce((sum, row) => sum + row[2], 0);
  byId("waiting-bar").replaceChildren(...totals.rows.map(([reason, , total]) => {
    const part = element("span", { title: `${reason}: ${(100 * total / all).toFixed(1)} %` });
    part.style.flexGrow = total / all;
    part.style.background = reasonColour(reason);
    return part;
  }));
  const shares = { ...totals, columns: [...totals.columns, "share_of_the_time", "meaning"],
    rows: totals.rows.map((row) => [...row, `${(100 * row[2] / all).toFixed(1)} %`,
      overview.reasons.find(([reason]) => reason === row[0])?.[1] ?? "samples are missing between the two"]) };
  byId("waiting-bar").setAttribute("aria-label", shares.rows.map((row) => `${row[0]} ${row[4]}`).join(", "));
  const shown = tableOf(shares).box;
  for (const cell of shown.querySelectorAll("tbody td:first-child")) {
    const dot = element("span", { class: "dot" });
    dot.style.background = reasonColour(cell.textContent);
    cell.prepend(dot);
  }
  byId("waiting-totals").replaceChildren(...(totals.rows.length ? [shown] : []));
  byId("waiting-longest").replaceChildren(...titled(longest, ([start, gap]) => ({ run: () => showGap(start / 1e9, gap / 1e9) })));
  byId("flow-tables").replaceChildren(...flow.tables.flatMap((table) => titled(table)));
}

function showGap(start, length) {
  showTime(start - length * 0.25, start + length * 1.25);
  graph.scrollIntoView({ block: "nearest" });
  graph.focus({ preventScroll: true });
}

function openFlow(id) {
  const flow = readData(`flow-${id}`);
  byId("summary").hidden = true;
  byId("detail").hidden = false;
  byId("flow-title").textContent = nameOf(flow);
  byId("flow-source").textContent = (flow.sent ? "Data sent; " : "Data received; ") + sourceOf(flow);
  list(byId("flow-left-out"), flow.left_out.map((text) => `left out: ${text}`));
  Plotly.purge(graph);
  draw([flow]);
  tablesOf(flow);
  byId("flow-title").focus();
  window.scrollTo(0, 0);
}
function nameOf(flow) {
  return `Flow ${flow.id}: ${flow.local} ${flow.sent ? "→" : "←"} ${flow.remote}  ${flow.congestion}`;
}
function sourceOf(flow) {
  return flow.capture === null ? "from samples alone: no capture was joined" : `packets of ${flow.capture}, lines of the samples`;
}

function closeFlow(id) {
  byId("detail").hidden = true;
  byId("summary").hidden = false;
  flowsShown = [];
  Plotly.purge(graph);
  [...document.querySelectorAll("#flow-table td button")].find((b) => b.textContent === String(id))?.focus();
}

let shownId = null;
function route() {
  const id = Number(location.hash.match(/^#flow-(\d+)$/)?.[1] ?? NaN);
  if (overview.graphs.includes(id)) {
    shownId = id;
    openFlow(id);
  } else if (shownId !== null) {
    closeFlow(shownId);
    shownId = null;
  }
}
function back() { location.hash = ""; }

function report() {
  byId("title").textContent = `tcpprobe report: ${overview.trace}`;
  list(byId("left-out"), overview.left_out.map((text) => `left out: ${text}`));
  if (!overview.flows.rows.length) {
    byId("flows").replaceChildren(element("p", {}, "This trace holds no flows."));
  } else {
    const open = (id) => ({ label: String(id), run: () => { location.hash = `flow-${id}`; } });
    const table = tableOf(overview.flows, ([id]) => (overview.graphs.includes(id) ? open(id) : null));
    byId("flow-table").replaceChildren(table.box);
    const all = count(overview.flows.rows.length);
    const find = () => { byId("found").textContent = `${count(table.search(byId("search").value))} of ${all} flows`; };
    byId("search").addEventListener("input", find);
    find();
  }
  byId("tables").replaceChildren(...overview.tables.flatMap((table) => titled(table)));
  byId("back").addEventListener("click", back);
  window.addEventListener("hashchange", route);
  route();
}

/** Graphs alone, beside each other. */
function plot() {
  const flows = overview.graphs.map((id) => readData(`flow-${id}`));
  byId("title").textContent = `tcpprobe plot: ${overview.trace}`;
  for (const id of ["summary", "back", "escape"]) byId(id).hidden = true;
  byId("detail").hidden = false;
  byId("flow-title").textContent = flows.map(nameOf).join(" · ");
  byId("flow-source").textContent = flows.map((f) => `Flow ${f.id}: ${sourceOf(f)}`).join(" · ");
  list(byId("flow-left-out"), overview.left_out.map((left) => `left out: ${left}`));
  if (flows.length === 1) tablesOf(flows[0]);
  else byId("waiting").hidden = true;
  graph.style.minWidth = flows.length > 1 ? `${flows.length * 340}px` : "";
  draw(flows);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape" && typing) return event.target.blur();
  if (event.key === "Escape" && overview.report) return back();
  const rows = [...document.querySelectorAll("#flow-table tr:not([hidden]) td button")];
  if (flowsShown.length && !typing && graphKeys[event.key]) {
    event.preventDefault();
    graphKeys[event.key]();
  } else if (!flowsShown.length && event.key === "/" && !typing) {
    event.preventDefault();
    byId("search")?.focus();
  } else if (!flowsShown.length && rows.length && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    const next = rows.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    rows[Math.min(Math.max(next, 0), rows.length - 1)].focus();
  } else if (!flowsShown.length && event.key === "Enter" && event.target === byId("search")) {
    rows[0]?.click();
  }
});
for (const button of document.querySelectorAll("[data-key]")) {
  button.addEventListener("click", () => graphKeys[button.dataset.key]());
}

paint();
if (overview.report) report();
else plot();
// after what was drawn has come to the screen
requestAnimationFrame(() => setTimeout(() => performance.mark("drawn")));
