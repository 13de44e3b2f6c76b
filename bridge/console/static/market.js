// The page Market: one market's candles, depth, book and trades.

import { $, age, axis, chart, clock, colour, connect, count, el, faded, isStill, nowUs, put, segments, sized, timeAxis } from "./core.js";

const TAPE = 60;
const MOST_DIGITS = 20; // after a price's decimal point, as drawn
const SHOWN = 120; // candles, at most

let symbol = new URLSearchParams(location.search).get("symbol") ?? "";
let shownSymbol = "";
let candles = {};
let interval = "";
let gaps = [];
let book = null;
let trades = [];
let sinceMs = null; // time of the oldest entry in Redis
let momentMs = Number(new URLSearchParams(location.search).get("at")) || null; // null: live

// Candles -------------------------------------------------------------------------------------------

const LENGTHS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const lengthOf = (name) => (name.endsWith("month") ? 2592000 : Number.parseInt(name, 10) * LENGTHS[name.at(-1)]);

function drawGaps(plot) {
  const { ctx: pen, bbox } = plot;
  pen.save();
  pen.beginPath();
  pen.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  pen.clip();
  for (const gap of gaps) {
    const left = plot.valToPos(gap.from_us / 1e6, "x", true);
    const wide = Math.max(3 * devicePixelRatio, plot.valToPos(gap.to_us / 1e6, "x", true) - left);
    pen.fillStyle = faded(gap.recovered ? "good" : "bad", 0.16);
    pen.fillRect(left, bbox.top, wide, bbox.height);
    pen.fillStyle = colour(gap.recovered ? "good" : "bad");
    pen.fillRect(left, bbox.top, wide, 4 * devicePixelRatio);
  }
  pen.restore();
}

// A line at the moment of the shown book.
function drawMoment(plot) {
  if (!momentMs) return;
  const { ctx: pen, bbox } = plot;
  const at = Math.round(plot.valToPos(momentMs / 1000, "x", true));
  if (at < bbox.left || at > bbox.left + bbox.width) return;
  pen.fillStyle = colour("accent");
  pen.fillRect(at - devicePixelRatio, bbox.top, 2 * devicePixelRatio, bbox.height);
}

function drawCandles(plot) {
  const { ctx: pen, bbox, data } = plot;
  const [times, open, high, low, close, volume, complete] = data;
  if (!times?.length) return;
  const each = (plot.valToPos(times[0] + lengthOf(interval), "x", true) - plot.valToPos(times[0], "x", true));
  const wide = Math.max(1, Math.floor(each * 0.68));
  const most = Math.max(...volume);
  const y = (price) => plot.valToPos(price, "y", true);
  pen.save();
  pen.beginPath();
  pen.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  pen.clip();
  times.forEach((time, i) => {
    const middle = plot.valToPos(time + lengthOf(interval) / 2, "x", true);
    const tone = close[i] >= open[i] ? "buy" : "sell";
    if (most > 0) {
      const tall = (volume[i] / most) * bbox.height * 0.16;
      pen.fillStyle = faded(tone, 0.28);
      pen.fillRect(middle - wide / 2, bbox.top + bbox.height - tall, wide, tall);
    }
    pen.fillStyle = colour(tone);
    pen.strokeStyle = colour(tone);
    const line = Math.max(1, Math.round(devicePixelRatio));
    pen.fillRect(Math.round(middle - line / 2), y(high[i]), line, Math.max(1, y(low[i]) - y(high[i])));
    const [top, bottom] = [y(Math.max(open[i], close[i])), y(Math.min(open[i], close[i]))];
    const body = [middle - wide / 2, top, wide, Math.max(line, bottom - top)];
    if (complete[i]) pen.fillRect(...body);
    else {
      // Hollow: trades may be missing in it.
      pen.fillStyle = colour("panel");
      pen.fillRect(...body);
      pen.lineWidth = line;
      pen.strokeRect(...body);
    }
  });
  pen.restore();
}

const candleChart = chart($("candles"), () => ({
  padding: [10, 0, 0, 0],
  scales: {
    x: { range: (_, low, high) => [low - lengthOf(interval) / 2, high + lengthOf(interval) * 1.5] },
    y: { range: priceRange },
  },
  axes: [timeAxis(), axis({ side: 1, size: 74, values: (_, splits) => splits.map((v) => decimals(v)) })],
  series: [{}, ...["open", "high", "low", "close", "volume", "complete"].map(() => ({ paths: () => null, points: { show: false } }))],
  hooks: { drawAxes: [drawGaps], draw: [drawCandles, drawMoment] },
}));

// The range of prices, without the volumes; there is room below for these.
function priceRange(plot) {
  const [, , high, low] = plot.data;
  if (!high?.length) return [0, 1];
  const [top, bottom] = [Math.max(...high), Math.min(...low)];
  const room = (top - bottom || top * 0.001) * 0.08;
  return [bottom - room * 3.4, top + room];
}

// As many digits as the market's own prices.
let digits = 2;
const decimals = (value) => value.toFixed(digits);

function showCandles() {
  const present = Object.keys(candles);
  if (!present.includes(interval)) {
    // The longest interval with enough candles, else the one with the most.
    const rich = present.filter((name) => candles[name].length >= 30);
    interval = rich.at(-1) ?? present.toSorted((a, b) => candles[b].length - candles[a].length)[0] ?? "";
    segments($("intervals"), present.map((name) => [name, name]), interval, (chosen) => {
      interval = chosen;
      showCandles();
    });
  }
  const some = (candles[interval] ?? []).slice(-Math.min(SHOWN, Math.floor($("candles").clientWidth / 6)));
  candleChart.set([0, 1, 2, 3, 4, 5, 6].map((i) => some.map((candle) => (i === 0 ? candle[0] / 1000 : candle[i]))));
  const last = some.at(-1);
  $("candles").setAttribute("aria-label", last
    ? `${some.length} candles of ${interval}. The newest: open ${last[1]}, high ${last[2]}, low ${last[3]}, close ${last[4]}. ${gaps.length} gaps in the log.`
    : "No candles yet");
}

// Depth -------------------------------------------------------------------------------------------------

const stepped = (align) => uPlot.paths.stepped({ align });

const depthChart = chart($("depth"), () => ({
  padding: [10, 0, 0, 0],
  scales: { x: { time: false }, y: { range: (_, low, high) => [0, (high || 1) * 1.08] } },
  axes: [axis({ space: 70, values: (_, splits) => splits.map(decimals) }), axis({ side: 1, size: 74, values: (_, splits) => splits.map(short) })],
  series: [
    {},
    { stroke: colour("buy"), fill: faded("buy", 0.16), width: 1.5, points: { show: false }, paths: stepped(-1) },
    { stroke: colour("sell"), fill: faded("sell", 0.16), width: 1.5, points: { show: false }, paths: stepped(1) },
  ],
}));

const short = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : String(value));

function sums(levels) {
  let sum = 0;
  return levels.map(([price, quantity]) => [Number(price), (sum += Number(quantity))]);
}

let drawnAt = 0;
let rows = 14; // rows that fit on each side

sized($("bids").closest(".ladder"), (_, height) => {
  const each = $("bids").rows[0]?.clientHeight || 22;
  rows = Math.max(5, Math.floor((height - 110) / each / 2));
  if (book) showBook();
});

function showBook() {
  const isKnown = Boolean(book?.known);
  const why = book?.why ?? "waiting for the next snapshot of the stream";
  put($("depth-note"), !book || isKnown ? "" : `not known: ${why}`);
  const bids = sums(book?.bids ?? []);
  const asks = sums(book?.asks ?? []);
  if (momentMs || !isStill.matches || performance.now() - drawnAt > 2000) {
    drawnAt = performance.now();
    const left = bids.toReversed();
    depthChart.set([
      [...left.map(([price]) => price), ...asks.map(([price]) => price)],
      [...left.map(([, sum]) => sum), ...asks.map(() => null)],
      [...left.map(() => null), ...asks.map(([, sum]) => sum)],
    ]);
  }
  const most = Math.max(bids[Math.min(rows, bids.length) - 1]?.[1] ?? 0, asks[Math.min(rows, asks.length) - 1]?.[1] ?? 0);
  ladder($("bids"), (book?.bids ?? []).slice(0, rows), bids, most);
  ladder($("asks"), (book?.asks ?? []).slice(0, rows).toReversed(), asks, most, true);
  if (bids.length && asks.length) {
    const [bid, ask] = [bids[0][0], asks[0][0]];
    put($("spread"), `spread ${(ask - bid).toFixed(digits)} · ${(((ask - bid) / ask) * 1e4).toFixed(2)} bp`);
    $("depth").setAttribute("aria-label", `Depth: ${bids.length} bids up to ${bid}, ${asks.length} asks from ${ask}`);
  } else {
    put($("spread"), "");
    $("depth").setAttribute("aria-label", `Depth: ${isKnown ? "no bids or no asks" : "the book is not known"}`);
  }
}

function ladder(body, levels, all, most, isAsk = false) {
  while (body.rows.length > levels.length) body.deleteRow(-1);
  while (body.rows.length < levels.length) {
    body.append(el("tr", {}, el("td", { class: "num" }), el("td", { class: "num" }), el("td", { class: "num" })));
  }
  levels.forEach(([price, quantity], i) => {
    const row = body.rows[i];
    const sum = all[isAsk ? levels.length - 1 - i : i][1];
    put(row.cells[0], price);
    put(row.cells[1], quantity);
    put(row.cells[2], sum < 100 ? sum.toLocaleString("en-US", { maximumFractionDigits: 3 }) : count(sum));
    row.style.setProperty("--part", `${((sum / most) * 100).toFixed(1)}%`);
  });
}

// Best prices, trades ----------------------------------------------------------------------------------

function showBest(best) {
  const parts = [];
  for (const [side, name] of [["bid", "bid"], ["ask", "ask"]]) {
    const [price, quantity] = best[side] ?? [];
    parts.push(el("small", { text: name }), el("span", { class: side, text: price ?? "–" }), el("small", { class: "quantity", text: quantity ? `× ${quantity}` : "" }));
    if (price) digits = Math.min(price.split(".")[1]?.length ?? 0, MOST_DIGITS);
  }
  $("best").replaceChildren(...parts);
}

function tapeRow(one) {
  if (one.gap) {
    const what = one.gap === "start" ? "the stream begins here" : `gap: ${one.count || "?"} missing (${one.gap})`;
    return el("tr", { class: "gap" }, el("td", { class: "mono", text: clock(one.at_us) }), el("td", { colspan: 3, text: what }));
  }
  return el("tr", { class: one.recovered && "recovered", title: one.recovered && "recovered from the exchange's history" },
    el("td", { class: "mono", text: clock(one.at_us) }),
    el("td", { class: one.side, text: one.side + (one.recovered ? " ↺" : "") }),
    el("td", { class: `num ${one.side}`, text: one.price }),
    el("td", { class: "num", text: one.quantity }));
}

function showAllTrades(all) {
  trades = [];
  $("tape").replaceChildren();
  showTrades(all);
}

function showTrades(new_) {
  trades = [...trades, ...new_].slice(-TAPE);
  $("tape").prepend(...new_.slice(-TAPE).reverse().map(tapeRow));
  while ($("tape").rows.length > TAPE) $("tape").deleteRow(-1);
}

// Which market --------------------------------------------------------------------------------------------

function showSymbols(all) {
  if ($("symbol").options.length !== all.length) {
    $("symbol").replaceChildren(...all.map((name) => el("option", { value: name, text: name.replaceAll("_", " / ").replace(" / PERP", " perp") })));
  }
  $("symbol").value = symbol;
}

const reopen = connect({
  whole(data) {
    symbol = data.symbol;
    showSymbols(data.symbols);
    document.title = `${symbol} · backpack-bridge`;
    if (data.is_loading) return;
    ({ candles, gaps } = data);
    sinceMs = data.since_ms;
    if (shownSymbol !== symbol) interval = "";
    shownSymbol = symbol;
    showBest(data.best);
    showSource(data.candles_source);
    showCandles();
    if (momentMs) readPast();
    else {
      book = data.book;
      showBook();
      showAllTrades(data.trades);
    }
    showMoment();
  },
  more(data) {
    if (!momentMs) showNew(data);
    if (data.gaps) gaps = data.gaps;
    if (data.candles) {
      for (const [name, newest] of Object.entries(data.candles)) {
        const kept = (candles[name] ?? []).filter(([start]) => start < newest[0][0]);
        candles[name] = [...kept, ...newest].slice(-240);
      }
      showSource(data.candles_source);
    }
    if (data.candles || data.gaps) showCandles();
  },
}, () => (symbol ? { symbol } : {}));

function showNew(data) {
  if (data.best) showBest(data.best);
  if (data.book) {
    book = data.book;
    showBook();
  }
  if (data.trades) showTrades(data.trades);
}

function showSource(source) {
  const sources = { candles: "by the consumer candles", exchange: "the exchange's own: the consumer candles does not run" };
  const isThere = Object.values(candles).some((some) => some.length > 0);
  put($("candles-source"), (isThere && sources[source]) || "no candles here: python -m consumers run candles");
}

$("symbol").addEventListener("change", () => {
  symbol = $("symbol").value;
  keepAddress();
  reopen();
});

// The book at an earlier moment ------------------------------------------------------------------------

const time = $("time");
let isReading = false;

// One request at a time: while the slider is dragged, only its position after the answer counts.
async function readPast() {
  if (isReading) return;
  isReading = true;
  const requested = [momentMs, symbol];
  try {
    const answer = await fetch(`/api/past?${new URLSearchParams({ symbol, at: String(momentMs) })}`);
    if (!answer.ok) throw new Error(await answer.text());
    const data = await answer.json();
    if (momentMs) showPast(data);
  } catch (error) {
    if (momentMs) unknown(`it cannot be read: ${error.message}`);
  }
  isReading = false;
  if (momentMs && (momentMs !== requested[0] || symbol !== requested[1])) readPast();
}

function showPast(data) {
  sinceMs = data.since_ms ?? sinceMs;
  book = data.book;
  showBest(data.best);
  showBook();
  showAllTrades(data.trades);
  showMoment();
}

function unknown(why) {
  book = { known: false, why, bids: [], asks: [] };
  showBook();
  showAllTrades([]);
}

// `ms` null: back to live, with the whole page sent again.
function goTo(ms) {
  const wasLive = !momentMs;
  momentMs = ms;
  showMoment();
  candleChart.plot?.redraw();
  if (ms) readPast();
  else if (!wasLive) reopen();
}

function showMoment() {
  const now = nowUs() / 1000;
  const seconds = (ms) => Math.floor(ms / 1000);
  time.max = seconds(now);
  time.min = Math.min(seconds(sinceMs ?? now), seconds(momentMs || now));
  time.value = seconds(momentMs || now);
  time.disabled = !sinceMs;
  const quiet = !momentMs && book?.at_us && nowUs() - book.at_us > 10e6;
  const text = momentMs
    ? `${clock(momentMs * 1000, true)} UTC, ${age((now - momentMs) * 1000)} ago`
    : quiet ? `last change ${age(nowUs() - book.at_us)} ago` : "";
  put($("time-text"), text);
  time.setAttribute("aria-valuetext", momentMs ? text : `live${text && ", "}${text}`);
  $("live").setAttribute("aria-pressed", String(!momentMs));
  put($("live"), momentMs ? "Back to live" : "Live");
}

const moved = () => goTo(Number(time.value) >= Number(time.max) ? null : Number(time.value) * 1000);
const keepAddress = () => {
  const params = new URLSearchParams(momentMs ? { symbol, at: String(momentMs) } : { symbol });
  history.replaceState(null, "", `?${params}`);
};

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -60, PageUp: 60 };

time.addEventListener("input", moved);
time.addEventListener("change", keepAddress);
time.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  time.value = Number(time.value) + step * (event.shiftKey ? 10 : 1);
  moved();
  keepAddress();
});
$("live").addEventListener("click", () => {
  goTo(null);
  keepAddress();
});
$("candles").addEventListener("click", (event) => {
  const plot = candleChart.plot;
  if (!plot || !sinceMs) return;
  const seconds = plot.posToVal(event.clientX - plot.over.getBoundingClientRect().left, "x");
  goTo(Math.floor(Math.max(sinceMs, Math.min(seconds * 1000, nowUs() / 1000 - 1000))));
  keepAddress();
});

setInterval(showMoment, 1000);
