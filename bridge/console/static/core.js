// Shared by all pages: events from the server, the header, the theme, number formats.

export const $ = (id) => document.getElementById(id);

// An element with text and children; text is never parsed as markup.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Writes only a changed text, so that an idle page costs nothing.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const isStill = matchMedia("(prefers-reduced-motion: reduce)");

// Number formats: the same as in `bridge/view/figures.py` -----------------------------------------

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function rate(value) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "·";
  return value >= 100 ? grouped.format(value) : value.toFixed(1);
}

export function count(value) {
  return value < 1e7 ? grouped.format(value) : `${(value / 1e6).toFixed(1)}M`;
}

export function age(us) {
  if (us === null || us === undefined) return "never";
  const seconds = Math.max(0, us / 1e6);
  if (seconds < 9.95) return `${seconds.toFixed(1)}s`;
  if (seconds < 100) return `${Math.round(seconds)}s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)}h`;
  return `${Math.round(seconds / 86400)}d`;
}

export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) < 9.95) return `${value.toFixed(1)} ms`;
  if (Math.abs(value) < 1000) return `${grouped.format(value)} ms`;
  return `${(value / 1000).toFixed(1)} s`;
}

export function clock(us, withDay = false) {
  const date = new Date(us / 1000);
  if (Number.isNaN(date.getTime())) return `${us} µs`; // out of range for a date
  const text = date.toISOString();
  return withDay ? text.slice(0, 19).replace("T", " ") : text.slice(11, 19);
}

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

// Colours of the stylesheet, for canvases ------------------------------------------------------

let colours = {};

export function colour(name) {
  if (!(name in colours)) {
    const probe = el("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    colours[name] = getComputedStyle(probe).color;
    probe.remove();
  }
  return colours[name];
}

export function faded(name, part) {
  const [red, green, blue] = colour(name).match(/[\d.]+/g);
  return `rgba(${red}, ${green}, ${blue}, ${part})`;
}

const redraws = new Set();

// Runs `draw` again when colours or sizes change.
export function redrawn(draw) {
  redraws.add(draw);
}

function redrawAll() {
  colours = {};
  for (const draw of redraws) draw();
}

// The server's time -----------------------------------------------------------------------------

let offsetUs = 0;

export const nowUs = () => Date.now() * 1000 + offsetUs;

// Events ------------------------------------------------------------------------------------------

let lastEventAt = 0;
let levelOf = "none";
let source = null;

// `page` has `whole`, called with the whole page, and `more`, called with each update. `address`
// returns the parameters of the request, at each connection.
export function connect(page, address = () => ({})) {
  const open = () => {
    source?.close();
    const params = new URLSearchParams({ page: document.documentElement.dataset.page, ...address() });
    source = new EventSource(`/events?${params}`);
    source.addEventListener("head", (event) => {
      const data = JSON.parse(event.data);
      head(data);
      page.head?.(data);
    });
    for (const name of ["whole", "more"]) {
      source.addEventListener(name, (event) => {
        trouble("");
        page[name](JSON.parse(event.data));
      });
    }
    source.addEventListener("trouble", (event) => trouble(JSON.parse(event.data).text));
    source.addEventListener("error", () => {
      // A browser reconnects by itself, but not after an answer that is no event stream.
      if (source.readyState === EventSource.CLOSED) explain(params);
    });
  };
  const explain = async (params) => {
    try {
      const answer = await fetch(`/events?${params}`, { signal: AbortSignal.timeout(2000) });
      if (!answer.ok) trouble(await answer.text());
    } catch { /* the header reports that the console does not answer */ }
    setTimeout(open, 2000);
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source?.close();
    else open();
  });
  open();
  return open;
}

function trouble(text) {
  $("trouble").hidden = !text;
  put($("trouble"), text && `This page cannot be read from Redis: ${text}`);
}

function head(data) {
  lastEventAt = performance.now();
  if (data.now_us) offsetUs = data.now_us - Date.now() * 1000;
  levelOf = data.level;
  $("state").dataset.level = data.level;
  put($("state-text"), data.text);
  put($("state-age"), "");
  levers(data.levers, data.state);
}

setInterval(() => {
  const seconds = lastEventAt ? (performance.now() - lastEventAt) / 1000 : 0;
  if (seconds < 4) return;
  $("state").dataset.level = "bad";
  put($("state-text"), "The console does not answer");
  put($("state-age"), `picture ${age(seconds * 1e6)} old`);
}, 1000);

// Levers: the demo's faults ------------------------------------------------------------------------

function levers(all, state) {
  const here = $("levers");
  here.hidden = all.length === 0;
  if (here.hidden) return;
  put($("lever-state"), state);
  if ($("lever-buttons").childElementCount === all.length) return;
  $("lever-buttons").replaceChildren(
    ...all.map(([name, label, hint]) =>
      el("button", { type: "button", title: hint, text: label, onclick: () => pull(name) }),
    ),
  );
}

async function pull(name) {
  const answer = await post(`/api/levers/${encodeURIComponent(name)}`, {});
  if (answer) toast(answer.text);
}

// Requests that change something -------------------------------------------------------------------

const TOKEN = "token";

// The demo's URL carries its token after the #, which browsers never send.
if (location.hash.startsWith("#token=")) {
  sessionStorage.setItem(TOKEN, decodeURIComponent(location.hash.slice(7)));
  history.replaceState(null, "", location.pathname + location.search);
}

// Sends JSON with the token; prompts for the token where it is missing or wrong. Null: it failed,
// and the reason was shown.
export async function post(path, body) {
  const token = sessionStorage.getItem(TOKEN) ?? (await askToken());
  if (!token) return null;
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
  } catch {
    toast("The console does not answer");
    return null;
  }
  if (answer.ok) return answer.json();
  if (answer.status === 401) sessionStorage.removeItem(TOKEN);
  toast(await answer.text());
  return null;
}

function askToken() {
  const dialog = $("ask-token");
  $("token").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" ? $("token").value.trim() : "";
      if (given) sessionStorage.setItem(TOKEN, given);
      resolve(given);
    }, { once: true });
  });
}

$("token-cancel").addEventListener("click", () => $("ask-token").close("cancel"));

let toastTimer = 0;

export function toast(text) {
  put($("toast"), text);
  $("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("shown"), 6000);
}

// Theme and keys ------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];

function theme(chosen) {
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  put($("theme"), `Theme: ${chosen}`);
  redrawAll();
}

$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "auto";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  try { localStorage.setItem("theme", next); } catch { /* storage is disabled: this page only */ }
  theme(next);
});
put($("theme"), `Theme: ${document.documentElement.dataset.theme ?? "auto"}`);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, dialog")) return;
  const pages = document.querySelectorAll("nav a");
  if (event.key >= "1" && event.key <= String(pages.length)) pages[event.key - 1].click();
  if (event.key === "/" && $("search")) {
    event.preventDefault();
    $("search").focus();
  }
});

// Groups of buttons, one of them pressed -----------------------------------------------------------

export function segments(here, choices, chosen, choose) {
  here.replaceChildren(
    ...choices.map(([value, label]) =>
      el("button", {
        type: "button",
        text: label,
        "aria-pressed": String(value === chosen),
        onclick: (event) => {
          for (const other of here.children) other.setAttribute("aria-pressed", "false");
          event.currentTarget.setAttribute("aria-pressed", "true");
          choose(value);
        },
      }),
    ),
  );
}

// Charts ----------------------------------------------------------------------------------------------

const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) target.redraw?.();
});

// Calls `draw(width, height)` now, at each change of size, and when colours change.
export function sized(here, draw) {
  here.redraw = () => {
    const { clientWidth: width, clientHeight: height } = here;
    if (width > 0 && height > 0) draw(width, height);
  };
  resized.observe(here);
  redrawn(here.redraw);
  return here.redraw;
}

// A canvas that fills its place, sharp on every screen; `paint(context, width, height)`.
export function canvas(here, paint) {
  const surface = el("canvas", { "aria-hidden": "true" });
  here.append(surface);
  return sized(here, (width, height) => {
    const dense = devicePixelRatio || 1;
    surface.width = Math.round(width * dense);
    surface.height = Math.round(height * dense);
    surface.style.width = `${width}px`;
    surface.style.height = `${height}px`;
    const context = surface.getContext("2d");
    context.scale(dense, dense);
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    paint(context, width, height);
  });
}

// A chart over time or price by uPlot, created again when colours change. `options()` returns the
// settings of this chart.
export function chart(here, options) {
  let plot = null;
  let data = null;
  const make = (width, height) => {
    plot?.destroy();
    const own = options();
    plot = new uPlot(
      {
        width, height, legend: { show: false }, padding: [10, 8, 0, 0], ...own,
        cursor: { y: false, drag: { x: false, y: false }, ...own.cursor },
      },
      data ?? own.series.map(() => []),
      here,
    );
  };
  let size = "";
  let drawnColours = "";
  sized(here, (width, height) => {
    const now = `${width}×${height}`;
    const tones = colour("text") + colour("panel");
    if (plot && now !== size && tones === drawnColours) plot.setSize({ width, height });
    else if (!plot || tones !== drawnColours) make(width, height);
    size = now;
    drawnColours = tones;
  });
  return {
    set(next) {
      data = next;
      plot?.setData(next);
    },
    // As `set`, with new options.
    remake(next) {
      data = next;
      if (plot) make(here.clientWidth, here.clientHeight);
    },
    get plot() {
      return plot;
    },
  };
}

const FONT = '11px Inter, ui-sans-serif, system-ui, sans-serif';

export function axis(more = {}) {
  return {
    stroke: () => colour("dim"),
    font: FONT,
    grid: { stroke: () => colour("line"), width: 1 },
    ticks: { show: false },
    size: 28,
    ...more,
  };
}

export const timeAxis = (more = {}) =>
  axis({
    space: 80,
    values: (_, splits) => splits.map((s) => clock(s * 1e6).slice(0, splits[1] - splits[0] >= 60 ? 5 : 8)),
    ...more,
  });
