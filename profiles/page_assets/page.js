// The page: what is shown, the budget, and everything that follows from the two.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = Object.fromEntries(Object.entries(DATA.datasets).map(([name, packed]) => [name, unpack(packed)]));
const MEASUREMENTS = unpack(DATA.measurements);
const LOG_LOW = Math.log(DATA.slider.low), LOG_HIGH = Math.log(DATA.slider.high);
const POINTS = Map.groupBy(ROWS.points, (point) => point.case);
const STEPS = new Map(ROWS.steps.map((one) => [one.case, one.steps]));
const CASES = new Map(DATA.cases.map((one) => [one.case, one]));
const state = {
  budget: DATA.budget_bytes ?? DATA.slider.start, // bytes
  moved: DATA.budget_bytes === null, // whether the reader moved the budget away from the report's own
  hidden: { horizon_text: new Set(), setting: new Set() },
  tree: null, // the case whose tree is shown
  words: "", status: "", all: false, table: { sort: "measured_at", descending: false }, beside: {},
};

const isShown = (row) => !row.case || ["horizon_text", "setting"].every((name) => !state.hidden[name].has(CASES.get(row.case)[name]));
const shownCases = () => DATA.cases.filter(isShown);

// The fastest measured choice that fits; by recompute factor where nothing was timed. The rule of the whole project:
// least seconds within the budget, and of equals the one with fewer bytes.
function choose(name, budget) {
  const all = POINTS.get(name) ?? [], found = all.filter((point) => point.measured);
  const cost = found.some((point) => point.run_seconds !== null) ? "run_seconds" : "recompute_factor";
  const known = found.filter((point) => point[cost] !== null);
  const bySize = (a, b) => a.peak_bytes - b.peak_bytes;
  const better = (a, b) => (a[cost] - b[cost]) || bySize(a, b) || (a.checkpoints - b.checkpoints);
  const smallest = [...known].sort(bySize)[0] ?? null;
  const report = state.moved ? null : all.find((point) => point.mark === "recommended");
  const chosen = report ?? known.filter((point) => point.peak_bytes <= budget).sort(better)[0] ?? null;
  if (!chosen) return { chosen, smallest, cost };
  const more = known.filter((p) => p.peak_bytes > chosen.peak_bytes && p[cost] < chosen[cost]).sort(bySize)[0];
  const less = known.filter((p) => p.peak_bytes < chosen.peak_bytes).sort(better)[0];
  return { chosen, smallest, cost, more, less, evidence: report ? DATA.evidence[name] : "measured" };
}

// --- controls

function startControls() {
  const slider = document.getElementById("budget"), field = document.getElementById("budget-text");
  slider.addEventListener("input", () => setBudget(Math.exp(LOG_LOW + (Number(slider.value) / 1000) * (LOG_HIGH - LOG_LOW))));
  field.addEventListener("change", () => {
    const bytes = parseBytes(field.value);
    field.setCustomValidity(bytes === null ? "write bytes as 6GiB, 500 MB or a number" : "");
    field.reportValidity();
    if (bytes !== null) setBudget(bytes);
  });
  const reset = document.getElementById("reset");
  reset.hidden = DATA.budget_bytes === null;
  reset.addEventListener("click", () => setBudget(DATA.budget_bytes));
  drawChips("horizon_text");
  drawChips("setting");
  const themes = ["auto", "light", "dark"], theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${next}`;
  });
}

function swatch(look) {
  const make = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const svg = make("svg", { class: "swatch", width: 26, height: 14, viewBox: "-13 -7 26 14", "aria-hidden": "true" });
  svg.append(make("path", { d: "M-12,0H12", stroke: look.colour, "stroke-width": 1.6, "stroke-dasharray": look.dash }));
  if (look.marker) svg.append(make("path", { d: look.marker, fill: look.colour, transform: "scale(4)" }));
  return svg;
}

// One box for each horizon, and one for each setting, with the part of the look that it decides.
function drawChips(name) {
  const other = name === "setting" ? "horizon_text" : "setting", host = document.getElementById(`${name}-chips`);
  const groups = Map.groupBy(DATA.cases, (one) => one[name]), alone = new Set(DATA.cases.map((one) => one[other])).size === 1;
  document.getElementById(`${name}-group`).hidden = groups.size < 2;
  for (const [text, [{ look }]] of groups) {
    const part = alone ? look : name === "setting" ? { ...look, colour: "var(--ink)" } : { ...look, marker: "", dash: "" };
    const box = html("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", () => { state.hidden[name][box.checked ? "delete" : "add"](text); drawAll(); });
    host.append(html("label", { class: "chip" }, box, swatch(part), text));
  }
}

// The first move of a frame is drawn at once, the others of the frame together.
function setBudget(bytes) {
  Object.assign(state, { budget: bytes, moved: bytes !== DATA.budget_bytes });
  if (state.frame) { state.more = true; return; }
  drawBudget();
  state.frame = requestAnimationFrame(() => { state.frame = 0; if (state.more) drawBudget(); state.more = false; });
}

// --- recommendations

function neighbour({ chosen, cost }, other) {
  if (!other) return "—";
  const format = cost === "run_seconds" ? formatSeconds : formatCount, percent = Math.round((other[cost] / chosen[cost] - 1) * 100);
  const change = chosen[cost] === null ? "" : ` (${percent > 0 ? "+" : "−"}${Math.abs(percent)} %)`;
  const sign = other.peak_bytes > chosen.peak_bytes ? "+" : "−";
  return `${sign}${formatBytes(Math.abs(other.peak_bytes - chosen.peak_bytes))}: ${format(other[cost])}${change}`;
}

function recommendation({ case: name, look }, choice) {
  const { chosen, smallest } = choice, steps = STEPS.get(name), known = (value, format) => (value === null ? "" : format(value));
  const row = html("tr", {}, html("th", { scope: "row" }, swatch(look), name), html("td", {}, steps ? formatCount(steps) : ""));
  if (!chosen) {
    const least = smallest ? `; the smallest measured needs ${formatBytes(smallest.peak_bytes)}` : "";
    row.append(html("td", { colspan: 8, class: "nothing" }, `nothing measured fits in ${formatBytes(state.budget)}${least}`));
    return row;
  }
  const size = `${formatBytes(chosen.peak_bytes)} (${Math.round((100 * chosen.peak_bytes) / state.budget)} %)`;
  row.append(html("td", { class: "strong" }, formatCount(chosen.checkpoints)));
  row.append(...[known(chosen.expected_steps, formatCount), size, known(chosen.run_seconds, formatSeconds),
    known(chosen.recompute_factor, formatCount), neighbour(choice, choice.more), neighbour(choice, choice.less),
  ].map((text) => html("td", {}, text)), html("td", { class: "text" }, choice.evidence));
  return row;
}

// What fits, in a few words beside the slider.
function fitting(choices) {
  const fits = choices.filter(({ chosen }) => chosen), counts = [...new Set(fits.map(({ chosen }) => chosen.checkpoints))].sort((a, b) => a - b);
  if (!fits.length) return "nothing fits";
  const listed = counts.length > 4 ? `${formatCount(counts[0])} to ${formatCount(counts.at(-1))}` : counts.map(formatCount).join(", ");
  const said = `${listed} checkpoint${counts.length === 1 && counts[0] === 1 ? "" : "s"}`;
  return choices.length === 1 ? `${said} fit best` : `${said} fit best (${fits.length} of ${choices.length} cases)`;
}

// --- the checkpoint tree

function treeRows(choices) {
  const select = document.getElementById("tree-case"), cases = shownCases().map((one) => one.case);
  if (!select) return [];
  if (!cases.includes(state.tree)) state.tree = cases.find((name) => ROWS.blocks.some((block) => block.case === name)) ?? cases[0] ?? null;
  select.replaceChildren(...cases.map((name) => html("option", { value: name }, name)));
  select.value = state.tree;
  const of = ROWS.blocks.filter((block) => block.case === state.tree), chosen = choices.get(state.tree)?.chosen;
  const blocks = of.filter((block) => chosen && block.checkpoints === chosen.checkpoints);
  const counts = [...new Set(of.map((block) => block.checkpoints))].map(formatCount).join(", ") || "none";
  const [first] = blocks;
  document.getElementById("tree-chart").hidden = !first;
  document.getElementById("tree-text").textContent = first
    ? `${formatCount(first.checkpoints)} checkpoints for ${formatCount(first.steps)} steps, ${formatCount(first.stored)} states stored in all`
      + (blocks.length < first.stored ? "; blocks too narrow to see are left out." : ".")
    : `No tree for ${chosen ? `${formatCount(chosen.checkpoints)} checkpoints` : "this budget"} is in this report; those for this case: ${counts}.`;
  if (first) views.tree?.view.height(Math.min(420, Math.max(120, 24 * (1 + Math.max(...blocks.map((block) => block.slot))))));
  return blocks;
}

// --- tables

function drawMeasurements() {
  const columns = DATA.columns.filter((column) => state.all || column.main > 0);
  if (!state.all) columns.sort((a, b) => a.main - b.main);
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => (row.said ??= DATA.columns.map((column) => cellText(column, row[column.name])).join("\n").toLowerCase());
  const rows = MEASUREMENTS.filter((row) => isShown(row) && (!state.status || row.status === state.status)
    && words.every((word) => text(row).includes(word)));
  showTable(document.getElementById("measurements"), columns, rows, state.table);
  document.getElementById("row-count").textContent = `${rows.length} of ${MEASUREMENTS.length} measurements`;
}

function startTables() {
  const listen = (id, event, read) => document.getElementById(id).addEventListener(event, ({ target }) => { read(target); drawMeasurements(); });
  for (const name of [...new Set(MEASUREMENTS.map((row) => row.status))].sort()) {
    document.getElementById("status").append(html("option", { value: name }, name));
  }
  listen("status", "change", (target) => { state.status = target.value; });
  listen("words", "input", (target) => { state.words = target.value; });
  listen("all-columns", "change", (target) => { state.all = target.checked; });
  for (const details of document.querySelectorAll(".beside")) details.addEventListener("toggle", () => drawBeside(details));
}

// The table beside a figure, written when it is opened.
function drawBeside(details) {
  if (!details.open) return;
  const name = details.dataset.chart, [of, ...columns] = DATA.beside[name];
  const rows = ROWS[of].filter((row) => isShown(row) && row.measured !== false);
  const view = (state.beside[name] ??= { sort: null, descending: false });
  showTable(details.lastElementChild, columns.map(([column, title, unit]) => ({ name: column, title, unit })), rows, view);
}

// --- all of it

const rowsOf = (name) => (name === "one" ? [{}] : ROWS[name].filter((row) => isShown(row) && row.drawn !== false));

function drawBudget() {
  const share = (Math.log(state.budget) - LOG_LOW) / (LOG_HIGH - LOG_LOW), text = formatBytes(state.budget);
  const choices = new Map(shownCases().map((one) => [one.case, choose(one.case, state.budget)])), fits = fitting([...choices.values()]);
  const slider = document.getElementById("budget"), field = document.getElementById("budget-text");
  slider.value = String(Math.round(1000 * share));
  slider.setAttribute("aria-valuetext", `${text}: ${fits}`);
  if (document.activeElement !== field) field.value = text;
  document.getElementById("fits").textContent = fits;
  const rows = shownCases().map((one) => recommendation(one, choices.get(one.case)));
  document.querySelector("#recommendations tbody").replaceChildren(...rows);
  const chosen = [...choices.values()].map((choice) => choice.chosen).filter(Boolean);
  const verified = rowsOf("points").filter((point) => point.mark === "verified" && !chosen.includes(point));
  const marks = [...verified, ...chosen.map((point) => ({ ...point, mark: point.mark === "recommended" ? "recommended" : "fits best" }))];
  const blocks = ROWS.blocks ? treeRows(choices) : [];
  redraw({ marks, ...(blocks.length ? { blocks } : {}) }, { budget: state.budget });
}

function drawAll() {
  redraw(Object.fromEntries(Object.keys(ROWS).filter((name) => name !== "blocks").map((name) => [name, rowsOf(name)])), {});
  drawBudget();
  drawMeasurements();
  document.querySelectorAll(".beside").forEach(drawBeside);
}

async function start() {
  const age = document.getElementById("age"), days = (Date.now() - Date.parse(DATA.newest)) / 86400000;
  age.textContent = days < 1 ? "less than a day ago" : `${Math.floor(days)} day${days < 2 ? "" : "s"} ago`;
  document.getElementById("tree-case")?.addEventListener("change", ({ target }) => { state.tree = target.value; drawBudget(); });
  startControls();
  startTables();
  drawMeasurements();
  await Promise.all(Object.keys(DATA.charts).map((name) => drawChart(name, rowsOf, setBudget)));
  drawBudget();
  await Promise.all(Object.values(views).map(({ view }) => view.runAsync()));
  document.documentElement.dataset.ready = "yes";
}

start();
