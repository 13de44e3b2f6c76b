// The page Gaps: the gap log as a timeline, and as a table.

import { $, canvas, clock, colour, connect, count, el, nowUs, plural, put, segments } from "./core.js";

const SPANS = [[900, "15 min"], [3600, "1 h"], [21600, "6 h"], [86400, "1 day"], [604800, "7 days"], [0, "all"]];
const AXIS = 24;
const MOST_STREAMS = 40;
const MOST_ROWS = 300;

let records = [];
let span = 900;
let kind = "all";

const fits = (record) => span === 0 || record.at_us > nowUs() - span * 1e6;

// Of too many streams, those with the newest gaps.
function streamsOf(shown) {
  const by = new Map();
  for (const record of shown) by.set(record.stream, [...(by.get(record.stream) ?? []), record]);
  const newest = (several) => several[several.length - 1].at_us;
  const drawn = [...by.entries()].sort(([, a], [, b]) => newest(b) - newest(a)).slice(0, MOST_STREAMS);
  return { of: by.size, streams: drawn.sort(([a], [b]) => a.localeCompare(b)) };
}

const heightOf = (streams) => (streams > 20 ? 17 : 26);

const draw = canvas($("timeline"), (pen, width, height) => {
  const shown = records.filter(fits);
  const { streams } = streamsOf(shown);
  const left = Math.min(width * 0.35, Math.max(60, ...streams.map(([name]) => pen.measureText(name).width + 18)));
  const end = nowUs();
  const start = span ? end - span * 1e6 : Math.min(...shown.map((one) => one.from_us), end - 60e6);
  const x = (us) => left + (Math.max(0, us - start) / (end - start)) * (width - left - 8);
  pen.textBaseline = "middle";
  pen.fillStyle = colour("dim");
  pen.strokeStyle = colour("line");
  const ticks = Math.max(2, Math.floor((width - left) / 120));
  for (let i = 0; i <= ticks; i += 1) {
    const us = start + ((end - start) * i) / ticks;
    pen.beginPath();
    pen.moveTo(x(us), 0);
    pen.lineTo(x(us), height - AXIS);
    pen.stroke();
    pen.textAlign = i === ticks ? "right" : "center";
    pen.fillText(i === ticks ? "now" : end - start > 86400e6 ? clock(us, true).slice(5, 16) : clock(us).slice(0, 5), x(us), height - AXIS / 2);
  }
  if (!streams.length) {
    pen.textAlign = "center";
    pen.fillText("No gap in this time.", (left + width) / 2, (height - AXIS) / 2);
    return;
  }
  const line = heightOf(streams.length);
  streams.forEach(([name, several], row) => {
    const y = row * line + line / 2 + 4;
    pen.textAlign = "right";
    pen.fillStyle = colour("text");
    pen.fillText(name, left - 10, y, left - 14);
    pen.strokeStyle = colour("line");
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(width - 8, y);
    pen.stroke();
    for (const one of several) {
      const from = x(one.from_us);
      const wide = Math.max(7, x(one.to_us) - from);
      if (one.recovered) {
        pen.fillStyle = colour("panel");
        pen.fillRect(from, y - 6, wide, 12);
        pen.strokeStyle = colour("good");
        pen.lineWidth = 2;
        pen.strokeRect(from + 1, y - 5, wide - 2, 10);
        pen.lineWidth = 1;
      } else {
        pen.fillStyle = colour("bad");
        pen.fillRect(from, y - 7, wide, 14);
      }
    }
  });
});

function show() {
  const shown = records.filter(fits);
  const { of, streams: drawn } = streamsOf(shown);
  const lines = Math.max(3, drawn.length);
  $("timeline").style.height = `${lines * heightOf(lines) + AXIS + 8}px`;
  draw();
  const missing = shown.filter((one) => !one.recovered).length;
  const text = shown.length
    ? `${plural(shown.length, "gap")}: ${count(missing)} missing, ${count(shown.length - missing)} recovered. ${causes(shown)}${of > drawn.length ? ` Drawn: the ${drawn.length} of ${of} streams with the newest.` : ""}`
    : "No gap in this time.";
  put($("gap-summary"), text);
  $("timeline").setAttribute("aria-label", `Gaps over time, a line for each stream. ${text}`);
  const rows = shown.filter((one) => kind === "all" || one.recovered === (kind === "recovered")).reverse();
  put($("gap-count"), rows.length > MOST_ROWS ? `the newest ${MOST_ROWS} of ${count(rows.length)}` : count(rows.length));
  $("gap-rows").replaceChildren(...rows.slice(0, MOST_ROWS).map(row));
}

function causes(shown) {
  const by = {};
  for (const { cause } of shown) by[cause] = (by[cause] ?? 0) + 1;
  const parts = Object.entries(by).sort(([, a], [, b]) => b - a).map(([cause, number]) => `${cause} ${count(number)}`);
  return `Causes: ${parts.join(", ")}.`;
}

function row(one) {
  const what = one.missing !== null
    ? `${plural(one.missing, "number")}, ${one.from}${one.missing > 1 ? `…${one.to}` : ""}`
    : `${((one.to_us - one.from_us) / 1e6).toFixed(1)} s, from ${clock(one.from_us)} to ${clock(one.to_us)}`;
  return el("tr", {},
    el("td", { class: "mono when", text: clock(one.at_us, true) }),
    el("th", { scope: "row", class: "stream", text: one.stream }),
    el("td", { class: "what", text: what }),
    el("td", { class: "cause", text: one.cause }),
    el("td", { class: "result" }, el("span", { class: `outcome ${one.recovered ? "good" : "bad"}`, text: (one.recovered ? "recovered" : "missing") + (one.how ? `, ${one.how}` : "") })));
}

segments($("spans"), SPANS, span, (chosen) => { span = chosen; show(); });
for (const button of $("kinds").children) {
  button.addEventListener("click", () => {
    for (const other of $("kinds").children) other.setAttribute("aria-pressed", String(other === button));
    kind = button.dataset.kind;
    show();
  });
}

connect({
  whole(data) { records = data.records; show(); },
  more(data) { records = [...records, ...data.records].slice(-2000); show(); },
});
setInterval(draw, 5000); // moves the time axis
