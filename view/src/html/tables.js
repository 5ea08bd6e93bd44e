"use strict";
// Tables that sort and scroll; all text is put in as text, for a trace may hold anyone's.

const NOT_KNOWN = "–";

/** What a column is called, and how its values are shown: by the unit that its name ends with. */
function column(name) {
  const shown = { number: true, show: count };
  for (const [end, unit, per, digits] of [["_ns", "ms", 1e6, 3], ["_us", "ms", 1e3, 3], ["_ppb", "ppm", 1e3, 3]]) {
    if (name.endsWith(end)) {
      const show = (v) => (v / per).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
      return { ...shown, label: `${words(name.slice(0, -end.length))} (${unit})`, show };
    }
  }
  if (name.endsWith("_bytes")) return { ...shown, label: `${words(name.slice(0, -6))} (bytes)` };
  return { ...shown, label: words(name) };
}

function words(name) { return name.startsWith("snd_") || name.startsWith("max_snd_") ? name : name.replaceAll("_", " "); }

function count(value) { return value.toLocaleString("en-US"); }

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The element of a table; `open(row)` gives what the first cell does when it is pressed, or nothing. */
function tableOf(data, open = () => null) {
  const columns = data.columns.map(column);
  const numeric = data.columns.map((_, i) => data.rows.some((r) => typeof r[i] === "number"));
  const body = element("tbody");
  const heads = columns.map((c, i) => {
    const button = element("button", { type: "button" }, c.label);
    const head = element("th", { scope: "col", class: numeric[i] ? "number" : "text" }, button);
    button.addEventListener("click", () => sort(i));
    return head;
  });
  const rows = data.rows.map((row) => ({ row, tr: line(row) }));
  body.append(...rows.map((r) => r.tr));

  function line(row) {
    const tr = element("tr");
    row.forEach((value, i) => {
      const td = element("td", { class: numeric[i] ? "number" : "text" });
      const text = value === null ? NOT_KNOWN : typeof value === "number" ? columns[i].show(value) : String(value);
      const act = i === 0 ? open(row) : null;
      if (act) {
        const button = element("button", { type: "button" }, act.label ?? text);
        button.addEventListener("click", act.run);
        td.append(button);
      } else {
        td.textContent = text;
        if (text.length > 40) td.classList.add("long");
      }
      if (value !== null) td.dataset.value = value;
      tr.append(td);
    });
    return tr;
  }

  function sort(i) {
    const descending = heads[i].getAttribute("aria-sort") === "descending"
      ? false : heads[i].getAttribute("aria-sort") === "ascending" ? true : numeric[i];
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[i].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [a.row[i], b.row[i]];
      // what is not known comes last, whichever way
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (numeric[i] ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
    });
    body.append(...rows.map((r) => r.tr));
  }

  const head = element("thead", {}, element("tr", {}, ...heads));
  const box = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": data.title },
    element("table", {}, head, body));
  /** Shows the rows that hold all words of `text`; returns how many. */
  const search = (text) => {
    const wanted = text.toLowerCase().split(/\s+/);
    let found = 0;
    for (const { row, tr } of rows) {
      const held = row.map((v) => (v === null ? "" : String(v))).join(" ").toLowerCase();
      tr.hidden = !wanted.every((w) => held.includes(w));
      found += tr.hidden ? 0 : 1;
    }
    return found;
  };
  return { box, search };
}

/** A table under its title; nothing where it has no rows. */
function titled(data, ...more) {
  if (!data.rows.length) return [];
  return [element("h2", {}, data.title), tableOf(data, ...more).box];
}

function list(target, texts) {
  target.replaceChildren(...texts.map((text) => element("li", {}, text)));
}
