"use strict";
// The time-sequence graph with its panels: traces for plotly.js, of one flow or of several beside each other.

const PANELS = [
  { name: "sequence number", unit: " (bytes)", domain: [0.58, 1] },
  { name: "window", unit: " (bytes)", domain: [0.45, 0.56] },
  { name: "RTT", unit: " (ms)", domain: [0.35, 0.43] },
  { name: "rate", unit: " (bit/s)", domain: [0.25, 0.33] },
  { name: "ca_state", unit: "", domain: [0.125, 0.225] },
  { name: "waits for", unit: "", domain: [0, 0.1] },
];
/** Of panels with a lane for each name instead of an axis. */
const LANES = { 4: (overview) => overview.ca_states, 5: (overview) => overview.reasons.map(([reason]) => reason) };

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(); }

const REASON_COLOURS = { application: "grey", "receive window": "window", cwnd: "cwnd", pacing: "ack", recovery: "again" };
function reasonColour(reason) { return colour(REASON_COLOURS[reason] ?? "sack"); }

const seconds = (ns) => ns.map((t) => t / 1e9);

/** Upright bars from `low` to `high`, with what a hover at one of their points is about. */
function bars(name, colourName, rows, t_ns, low, high, about, width = 1.5) {
  const x = new Array(rows.length * 3), y = new Array(rows.length * 3);
  rows.forEach((row, i) => {
    const t = t_ns[row] / 1e9;
    x[3 * i] = t; x[3 * i + 1] = t; x[3 * i + 2] = null;
    y[3 * i] = low(row); y[3 * i + 1] = high(row); y[3 * i + 2] = null;
  });
  return { name, x, y, mode: "lines+markers", line: { color: colour(colourName), width },
    marker: { color: colour(colourName), size: width * 2, symbol: "square" }, about: (point) => about(rows[Math.floor(point / 3)]) };
}

function stairs(name, colourName, t_ns, y, about, dash = "solid") {
  return { name, x: seconds(t_ns), y, mode: "lines", about,
    line: { color: colour(colourName), width: 1.5, shape: "hv", dash } };
}

const rowsWhere = (length, is) => Array.from({ length }, (_, i) => i).filter(is);

function stateLines(of, i, overview) {
  const value = (v) => (v === null ? "not known" : count(v));
  const ms = (us) => (us === null ? "not known" : `${(us / 1e3).toFixed(3)} ms`);
  return [
    `snd_cwnd ${value(of.snd_cwnd[i])}`,
    `snd_ssthresh ${of.snd_ssthresh[i] === null ? "none or not known" : count(of.snd_ssthresh[i])}`,
    `bytes_in_flight ${value(of.bytes_in_flight[i])}`, `srtt ${ms(of.srtt_us[i])}`,
    `ca_state ${overview.ca_states[of.ca_state[i]] ?? "not known"}`,
  ];
}

function named(flow, of, i, overview) {
  const what = overview.matches[of.matched[i]];
  return what === "sample" ? `sample ${of.number[i]}` : `packet ${of.number[i]} · match ${what}`;
}

function traces(flow, overview) {
  const { segments: s, acks: a, states: st } = flow;
  const at = (t) => `${(t / 1e9).toFixed(6)} s`;
  const aboutSegment = (i) => [
    (s.packets[i] > 1 ? `${s.packets[i]} packets as one, the first: ` : "") + named(flow, s, i, overview), at(s.t_ns[i]),
    `seq ${count(s.start[i])} – ${count(s.end[i])}, ${count(s.end[i] - s.start[i])} bytes`,
    ...(s.again[i] ? [flow.sent ? "retransmission" : "again, or out of order"] : []), ...stateLines(s, i, overview),
  ];
  const aboutAck = (i) => [
    `ACK: ${named(flow, a, i, overview)}`, at(a.t_ns[i]), `ack ${count(a.ack[i])}`,
    `window ${a.window_end[i] === null ? "not known" : `${count(a.window_end[i] - a.ack[i])} bytes`}`,
    ...(a.sacked_bytes[i] ? [`SACKed ${count(a.sacked_bytes[i])} bytes`] : []), ...stateLines(a, i, overview),
  ];
  const line = (name, unit, values) => (i) => [`${name}: ${count(values[i])} ${unit}`, at(st.t_ns[i])];
  const segments = (again) => rowsWhere(s.t_ns.length, (i) => Boolean(s.again[i]) === again);
  const bar = (name, c, rows, width) => bars(name, c, rows, s.t_ns, (i) => s.start[i], (i) => s.end[i], aboutSegment, width);
  const panel = (n, ...all) => all.map((trace) => ({ ...trace, panel: n }));
  const ms = (values) => values.map((v) => (v === null ? null : v / 1e3));
  const bits = (values) => values.map((v) => (v === null ? null : v * 8));
  const lines = (n, unit, ...all) => panel(n, ...all.map(([name, c, values, dash]) =>
    stairs(name, c, st.t_ns, values, line(name, unit, values), dash)));
  const sacked = rowsWhere(a.t_ns.length, (i) => a.sacked_bytes[i] > 0);
  const shut = rowsWhere(a.t_ns.length, (i) => a.window_end[i] === a.ack[i]);
  const limit = st.una.map((una, i) => (una === null || st.cwnd_bytes[i] === null ? null : una + st.cwnd_bytes[i]));
  return [
    ...panel(0, stairs("receive window", "window", a.t_ns, a.window_end, aboutAck)),
    ...(flow.sent ? lines(0, "bytes", ["snd_una + cwnd", "cwnd", limit, "dash"]) : []),
    ...panel(0, stairs("ACK", "ack", a.t_ns, a.ack, aboutAck),
      bars("SACKed, how much", "sack", sacked, a.t_ns, (i) => a.ack[i], (i) => a.ack[i] + a.sacked_bytes[i], aboutAck),
      bar("segment", "segment", segments(false), 1.5),
      bar(flow.sent ? "retransmission" : "again or out of order", "again", segments(true), 3),
      { name: "window of zero", x: shut.map((i) => a.t_ns[i] / 1e9), y: shut.map((i) => a.ack[i]), mode: "markers",
        marker: { color: colour("sack"), symbol: "x", size: 9 }, about: (point) => aboutAck(shut[point]) }),
    ...lines(1, "bytes", ["bytes in flight", "grey", st.in_flight], ["ssthresh", "orange", st.ssthresh_bytes, "dash"],
      ["cwnd", "cwnd", st.cwnd_bytes]),
    ...lines(2, "ms", ["srtt", "cwnd", ms(st.srtt_us)], ["min_rtt", "ack", ms(st.min_rtt_us), "dash"]),
    ...lines(3, "bit/s", ["delivery rate", "ack", bits(st.delivery_rate)], ["pacing rate", "orange", bits(st.pacing_rate), "dash"]),
    ...panel(4, stairs("ca_state", "loss", st.t_ns, st.ca_state,
      (i) => [`ca_state ${overview.ca_states[st.ca_state[i]] ?? "not known"}`, at(st.t_ns[i])])),
    ...panel(5, ...waits(flow, overview)),
  ].filter((trace) => trace.y.some((y) => y !== null));
}

/** A lane for each reason. */
function waits(flow, overview) {
  const runs = flow.waiting.runs;
  return overview.reasons.map(([reason], lane) => {
    const rows = rowsWhere(runs.reason.length, (i) => runs.reason[i] === reason);
    const between = (begin, end, gap) => rows.flatMap((i) => [begin(i), end(i), gap]);
    return {
      name: `waits: ${reason}`, mode: "lines", line: { color: reasonColour(reason), width: 7 },
      x: between((i) => runs.from_ns[i] / 1e9, (i) => runs.to_ns[i] / 1e9, null), y: between(() => lane, () => lane, null),
      about: (point) => {
        const i = rows[Math.floor(point / 3)];
        const [from, length] = [runs.from_ns[i] / 1e9, (runs.to_ns[i] - runs.from_ns[i]) / 1e6];
        return [`waits: ${reason}`, `${from.toFixed(6)} s, for ${length.toFixed(3)} ms`];
      },
    };
  });
}

/** plotly.js counts axes x, x2, x3, …: each flow has an x axis, and one y axis for each panel. */
const axis = (letter, n) => (n === 0 ? letter : `${letter}${n + 1}`);
const layoutKey = (letter, n) => `${letter}axis${n === 0 ? "" : n + 1}`;

function figure(flows, overview) {
  const style = { color: colour("ink"), gridcolor: colour("edge"), linecolor: colour("edge"), zeroline: false };
  const narrow = window.innerWidth < 600;
  const layout = {
    paper_bgcolor: colour("page"), plot_bgcolor: colour("page"), font: { color: colour("ink"), size: 12 },
    margin: { l: narrow ? 74 : 92, r: 10, t: 30, b: 40 }, hovermode: "closest", dragmode: "zoom", hoverdistance: 12,
    legend: { orientation: "h", y: narrow ? -0.08 : -0.06, yanchor: "top", font: { size: narrow ? 10 : 12 } }, uirevision: "stays",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("faint"), activecolor: colour("link") }, annotations: [],
  };
  const data = [];
  flows.forEach((flow, f) => {
    const width = 1 / flows.length, gap = flows.length > 1 ? 0.02 : 0;
    const domain = [f * width + (f ? gap : 0), (f + 1) * width];
    layout[layoutKey("x", f)] = { ...style, domain, title: { text: "seconds since the flow's start", standoff: 6 },
      anchor: axis("y", f * PANELS.length + PANELS.length - 1), ...(f ? { matches: "x" } : {}) };
    PANELS.forEach((panel, p) => {
      const n = f * PANELS.length + p;
      layout[layoutKey("y", n)] = { ...style, domain: panel.domain, anchor: axis("x", f), showticklabels: f === 0,
        title: f || LANES[p] ? {} : { text: panel.name + (narrow ? "" : panel.unit), font: { size: 11 } },
        ...(f ? { matches: axis("y", p) } : {}) };
      if (!LANES[p]) return;
      const names = LANES[p](overview);
      Object.assign(layout[layoutKey("y", n)], { tickvals: names.map((_, i) => i), ticktext: names,
        range: [-0.6, names.length - 0.4], fixedrange: true, tickfont: { size: 10 } });
      layout.annotations.push({ text: panel.name, showarrow: false, xref: "paper", yref: "paper", x: domain[0], y: panel.domain[1],
        xanchor: "left", yanchor: "bottom", font: { size: 11 } });
    });
    if (flows.length > 1) {
      layout.annotations.push({ text: `Flow ${flow.id}`, showarrow: false, xref: "paper", yref: "paper",
        x: (domain[0] + domain[1]) / 2, y: 1.03 });
    }
    for (const trace of traces(flow, overview)) {
      const n = f * PANELS.length + trace.panel;
      data.push({ ...trace, type: "scatter", hoverinfo: "none", xaxis: axis("x", f), yaxis: axis("y", n),
        showlegend: f === 0 && !LANES[trace.panel], legendgroup: trace.name, connectgaps: false });
    }
  });
  frame(layout, flows, overview);
  return { data, layout };
}

/** What is shown first: what was asked for, else all that is sent, and no more of a far receive window than a quarter. */
function frame(layout, flows, overview) {
  const range = (asked, least, most) => [asked[0] ?? least, asked[1] ?? most];
  const each = (of) => flows.flatMap(of).filter((v) => v !== undefined && v !== null);
  const top = (values) => values.reduce((most, v) => Math.max(most, v ?? most), 0);
  const ends = each((f) => [f.segments.t_ns, f.states.t_ns].flatMap((t) => [t[0], t.at(-1)]));
  const from = Math.min(...ends) / 1e9, to = Math.max(...ends) / 1e9;
  const air = Math.max((to - from) * 0.01, 1e-6);
  layout.xaxis.range = range(overview.x_s, from - air, to + air);
  const sent = Math.max(1, ...flows.map((f) => top(f.segments.end)));
  const lowest = Math.min(0, ...flows.map((f) => f.segments.start.reduce((least, v) => Math.min(least, v), 0)));
  const window_ = Math.max(...flows.map((f) => top(f.acks.window_end)), 0);
  // rates of a few moments, far above the rest, would press the others flat
  const rates = each((f) => [...f.states.delivery_rate, ...f.states.pacing_rate]).sort((a, b) => a - b);
  const most = rates.at(-1), usual = rates[Math.floor(rates.length * 0.98)];
  // axes that match each other do not find a range by themselves
  const upTo = (panel, highest) => { layout[layoutKey("y", panel)].range = [0, (highest || 1) * 1.06]; };
  upTo(1, Math.max(...flows.flatMap((f) => [f.states.in_flight, f.states.ssthresh_bytes, f.states.cwnd_bytes].map(top))));
  upTo(2, Math.max(...flows.map((f) => Math.max(top(f.states.srtt_us), top(f.states.min_rtt_us)))) / 1e3);
  upTo(3, (most > 2 * usual ? usual * 1.2 : most) * 8);
  layout.yaxis.range = range(overview.y_bytes, lowest - sent * 0.02, Math.max(sent * 1.05, Math.min(window_ * 1.02, sent * 1.25)));
}

/** The sequence numbers within a part of the time, with the ACKs that hold at its begin and its end. */
function seqWithin(flows, from, to) {
  let low = Infinity, high = -Infinity;
  const take = (v) => {
    if (v === null || v === undefined) return;
    low = Math.min(low, v);
    high = Math.max(high, v);
  };
  for (const { segments: s, acks: a } of flows) {
    for (let i = 0; i < s.t_ns.length; i++) {
      if (s.t_ns[i] >= from * 1e9 && s.t_ns[i] <= to * 1e9) { take(s.start[i]); take(s.end[i]); }
    }
    take(a.ack[a.t_ns.findLastIndex((t) => t <= from * 1e9)]);
    take(a.ack[a.t_ns.findLastIndex((t) => t <= to * 1e9)]);
  }
  const air = Math.max((high - low) * 0.1, 3000);
  return high < low ? null : [low - air, high + air];
}
