// Tables: rows out of packed columns, and one way to show them, sorted by any column, a part at a time.

const PART = 200; // rows that are written at once

function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function unpack(packed) {
  const columns = Object.entries(packed.columns).map(([name, column]) => [name, Array.isArray(column) ? (row) => column[row]
    : column.codes ? (row) => column.levels[column.codes[row]] : () => column.levels[0]]);
  return Array.from({ length: packed.rows }, (_, row) => Object.fromEntries(columns.map(([name, at]) => [name, at(row)])));
}

function median(samples) {
  const sorted = [...samples].sort((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// The value as it was stored, for whom the short text is not enough.
function exactText(column, value) {
  if (value === null || value === "") return "";
  if (Array.isArray(value)) return value.map((sample) => `${sample} s`).join(", ");
  return column.unit && column.unit !== "UTC" ? `${value} ${column.unit}` : String(value);
}

function cellText(column, value) {
  if (value === null || value === "") return "";
  if (column.unit === "bytes") return formatBytes(value);
  if (Array.isArray(value)) return value.length ? `${formatSeconds(median(value))} (n=${value.length})` : "";
  if (column.unit === "s") return formatSeconds(value);
  return typeof value === "number" ? formatCount(value) : String(value);
}

function compareCells(a, b, descending) {
  if (a === null || a === "") return b === null || b === "" ? 0 : 1; // unknown goes last, whichever way it is sorted
  if (b === null || b === "") return -1;
  let difference;
  if (Array.isArray(a)) difference = (a.length ? median(a) : Infinity) - (b.length ? median(b) : Infinity);
  else if (typeof a === "number" && typeof b === "number") difference = a - b;
  else difference = String(a).localeCompare(String(b), "en", { numeric: true });
  return descending ? -difference : difference;
}

// Show `rows` in `host`; `view` keeps by which column they are sorted and how many are written. A column may name in `link`
// where its rows keep what a cell leads to.
function showTable(host, columns, rows, view) {
  const again = () => showTable(host, columns, rows, view);
  const column = columns.find((one) => one.name === view.sort);
  const sorted = column ? [...rows].sort((a, b) => compareCells(a[view.sort], b[view.sort], view.descending)) : rows;
  const head = html("tr", {}, ...columns.map((one) => {
    const here = one === column, text = here ? one.title + (view.descending ? " ↓" : " ↑") : one.title;
    const button = html("button", { type: "button", title: one.meaning ?? "" }, text);
    button.addEventListener("click", () => { view.descending = here && !view.descending; view.sort = one.name; again(); });
    const order = here ? (view.descending ? "descending" : "ascending") : "none";
    return html("th", { scope: "col", class: kindOf(one, rows), "aria-sort": order, "data-column": one.name }, button);
  }));
  const lines = sorted.slice(0, view.shown ??= PART).map((row) => html("tr", {}, ...columns.map((one) => {
    const text = cellText(one, row[one.name]), shown = one.link && row[one.link] ? html("a", { href: row[one.link] }, text) : text;
    const cell = html("td", { class: kindOf(one, rows), title: exactText(one, row[one.name]) }, shown);
    if (one.name === "status") cell.classList.add(row.status === "ok" ? "ok" : "lost");
    return cell;
  })));
  const made = [html("table", {}, html("thead", {}, head), html("tbody", {}, ...lines))];
  if (sorted.length > view.shown) {
    const more = html("button", { type: "button", class: "more" }, `${formatCount(sorted.length - view.shown)} more rows`);
    more.addEventListener("click", () => { view.shown *= 5; again(); });
    made.push(more);
  }
  host.replaceChildren(...made);
}

function kindOf(column, rows) {
  const known = rows.find((row) => row[column.name] !== null && row[column.name] !== "");
  return known && typeof known[column.name] === "string" ? "text" : "figure";
}
