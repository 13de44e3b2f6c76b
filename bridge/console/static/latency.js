// The page Latency: heat maps of the stages of a message, and bands of the last stage, by group.

import { $, axis, canvas, chart, clock, colour, connect, el, faded, ms, put, timeAxis } from "./core.js";

const LEFT = 58;
const AXIS = 20;
const COLUMNS = 150;
const COLOURS = ["one", "two", "three", "four", "five", "six"];

let columns = [];
let bounds = [];

const label = (value) => (value >= 1000 ? `${value / 1000} s` : `${value} ms`);

// Heat maps ----------------------------------------------------------------------------------------

function ramp() {
  const stops = ["heat-a", "heat-b", "heat-c", "heat-d"].map((name) => colour(name).match(/[\d.]+/g).map(Number));
  return (part) => {
    const at = Math.min(0.999, part) * (stops.length - 1);
    const [a, b] = [stops[Math.floor(at)], stops[Math.floor(at) + 1]];
    return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * (at % 1))).join(",")})`;
  };
}

function heat(stage, place) {
  return canvas($(place), (pen, width, height) => {
    const rows = bounds.length + 1;
    const tall = (height - AXIS) / rows;
    const wide = (width - LEFT) / COLUMNS;
    const shade = ramp();
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    pen.fillStyle = colour("dim");
    bounds.forEach((bound, i) => {
      if (![1, 10, 100, 1000, 10000].includes(bound)) return;
      const y = height - AXIS - (i + 1) * tall;
      pen.fillText(label(bound), LEFT - 8, y);
      pen.strokeStyle = colour("line");
      pen.beginPath();
      pen.moveTo(LEFT, Math.round(y) + 0.5);
      pen.lineTo(width, Math.round(y) + 0.5);
      pen.stroke();
    });
    const first = COLUMNS - columns.length;
    columns.forEach((column, i) => {
      const cells = column[stage];
      const most = cells.reduce((sum, value) => sum + value, 0);
      const x = LEFT + (first + i) * wide;
      cells.forEach((value, row) => {
        if (!value) return;
        pen.fillStyle = shade(Math.sqrt(value / most));
        pen.fillRect(x, height - AXIS - (row + 1) * tall, Math.ceil(wide), Math.ceil(tall) - 1);
      });
      if (column.at_us % 60e6 < 2e6) {
        pen.fillStyle = colour("dim");
        pen.textAlign = "center";
        pen.fillText(clock(column.at_us).slice(0, 5), x, height - AXIS / 2 + 2);
      }
    });
  });
}

const STAGES = { engine_to_received: "received", received_to_written: "written", received_to_handled: "handled" };
const maps = Object.entries(STAGES).map(([stage, place]) => heat(stage, place));

function figures(byStage) {
  for (const [stage, values] of Object.entries(byStage)) {
    const place = STAGES[stage];
    const here = $(`${place}-figures`);
    const within = (value) => (value === null ? "–" : `≤ ${label(value)}`);
    const text = ["p50", "p90", "p99"].map((name) => `${name} ${within(values[name])}`);
    if (here.dataset.shown === text.join()) continue;
    here.dataset.shown = text.join();
    here.replaceChildren(...["p50", "p90", "p99"].map((name) => el("b", {}, el("span", { text: `${name} ` }), within(values[name]))));
    $(place).setAttribute("aria-label", `Heat map of the last five minutes; in the last minute ${text.join(", ")}, of ${values.count} messages`);
  }
}

// Bands of the groups ---------------------------------------------------------------------------------

let groups = [];

const bands = chart($("groups"), () => ({
  scales: { y: { distr: 3, range: (_, low, high) => [Math.max(0.1, (low || 1) / 2), Math.max(10, (high || 1) * 4)] } },
  axes: [timeAxis(), axis({ size: LEFT, splits: () => [0.1, 1, 10, 100, 1000, 10000, 100000], values: (_, splits) => splits.map(label) })],
  series: [
    {},
    ...groups.flatMap((name, i) => {
      const tone = COLOURS[i % COLOURS.length];
      return [
        { stroke: colour(tone), width: 2, points: { show: false } },
        { stroke: faded(tone, 0.35), width: 1, points: { show: false } },
      ];
    }),
  ],
  bands: groups.map((name, i) => ({ series: [2 * i + 2, 2 * i + 1], fill: faded(COLOURS[i % COLOURS.length], 0.1) })),
}));

function drawBands() {
  const names = [...new Set(columns.flatMap((column) => Object.keys(column.handled)))].sort();
  const data = [columns.map((column) => column.at_us / 1e6)];
  for (const name of names) {
    data.push(columns.map((column) => column.handled[name]?.[0] ?? null));
    data.push(columns.map((column) => column.handled[name]?.[1] ?? null));
  }
  const isNew = names.join() !== groups.join();
  groups = names;
  if (isNew) {
    $("groups-legend").replaceChildren(...names.map((name, i) => {
      const mark = el("i");
      mark.style.setProperty("--colour", `var(--${COLOURS[i % COLOURS.length]})`);
      return el("li", {}, mark, name, el("b", { class: "mono", "data-group": name }));
    }));
    bands.remake(data);
  } else bands.set(data);
  const newest = columns.at(-1)?.handled ?? {};
  const labels = names.map((name) => `${name} p50 ${ms(newest[name]?.[0])}, p99 ${ms(newest[name]?.[1])}`);
  for (const here of document.querySelectorAll("[data-group]")) put(here, `${ms(newest[here.dataset.group]?.[0])}`);
  $("groups").setAttribute("aria-label", `Latency of each group over the last five minutes; now ${labels.join("; ") || "nothing"}`);
}

function show() {
  for (const draw of maps) draw();
  drawBands();
}

connect({
  whole(data) { ({ columns, bounds_ms: bounds } = data); figures(data.figures); show(); },
  more(data) { columns = [...columns, data.column].slice(-COLUMNS); figures(data.figures); show(); },
});
