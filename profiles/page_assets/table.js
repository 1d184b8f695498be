// The table of measurements: sorted by any column, filtered by words and by status, with few or all columns.

const table = { sort: 0, descending: false, words: "", status: "", all: false };

// Four digits, and small numbers as people write tolerances: 1e-6.
function shortNumber(value) {
  return String(Number(value.toPrecision(4))).includes("e") || (value !== 0 && Math.abs(value) < 0.01)
    ? String(value.toExponential(3)).replace(/\.?0+e/, "e").replace("e+", "e") : String(Number(value.toPrecision(4)));
}

function median(samples) {
  const sorted = [...samples].sort((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// The value as it was stored, for whom the short text is not enough.
function exactText(column, value) {
  if (value === null || value === "") return "";
  if (column.kind === "reals") return value.map((sample) => `${sample} s`).join(", ");
  return column.unit && column.unit !== "UTC" ? `${value} ${column.unit}` : String(value);
}

function cellText(column, value) {
  if (value === null || value === "") return "";
  if (column.unit === "bytes") return formatBytes(value);
  if (column.kind === "reals") return value.length ? `${formatSeconds(median(value))} (n=${value.length})` : "";
  if (column.unit === "s") return formatSeconds(value);
  if (column.kind === "integer") return value.toLocaleString("en-US");
  if (column.kind === "real") return shortNumber(value);
  return String(value);
}

function compareCells(a, b) {
  if (a === null || a === "") return b === null || b === "" ? 0 : 1; // unknown goes last, whichever way it is sorted
  if (b === null || b === "") return -1;
  let difference;
  if (Array.isArray(a)) difference = (a.length ? median(a) : Infinity) - (b.length ? median(b) : Infinity);
  else if (typeof a === "number") difference = a - b;
  else difference = String(a).localeCompare(String(b), "en", { numeric: true });
  return table.descending ? -difference : difference;
}

function matchesWords(row, words) {
  const text = DATA.columns.map((column, index) => cellText(column, row.cells[index])).join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

function shownRows() {
  const words = table.words.toLowerCase().split(/\s+/).filter(Boolean);
  const status = DATA.columns.findIndex((column) => column.name === "status");
  return DATA.rows
    .filter((row) => isShown(row.case) && (!table.status || row.cells[status] === table.status))
    .filter((row) => matchesWords(row, words))
    .sort((one, other) => compareCells(one.cells[table.sort], other.cells[table.sort]));
}

function drawTable() {
  const columns = DATA.columns.map((column, index) => ({ ...column, index })).filter((c) => table.all || c.main > 0);
  if (!table.all) columns.sort((a, b) => a.main - b.main);
  const head = html("tr");
  for (const column of columns) {
    const sorted = column.index === table.sort;
    const button = html("button", { type: "button", title: column.meaning },
      column.title + (sorted ? (table.descending ? " ↓" : " ↑") : ""));
    button.addEventListener("click", () => {
      table.descending = sorted && !table.descending;
      table.sort = column.index;
      drawTable();
    });
    const order = sorted ? (table.descending ? "descending" : "ascending") : "none";
    const kind = column.kind === "text" || column.kind === "mapping" ? "text" : "figure";
    head.append(html("th", { scope: "col", class: kind, "aria-sort": order, "data-column": column.name }, button));
  }
  const rows = shownRows();
  const lines = rows.map((row) => {
    const line = html("tr");
    for (const column of columns) {
      const value = row.cells[column.index];
      const cell = html("td", { class: column.kind === "text" || column.kind === "mapping" ? "text" : "figure" },
        cellText(column, value));
      cell.title = exactText(column, value);
      if (column.name === "status") cell.classList.add(value === "ok" ? "ok" : "lost");
      line.append(cell);
    }
    return line;
  });
  document.querySelector("#measurements thead").replaceChildren(head);
  document.querySelector("#measurements tbody").replaceChildren(...lines);
  document.getElementById("row-count").textContent = `${rows.length} of ${DATA.rows.length} measurements`;
}

function startTable() {
  table.sort = DATA.columns.findIndex((column) => column.name === "measured_at");
  const status = DATA.columns.findIndex((column) => column.name === "status");
  const select = document.getElementById("status");
  for (const name of [...new Set(DATA.rows.map((row) => row.cells[status]))].sort()) {
    select.append(html("option", { value: name }, name));
  }
  select.addEventListener("change", () => { table.status = select.value; drawTable(); });
  const words = document.getElementById("words");
  words.addEventListener("input", () => { table.words = words.value; drawTable(); });
  const all = document.getElementById("all-columns");
  all.addEventListener("change", () => { table.all = all.checked; drawTable(); });
}
