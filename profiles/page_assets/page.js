// The page: what is shown, the budget, and everything that follows from the two.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LOG_LOW = Math.log(DATA.slider.low), LOG_HIGH = Math.log(DATA.slider.high);
const state = {
  budget: DATA.budget_bytes ?? DATA.slider.start, // bytes
  moved: DATA.budget_bytes === null, // whether the reader moved the budget away from the report's own
  hidden: { horizon: new Set(), rest: new Set() },
  treeCase: null,
};

function isShown(index) {
  const one = DATA.cases[index];
  return !state.hidden.horizon.has(one.horizon) && !state.hidden.rest.has(one.rest);
}

const shownCases = () => DATA.cases.map((one, index) => index).filter(isShown);
const lookOf = (index) => (index === null ? { colour: "var(--faint)", marker: "o", dash: "-" } : DATA.cases[index].look);
const pointsOf = (index) => DATA.points.filter((point) => point.case === index);

// The fastest measured choice that fits; by recompute factor where nothing was timed. The rule of the whole project:
// least seconds within the budget, and of equals the one with fewer bytes.
function choose(index, budget) {
  const found = pointsOf(index);
  const cost = found.some((point) => point.seconds !== null) ? "seconds" : "factor";
  const known = found.filter((point) => point[cost] !== null);
  const better = (a, b) => (a[cost] - b[cost]) || (a.bytes - b.bytes) || (a.checkpoints - b.checkpoints);
  const fits = known.filter((point) => point.bytes <= budget).sort(better);
  const smallest = [...known].sort((a, b) => a.bytes - b.bytes)[0] ?? null;
  const report = state.moved ? null : DATA.recommended.find((one) => one.case === index);
  const chosen = report ?? fits[0] ?? null;
  if (!chosen) return { chosen: null, smallest, cost };
  const more = known.filter((p) => p.bytes > chosen.bytes && p[cost] < chosen[cost]).sort((a, b) => a.bytes - b.bytes)[0];
  const less = known.filter((p) => p.bytes < chosen.bytes).sort(better)[0];
  return { chosen, smallest, cost, more: more ?? null, less: less ?? null, byReport: Boolean(report) };
}

// --- controls

function startControls() {
  const slider = document.getElementById("budget"), field = document.getElementById("budget-text");
  slider.addEventListener("input", () => {
    setBudget(Math.exp(LOG_LOW + (Number(slider.value) / 1000) * (LOG_HIGH - LOG_LOW)));
  });
  field.addEventListener("change", () => {
    const bytes = parseBytes(field.value);
    field.setCustomValidity(bytes === null ? "write bytes as 6GiB, 500 MB or a number" : "");
    field.reportValidity();
    if (bytes !== null) setBudget(bytes);
  });
  const reset = document.getElementById("reset");
  reset.hidden = DATA.budget_bytes === null;
  reset.addEventListener("click", () => { setBudget(DATA.budget_bytes); });
  for (const [name, group] of [["horizon", DATA.horizons], ["rest", DATA.rests]]) drawChips(name, group);
  const themes = ["auto", "light", "dark"], theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${next}`;
  });
}

function setBudget(bytes) {
  state.budget = bytes;
  state.moved = bytes !== DATA.budget_bytes;
  drawAll();
}

function swatch(look, part) {
  const svg = element("svg", { width: 26, height: 14, viewBox: "-13 -7 26 14", "aria-hidden": "true" });
  const shown = { colour: part.colour ? look.colour : "var(--ink)", marker: look.marker, dash: look.dash };
  svg.append(element("line", { x1: -12, x2: 12, class: "line", stroke: shown.colour, "stroke-dasharray": DASHES[shown.dash] }));
  if (part.marker) svg.append(marker(shown.marker, shown, 4, false));
  return svg;
}

function drawChips(name, group) {
  const host = document.getElementById(`${name}-chips`);
  document.getElementById(`${name}-group`).hidden = group.length < 2;
  group.forEach((one, index) => {
    const box = html("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", () => {
      state.hidden[name][box.checked ? "delete" : "add"](index);
      drawAll();
    });
    host.append(html("label", { class: "chip" }, box, swatch(one.look, one.part), one.label));
  });
}

// --- recommendations

function relative(now, then) {
  const percent = Math.round((now / then - 1) * 100);
  return `${percent > 0 ? "+" : "−"}${Math.abs(percent)} %`;
}

function step(choice, other) {
  if (!other) return "—";
  const { chosen, cost } = choice, format = cost === "seconds" ? formatSeconds : formatCount;
  const sign = other.bytes > chosen.bytes ? "+" : "−";
  const change = chosen[cost] === null ? "" : ` (${relative(other[cost], chosen[cost])})`;
  return `${sign}${formatBytes(Math.abs(other.bytes - chosen.bytes))}: ${format(other[cost])}${change}`;
}

function drawRecommendations() {
  const rows = shownCases().map((index) => {
    const choice = choose(index, state.budget), { chosen, smallest } = choice;
    const steps = DATA.steps.find((one) => one.case === index);
    const row = html("tr", { "data-case": index });
    const add = (text, kind = "figure") => row.append(html("td", { class: kind }, text));
    const name = html("th", { scope: "row" }, swatch(lookOf(index), { colour: true, marker: true }), DATA.cases[index].label);
    row.append(name);
    add(steps ? formatCount(steps.steps) : "");
    if (!chosen) {
      const least = smallest ? `; the smallest measured needs ${formatBytes(smallest.bytes)}` : "";
      row.append(html("td", { colspan: 8, class: "nothing" }, `nothing measured fits in ${formatBytes(state.budget)}${least}`));
      return row;
    }
    add(formatCount(chosen.checkpoints), "figure strong");
    add(chosen.expected === null ? "" : formatCount(chosen.expected));
    add(`${formatBytes(chosen.bytes)} (${Math.round((100 * chosen.bytes) / state.budget)} %)`);
    add(chosen.seconds === null ? "" : formatSeconds(chosen.seconds));
    add(chosen.factor === null ? "" : formatCount(chosen.factor));
    add(step(choice, choice.more));
    add(step(choice, choice.less));
    add(choice.byReport ? chosen.evidence : "measured", "text");
    return row;
  });
  document.querySelector("#recommendations tbody").replaceChildren(...rows);
}

// --- charts

function tipOf(point) {
  const lines = [["", DATA.cases[point.case].label], ["checkpoints", formatCount(point.checkpoints)]];
  if (point.expected !== null) lines.push(["expected steps", formatCount(point.expected)]);
  lines.push(["peak", `${formatBytes(point.bytes)} (${point.source})`]);
  if (point.seconds !== null) {
    const range = point.samples > 1 ? `, ${formatSeconds(point.low)} to ${formatSeconds(point.high)}` : "";
    lines.push(["median", `${formatSeconds(point.seconds)} of ${point.samples}${range}`]);
  }
  if (point.factor !== null) lines.push(["recompute factor", formatCount(point.factor)]);
  if (point.tier) lines.push(["tier", point.tier]);
  if (point.flags) lines.push(["XLA flags", point.flags]);
  return lines;
}

function seriesOf(list, pick, options = {}) {
  return shownCases().map((index) => ({
    look: lookOf(index), ...options, points: list.filter((one) => one.case === index).map(pick),
  }));
}

function drawFront(id, cost, front, kind, label) {
  const chosen = new Map(shownCases().map((index) => [index, choose(index, state.budget).chosen]));
  const isChosen = (point) => {
    const one = chosen.get(point.case);
    return one && one.checkpoints === point.checkpoints && one.bytes === point.bytes && one.expected === point.expected;
  };
  const pick = (point) => ({
    x: point.bytes, y: point[cost], hollow: !point.fronts.includes(front), ring: isChosen(point), tip: tipOf(point),
  });
  drawChart(document.getElementById(id), {
    says: `Pareto front: peak memory against ${label}`,
    x: { kind: "bytes", label: "peak memory of one call" }, y: { kind, label },
    series: seriesOf(DATA.points.filter((point) => point[cost] !== null), pick, { stairs: true }),
    vline: { value: state.budget, label: `budget ${formatBytes(state.budget)}` }, moved: setBudget,
  });
}

function drawBytes() {
  const laws = DATA.laws.filter((law) => law.case === null || isShown(law.case));
  const lost = seriesOf(DATA.lost, (one) => ({
    x: one.checkpoints, y: 1, top: true,
    tip: [["", DATA.cases[one.case].label], ["checkpoints", formatCount(one.checkpoints)], ["ended", one.status]],
  })).map((series) => ({ ...series, look: { ...series.look, colour: "var(--budget)" } }));
  drawChart(document.getElementById("bytes-chart"), {
    says: "peak memory against checkpoints",
    x: { kind: "count", label: "checkpoints (states held at once)" }, y: { kind: "bytes", label: "peak memory of one call" },
    bands: laws.map((law) => ({
      look: lookOf(law.case), points: law.checkpoints.map((x, i) => ({ x, low: law.low[i], high: law.high[i] })),
    })),
    series: [
      ...laws.map((law) => ({
        look: lookOf(law.case), line: true, thin: true, points: law.checkpoints.map((x, i) => ({ x, y: law.likely[i] })),
      })),
      // Bytes hardly depend on the horizon, so markers fall on each other: hollow and nested, all can be seen.
      ...seriesOf(DATA.points, (point) => ({ x: point.checkpoints, y: point.bytes, hollow: true, tip: tipOf(point) }))
        .map((series, index, every) => ({ ...series, radius: 6.5 - (3.5 * index) / every.length })),
      ...lost,
    ],
    hline: { value: state.budget, label: `budget ${formatBytes(state.budget)}` },
  });
  const said = [...new Set(laws.map((law) => law.text).filter(Boolean))].join("; ");
  document.getElementById("law-text").textContent = said && `Line and band: ${said}.`;
}

function drawRecompute() {
  const optima = DATA.optima.filter((one) => isShown(one.case));
  drawChart(document.getElementById("recompute-chart"), {
    says: "recompute factor against checkpoints",
    x: { kind: "count", label: "checkpoints (states held at once)" },
    y: { kind: "count", label: "recompute factor (executed / steps)" },
    series: [
      ...optima.map((one) => ({
        look: lookOf(one.case), line: true, thin: true, points: one.checkpoints.map((x, i) => ({ x, y: one.factor[i] })),
      })),
      ...seriesOf(DATA.points.filter((point) => point.factor !== null),
        (point) => ({ x: point.checkpoints, y: point.factor, tip: tipOf(point) })),
    ],
  });
  document.getElementById("optimum-text").hidden = !optima.length;
}

function drawSteps() {
  const known = DATA.steps.filter((one) => one.horizon !== null && isShown(one.case));
  document.getElementById("steps-card").hidden = !DATA.steps.some((one) => one.horizon !== null);
  const rests = [...new Set(known.map((one) => DATA.cases[one.case].rest))];
  drawChart(document.getElementById("steps-chart"), {
    says: "steps of the forward solve against horizon",
    x: { kind: "count", label: "horizon", ticks: [...new Set(known.map((one) => one.horizon))].sort((a, b) => a - b) }, y: { kind: "count", label: "steps of the forward solve" },
    series: rests.map((rest) => ({
      look: DATA.rests[rest].stepsLook, line: true,
      points: known.filter((one) => DATA.cases[one.case].rest === rest).map((one) => ({
        x: one.horizon, y: one.steps,
        tip: [["", DATA.cases[one.case].label], ["steps", formatCount(one.steps)],
          ...(one.accepted === null ? [] : [["accepted", formatCount(one.accepted)]]),
          ...(one.rejected === null ? [] : [["rejected", formatCount(one.rejected)]])],
      })),
    })),
  });
}

// --- the checkpoint tree

function drawTree() {
  const card = document.getElementById("tree-card");
  card.hidden = !DATA.trees.length;
  if (card.hidden) return;
  const select = document.getElementById("tree-case"), cases = shownCases();
  if (!cases.includes(state.treeCase)) {
    state.treeCase = cases.find((index) => DATA.trees.some((tree) => tree.case === index)) ?? cases[0] ?? null;
  }
  select.replaceChildren(...cases.map((index) => html("option", { value: index }, DATA.cases[index].label)));
  select.value = String(state.treeCase);
  const host = document.getElementById("tree-chart"), says = document.getElementById("tree-text");
  const chosen = state.treeCase === null ? null : choose(state.treeCase, state.budget).chosen;
  const known = DATA.trees.filter((tree) => tree.case === state.treeCase);
  const tree = known.find((one) => chosen && one.checkpoints === chosen.checkpoints);
  if (!tree) {
    host.replaceChildren();
    const counts = known.map((one) => formatCount(one.checkpoints)).join(", ") || "none";
    says.textContent = `No tree for ${chosen ? `${formatCount(chosen.checkpoints)} checkpoints` : "this budget"} is in ` +
      `this report; those for this case: ${counts}.`;
    return;
  }
  says.textContent = `${formatCount(tree.checkpoints)} checkpoints for ${formatCount(tree.steps)} steps, ` +
    `${formatCount(tree.stored)} states stored in all` +
    (tree.blocks.length < tree.stored ? "; blocks too narrow to see are left out." : ".");
  drawBlocks(host, tree);
}

function drawBlocks(host, tree) {
  const slots = Math.max(...tree.blocks.map((block) => block[2])) + 1;
  const height = Math.min(420, Math.max(120, 24 * slots)) + 50, width = Math.max(300, host.clientWidth);
  const box = { left: 46, right: width - 14, top: 8, bottom: height - 42 };
  const x = (stepNumber) => box.left + (stepNumber / Math.max(1, tree.steps)) * (box.right - box.left);
  const row = (box.bottom - box.top) / slots;
  const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "checkpoint tree" });
  for (const [start, stop, slot] of tree.blocks) {
    const made = element("rect", {
      x: x(start), y: box.top + slot * row + 0.06 * row, width: Math.max(0.5, x(stop) - x(start) - 0.6), height: 0.88 * row,
      class: "block", "fill-opacity": 0.95 - (0.55 * slot) / slots,
    });
    made.addEventListener("pointermove", (event) => showTooltip(event, [
      ["stored before step", formatCount(start)], ["reverses steps", `${formatCount(start)} to ${formatCount(stop - 1)}`],
      ["held in slot", String(slot)],
    ]));
    made.addEventListener("pointerleave", hideTooltip);
    svg.append(made);
  }
  const every = Math.ceil(slots / 10);
  for (let slot = 0; slot < slots; slot += every) {
    svg.append(element("text", { x: box.left - 6, y: box.top + (slot + 0.5) * row + 4, class: "tick end" }, String(slot)));
  }
  for (const tick of ticksOf("count", 0, tree.steps, false)) {
    svg.append(element("text", { x: x(tick), y: box.bottom + 15, class: "tick middle" }, formatCount(tick)));
  }
  svg.append(element("text", { x: (box.left + box.right) / 2, y: box.bottom + 35, class: "label middle" }, "step of the forward solve"));
  svg.append(element("text", { transform: `translate(11,${(box.top + box.bottom) / 2}) rotate(-90)`, class: "label middle" }, "slot"));
  host.replaceChildren(svg);
}

// --- all of it

function drawCharts() {
  drawFront("seconds-chart", "seconds", "seconds", "seconds", "seconds of one call (median)");
  drawFront("factor-chart", "factor", "recompute_factor", "count", "recompute factor (executed / steps)");
  drawBytes();
  drawRecompute();
  drawSteps();
  drawTree();
}

function drawAll() {
  const share = (Math.log(state.budget) - LOG_LOW) / (LOG_HIGH - LOG_LOW);
  const slider = document.getElementById("budget"), field = document.getElementById("budget-text");
  slider.value = String(Math.round(1000 * share));
  slider.setAttribute("aria-valuetext", formatBytes(state.budget));
  if (document.activeElement !== field) field.value = formatBytes(state.budget);
  drawRecommendations();
  drawCharts();
  drawTable();
}

function start() {
  const age = document.getElementById("age"), days = (Date.now() - Date.parse(DATA.newest)) / 86400000;
  age.textContent = days < 1 ? "less than a day ago" : `${Math.floor(days)} day${days < 2 ? "" : "s"} ago`;
  document.getElementById("tree-case").addEventListener("change", (event) => {
    state.treeCase = Number(event.target.value);
    drawTree();
  });
  startControls();
  startTable();
  drawAll();
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's address bar changes the height only
    width = window.innerWidth;
    drawCharts();
  });
  window.addEventListener("beforeprint", drawCharts);
  window.addEventListener("afterprint", drawCharts);
  document.documentElement.dataset.ready = "yes";
}

start();
