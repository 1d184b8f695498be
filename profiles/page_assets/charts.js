// Figures: specifications that Vega draws, the budget in them, what is said over a point, and the keyboard.

const views = {};
const tooltip = document.getElementById("tooltip");

async function drawChart(name, rowsOf, moved) {
  const host = document.getElementById(`${name}-chart`), spec = DATA.charts[name];
  const datasets = Object.fromEntries(namesIn(spec).map((one) => [one, rowsOf(one)]));
  const options = { ast: true, actions: false, renderer: "svg", defaultStyle: false, mode: "vega-lite",
    tooltip: (_, event, item, value) => showTooltip(value, event.clientX, event.clientY) };
  const { view } = await vegaEmbed(host, { ...spec, datasets }, options);
  views[name] = { view, host, names: Object.keys(datasets), signals: (spec.params ?? []).map((one) => one.name), at: -1 };
  view.addEventListener("pointerdown", (event, item) => { if (item?.mark.name === "grip_marks") holdBudget(view, event, moved); });
  host.addEventListener("keydown", (event) => onKey(views[name], event));
  host.addEventListener("blur", () => showTooltip(null));
}

// The tables that a specification names.
function namesIn(part) {
  if (part === null || typeof part !== "object") return [];
  const own = part.data?.name ? [part.data.name] : [];
  return [...new Set([...own, ...Object.values(part).flatMap(namesIn)])];
}

function redraw(datasets, signals) {
  for (const { view, names, signals: known } of Object.values(views)) {
    for (const [name, rows] of Object.entries(datasets)) if (names.includes(name)) view.data(name, rows);
    for (const [name, value] of Object.entries(signals)) if (known.includes(name)) view.signal(name, value);
    view.runAsync();
  }
}

function showTooltip(said, x = 0, y = 0) {
  tooltip.hidden = !said;
  if (!said) return;
  const lines = Object.entries(typeof said === "string" ? { "": said } : said).filter(([, text]) => text !== "" && text !== "null" && text !== "undefined");
  tooltip.replaceChildren(...lines.flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, String(text))]));
  const room = document.documentElement.clientWidth - tooltip.offsetWidth - 12, above = y - tooltip.offsetHeight - 14;
  tooltip.style.left = `${Math.max(4, Math.min(x + 14, room))}px`;
  tooltip.style.top = `${above > 4 ? above : y + 16}px`;
}

// The page itself is listened to until the button is let go, since the line moves away from under the pointer.
function holdBudget(view, event, moved) {
  event.preventDefault();
  const frame = event.target.ownerSVGElement.getBoundingClientRect(), [left, top] = view.origin();
  const across = event.target.closest("#bytes-chart") !== null;
  const pull = (now) => {
    const at = across ? view.scale("y").invert(now.clientY - frame.top - top) : view.scale("x").invert(now.clientX - frame.left - left);
    moved(Math.max(1, at * view.signal("budget_unit")));
  };
  const stop = () => { window.removeEventListener("pointermove", pull); window.removeEventListener("pointerup", stop); };
  window.addEventListener("pointermove", pull);
  window.addEventListener("pointerup", stop);
}

// Every mark with something to say, from left to right, with its place in the window.
function pointsIn({ view, host }) {
  const frame = host.querySelector("svg").getBoundingClientRect(), [left, top] = view.origin(), found = [];
  const walk = (items) => items?.forEach((item) => {
    if (item.tooltip && typeof item.tooltip === "object") {
      const x = (item.bounds.x1 + item.bounds.x2) / 2, y = (item.bounds.y1 + item.bounds.y2) / 2;
      if (x >= 0 && x <= view.width() && y >= 0 && y <= view.height()) found.push({ said: item.tooltip, x, y });
    }
    item.items?.forEach((mark) => walk(mark.items));
  });
  walk(view.scenegraph().root.items);
  return found.sort((a, b) => a.x - b.x || a.y - b.y).map((p) => ({ ...p, px: frame.left + left + p.x, py: frame.top + top + p.y }));
}

function onKey(chart, event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const turn = { "+": -200, "=": -200, "-": 200 }[event.key];
  // The plot itself is told what a pointer in its middle would tell it.
  const plot = chart.host.querySelector("path.background"), box = plot.getBoundingClientRect();
  const middle = { bubbles: true, cancelable: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, view: window };
  if (step) {
    const points = pointsIn(chart);
    if (!points.length) return;
    chart.at = (chart.at + step + points.length) % points.length;
    const { said, px, py } = points[chart.at];
    showTooltip(said, px, py);
  } else if (turn) {
    plot.dispatchEvent(new PointerEvent("pointermove", middle));
    plot.dispatchEvent(new WheelEvent("wheel", { ...middle, deltaY: turn, ctrlKey: true }));
  } else if (event.key === "0") plot.dispatchEvent(new MouseEvent("dblclick", middle));
  else if (event.key === "Escape") showTooltip(null);
  else return;
  event.preventDefault();
}
