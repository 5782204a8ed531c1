// Draws the Host page's charts where their tables stand. Gaps stay gaps; time in which no collector ran is shaded; a
// range that is dragged becomes the page's address.
"use strict";

const HEIGHT_PX = 170;
const INKS = 4;
const DRAG_PX = 8;

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

const SAY = {
  ratio: (value) => `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`,
  bytes_per_s: (value) => `${bytes(value)}/s`,
  celsius: (value) => `${value.toFixed(0)} °C`,
  count: (value) => value.toFixed(2),
};

// A token's colour as the canvas takes it: a property that is not registered is not computed.
function colour(figure, name) {
  const probe = document.createElement("span");
  probe.className = name;
  figure.append(probe);
  const computed = getComputedStyle(probe).color;
  probe.remove();
  return computed;
}

function lines(figure, numbers) {
  return figure.dataset.series.split(",").flatMap((pair) => {
    const [name, label] = pair.split("=");
    const series = numbers.series.find((one) => one.name === name);
    if (!series) return [];
    // Of what is summed, some is kept as its highest value only.
    const [values, kind] = series.avg.some((value) => value !== null) ? [series.avg, ""] : [series.max, ", highest"];
    return values.some((value) => value !== null) ? [{ values, label: label + kind }] : [];
  });
}

function shade(plot, downtimes, fill) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = fill;
  ctx.globalAlpha = 0.15;
  for (const { from, to } of downtimes) {
    const [left, right] = [from, to].map((at) => {
      const place = plot.valToPos(Date.parse(at) / 1000, "x", true);
      return Math.min(Math.max(place, bbox.left), bbox.left + bbox.width);
    });
    ctx.fillRect(left, bbox.top, Math.max(right - left, 1), bbox.height);
  }
  ctx.restore();
}

function zoom(plot, link) {
  const { left, width } = plot.select;
  if (width < DRAG_PX) return;
  const at = (place) => new Date(plot.posToVal(place, "x") * 1000).toISOString().replace(/\.\d+Z$/, "Z");
  location.assign(link.replace("FROM", encodeURIComponent(at(left))).replace("TO", encodeURIComponent(at(left + width))));
}

function highest(unit, max) {
  if (unit !== "ratio") return Math.max((max ?? 0) * 1.1, 1);
  return max > 0.25 ? Math.max(max, 1) : Math.max(max * 1.2, 0.05);
}

function options(figure, all, numbers, link) {
  const unit = figure.dataset.unit;
  const say = SAY[unit] ?? SAY.count;
  // Without a place under the cursor there is nothing to say; at a gap it is unknown.
  const value = (_, raw, __, nth) => {
    if (nth === null || nth === undefined) return "";
    return raw === null || raw === undefined ? "unknown" : say(raw);
  };
  const [muted, grid, warn] = ["ink-muted", "ink-line", "ink-warn"].map((name) => colour(figure, name));
  const axis = { stroke: muted, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
  return {
    width: figure.clientWidth,
    height: HEIGHT_PX,
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
    scales: { x: { range: [Date.parse(numbers.from) / 1000, Date.parse(numbers.to) / 1000] }, y: { range: (_, __, max) => [0, highest(unit, max)] } },
    axes: [axis, { ...axis, size: 72, values: (_, marks) => marks.map(say) }],
    series: [
      { value: (_, at) => (at === null || at === undefined ? "" : new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ")) },
      ...all.map((line, nth) => ({ label: line.label, stroke: colour(figure, `ink-${(nth % INKS) + 1}`), width: 1.5, value })),
    ],
    cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "host" } },
    hooks: {
      drawClear: [(plot) => shade(plot, numbers.downtimes, warn)],
      setSelect: [(plot) => zoom(plot, link)],
    },
  };
}

// The table goes where it can be opened.
function fold(figure) {
  const table = figure.querySelector("table");
  if (!table || table.closest("details")) return;
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Lowest, average, highest";
  summary.className = "small";
  table.replaceWith(details);
  details.append(summary, table);
}

function draw(figure, numbers, link) {
  const all = lines(figure, numbers);
  const place = figure.querySelector(".plot");
  if (all.length === 0) return;
  fold(figure);
  place.hidden = false;
  place.replaceChildren();
  const title = figure.dataset.title;
  const plot = new uPlot(options(figure, all, numbers, link), [numbers.at, ...all.map((line) => line.values)], place);
  const canvas = place.querySelector("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title}: the numbers are below`);
  new ResizeObserver(() => {
    if (figure.clientWidth > 0 && figure.clientWidth !== plot.width) plot.setSize({ width: figure.clientWidth, height: HEIGHT_PX });
  }).observe(figure);
}

async function charts() {
  const section = document.querySelector("[data-charts]");
  if (!section || typeof uPlot === "undefined") return;
  const answer = await fetch(section.dataset.charts, { credentials: "same-origin" });
  if (!answer.ok) return;
  const numbers = await answer.json();
  const all = () => {
    for (const figure of section.querySelectorAll("figure.chart")) draw(figure, numbers, section.dataset.link);
  };
  all();
  section.dataset.drawn = "";
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
}

charts().catch(() => {});
