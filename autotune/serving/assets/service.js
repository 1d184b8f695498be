"use strict";
// The service's own pages: what is stored, devices to plan for, two profiles side by side, the tunes under way.

const PAGE = document.body.dataset.page, ROOT = document.body.dataset.root;
const DATA = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const profileLink = (id) => `${ROOT}/profiles/${id}`;

async function ask(path, parameters) {
  const answer = await fetch(`${ROOT}/api/v1/${path}?${new URLSearchParams(parameters)}`, { headers: { accept: "application/json" } });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.detail ?? `the service answered ${answer.status}`);
  return document;
}

function ago(text) {
  const minutes = Math.max(0, (Date.now() - Date.parse(text)) / 60000), count = (n, unit) => `${Math.floor(n)} ${unit}${n < 2 ? "" : "s"} ago`;
  return minutes < 1 ? "just now" : minutes < 60 ? count(minutes, "minute") : minutes < 1440 ? count(minutes / 60, "hour") : count(minutes / 1440, "day");
}

function clock(seconds) {
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}` : `${Math.floor(whole / 60)}:${two(whole % 60)}`;
}

// --- what is stored

const PROFILE_COLUMNS = [
  { name: "profile", title: "profile", link: "href" }, { name: "device", title: "device" }, { name: "adjoint", title: "adjoint" },
  { name: "cases", title: "cases" }, { name: "measurements", title: "rows" }, { name: "failed", title: "failed" },
  { name: "newest", title: "newest", unit: "UTC" }, { name: "versions", title: "versions" }, { name: "id", title: "id" },
];

function startProfiles() {
  const view = { sort: "newest", descending: true }, state = { words: "", device: "", version: "" };
  const rows = DATA.profiles.map((one) => ({ ...one, href: profileLink(one.key), said: Object.values(one).join("\n").toLowerCase() }));
  const draw = () => {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = rows.filter((row) => words.every((word) => row.said.includes(word)) && (!state.device || row.device === state.device)
      && (!state.version || row.versions.split(", ").includes(state.version)));
    showTable(at("profiles"), PROFILE_COLUMNS, shown, view);
    at("row-count").textContent = `${shown.length} of ${rows.length} profiles`;
  };
  const offer = (id, values) => at(id).append(...[...new Set(values)].sort().map((value) => html("option", { value }, value)));
  offer("device", rows.map((row) => row.device));
  offer("version", rows.flatMap((row) => row.versions.split(", ").filter(Boolean)));
  for (const id of ["words", "device", "version"]) at(id).addEventListener("input", ({ target }) => { state[id] = target.value; draw(); });
  at("empty").hidden = rows.length > 0;
  draw();
}

// --- devices to plan for

const DEVICE_COLUMNS = [
  { name: "device", title: "device" }, { name: "offers", title: "offers the budget" }, { name: "evidence", title: "bytes are" }, { name: "case", title: "case" },
  { name: "usable_bytes", title: "usable", unit: "bytes" }, { name: "checkpoints", title: "checkpoints" },
  { name: "peak_bytes", title: "peak", unit: "bytes" }, { name: "recompute_factor", title: "recompute" },
  { name: "needed_bytes", title: "enough", unit: "bytes" }, { name: "saturated_bytes", title: "all it can use", unit: "bytes" },
  { name: "run_seconds", title: "a call", unit: "s" },
];

function caseOf(row) {
  const parts = [row.horizon === null ? "" : `horizon ${row.horizon}`, row.tolerance === null ? "" : `tolerance ${formatCount(row.tolerance)}`];
  parts.push(...Object.entries(row.set_values).map(([key, value]) => `${key}=${JSON.stringify(value)}`));
  return parts.filter(Boolean).join(", ") || "the only case";
}

function startDevices() {
  if (!DATA.profile) return;
  const slider = at("budget"), field = at("budget-text"), most = at("most"), view = { sort: "usable_bytes", descending: false };
  let rows = [], budget = 0, low = 0, high = 1, turn = 0, waiting = 0;

  const drawDevices = () => {
    rows = rows.map((row) => ({ ...row, offers: row.usable_bytes >= budget ? "yes" : "no" }));
    const one = at("case").value, columns = DEVICE_COLUMNS.filter((column) => !one || column.name !== "case");
    showTable(at("devices"), columns, rows.filter((row) => !one || row.case === one), view);
    const names = new Set(rows.filter((row) => row.offers === "yes").map((row) => row.device)), all = new Set(rows.map((row) => row.device));
    at("offering").textContent = `${names.size} of ${all.size} devices offer it`;
  };
  const recommend = async () => {
    const mine = ++turn;
    try {
      const found = await ask("recommend", { profile: DATA.profile, budget: String(Math.round(budget)) });
      if (mine !== turn) return;
      const lines = found.recommendations.map((one) => html("tr", {}, html("th", { scope: "row" }, caseOf(one)),
        ...(one.status === "ok" ? [formatCount(one.checkpoints), formatBytes(one.peak_bytes), one.run_seconds === null ? "—" : formatSeconds(one.run_seconds),
          one.recompute_factor === null ? "—" : formatCount(one.recompute_factor), one.evidence]
          : ["nothing fits", one.smallest_bytes === null ? "—" : `≥ ${formatBytes(one.smallest_bytes)}`, "—", "—", "—"])
          .map((text, place) => html("td", place === 4 ? { class: "text" } : {}, text))));
      at("answers").replaceChildren(...lines);
      at("wrong").textContent = "";
    } catch (error) { if (mine === turn) at("wrong").textContent = error.message; }
  };
  const setBudget = (bytes) => {
    budget = Math.max(1, bytes);
    const text = formatBytes(budget);
    slider.value = String(Math.round(1000 * (Math.log(budget) - low) / (high - low)));
    slider.setAttribute("aria-valuetext", text);
    if (document.activeElement !== field) field.value = text;
    drawDevices();
    clearTimeout(waiting);
    waiting = setTimeout(recommend, 120);
  };
  const plan = async () => {
    at("busy").hidden = false;
    try {
      const found = await ask("plan", { profile: DATA.profile, max_recompute: most.value });
      rows = found.rows.map((row) => ({ ...row, case: caseOf(row), checkpoints: row.checkpoints ?? "nothing fits" }));
      const cases = [...new Set(rows.map((row) => row.case))], before = at("case").value || cases.at(-1);
      at("case").replaceChildren(html("option", { value: "" }, "all cases"), ...cases.map((value) => html("option", { value }, value)));
      at("case").value = cases.includes(before) ? before : "";
      const sizes = [...found.rows.flatMap((row) => [row.usable_bytes, row.smallest_bytes, row.needed_bytes]), DATA.smallest].filter((size) => size > 0);
      low = Math.log(Math.min(...sizes) / 1.5); high = Math.log(Math.max(...sizes) * 1.1);
      at("notes").replaceChildren(...found.notes.map((note) => html("li", {}, note)));
      at("wrong").textContent = "";
      setBudget(budget || DATA.start);
    } catch (error) { at("wrong").textContent = error.message; }
    at("busy").hidden = true;
    document.documentElement.dataset.ready = "yes";
  };
  slider.addEventListener("input", () => setBudget(Math.exp(low + (Number(slider.value) / 1000) * (high - low))));
  field.addEventListener("change", () => {
    const bytes = parseBytes(field.value);
    field.setCustomValidity(bytes === null ? "write bytes as 6GiB, 500 MB or a number" : "");
    field.reportValidity();
    if (bytes !== null) setBudget(bytes);
  });
  at("case").addEventListener("change", drawDevices);
  most.addEventListener("change", () => { if (most.reportValidity()) plan(); });
  at("profile").addEventListener("change", ({ target }) => target.form.submit());
  plan();
}

// --- two profiles side by side

const COMPARED_COLUMNS = [
  { name: "case", title: "case" }, { name: "checkpoints", title: "checkpoints" },
  { name: "before_peak_bytes", title: "peak before", unit: "bytes" }, { name: "after_peak_bytes", title: "after", unit: "bytes" }, { name: "peak_bytes_ratio", title: "ratio" },
  { name: "before_run_seconds", title: "a call before", unit: "s" }, { name: "after_run_seconds", title: "after", unit: "s" }, { name: "run_seconds_ratio", title: "ratio" },
  { name: "before_recompute_factor", title: "recompute before" }, { name: "after_recompute_factor", title: "after" },
];

function startCompare() {
  if (!DATA.points) return;
  const rows = DATA.points.map((point) => ({ ...point, case: caseOf(point) }));
  showTable(at("points"), COMPARED_COLUMNS, rows, { sort: null, descending: false });
}

// --- the tunes under way

function tuneCard(tune) {
  const all = tune.left === null ? null : tune.done + tune.left, best = tune.best;
  const lines = [
    ["now", tune.doing], ["done", `${formatCount(tune.done)}${tune.left === null ? "" : `, about ${formatCount(tune.left)} left`}`],
    ["time left", tune.left_seconds === null || tune.silent ? "not known" : `about ${clock(Math.max(0, tune.left_seconds - (Date.now() - Date.parse(tune.at)) / 1000))}`],
    ["best so far", best ? `${formatSeconds(best.run_seconds)} at ${formatCount(best.checkpoints)} checkpoints${best.peak_bytes ? `, ${formatBytes(best.peak_bytes)}` : ""} (${best.case})` : "nothing timed yet"],
    ["budget", formatBytes(tune.budget_bytes)], ["on", `${tune.device}, host ${tune.host}, adjoint ${tune.adjoint}`], ["began", ago(tune.began_at)],
  ];
  const card = html("section", { class: "card tune" }, html("h2", {}, tune.problem, tune.silent ? html("span", { class: "badge wrong" }, "no sign of life") : html("span", { class: "badge" }, "running")));
  const bar = html("progress", { "aria-label": `progress of ${tune.problem}`, ...(all ? { max: all, value: tune.done } : {}) });
  card.append(bar, html("dl", {}, ...lines.flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, text)])));
  if (tune.failed) {
    card.append(html("p", { class: "wrong" }, `${formatCount(tune.failed)} did not end well${tune.failed > tune.failures.length ? `; the last ${tune.failures.length}` : ""}:`));
    card.append(html("ul", {}, ...tune.failures.map((one) => html("li", {}, `${formatCount(one.checkpoints)} checkpoints at ${one.case}: ${one.status.replaceAll("_", " ")}${one.message ? `, ${one.message}` : ""}`))));
  }
  return card;
}

function startTunes() {
  let tunes = DATA.tunes;
  const draw = () => {
    at("tunes").replaceChildren(...tunes.map(tuneCard));
    at("empty").hidden = tunes.length > 0;
    at("count").textContent = tunes.length === 1 ? "1 tune under way" : `${tunes.length} tunes under way`;
  };
  const source = new EventSource(`${ROOT}/api/v1/tunes/events`);
  source.addEventListener("tunes", ({ data }) => {
    const found = JSON.parse(data);
    if (!found.away) tunes = found.tunes;
    at("live").textContent = found.away ? "the store is away; what is shown is older" : "live";
    draw();
  });
  source.addEventListener("open", () => { at("live").textContent = "live"; });
  source.addEventListener("error", () => { at("live").textContent = "not connected; trying again"; });
  setInterval(draw, 1000);
  draw();
}

({ profiles: startProfiles, devices: startDevices, compare: startCompare, tunes: startTunes })[PAGE]();
if (PAGE !== "devices" || !DATA.profile) document.documentElement.dataset.ready = "yes";
