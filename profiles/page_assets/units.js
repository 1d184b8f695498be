// Figures for people: bytes in powers of 1024, seconds with their prefix. The same rules as profiles/units.py.

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function threeDigits(value) {
  if (value === 0) return "0";
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)) + 1e-9));
  const text = value.toFixed(Math.min(decimals, 20));
  return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

function formatBytes(count) {
  let value = count, unit = 0;
  while (Math.abs(value) >= 1023.5 && unit < BYTE_UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${threeDigits(value)} ${BYTE_UNITS[unit]}`;
}

function formatSeconds(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds >= 600) return `${threeDigits(seconds / 60)} min`;
  for (const [factor, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (seconds >= 0.9995 * factor) return `${threeDigits(seconds / factor)} ${unit}`;
  }
  return `${threeDigits(seconds / 1e-9)} ns`;
}

function formatCount(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return Math.abs(value) >= 0.01 && Math.abs(value) < 1e6 ? threeDigits(value)
    : value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
}

// Read "6GiB", "500 MB", "1.5g" or plain bytes; null where it is none of them.
function parseBytes(text) {
  const found = /^\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgtp]?)(i?)b?\s*$/i.exec(text);
  if (!found) return null;
  const power = "kmgtp".indexOf(found[2].toLowerCase()) + 1;
  const decimal = found[2] && !found[3] && /b\s*$/i.test(text);
  const bytes = Number(found[1]) * (found[2] ? (decimal ? 1000 : 1024) ** power : 1);
  return bytes > 0 && Number.isFinite(bytes) ? Math.round(bytes) : null;
}

const FORMAT = { bytes: formatBytes, seconds: formatSeconds, count: formatCount };
