// One chart as inline SVG: scales with units, series of points, stairs and bands, budget lines, and a tooltip.
// Everything is drawn anew when something changes; a few hundred points take no time.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Ticks at powers of two for bytes, at 1, 2 and 5 for the rest.
function ticksOf(kind, low, high, logarithmic) {
  const most = 7, ticks = [];
  if (kind === "bytes" && logarithmic) {
    const first = Math.ceil(Math.log2(low) - 1e-9), last = Math.floor(Math.log2(high) + 1e-9);
    const stride = Math.max(1, Math.ceil((last - first + 1) / most));
    for (let k = first; k <= last; k += stride) ticks.push(2 ** k);
  } else if (logarithmic) {
    const decades = Math.log10(high / low);
    const steps = decades < 1 ? [1, 1.5, 2, 3, 4, 5, 7] : decades < 2.6 ? [1, 2, 5] : [1];
    const stride = Math.max(1, Math.ceil(decades / most));
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k += stride) {
      for (const step of steps) {
        const tick = step * 10 ** k;
        if (tick >= low * 0.999999 && tick <= high * 1.000001) ticks.push(tick);
      }
    }
  } else {
    const rough = (high - low) / most || 1;
    let step = 2 ** Math.ceil(Math.log2(rough));
    if (kind !== "bytes") {
      const decade = 10 ** Math.floor(Math.log10(rough));
      step = decade * [1, 2, 5, 10].find((factor) => factor * decade >= rough * 0.999999);
    }
    for (let tick = (Math.ceil(low / step - 1e-9) || 0) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  }
  return ticks;
}

function makeScale(kind, values, from, to) {
  const known = values.filter((value) => value > 0 && Number.isFinite(value));
  if (!known.length) return null;
  let low = Math.min(...known), high = Math.max(...known);
  const logarithmic = high > 3 * low;
  if (logarithmic) {
    const room = (high / low) ** 0.06;
    low /= room; high *= room;
  } else {
    const room = (high - low) * 0.08 || high * 0.1;
    low -= room; high += room;
  }
  const put = logarithmic ? Math.log : (value) => value;
  const back = logarithmic ? Math.exp : (value) => value;
  const ratio = (to - from) / (put(high) - put(low));
  const scale = (value) => from + (put(value) - put(low)) * ratio;
  scale.invert = (pixel) => back(put(low) + (pixel - from) / ratio);
  scale.low = low;
  scale.high = high;
  scale.ticks = ticksOf(kind, low, high, logarithmic);
  scale.format = FORMAT[kind];
  return scale;
}

const SHAPES = {
  o: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  s: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  "^": (r) => `M0,${-1.2 * r}L${1.15 * r},${0.9 * r}H${-1.15 * r}z`,
  v: (r) => `M0,${1.2 * r}L${1.15 * r},${-0.9 * r}H${-1.15 * r}z`,
  D: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0z`,
  P: (r) => `M${-r / 2.5},${-1.2 * r}h${r / 1.25}v${0.8 * r}h${0.8 * r}v${r / 1.25}h${-0.8 * r}v${0.8 * r}` +
    `h${-r / 1.25}v${-0.8 * r}h${-0.8 * r}v${-r / 1.25}h${0.8 * r}z`,
  X: (r) => `M${-r},${-r / 2}L${-r / 2},${-r}L0,${-r / 2}L${r / 2},${-r}L${r},${-r / 2}L${r / 2},0L${r},${r / 2}` +
    `L${r / 2},${r}L0,${r / 2}L${-r / 2},${r}L${-r},${r / 2}L${-r / 2},0z`,
  x: (r) => `M${-r},${-r}L${r},${r}M${r},${-r}L${-r},${r}`,
};
const DASHES = { "-": "", "--": "6 3", ":": "1.5 3", "-.": "7 3 1.5 3" };

function marker(shape, look, radius, hollow) {
  const line = shape === "x";
  return element("path", {
    d: SHAPES[shape](radius), class: "marker",
    fill: hollow || line ? "none" : look.colour, stroke: look.colour, "stroke-width": line ? 2 : 1.5,
  });
}

// Draw `spec` into `host`, replacing what was there.
//   x, y: {kind, label, ticks};  series: [{look, stairs, line, thin, radius, points: [{x, y, hollow, ring, tip}]}];
//   bands: [{look, points: [{x, low, high}]}];  vline, hline: {value, label};  moved: called with x when the line is dragged
function drawChart(host, spec) {
  const width = Math.max(300, host.clientWidth), height = spec.height || 310;
  const box = { left: 78, right: width - 14, top: 16, bottom: height - 46 };
  const all = spec.series.flatMap((series) => series.points);
  const bands = spec.bands || [];
  const xs = [...all.map((point) => point.x), ...bands.flatMap((band) => band.points.map((point) => point.x))];
  const ys = [...all.filter((point) => !point.top).map((point) => point.y),
    ...bands.flatMap((band) => band.points.flatMap((point) => [point.low, point.high]))];
  const near = (values, line) => (line && values.length && line.value < 4 * Math.max(...values) &&
    line.value > Math.min(...values) / 4 ? [line.value] : []);
  const x = makeScale(spec.x.kind, [...xs, ...near(xs, spec.vline)], box.left, box.right);
  const y = makeScale(spec.y.kind, [...ys, ...near(ys, spec.hline)], box.bottom, box.top);
  if (x && spec.x.ticks && spec.x.ticks.length <= 10) x.ticks = spec.x.ticks;
  const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.says });
  if (!x || !y) {
    svg.append(element("text", { x: width / 2, y: height / 2, class: "empty" }, "nothing measured for what is shown"));
    host.replaceChildren(svg);
    return;
  }
  drawAxes(svg, spec, x, y, box);
  for (const band of bands) drawBand(svg, band, x, y);
  for (const series of spec.series) drawLine(svg, series, x, y);
  for (const series of spec.series) {
    for (const point of series.points) drawPoint(svg, series, point, x, y, box);
  }
  drawBudget(svg, spec, x, y, box);
  host.replaceChildren(svg);
  followPointer(host, svg, spec, x, y, box);
}

function drawAxes(svg, spec, x, y, box) {
  let right = -Infinity;
  for (const tick of x.ticks) {
    const at = x(tick), text = x.format(tick), half = 3.4 * text.length;
    svg.append(element("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, class: "grid" }));
    if (at - half < right + 6) continue;
    right = at + half;
    svg.append(element("text", { x: at, y: box.bottom + 16, class: "tick middle" }, text));
  }
  for (const tick of y.ticks) {
    const at = y(tick);
    svg.append(element("line", { x1: box.left, x2: box.right, y1: at, y2: at, class: "grid" }));
    svg.append(element("text", { x: box.left - 6, y: at + 4, class: "tick end" }, y.format(tick)));
  }
  svg.append(element("path", { d: `M${box.left},${box.top}V${box.bottom}H${box.right}`, class: "axis" }));
  svg.append(element("text", { x: (box.left + box.right) / 2, y: box.bottom + 37, class: "label middle" }, spec.x.label));
  const turned = `translate(13,${(box.top + box.bottom) / 2}) rotate(-90)`;
  svg.append(element("text", { transform: turned, class: "label middle" }, spec.y.label));
}

function drawBand(svg, band, x, y) {
  const upper = band.points.map((point) => `${x(point.x)},${y(point.high)}`);
  const lower = band.points.map((point) => `${x(point.x)},${y(point.low)}`).reverse();
  svg.append(element("polygon", { points: [...upper, ...lower].join(" "), fill: band.look.colour, class: "band" }));
}

function drawLine(svg, series, x, y) {
  const points = series.points.filter((point) => !point.hollow && !point.top);
  if (!(series.line || series.stairs) || points.length < 2) return;
  let d = `M${x(points[0].x)},${y(points[0].y)}`;
  for (const point of points.slice(1)) {
    d += series.stairs ? `H${x(point.x)}V${y(point.y)}` : `L${x(point.x)},${y(point.y)}`;
  }
  svg.append(element("path", {
    d, class: series.thin ? "line thin" : "line", stroke: series.look.colour,
    "stroke-dasharray": series.thin ? "" : DASHES[series.look.dash],
  }));
}

function drawPoint(svg, series, point, x, y, box) {
  if (series.thin) return;
  const at = `translate(${x(point.x)},${point.top ? box.top + 6 : y(point.y)})`;
  const radius = series.radius ?? (point.hollow ? 3.4 : 4.2);
  const made = marker(point.top ? "x" : series.look.marker, series.look, radius, point.hollow);
  made.setAttribute("transform", at);
  if (point.hollow) made.classList.add("hollow");
  svg.append(made);
  if (point.ring) svg.append(element("circle", { r: 9, transform: at, class: "ring" }));
}

function drawBudget(svg, spec, x, y, box) {
  if (spec.hline) {
    const at = Math.min(Math.max(y(spec.hline.value), box.top), box.bottom);
    svg.append(element("line", { x1: box.left, x2: box.right, y1: at, y2: at, class: "budget" }));
    svg.append(element("text", { x: box.left + 6, y: at < box.top + 20 ? at + 13 : at - 5, class: "budget-text" },
      spec.hline.label));
  }
  if (spec.vline) {
    const at = Math.min(Math.max(x(spec.vline.value), box.left), box.right);
    svg.append(element("line", { x1: at, x2: at, y1: box.top - 4, y2: box.bottom, class: "budget" }));
    const late = at > (box.left + box.right) / 2;
    svg.append(element("text", {
      x: late ? at - 7 : at + 7, y: box.top + 4, class: late ? "budget-text end" : "budget-text",
    }, spec.vline.label));
    if (spec.moved) {
      svg.append(element("path", { d: `M${at},${box.top - 4}l-6,-9h12z`, class: "handle" }));
      svg.append(element("line", { x1: at, x2: at, y1: 0, y2: box.bottom, class: "grip" }));
    }
  }
}

// --- the pointer

const tooltip = () => document.getElementById("tooltip");

function showTooltip(event, lines) {
  const box = tooltip();
  box.replaceChildren(...lines.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
  box.hidden = false;
  const room = document.documentElement.clientWidth - box.offsetWidth - 12;
  const above = event.clientY - box.offsetHeight - 14;
  box.style.left = `${Math.max(4, Math.min(event.clientX + 14, room))}px`;
  box.style.top = `${above > 4 ? above : event.clientY + 16}px`;
}

function hideTooltip() {
  tooltip().hidden = true;
}

function followPointer(host, svg, spec, x, y, box) {
  const spots = spec.series.flatMap((series) => series.points.filter((point) => point.tip).map((point) => ({
    point, px: x(point.x), py: point.top ? box.top + 6 : y(point.y),
  })));
  const halo = element("circle", { r: 7, class: "halo", visibility: "hidden" });
  svg.append(halo);
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const mx = event.clientX - frame.left, my = event.clientY - frame.top;
    let best = null, least = 26;
    for (const spot of spots) {
      const distance = Math.hypot(spot.px - mx, spot.py - my);
      if (distance < least) { best = spot; least = distance; }
    }
    halo.setAttribute("visibility", best ? "visible" : "hidden");
    if (!best) { hideTooltip(); return; }
    halo.setAttribute("transform", `translate(${best.px},${best.py})`);
    showTooltip(event, best.point.tip);
  });
  svg.addEventListener("pointerleave", () => { halo.setAttribute("visibility", "hidden"); hideTooltip(); });
  const grip = svg.querySelector(".grip");
  if (!grip) return;
  grip.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    const frame = svg.getBoundingClientRect();
    // The chart is drawn anew with every move, so the page itself is listened to until the button is let go.
    const move = (moved) => spec.moved(x.invert(Math.min(Math.max(moved.clientX - frame.left, box.left), box.right)));
    const stop = () => { window.removeEventListener("pointermove", move); window.removeEventListener("pointerup", stop); };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", stop);
  });
}
