// The page Now: verdict, figures, bridges, and every stream.

import { $, age, chart, colour, connect, count, el, faded, ms, nowUs, put, rate } from "./core.js";

const SVG = "http://www.w3.org/2000/svg";
const SLOTS = 60;

const streams = new Map(); // name → its data and its row
let sort = { by: "name", down: false };
let curve = [];
let slot = 0; // two seconds, by the server's time: a point of a sparkline
let sortedAt = 0;

// The rate of all streams ------------------------------------------------------------------------

const rates = chart($("rate-chart"), () => ({
  padding: [4, 0, 0, 0],
  cursor: { show: false },
  scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.6)] } },
  axes: [{ show: false }, { show: false }],
  series: [{}, { stroke: colour("accent"), width: 1.5, fill: faded("accent", 0.12), points: { show: false } }],
}));

function drawCurve(points) {
  curve = [...curve, ...points].slice(-300);
  rates.set([curve.map(([at]) => at / 1e6), curve.map(([, value]) => value)]);
}

// Verdict and figures -------------------------------------------------------------------------------

function about(data) {
  $("verdict").dataset.level = data.verdict.level;
  put($("verdict-text"), data.verdict.text);
  const reasons = data.verdict.reasons;
  if ($("reasons").dataset.shown !== JSON.stringify(reasons)) {
    $("reasons").dataset.shown = JSON.stringify(reasons);
    $("reasons").replaceChildren(...reasons.map((text) => el("li", { text })));
  }
  put($("rate"), data.rate === null ? "–" : rate(data.rate).replace("·", "0"));
  put($("p50"), ms(data.p50_ms));
  put($("p99"), data.p99_ms === null ? "" : `99 of 100 within ${ms(data.p99_ms)}`);
  put($("gaps"), count(data.gaps));
  put($("recovered"), data.recovered ? `and ${count(data.recovered)} recovered` : "none recovered");
  put($("quarantined"), count(data.quarantined));
  put($("quarantine-words"), data.newest_quarantined || "in bridge:quarantine");
  put($("pending"), count(data.pending));
  for (const name of ["gaps", "quarantined"]) $(name).classList.toggle("warning", data[name] > 0);
  // Some entries are always in transit; as many as a second brings, or more, are held up.
  $("pending").classList.toggle("warning", data.pending > Math.max(100, data.rate ?? 0));
  bridges(data.bridges);
}

function bridges(several) {
  const text = JSON.stringify(several.map((one) => [one, age(nowUs() - one.since_us)]));
  if ($("bridges").dataset.shown === text) return;
  $("bridges").dataset.shown = text;
  $("bridges").replaceChildren(...several.map((one) =>
    el("div", { class: "bridge", role: "listitem" },
      el("b", { class: one.state, "data-level": one.state === "up" ? "good" : "bad" },
        el("i", { class: "dot", "aria-hidden": "true" }), `bridge ${one.name}`),
      el("span", { text: `${one.state} ${age(nowUs() - one.since_us)}` }),
      el("span", { text: `${one.confirmed} of ${one.wanted} streams received from ${one.exchange}` }),
      ...one.connections.map((each) =>
        el("span", { class: `chip ${each.is_up ? "up" : "silent"}` },
          el("i", { class: "dot", "aria-hidden": "true" }),
          el("span", { text: `${each.name}${each.is_up ? "" : " is unavailable"}` }))),
      el("span", { text: [one.turn, `process ${one.process}`, one.version && `version ${one.version}`].filter(Boolean).join(" · ") }))));
}

// Streams ----------------------------------------------------------------------------------------------

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const stream = streams.get(target.dataset.name);
    if (!stream) continue;
    stream.isSeen = isIntersecting;
    if (isIntersecting) paint(stream);
  }
}, { root: document.querySelector(".grow .table"), rootMargin: "200px" });

function newStream(name) {
  const path = document.createElementNS(SVG, "path");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${SLOTS - 1} 18`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  const cells = { rate: el("td", { class: "num" }), age: el("td", { class: "num" }), entries: el("td", { class: "num" }) };
  const marks = el("span", { class: "marks" });
  const near = el("span", { class: "marks near" }); // the same marks, for narrow screens
  const newest = el("span");
  const textCell = el("td", { class: "words" }, marks, newest);
  const row = el("tr", { "data-name": name },
    el("th", { scope: "row", title: name }, name, near), el("td", { class: "spark" }, svg), cells.rate, cells.age, cells.entries, textCell);
  seen.observe(row);
  return { name, row, cells, marks, near, newest, textCell, path, spark: [], rate: null, at: null, entries: 0, text: name.toLowerCase() };
}

function change(name, [perSecond, at, entries, marks, isFailing, text]) {
  let stream = streams.get(name);
  if (!stream) {
    stream = newStream(name);
    streams.set(name, stream);
  }
  Object.assign(stream, { rate: perSecond, at, entries });
  put(stream.cells.rate, rate(perSecond));
  put(stream.cells.entries, count(entries));
  for (const place of [stream.marks, stream.near]) put(place, marks.join(", "));
  put(stream.newest, text);
  stream.textCell.title = text;
  stream.text = `${name} ${marks.join(" ")}`.toLowerCase();
  stream.row.className = isFailing ? "failing" : marks.length ? "marked" : "";
}

function paint(stream) {
  put(stream.cells.age, age(stream.at === null ? null : nowUs() - stream.at));
  const values = stream.spark;
  const most = Math.max(...values, 0.1);
  const points = values.map((value, i) => `${SLOTS - values.length + i} ${(17 - (value / most) * 16).toFixed(1)}`);
  stream.path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
}

const KEYS = {
  name: (stream) => stream.name,
  rate: (stream) => stream.rate ?? -1,
  age: (stream) => (stream.at === null ? Infinity : -stream.at),
  entries: (stream) => stream.entries,
};

function arrange() {
  sortedAt = performance.now();
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = ({ text }) => words.every((word) => (word[0] === "!" && word.length > 1 ? !text.includes(word.slice(1)) : text.includes(word)));
  const key = KEYS[sort.by];
  const shown = [...streams.values()].filter(fits);
  if (sort.by !== "name" || sort.down) {
    shown.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (sort.down ? -1 : 1));
  }
  const body = $("streams").tBodies[0];
  if (shown.length !== body.rows.length || shown.some(({ row }, i) => body.rows[i] !== row)) {
    body.replaceChildren(...shown.map(({ row }) => row));
  }
  put($("stream-count"), shown.length === streams.size ? String(streams.size) : `${shown.length} of ${streams.size}`);
}

for (const button of document.querySelectorAll("#streams button")) {
  button.addEventListener("click", () => {
    const by = button.dataset.sort;
    sort = { by, down: sort.by === by ? !sort.down : by !== "name" };
    for (const th of document.querySelectorAll("#streams thead th")) th.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    arrange();
  });
}
$("search").addEventListener("input", arrange);
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    $("search").value = "";
    arrange();
  }
});

// Rows are not moved under a pointer, nor more often than every two seconds.
const isHeld = () => document.querySelector("#streams:hover") || performance.now() - sortedAt < 2000;

connect({
  head(data) {
    if (data.now_us !== null) return;
    $("verdict").dataset.level = data.level; // Redis is unavailable: the verdict is outdated
    put($("verdict-text"), data.text);
    $("reasons").replaceChildren();
    delete $("reasons").dataset.shown;
  },
  whole(data) {
    streams.clear();
    curve = [];
    for (const [name, row] of Object.entries(data.rows)) change(name, row);
    for (const [name, values] of Object.entries(data.sparks)) {
      const stream = streams.get(name);
      if (stream) stream.spark = values;
    }
    drawCurve(data.curve);
    if (data.verdict) about(data);
    put($("redis"), data.redis);
    slot = data.slot;
    arrange();
  },
  more(data) {
    const before = streams.size;
    for (const [name, row] of Object.entries(data.rows)) change(name, row);
    for (const name of data.removed) streams.delete(name);
    for (let missed = Math.min(data.slot - slot, SLOTS); missed > 0; missed -= 1) {
      for (const stream of streams.values()) {
        stream.spark.push(stream.rate ?? 0);
        if (stream.spark.length > SLOTS) stream.spark.shift();
      }
    }
    slot = data.slot;
    for (const stream of streams.values()) if (stream.isSeen) paint(stream);
    drawCurve(data.curve);
    about(data);
    if (before !== streams.size || data.removed.length || (sort.by !== "name" && !isHeld())) arrange();
  },
});
