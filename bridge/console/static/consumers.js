// The page Consumers: groups, their lag, and their dead letters.

import { $, age, axis, chart, clock, colour, connect, count, el, plural, post, put, timeAxis, toast } from "./core.js";

const COLOURS = ["one", "two", "three", "four", "five", "six"];
const SIGNS = { exact: "", counted: "~", at_most: "≤" };

let points = [];
let names = [];
let measure = 0;
let model = {};

const tone = (name) => COLOURS[names.indexOf(name) % COLOURS.length];
const seconds = (value) => age(value * 1e6);

// Lag over time -------------------------------------------------------------------------------------

const lag = chart($("lag"), () => ({
  scales: { y: { range: (_, low, high) => [0, Math.max(measure ? 10 : 1, high * 1.1)] } },
  axes: [timeAxis(), axis({ size: 58, values: (_, splits) => splits.map((v) => (measure ? count(v) : `${v} s`)) })],
  series: [{}, ...names.map((name) => ({ stroke: colour(tone(name)), width: 2, points: { show: false } }))],
}));

function drawLag() {
  const known = [...new Set(points.flatMap((point) => Object.keys(point.groups)))].sort();
  const data = [
    points.map((point) => point.at_us / 1e6),
    ...known.map((name) => points.map((point) => point.groups[name]?.[measure] ?? null)),
  ];
  if (known.join() === names.join()) {
    lag.set(data);
    return;
  }
  names = known;
  lag.remake(data);
  $("lag-legend").replaceChildren(...names.map((name) => {
    const mark = el("i");
    mark.style.setProperty("--colour", `var(--${tone(name)})`);
    return el("li", {}, mark, name);
  }));
}

for (const button of document.querySelectorAll("[data-measure]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-measure]")) other.setAttribute("aria-pressed", String(other === button));
    measure = Number(button.dataset.measure);
    drawLag();
  });
}

// Groups ----------------------------------------------------------------------------------------------

const opened = new Set();

function card(group) {
  const alive = group.workers.filter((worker) => worker.is_alive);
  const isServed = alive.length > 0 || !model.knows_workers;
  const isWell = !group.mode || (isServed && !group.dead && !group.missed);
  const figures = [
    ["lag", count(group.lag)], ["behind", seconds(group.behind_s)], ["pending", count(group.pending)],
    ["dead letters", count(group.dead)], ["missed", count(group.missed)], ["retried", count(group.retried)],
    ["per s", alive.reduce((sum, worker) => sum + worker.rate, 0).toFixed(1)], ["workers", model.knows_workers ? String(alive.length) : "?"],
  ];
  const details = el("details", { ontoggle: (event) => {
    if (event.target.open) opened.add(group.group);
    else opened.delete(group.group);
  } }, el("summary", { text: `${plural(group.streams.length, "stream")}: owners, positions` }), streams(group));
  details.open = opened.has(group.group);
  return el("article", { class: "card", "data-group": group.group },
    el("header", { class: isWell ? "up" : isServed ? "warning" : "silent", "data-level": isWell ? "good" : isServed ? "warning" : "bad" },
      el("i", { class: "dot", "aria-hidden": "true" }),
      el("span", { text: group.group }),
      el("span", { class: "note", text: group.mode || "of another program" })),
    el("dl", {}, ...figures.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: value })))),
    el("div", { class: "chips" }, ...group.workers.map((worker) =>
      el("span", { class: `chip ${worker.is_alive ? "up" : "silent"}` },
        el("i", { class: "dot", "aria-hidden": "true" }),
        el("span", { text: worker.is_alive ? `${worker.name} · ${plural(worker.handled, "entry").replace("entrys", "entries")}` : `${worker.name} silent for ${seconds(worker.silent_s)}` })))),
    details);
}

function streams(group) {
  const head = ["stream", "owner", "position", "lag", "behind", "pending", "oldest", "dead"];
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": `Streams of ${group.group}` },
    el("table", {},
      el("thead", {}, el("tr", {}, ...head.map((text, i) => el("th", { scope: "col", class: i > 2 && "num", text })))),
      el("tbody", {}, ...group.streams.map((one) => el("tr", { class: one.blocked_at && "marked" },
        el("th", { scope: "row", text: one.stream }),
        el("td", { text: one.owner || "–" }),
        el("td", { class: "mono", text: one.position + (one.blocked_at ? " blocked" : "") }),
        el("td", { class: "num", text: SIGNS[one.precision] + count(one.lag) }),
        el("td", { class: "num", text: one.lag ? seconds(one.behind_s) : "" }),
        el("td", { class: "num", text: one.pending || "" }),
        el("td", { class: "num", text: one.pending ? seconds(one.oldest_pending_s) : "" }),
        el("td", { class: "num", text: one.dead || "" }))))));
}

function showUnavailable() {
  const lacks = model.knows_workers ? "" : ", and workers are not known";
  $("unavailable").hidden = model.unavailable.length === 0;
  put($("unavailable"), model.unavailable.length ? `${model.unavailable.join("; ")}. Their streams are left out${lacks}` : "");
}

function groups() {
  // A card with keyboard focus or selected text is not replaced now, but at a later update.
  // Scroll positions are kept.
  const chosen = getSelection();
  const marked = chosen.isCollapsed ? null : chosen.anchorNode?.parentElement;
  const focused = (document.activeElement?.closest("#groups .card") ?? marked?.closest("#groups .card"))?.dataset.group;
  const places = new Map([...document.querySelectorAll("#groups .table")].map((one) => [one.ariaLabel, [one.scrollLeft, one.scrollTop]]));
  const before = new Map([...$("groups").children].map((one) => [one.dataset.group, one]));
  const cards = model.groups.map((one) => (one.group === focused && before.get(focused)) || card(one));
  if (!cards.length && !model.unavailable.length) cards.push(el("p", { class: "empty", text: "No group yet: python -m consumers run candles" }));
  if (!focused) $("groups").replaceChildren(...cards);
  else cards.forEach((one, i) => {
    const present = $("groups").children[i];
    if (present && present !== one && present.dataset.group !== focused) present.replaceWith(one);
  });
  for (const one of document.querySelectorAll("#groups .table")) one.scrollTo(...(places.get(one.ariaLabel) ?? [0, 0]));
}

// Dead letters ------------------------------------------------------------------------------------------

async function change(action, letter, question) {
  if (question && !confirm(question)) return;
  const { group, stream } = letter;
  const answer = await post("/api/letters", { action, group, stream, letters: [letter.letter] });
  if (!answer) return;
  const result = action === "retry" ? "sent back to its group" : "dropped";
  toast(answer.done ? `Dead letter ${result}` : "It does not exist any more");
  model.letters = model.letters.filter((one) => one !== letter);
  letters();
}

async function unfold(letter, place, button) {
  if (place.childElementCount) {
    place.replaceChildren();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const params = new URLSearchParams({ group: letter.group, stream: letter.stream, letter: letter.letter });
  const answer = await fetch(`/api/letter?${params}`);
  place.replaceChildren(el("pre", { text: answer.ok ? JSON.stringify(await answer.json(), null, 1) : await answer.text() }));
  button.setAttribute("aria-expanded", "true");
}

let shown = "";

function letters() {
  const now = JSON.stringify(model.letters.map((one) => one.letter + one.group));
  put($("letter-count"), model.letters.length ? String(model.letters.length) : "");
  $("no-letters").hidden = model.letters.length > 0;
  $("letters-table").hidden = model.letters.length === 0;
  if (now === shown) return;
  shown = now;
  $("letters").replaceChildren(...model.letters.map((one) => {
    const place = el("div");
    const what = `${one.group}, ${one.stream}, ${one.entry}`;
    const entry = el("button", { class: "link", type: "button", text: `entry ${one.entry}`, "aria-expanded": "false", onclick: (event) => unfold(one, place, event.currentTarget) });
    return el("tr", {},
      el("td", { class: "mono when", text: clock(one.since_us, true) }),
      el("td", { class: "group", text: one.group }),
      el("td", { class: "stream", text: one.stream }),
      el("td", { class: "reason" }, el("div", { text: one.error }), el("div", { class: "note", text: [one.at, one.worker && `by ${one.worker}`].filter(Boolean).join(" ") }), entry, place),
      el("td", { class: "num attempts", text: one.attempts }),
      el("td", { class: "deeds" }, el("div", { class: "row" }, ...(model.can_change ? [
        el("button", { type: "button", text: "Retry", "aria-label": `Retry ${what}`, onclick: () => change("retry", one) }),
        el("button", { type: "button", text: "Drop", "aria-label": `Drop ${what}`, onclick: () => change("drop", one, `Drop this dead letter for good?\n${what}`) }),
      ] : [el("span", { class: "note", text: "read-only" })]))));
  }));
}

function take(next) {
  model = next;
  if (!model.groups) return;
  showUnavailable();
  groups();
  letters();
  drawLag();
  const worst = model.groups.map((one) => `${one.group} ${seconds(one.behind_s)}`).join(", ");
  $("lag").setAttribute("aria-label", `Lag of each group over the last minutes; now behind: ${worst}`);
}

connect({
  whole(next) { points = next.points; take(next); },
  more(next) { points = [...points, ...next.points].slice(-300); take(next); },
});
